"""Verbs that look ahead: plan, check."""

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer
from rich.console import Console

from harness.cli.options import (
    DATABASE,
    AsJson,
    Code,
    Concurrency,
    Data,
    NoTiming,
    Settings,
    Storage,
    Target,
    console,
    named,
    seconds,
)
from harness.errors import HarnessError

if TYPE_CHECKING:
    from harness.study import Study

verbs = typer.Typer()
PANEL = "Plan"


@verbs.command(rich_help_panel=PANEL)
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
    no_timing: NoTiming = False,
    simulated: Annotated[
        str | None,
        typer.Option("--simulate", help="Replay the study against this finished one, in simulated time.", metavar="NAME"),
    ] = None,
    workers: Annotated[int, typer.Option("--workers", min=1, help="Of a simulation: trials at once.")] = 4,
    repeats: Annotated[int, typer.Option("--repeats", min=1, help="Of a simulation: how often.")] = 1,
    as_json: AsJson = False,
) -> None:
    """Show what a study would do before anything runs: its space as a tree, its size, its exact costs, its trials.

    Of a design also its arms, what it can and cannot tell apart, the smallest effect it can show, and its time.
    `--simulate NAME` replays its strategy and early stopping, the real ones, against the trials of a finished study.
    """
    from harness.gpus import chosen
    from harness.hardware import cores
    from harness.plan import make_plan
    from harness.terminal import space_tree

    if simulated is not None:
        _simulate(named(target, storage, settings, data, code)[0], storage, simulated, workers, repeats, as_json)
        return
    limit = seconds(deadline, "--deadline")
    study, data = named(target, storage, settings, data, code)
    found = make_plan(study, data, storage, timing=not no_timing)
    fitting: list[str] = []
    if limit is not None:
        if found.design is None:
            raise HarnessError(f"--deadline {deadline}: {study.name} is no design; use `run --for {deadline}`")
        fitting = list(found.design.fitting(limit, concurrency or len(chosen(None)) or cores()))
    if as_json:
        print(json.dumps(found.to_json() | ({"deadline": fitting} if fitting else {})))
        return
    console.print(space_tree(f"{study.name}: {study.question}", {"network": study.space, "training": study.training}))
    for line in [*found.lines(), *fitting]:
        console.print(line, markup=False, soft_wrap=True)


def _simulate(study: "Study", storage: str, name: str, workers: int, repeats: int, as_json: bool) -> None:
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

    from harness.simulate import Table, simulate

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True, disable=as_json or not console.is_terminal) as bar:
        task = bar.add_task("repetitions", total=repeats)
        table = Table.read(storage, name)
        found = simulate(study, table, workers=workers, repeats=repeats, told=lambda done: bar.update(task, completed=done))
    if as_json:
        print(json.dumps(found.to_json()))
        return
    for line in found.lines():
        console.print(line, markup=False, soft_wrap=True)


@verbs.command(rich_help_panel=PANEL)
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
        holds = _check_study(*named(target, storage, [], data, code), storage, configs, as_json)
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
