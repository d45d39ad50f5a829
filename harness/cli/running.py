"""Verbs that run a study: run, resume, stop."""

import contextlib
import json
import math
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import asdict, replace
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Annotated, Any, NoReturn

import typer

from harness.cli.cluster import end_with_parent, is_looked_after, watch
from harness.cli.driving import Driving, drives
from harness.cli.options import (
    DATABASE,
    Download,
    Part,
    Promote,
    ReuseFrom,
    Settings,
    SplitArms,
    Storage,
    Target,
    Trials,
    console,
)
from harness.errors import Interrupted, StudyError, one_line

if TYPE_CHECKING:
    from harness.run import Options, Summary

verbs = typer.Typer()
PANEL = "Run"


SHARDS = "shards"
"""Folder of the databases of shards, where nobody names another."""
STOPPING = ("SIGINT", "SIGTERM", "SIGHUP", "SIGUSR1", "SIGUSR2")
"""Signals that end a run cleanly: from a keyboard, from a closed terminal, from Slurm and preemptible clouds."""
UNMENDED = 75
"""Exit code of a run that ends before it is done, for a store that is away, a full disk, no machine with the pictures: the
EX_TEMPFAIL of sysexits.h."""


@verbs.command(rich_help_panel=PANEL)
@drives
def run(
    context: typer.Context,
    target: Target,
    driving: Driving,
    settings: Settings = [],  # noqa: B006
    shard: Part = None,
    split_arms: SplitArms = False,
    trials: Trials = None,
    download: Download = False,
    promote: Promote = None,
    reuse_from: ReuseFrom = [],  # noqa: B006
) -> None:
    """Start a study, or go on with what is missing of it.

    Ctrl-C ends cleanly; the same command goes on. A setting that changes what is trained opens a study of its own,
    `NAME~training.epochs=5`, so that a smoke run never mixes with the real one.
    """
    from harness.code import add_paths
    from harness.loading import is_study_file, load_study, override
    from harness.run import run_study
    from harness.shard import Shard
    from harness.storage.tables import shown

    if split_arms and not shard:
        raise StudyError("--split-arms: there is nothing to split; give --shard too")
    part = Shard.parse(shard, arms=split_arms) if shard else None
    add_paths(list(driving.folders))
    if not is_study_file(target):
        if settings:
            raise StudyError("--set changes a study file; a stored study goes on as it is: name the file instead")
        if part:
            raise StudyError("--shard splits a study file; a part that is stored goes on as it is: leave --shard out")
        _go_on(target, driving, trials, promote, reuse_from)
    study, found = load_study(target)
    study = override(study, settings)
    options = driving.options(trials=trials, promote=promote, shard=part, reuse_from=reuse_from)
    options = replace(options, code=tuple(dict.fromkeys((*driving.folders, *found))))
    if part is not None:
        part.split(study)  # raises where there are not so many parts
        source = context.get_parameter_source("storage")
        if source is None or source.name != "COMMANDLINE":
            Path(SHARDS).mkdir(exist_ok=True)
            options = replace(options, storage=f"sqlite:///{SHARDS}/{study.name}.{part.name}.db")
        if not driving.as_json and not is_looked_after():
            console.print(f"{study.name}, {part.words(study)}, in {shown(options.storage)}", markup=False)
    if download and not is_looked_after():  # who has done so already
        _download(study, options)
    finish(study.name, options, driving, lambda **live: run_study(study, options, **live))


@verbs.command(rich_help_panel=PANEL)
@drives
def resume(
    name: Annotated[str, typer.Argument(help="The study's name in the database.")],
    driving: Driving,
    trials: Trials = None,
    promote: Promote = None,
    reuse_from: ReuseFrom = [],  # noqa: B006
) -> None:
    """Go on with a study from its database alone: its file is not needed."""
    _go_on(name, driving, trials, promote, reuse_from)


def _go_on(name: str, driving: Driving, trials: int | None, promote: int | None, reuse_from: list[str]) -> NoReturn:
    from harness.run import resume_study

    options = driving.options(trials=trials, promote=promote, reuse_from=reuse_from)
    finish(name, options, driving, lambda **live: resume_study(name, options, **live))


def _download(study: Any, options: "Options") -> None:
    from harness.data.sources import download
    from harness.preflight import pictures_of, values_of
    from harness.weights import download_weights

    download(pictures_of(study), options.data)
    for init in filter(None, values_of(study, "init")):
        download_weights(init)


def finish(name: str, options: "Options", driving: Driving, start: Callable[..., "Summary"]) -> NoReturn:
    """Runs with a view on it and an ear for signals, says what came of it, tells `--on-finish`, and exits accordingly."""
    address = options.resources.address
    try:
        if is_looked_after():
            end_with_parent()
        elif address is not None:
            code = watch(address, options.rules.seconds, signals)
            if code < 0:
                tell_end(driving.on_finish, name, "interrupted", None)
            sys.exit(abs(code))
        found, number = _ran(options, driving.as_json, start)
    except Exception:
        tell_end(driving.on_finish, name, "error", None)
        raise
    code = exit_code(found, number)
    tell_end(driving.on_finish, name, {0: "done", 1: "failed"}.get(code, "interrupted"), found)
    sys.exit(code)


def _ran(options: "Options", as_json: bool, start: Callable[..., "Summary"]) -> "tuple[Summary | None, int]":
    """What a run came to, None where it ended before it began; and the signal that ended it, or 0."""
    from harness.terminal import watcher_for

    with signals() as caught, watcher_for(console, quiet=as_json) as watcher:

        def decoding(done: int, total: int) -> None:
            if caught:
                raise Interrupted
            watcher.decoding(done, total)

        found = None
        with contextlib.suppress(Interrupted):
            found = start(watcher=watcher, stop=lambda: bool(caught), decoding=decoding)
    if found is None:
        print("harness: interrupted before a trial was begun: run it again", file=sys.stderr)
    elif as_json:
        print(json.dumps(asdict(found)))
    else:
        for line in closing_words(found, options.storage, options.resources.address):
            console.print(line, markup=False, soft_wrap=True)
    return found, caught[0] if caught else 0


