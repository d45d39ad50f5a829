"""Verbs that move studies: copy between databases, slurm for a cluster."""

import json
import shlex
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from harness.cli.options import PASSWORD_SEEN, AsJson, Settings, SplitArms, console
from harness.errors import HarnessError, StorageError

if TYPE_CHECKING:
    from harness.storage.copying import Copied, Progress

verbs = typer.Typer()
PANEL = "Move"
ENDINGS = (".db", ".sqlite", ".sqlite3")


@verbs.command(rich_help_panel=PANEL)
def copy(
    places: Annotated[
        list[str],
        typer.Argument(
            help="Databases: one or more to copy from (files, patterns such as `'shards/*.db'`, URLs), then the one to copy"
            " to; then studies, by name (default: all).",
            metavar="SOURCE... TARGET [NAME...]",
        ),
    ],
    rename: Annotated[
        str | None, typer.Option("--as", help="The study's name in the target.", metavar="NAME", show_default=False)
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Copy studies between databases, SQLite or PostgreSQL, and merge those that are there already.

    Finished trials are copied, each known by its key: copying again, or in another order, gives the same study. Cut short at
    any moment, the same command goes on. A study made with plain Optuna can be copied too, for `harness report`."""
    from harness.storage import copying
    from harness.storage.tables import password_of, shown

    sources, target, names = sorted_out(places)
    if any(map(password_of, (*sources, target))):
        print(f"harness: {PASSWORD_SEEN}", file=sys.stderr)
    with watched(quiet=as_json) as progress:
        found = copying.copy(sources, target, names, rename=rename, progress=progress)
    if as_json:
        print(json.dumps([asdict(one) for one in found]))
        return
    for one in found:
        for line in told(one):
            console.print(line, markup=False, soft_wrap=True)
    verb = "status" if found[0].ours else "report"
    name = shlex.quote(found[0].name)
    console.print(f"see it: `harness {verb} {name} --storage {shown(target)}`", markup=False, soft_wrap=True)


def sorted_out(places: list[str]) -> tuple[list[str], str, list[str]]:
    """The URLs of the sources and of the target, and the names of studies, out of what was typed."""
    databases = []
    for place in places:
        if not ("://" in place or place.endswith(ENDINGS) or Path(place).is_file()):
            break
        databases.append(place)
    if len(databases) < 2:
        raise StorageError(
            f"copy {' '.join(places)}: name the databases first, at least one to copy from and the one to copy to, as in"
            " `harness copy 'shards/*.db' all.db`"
        )
    *sources, target = databases
    return [url for source in sources for url in _expanded(source, target)], _url(target), places[len(databases) :]


def _expanded(place: str, target: str) -> list[str]:
    """The databases that a pattern means, the target itself left out; one without a pattern is itself."""
    if "://" in place or not any(sign in place for sign in "*?["):
        return [_url(place)]
    here = Path(place).is_absolute()
    matched = sorted(Path("/").glob(place[1:]) if here else Path().glob(place))
    found = [str(path) for path in matched if path.resolve() != Path(target).resolve()]
    if not found:
        raise StorageError(f"{place}: there is no such file")
    return [_url(path) for path in found]


def _url(place: str) -> str:
    return place if "://" in place else f"sqlite:///{place}"


def told(one: "Copied") -> list[str]:
    """What became of a study, a line each."""
    from harness.report.words import counted

    conflicts = f", {counted(len(one.conflicts), 'key')} trained twice with different results" if one.conflicts else ""
    shown = [f"  {line}" for line in one.conflicts[:5]]
    if len(one.conflicts) > 5:
        shown.append(f"  and {len(one.conflicts) - 5} more (--json names all)")
    line = f"{one.name}: {counted(one.copied, 'trial')} copied, {one.there} already there{conflicts}"
    return [line, *shown, *(f"note: {note}" for note in one.notes)]


@contextmanager
def watched(*, quiet: bool) -> Iterator["Progress"]:
    """A bar for each study, where somebody watches."""
    if quiet or not console.is_terminal:
        yield lambda *_: None
        return
    from rich.progress import Progress as Bars

    with Bars(console=console, transient=True) as bars:
        tasks = {}

        def progress(name: str, done: int, total: int) -> None:
            if name not in tasks:
                tasks[name] = bars.add_task(name, total=total)
            bars.update(tasks[name], completed=done, total=total)

        yield progress


@verbs.command(rich_help_panel=PANEL, context_settings={"allow_extra_args": True, "ignore_unknown_options": False})
def slurm(
    context: typer.Context,
    target: Annotated[str, typer.Argument(help="A study file.", metavar="STUDY")],
    gpus: Annotated[
        int,
        typer.Option("--gpus", min=1, help="In all: each task is a shard with one, or with those of a trial.", metavar="N"),
    ],
    time: Annotated[str, typer.Option("--time", help="Of a task, until it is queued again: `24h`, `2d`.")] = "24h",
    partition: Annotated[str | None, typer.Option("--partition", show_default=False)] = None,
    account: Annotated[str | None, typer.Option("--account", show_default=False)] = None,
    cpus: Annotated[int, typer.Option("--cpus", min=1, help="Cores of a task.")] = 4,
    memory: Annotated[str | None, typer.Option("--mem", help="Memory of a task, as in `32G`.", show_default=False)] = None,
    environment: Annotated[
        str | None,
        typer.Option("--env", help="A line of shell that makes `harness` known, as in `source venv/bin/activate`."),
    ] = None,
    cpu_only: Annotated[bool, typer.Option("--cpu-only", help="Ask for no GPU: N tasks on cores alone.")] = False,
    settings: Settings = [],  # noqa: B006
    split_arms: SplitArms = False,
    into: Annotated[str, typer.Option("--into", help="What the shards are merged into.", metavar="FILE")] = "all.db",
) -> None:
    """Print a Slurm array job: a shard of the study a GPU, queued again before its time is up, merged at the end.

    `harness slurm studies/mine.py --gpus 32 --time 24h --env "source venv/bin/activate" > job.sh`, then `sbatch job.sh`.
    What follows `--` is given to each `harness run`: `-- --data /scratch/cifar --gpus-per-trial 0.5`. With
    `--gpus-per-trial 4` a task has four of the GPUs."""
    from harness.cli.options import seconds
    from harness.loading import load_study, override
    from harness.preflight import values_of
    from harness.shard import Shard
    from harness.slurm import Job, script

    study = override(load_study(target)[0], settings)
    each = _gpus_of_a_trial(context.args)
    if each > 1 and cpu_only:
        raise HarnessError(f"--cpu-only with --gpus-per-trial {each}: leave one of them out")
    if gpus % each:
        fits = max(gpus // each, 1) * each
        raise HarnessError(
            f"--gpus {gpus}: with --gpus-per-trial {each} a task has {each} GPUs; ask for a multiple, as in --gpus {fits}"
        )
    Shard(1, gpus // each, split_arms).split(study)  # raises where there are not so many parts
    auto = " and ".join(f"training.{name} (auto)" for name in ("precision", "compile") if "auto" in values_of(study, name))
    settled = (
        f"the first shard that begins settles {auto} for all; --set training.precision=fp32, say, chooses" if auto else ""
    )
    if settled:
        print(f"harness: {settled}", file=sys.stderr)
    chosen = [word for setting in settings for word in ("--set", setting)] + (["--split-arms"] if split_arms else [])
    job = Job(
        study=study.name,
        target=target,
        tasks=gpus // each,
        seconds=seconds(time, "--time") or 0,
        cpus=max(cpus, each),
        gpus=0 if cpu_only else each,
        memory=memory,
        partition=partition,
        account=account,
        environment=environment,
        target_database=into,
        options=(*chosen, *context.args),
        settled=settled,
    )
    print(script(job), end="")


def _gpus_of_a_trial(options: list[str]) -> int:
    """Whole GPUs that a trial is given by options of `harness run`; 1 where it shares one, or has none."""
    from harness.cli.options import gpu_share

    words = [word for option in options for word in option.split("=", 1)]
    given = [gpu_share(value) for name, value in pairwise(words) if name == "--gpus-per-trial"]
    return int(given[-1]) if given and isinstance(given[-1], float) and given[-1] > 1 else 1
