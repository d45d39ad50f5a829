"""The verbs. Exit codes: 0 done; 1 done, with failed trials; 2 bad input, in one line; 130, 143 interrupted, can go on."""

import contextlib
import json
import os
import re
import signal
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import asdict
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer
from rich.console import Console
from rich.table import Table

from harness.errors import HarnessError, Interrupted, StudyError

if TYPE_CHECKING:
    from harness.run import Options, Summary
    from harness.storage.reader import Stored
    from harness.study import Study

app = typer.Typer(
    name="harness",
    help="Find out which attention belongs where in a convolutional network, and prove it."
    "\n\nStart with `harness new mystudy`, then `harness plan`, `harness run` and `harness report`.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="markdown",
)
console = Console(highlight=False)

Storage = Annotated[
    str, typer.Option("--storage", envvar="HARNESS_STORAGE", help="Database URL of the studies.", metavar="URL")
]
Target = Annotated[str, typer.Argument(help="A study file, a dotted module, or the name of a study in the database.")]
Settings = Annotated[
    list[str],
    typer.Option("--set", help="Another value for this run, e.g. `training.epochs=5`. Repeatable.", metavar="PATH=VALUE"),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON, and nothing else, on stdout.")]
Data = Annotated[
    Path | None,
    typer.Option("--data", envvar="HARNESS_DATA", help="Folder of the data (default: `data`).", metavar="DIR"),
]
Download = Annotated[bool, typer.Option("--download", help="Fetch cifar10 or cifar100 into the data folder first.")]
Runs = Annotated[Path | None, typer.Option("--runs", help="Folder of checkpoints (default: `runs` beside the database).")]
Code = Annotated[list[Path], typer.Option("--code", help="Folder of your own modules. Repeatable.", metavar="DIR")]
Trials = Annotated[int | None, typer.Option("--trials", min=1, help="Stop when the study has this many trials.")]
BackendName = Annotated[
    Literal["ray", "local"], typer.Option("--backend", help="ray: workers on GPUs and cores; local: in this process.")
]
Concurrency = Annotated[
    int | None, typer.Option("--concurrency", min=1, help="Trials at once (default: as many as the machine has room for).")
]
Cpus = Annotated[int, typer.Option("--cpus-per-trial", min=1, help="Cores reserved for a trial.")]
Gpus = Annotated[
    float | None,
    typer.Option("--gpus-per-trial", min=0, help="GPUs of a trial; 0.25 puts four on one (default: 1 if there are any)."),
]
TakeOver = Annotated[bool, typer.Option("--take-over", help="Take the study from a driver that seems to run it.")]
RetryFailed = Annotated[
    bool, typer.Option("--retry-failed", help="Run the configs of failed trials again, as new rows that name the old.")
]
Promote = Annotated[
    int | None,
    typer.Option(
        "--promote",
        min=1,
        help="Go on with the N best trials that were stopped early, from their checkpoints, as new rows that name the old.",
        metavar="N",
        show_default=False,
    ),
]
NoReuse = Annotated[
    bool, typer.Option("--no-reuse", help="Train also what another study of the database has finished, under the same key.")
]
For = Annotated[
    str | None,
    typer.Option("--for", help="Start no epoch that would not end in time: `90s`, `20m`, `8h`, `2d`.", metavar="TIME"),
]
KeepWeights = Annotated[
    Literal["front", "all", "none"], typer.Option("--keep", help="Whose final weights stay under the runs folder.")
]
Address = Annotated[str | None, typer.Option("--address", help="A running Ray cluster, e.g. `auto` or `host:6379`.")]

STOPPING = ("SIGINT", "SIGTERM", "SIGHUP", "SIGUSR1", "SIGUSR2")
"""Signals that end a run cleanly: from a keyboard, from a closed terminal, from Slurm and preemptible clouds."""
DATABASE = "sqlite:///harness.db"


def main() -> None:
    """The `harness` command: what a user got wrong is one line on stderr and exit code 2."""
    try:
        app()
    except HarnessError as error:
        print(f"harness: {error}", file=sys.stderr)
        sys.exit(2)
    except BrokenPipeError:
        sys.exit(0)


# -- run and resume ---------------------------------------------------------------------------------------------------


@app.command()
def run(
    target: Target,
    storage: Storage = DATABASE,
    settings: Settings = [],  # noqa: B006
    trials: Trials = None,
    data: Data = None,
    download: Download = False,
    backend: BackendName = "ray",
    concurrency: Concurrency = None,
    cpus_per_trial: Cpus = 1,
    gpus_per_trial: Gpus = None,
    address: Address = None,
    runs: Runs = None,
    keep: KeepWeights = "front",
    code: Code = [],  # noqa: B006
    time_limit: For = None,
    promote: Promote = None,
    no_reuse: NoReuse = False,
    retry_failed: RetryFailed = False,
    take_over: TakeOver = False,
    as_json: AsJson = False,
) -> None:
    """Start a study, or go on with what is missing of it.

    Ctrl-C ends cleanly; the same command goes on. A setting that changes what is trained opens a study of its own,
    `NAME~training.epochs=5`, so that a smoke run never mixes with the real one.
    """
    from harness.code import add_paths
    from harness.loading import is_study_file, load_study, override
    from harness.run import resume_study, run_study

    options = _options(locals())
    folders = [str(folder.resolve()) for folder in code]
    add_paths(folders)
    if is_study_file(target):
        study, found = load_study(target)
        study = override(study, settings)
        options = _with(options, code=tuple(dict.fromkeys((*folders, *found))))
        if download:
            _download(study, options)
        _finish(study.name, options, as_json, lambda **live: run_study(study, options, **live))
    else:
        if settings:
            raise StudyError("--set changes a study file; a stored study goes on as it is: name the file instead")
        _finish(target, options, as_json, lambda **live: resume_study(target, options, **live))


@app.command()
def resume(
    name: Annotated[str, typer.Argument(help="The study's name in the database.")],
    storage: Storage = DATABASE,
    trials: Trials = None,
    data: Data = None,
    backend: BackendName = "ray",
    concurrency: Concurrency = None,
    cpus_per_trial: Cpus = 1,
    gpus_per_trial: Gpus = None,
    address: Address = None,
    runs: Runs = None,
    keep: KeepWeights = "front",
    code: Code = [],  # noqa: B006
    time_limit: For = None,
    promote: Promote = None,
    no_reuse: NoReuse = False,
    retry_failed: RetryFailed = False,
    take_over: TakeOver = False,
    as_json: AsJson = False,
) -> None:
    """Go on with a study from its database alone: its file is not needed."""
    from harness.run import resume_study

    options = _options(locals())
    _finish(name, options, as_json, lambda **live: resume_study(name, options, **live))


def _options(given: dict[str, Any]) -> "Options":
    from harness.execution.backend import Resources
    from harness.execution.ledger import Rules
    from harness.run import Options

    resources = {name: given[name] for name in ("concurrency", "cpus_per_trial", "gpus_per_trial", "address")}
    return Options(
        storage=given["storage"],
        backend=given["backend"],
        resources=Resources(**resources),
        data=given["data"] or Options().data,
        runs=given["runs"],
        code=tuple(str(folder.resolve()) for folder in given["code"]),
        rules=Rules(
            given["trials"],
            seconds(given["time_limit"]),
            given["retry_failed"],
            given["keep"],
            given["promote"] or 0,
            not given["no_reuse"],
        ),
        take_over=given["take_over"],
    )


def seconds(text: str | None, option: str = "--for") -> float | None:
    """A stretch of time as a user writes it: 90s, 20m, 8h, 2d, or plain seconds."""
    if text is None:
        return None
    match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([smhd]?)", text.strip().lower())
    if match is None:
        raise HarnessError(f"{option} {text}: write a number and s, m, h or d, as in 20m or 8h")
    return float(match[1]) * {"": 1, "s": 1, "m": 60, "h": 3600, "d": 86400}[match[2]]


def _with(options: "Options", **changes: Any) -> "Options":
    from dataclasses import replace

    return replace(options, **changes)


def _download(study: Any, options: "Options") -> None:
    from harness.data.sources import download
    from harness.preflight import pictures_of, values_of
    from harness.weights import download_weights

    download(pictures_of(study), options.data)
    for init in filter(None, values_of(study, "init")):
        download_weights(init)


def _finish(name: str, options: "Options", as_json: bool, start: Callable[..., "Summary"]) -> None:
    """Runs with a view on it and an ear for signals, says what came of it, and exits accordingly."""
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
        print("harness: interrupted while pictures were decoded: nothing was begun, run it again", file=sys.stderr)
        sys.exit(130 if caught[0] == signal.SIGINT else 143)
    if as_json:
        print(json.dumps(asdict(found)))
    else:
        for line in closing_words(found, options.storage):
            console.print(line, markup=False, soft_wrap=True)
    if caught:
        sys.exit(130 if caught[0] == signal.SIGINT else 143)
    sys.exit(1 if found.failed or found.trouble else 0)


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


def closing_words(found: "Summary", storage: str) -> list[str]:
    """What a run ends with: what was done, and what can be done next."""
    from harness.report.words import counted, duration

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
    if found.reused:
        lines.append(f"{counted(found.reused, 'trial')} taken over from other studies, not trained again")
    if found.saved and found.trained:
        lines.append(f"{counted(found.stopped, 'trial')} stopped early, {counted(found.saved, 'epoch')} saved")
    if found.left:
        lines.append(f"{counted(found.left, 'trial')} left: `harness resume {found.name}{where}` goes on")
    elif found.complete:
        lines.append(f"see it: `harness report {found.name}{where}`")
    if found.failed:
        lines.append(f"why trials failed: `harness status {found.name} --failed{where}`")
    return lines


# -- reading ----------------------------------------------------------------------------------------------------------


@app.command()
def status(
    name: Annotated[str | None, typer.Argument(help="A study; without one, all of them.")] = None,
    storage: Storage = DATABASE,
    failed: Annotated[bool, typer.Option("--failed", help="Show why trials failed, with tracebacks.")] = False,
    as_json: AsJson = False,
) -> None:
    """List every study, or show one: counts, front, failures with reasons."""
    from harness.storage.reader import read_studies, revision, revisions

    found = read_studies(storage, name)
    if name is None:
        newest = {revision(stored.name)[0]: revisions(found, revision(stored.name)[0])[-1] for stored in found}
        rows = [_study_row(stored) for stored in newest.values()]
        if as_json:
            print(json.dumps(rows))
        elif not rows:
            console.print("no studies yet: start one with `harness run`")
        else:
            _print_rows(rows)
        return
    _show_study(found[0], storage, failed, as_json)


def _study_row(stored: "Stored") -> dict[str, Any]:
    definition = stored.attributes["definition"]
    return {
        "study": stored.name,
        "created": stored.attributes.get("created", "")[:10],
        "planned": definition["strategy"].get("trials"),
        **{state: stored.counts.get(state, 0) for state in ("complete", "stopped", "failed", "running")},
        "question": definition["question"],
    }


def _print_rows(rows: list[dict[str, Any]]) -> None:
    """A line a study; the question only where it has room."""
    lines = [["study", "finished", "running", "failed", "created"]]
    for row in rows:
        finished = row["complete"] + row["stopped"] + row["failed"]
        done = f"{finished} of {max(row['planned'], finished)}" if row["planned"] else str(finished)
        lines.append([row["study"], done, str(row["running"]), str(row["failed"]), row["created"]])
    widths = [max(len(line[column]) for line in lines) for column in range(5)]
    room = console.width - sum(widths) - 2 * len(widths)
    for line, question in zip(lines, ["question", *(row["question"] for row in rows)], strict=True):
        cells = [line[0].ljust(widths[0]), *(cell.rjust(width) for cell, width in zip(line[1:], widths[1:], strict=True))]
        shown = question if len(question) <= room else question[: room - 3] + "..."
        words = "  ".join([*cells, *([shown] if room >= 24 else [])])
        console.print(words, markup=False, soft_wrap=True, style="dim" if line is lines[0] else None)


def _show_study(stored: "Stored", storage: str, failed: bool, as_json: bool) -> None:
    from harness.analysis.front import front
    from harness.report.sentences import counts, early_stopping
    from harness.report.words import counted
    from harness.storage.lease import holders
    from harness.storage.reader import read_records, read_studies, revision, revisions
    from harness.strategies.stopping import recalled
    from harness.study import Study
    from harness.terminal import chosen_text, metric_text

    study, records = Study.from_json(stored.attributes["definition"]), read_records(storage, stored.study_id)
    best = front(records, study.objectives)
    metrics = [objective.metric for objective in study.objectives]
    failures, stops = ([record for record in records if record.state == state] for state in ("failed", "stopped"))
    saved = recalled(study, records).saved
    if as_json:
        reused = {record.number: record.reused for record in records if record.reused}
        rows = [
            {
                "number": record.number,
                "params": record.params,
                "values": {metric: record.value(metric) for metric in metrics},
            }
            for record in best
        ]
        reasons = {
            name: [{"number": record.number, "reason": record.reason} for record in ended]
            for name, ended in (("failures", failures), ("stops", stops))
        }
        print(json.dumps(_study_row(stored) | {"front": rows, **reasons, "saved_epochs": saved, "reused": reused}))
        return
    others = [one for one in revisions(read_studies(storage), revision(stored.name)[0]) if one.name != stored.name]
    states = counts(stored.counts) or "no trials yet"
    holder = holders(storage).get(stored.study_id)
    planned = study.strategy.model_dump().get("trials")
    console.print(f"{stored.name}: {states}" + (f"; {planned} planned" if planned else ""), style="bold", markup=False)
    if study.question:
        console.print(study.question, markup=False)
    for change in stored.attributes.get("changes", ()):
        console.print(f"changed: {change}", markup=False, style="dim")
    for one in others:
        shown = one.name if "@" in one.name else f"{one.name}@1"
        console.print(f"other revision: {shown}, {counts(one.counts) or 'no trials'}", markup=False, style="dim")
    if holder is not None and holder.alive:
        console.print(f"run by {holder.words}", markup=False, style="green")
    if study.stopping is not None:
        longest = max((record.config.training.epochs for record in records), default=0)
        words = early_stopping(study, longest)
        console.print(f"early stopping: {words}; {counted(saved, 'epoch')} saved", markup=False, style="dim")
    if best:
        console.print(f"\nfront ({len(best)} of {stored.counts.get('complete', 0)} finished trials)", style="dim")
        table = Table(box=None, padding=(0, 1), header_style="dim")
        for column in ("trial", *metrics):
            table.add_column(column, justify="right", no_wrap=True)
        table.add_column("chosen", overflow="fold")
        order = study.open_space(check=False).parameters
        for record in sorted(best, key=lambda record: record.value(metrics[0]) * study.objectives[0].sign):
            values = [metric_text(metric, record.value(metric)) for metric in metrics]
            table.add_row(str(record.number), *values, chosen_text(record.params, order))
        console.print(table)
    if taken := Counter(str(record.reused["study"]) for record in records if record.reused):
        words = ", ".join(f"{counted(count, 'trial')} from {name}" for name, count in taken.items())
        console.print(f"taken over: {words}", markup=False, style="dim")
    for record in failures:
        console.print(f"trial {record.number} failed: {record.reason}", style="red", markup=False)
        if failed and record.traceback:
            console.print(record.traceback.rstrip(), markup=False, style="dim")


@app.command()
def stop(
    name: Annotated[str, typer.Argument(help="The study's name in the database.")],
    storage: Storage = DATABASE,
) -> None:
    """Ask a running study to end cleanly, from this machine or another."""
    from harness.storage.lease import ask_to_stop
    from harness.storage.reader import read_studies

    holder = ask_to_stop(storage, read_studies(storage, name)[0].study_id)
    if holder is None:
        console.print(f"{name}: nobody runs it", markup=False)
    else:
        console.print(f"{name}: asked {holder.process.words} to end; `harness resume {name}` goes on later", markup=False)


@app.command()
def report(
    name: Annotated[str, typer.Argument(help="The study's name in the database.")],
    storage: Storage = DATABASE,
    out: Annotated[
        Path | None, typer.Option("--out", help="Folder of the page (default: `reports/NAME`).", metavar="DIR")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Write the page: fronts, curves, trials, provenance; with trials.csv and front.json beside it."""
    from harness.report.page import write_page
    from harness.storage.reader import read_records, read_studies
    from harness.study import Study

    stored = read_studies(storage, name)[0]
    study = Study.from_json(stored.attributes["definition"])
    folder = out or Path("reports") / name
    try:
        page = write_page(study, stored.attributes, read_records(storage, stored.study_id), folder)
    except OSError as error:
        raise HarnessError(f"--out {folder}: the page cannot be written there ({error.strerror})") from None
    if as_json:
        print(json.dumps({"page": str(page.resolve())}))
    else:
        console.print(str(page.resolve()), markup=False, soft_wrap=True)


@app.command()
def plan(
    target: Target,
    storage: Storage = DATABASE,
    settings: Settings = [],  # noqa: B006
    data: Data = None,
    code: Code = [],  # noqa: B006
    deadline: Annotated[
        str | None, typer.Option("--deadline", help="Of a design: what fits into `20m`, `8h`, `10d`.", metavar="TIME")
    ] = None,
    concurrency: Concurrency = None,
    as_json: AsJson = False,
) -> None:
    """Show what a study would do before anything runs: its space as a tree, its size, its exact costs, its trials.

    Of a design also its arms, what it can and cannot tell apart, the smallest effect it can show, and its time.
    """
    from harness.plan import make_plan
    from harness.terminal import space_tree

    limit = seconds(deadline, "--deadline")
    study, data = _named(target, storage, settings, data, code)
    found = make_plan(study, data, storage)
    fitting: list[str] = []
    if limit is not None:
        if found.design is None:
            raise HarnessError(f"--deadline {deadline}: {study.name} is no design; use `run --for {deadline}`")
        fitting = list(found.design.fitting(limit, concurrency or 1))
    if as_json:
        print(json.dumps(found.to_json() | ({"deadline": fitting} if fitting else {})))
        return
    console.print(space_tree(f"{study.name}: {study.question}", {"network": study.space, "training": study.training}))
    for line in [*found.lines(), *fitting]:
        console.print(line, markup=False, soft_wrap=True)


def _named(target: str, storage: str, settings: list[str], data: Path | None, code: list[Path]) -> "tuple[Study, Path]":
    """A study by its file or its name in the database, and the folder of its data."""
    from harness.code import add_paths
    from harness.loading import is_study_file, load_study, override
    from harness.storage.reader import read_studies
    from harness.study import Study

    add_paths([str(folder.resolve()) for folder in code])
    if is_study_file(target):
        return override(load_study(target)[0], settings), data or Path("data")
    stored = read_studies(storage, target)[0]
    places = stored.attributes.get("places", {})
    add_paths(places.get("code", []))
    return override(Study.from_json(stored.attributes["asked"]), settings), data or Path(places.get("data", "data"))


@app.command()
def check(
    target: Annotated[str, typer.Argument(help="A module of your own, `package.module:Class`, or a study as for `plan`.")],
    given: Annotated[
        list[str] | None, typer.Argument(metavar="[KNOB=VALUE]...", help="Knobs of your module, e.g. `reduction=4`.")
    ] = None,
    knobs: Annotated[list[str], typer.Option("--knob", help="The same, as an option.", metavar="KNOB=VALUE")] = [],  # noqa: B006
    channels: Annotated[int, typer.Option("--channels", help="Channels that your module is tried at.")] = 64,
    size: Annotated[int, typer.Option("--size", min=2, max=256, help="Side of the map that it is tried on.")] = 16,
    place: Annotated[
        Literal["branch", "block", "stage"], typer.Option("--place", help="Where in the small network it stands.")
    ] = "branch",
    configs: Annotated[int, typer.Option("--configs", min=1, help="Of a study: look at so many configs at most.")] = 100,
    storage: Storage = DATABASE,
    data: Data = None,
    code: Code = [],  # noqa: B006
    as_json: AsJson = False,
) -> None:
    """Hold a module of your own to what ours are held to, or build every network of a study without training it.

    Exit code 0: all holds; 1: something does not; 2: there is no such module or study.
    """
    if ":" in target:
        holds = _check_module(target, [*(given or ()), *knobs], (channels, size, place), code, as_json)
    elif given or knobs:
        raise HarnessError(f"harness check {target}: knobs are for a module of your own, package.module:Class")
    else:
        holds = _check_study(*_named(target, storage, [], data, code), storage, configs, as_json)
    sys.exit(0 if holds else 1)


def _check_module(target: str, knobs: list[str], where: tuple[int, int, Any], code: list[Path], as_json: bool) -> bool:
    from harness import check as checks
    from harness import checklist
    from harness.code import add_paths

    add_paths([*(str(folder.resolve()) for folder in code), str(Path.cwd())])
    subject = checks.subject_of(target, knobs, *where)
    found = []
    if not as_json:
        console.print(checklist.title(subject), style="bold", markup=False)
    for finding in checks.findings(subject):
        found.append(finding)
        if not as_json:
            console.print(checklist.row(finding))
    holds = all(finding.holds for finding in found)
    price = checks.price_of(subject) if holds else None
    if as_json:
        print(json.dumps(checks.to_json(subject, found, price)))
    else:
        for line in checklist.closing(subject, found, price):
            console.print(line, markup=False)
    return holds


def _check_study(study: "Study", data: Path, storage: str, most: int, as_json: bool) -> bool:
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

    from harness.check import rehearse_study
    from harness.checklist import study_lines

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True, disable=as_json or not console.is_terminal) as bar:
        task = bar.add_task("building networks", total=None)
        found = rehearse_study(study, data, storage, most, lambda done, all_: bar.update(task, completed=done, total=all_))
    if as_json:
        print(json.dumps(found.to_json()))
    else:
        for line in study_lines(found):
            console.print(line, markup=False, soft_wrap=True)
    return not found.problems


Margin = Annotated[
    float | None,
    typer.Option("--margin", min=0, help="The smallest difference that matters, in the metric's own unit.", metavar="D"),
]
Form = Annotated[
    Literal["latex", "markdown", "csv"] | None,
    typer.Option("--as", help="Print the table in this form.", show_default=False),
]


@app.command()
def audit(
    file: Annotated[Path, typer.Argument(help="A CSV file with a row for each arm and seed.", metavar="FILE")],
    arm: Annotated[str | None, typer.Option("--arm", help="Column of the arms (default: found by its name).")] = None,
    seed: Annotated[str | None, typer.Option("--seed", help="Column of the seeds.")] = None,
    metric: Annotated[str | None, typer.Option("--metric", help="Column of the metric.")] = None,
    baseline: Annotated[str | None, typer.Option("--baseline", help="The arm that the others are compared with.")] = None,
    primary: Annotated[str | None, typer.Option("--primary", help="The one arm declared beforehand: tested alone.")] = None,
    margin: Margin = None,
    smaller: Annotated[bool, typer.Option("--smaller-is-better", help="The metric is a loss or an error.")] = False,
    sensitivity: Annotated[
        bool, typer.Option("--sensitivity", help="Sign flips and bootstrap too; they decide nothing.")
    ] = False,
    form: Form = None,
    as_json: AsJson = False,
) -> None:
    """Judge results that came from elsewhere: effects, intervals, verdicts, seeds still needed. Trains nothing."""
    from harness.audit import audit as audited
    from harness.report.ablation import sheet, written
    from harness.report.sheet import drawn

    found = audited(
        file,
        arm=arm,
        seed=seed,
        metric=metric,
        baseline=baseline,
        primary=primary,
        margin=margin,
        larger_is_better=not smaller,
        others=sensitivity,
    )
    if as_json:
        print(json.dumps(found.to_json()))
    elif form is not None:
        print(written(found.table, form), end="")
    else:
        console.print(drawn(sheet(found.table), console.width))
        for line in found.lines():
            console.print(line, style="dim", markup=False)


@app.command()
def export(
    name: Annotated[str, typer.Argument(help="The study's name in the database.")],
    form: Form = None,
    check: Annotated[
        Path | None,
        typer.Option("--check", help="Recompute the study's tables in a LaTeX or Markdown source.", metavar="FILE"),
    ] = None,
    out: Annotated[Path | None, typer.Option("--out", help="Write into a file instead.", metavar="FILE")] = None,
    storage: Storage = DATABASE,
) -> None:
    """Print the table of a study, for a paper, a README or a program; without --as, for the terminal.

    A design's is its ablation table, a search's its front. With --check, name each cell of a paper that no longer agrees
    (exit code 1 when any does not)."""
    from harness.export import checked, opened, table_of, text_of
    from harness.report.sheet import drawn

    facts = opened(name, storage)
    if check is not None:
        found = checked(facts, check)
        for line in found.lines(str(check)):
            print(line)
        sys.exit(1 if found.wrong else 0)
    if form is None and out is None:
        table = table_of(facts)
        console.print(drawn(table, console.width))
        for line in table.notes:
            console.print(line, style="dim", markup=False)
        return
    text = text_of(facts, form or ENDINGS.get(out.suffix if out else "", "latex"))
    if out is None:
        print(text, end="")
    else:
        write_text(out, text)


@app.command()
def cite(
    name: Annotated[str, typer.Argument(help="The study's name in the database.")],
    only: Annotated[
        Literal["bibtex", "methods"] | None, typer.Option("--only", help="One of the two alone.", show_default=False)
    ] = None,
    storage: Storage = DATABASE,
) -> None:
    """Print how a study was done, in a paragraph, and BibTeX of everything it used: a file that BibTeX reads."""
    from textwrap import wrap

    from harness.export import opened
    from harness.report.citation import bibtex, methods

    facts = opened(name, storage)
    if only == "methods":
        print(methods(facts))
        return
    if only is None:
        print("\n".join(f"% {line}" for line in wrap(methods(facts), 118)) + "\n")
    print(bibtex(facts), end="")


ENDINGS: dict[str, Literal["latex", "markdown", "csv"]] = {".md": "markdown", ".csv": "csv"}
"""Forms by the ending of a file; any other is LaTeX."""


def write_text(path: Path, text: str) -> None:
    """Writes a file whole and says where; a folder that is not there is one line."""
    try:
        path.write_text(text, "utf-8")
    except OSError as error:
        raise HarnessError(f"{path}: cannot be written ({error.strerror}); name a file in a folder that is there") from None
    console.print(f"wrote {path}", markup=False)


@app.command()
def new(
    name: Annotated[str, typer.Argument(help="Name of the study, which names the files too.")],
    folder: Annotated[Path, typer.Option("--in", help="Project folder.", metavar="DIR")] = Path(),
) -> None:
    """Write a starter: an attention module of your own, a space and a study, in some 40 commented lines."""
    from harness.starter import write_starter

    for path in write_starter(name, folder):
        console.print(f"wrote {path}", markup=False)
    console.print(
        f"next: `harness plan {folder / 'studies'}/{name.replace('-', '_')}.py`, then `harness run` it", markup=False
    )


@app.command()
def presets(
    name: Annotated[str | None, typer.Argument(help="A preset, shown stage by stage; without one, all of them.")] = None,
    as_json: AsJson = False,
) -> None:
    """List the published networks: params and FLOPs computed here beside those that the papers print."""
    from harness.presets import PRESETS, find, stages
    from harness.report.presets import LEGEND, listing, shape_words, staged

    if name is None:
        if as_json:
            print(json.dumps([preset.to_json() for preset in PRESETS.values()]))
            return
        console.print(listing(PRESETS.values(), console.width))
        console.print(LEGEND, style="dim", markup=False)
        return
    found = find(name)
    if as_json:
        print(json.dumps(found.to_json() | {"stages": [stage.to_json(found.cost) for stage in stages(found)]}))
        return
    console.print(f"{found.title}, {shape_words(found.shape)} (arXiv {found.paper})", style="bold", markup=False)
    console.print(staged(found))
    if found.note:
        console.print(f"note: {found.note}", markup=False)
    console.print(f'in a study: from harness.presets import preset; preset("{found.name}")', style="dim", markup=False)