def exit_code(found: "Summary | None", number: int) -> int:
    """0 done; 1 done, with failed trials, or all that there is fails; 75 not done, can go on once what is said is mended;
    130, 143 interrupted by a signal or its own clock, can go on."""
    if number or found is None:
        return 130 if number == signal.SIGINT else 143
    if found.late and found.left:
        return 143
    if found.trouble and found.left and not hopeless(found):
        return UNMENDED
    return 1 if found.failed or found.trouble else 0


def hopeless(found: "Summary") -> bool:
    """Whether trials fail one like the other: to begin again by itself would only make more of them."""
    from harness.execution.ledger import HOPELESS

    return found.failed >= HOPELESS and not (found.complete or found.stopped)


def tell_end(command: str | None, name: str, state: str, found: "Summary | None") -> None:
    """Runs the command that a user wants to be told by; that it fails is one line, and changes nothing."""
    if command is None:
        return
    sys.stdout.flush()
    counts = ("complete", "stopped", "failed", "left") if found is not None else ()
    told = {"study": name if found is None else found.name, "state": state} | {one: getattr(found, one) for one in counts}
    variables = {f"HARNESS_{one.upper()}": str(value) for one, value in told.items()}
    try:  # stdout may be for JSON alone
        code = subprocess.run(command, shell=True, check=False, env={**os.environ, **variables}, stdout=2).returncode
        problem = f"exit code {code}" if code else ""
    except (OSError, ValueError) as error:
        problem = one_line(error)
    if problem:
        print(f"harness: --on-finish {command}: {problem}; the study is as it is", file=sys.stderr)


@contextlib.contextmanager
def signals() -> Iterator[list[int]]:
    """Collects the first request to end; a second one leaves at once, which is as safe as any other death."""
    caught: list[int] = []

    def note(number: int, _: FrameType | None) -> None:
        if caught:
            sys.stdout.write("\x1b[?25h" if console.is_terminal else "")  # the live table hides the cursor
            sys.stdout.flush()
            os._exit(130 if number == signal.SIGINT else 143)
        caught.append(number)

    wanted = [getattr(signal, name) for name in STOPPING if hasattr(signal, name)]
    before = {number: signal.signal(number, note) for number in wanted}
    try:
        yield caught
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def closing_words(found: "Summary", storage: str, address: str | None = None) -> list[str]:
    """What a run ends with: what was done, and what can be done next."""
    from harness.report.words import counted, duration, percent

    lines = [f"note: {note}" for note in found.notes] + ([f"stopped: {found.trouble}"] if found.trouble else [])
    where = "" if storage == DATABASE else f" --storage {found.storage}"
    total = found.complete + found.stopped + found.failed
    if found.left and found.trained == 0 and total == 0:
        lines.append(f"{found.name}: interrupted before the first trial was finished")
    elif found.trained == 0 and not found.left:
        lines.append(f"{found.name}: nothing to train, all {counted(total, 'trial')} are finished")
    else:
        lines.append(
            f"{found.name}: {counted(found.trained, 'trial')} finished in {duration(found.seconds)};"
            f" {total} of {found.planned} in all" + (f", {found.failed} failed" if found.failed else "")
        )
    if (total_seconds := math.fsum(found.spent.values())) >= 1:
        shares = ", ".join(f"{percent(seconds / total_seconds)} {name}" for name, seconds in found.spent.items())
        lines.append(f"workers spent {duration(total_seconds)} in trials: {shares}")
    if found.untrained:
        lines.append(f"{counted(found.untrained, 'trial')} not trained: over a measured constraint")
    if found.reused:
        lines.append(f"{counted(found.reused, 'trial')} taken over from other studies, not trained again")
    if found.screened_out:
        share = percent(found.screened_out / found.looked_at)
        lines.append(f"{share} of {counted(found.looked_at, 'config')} looked at were over a constraint, none was trained")
    if found.saved and found.trained:
        lines.append(f"{counted(found.stopped, 'trial')} stopped early, {counted(found.saved, 'epoch')} saved")
    if found.left:
        there = "" if address is None else f" --address {address}"
        lines.append(f"{counted(found.left, 'trial')} left: `harness resume {found.name}{where}{there}` goes on")
    elif found.shard:
        from harness.storage.tables import database_file

        parts = database_file(storage)
        pattern = str(parts).replace(found.shard.replace("/", "-of-"), f"*-of-{found.shard.partition('/')[2]}")
        lines.append(f"merge it with the others: `harness copy '{pattern}' all.db`")
    elif found.complete:
        lines.append(f"see it: `harness report {found.name}{where}`")
    if found.failed:
        lines.append(f"why trials failed: `harness status {found.name} --failed{where}`")
    return lines


@verbs.command(rich_help_panel=PANEL)
def stop(
    name: Annotated[str, typer.Argument(help="The study's name in the database.")],
    storage: Storage = DATABASE,
) -> None:
    """Ask a running study to end cleanly, from this machine or another."""
    from harness.storage.lease import ask_to_stop
    from harness.storage.reader import read_studies

    holder = ask_to_stop(storage, read_studies(storage, name)[0].study_id)
    if holder is None:
        console.print(f"{name}: nobody runs it", markup=False, soft_wrap=True)
    else:
        words = f"{name}: asked {holder.process.words} to end; `harness resume {name}` goes on later"
        console.print(words, markup=False, soft_wrap=True)
