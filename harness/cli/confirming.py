"""The verb that trains again what a study found: confirm."""

import json
from dataclasses import replace
from typing import TYPE_CHECKING, Annotated

import typer

from harness.cli.driving import Driving, drives
from harness.cli.options import NoTiming, console, numbers
from harness.cli.running import PANEL, finish
from harness.errors import StudyError

if TYPE_CHECKING:
    from pathlib import Path

    from harness.study import Study

verbs = typer.Typer()
TRIAL_NUMBERS = "write numbers of trials and commas, as in 3,17,20"


@verbs.command(rich_help_panel=PANEL)
@drives
def confirm(
    name: Annotated[str, typer.Argument(help="The study whose findings are confirmed, by its name in the database.")],
    driving: Driving,
    seeds: Annotated[
        int | None,
        typer.Option("--seeds", min=2, help="Fresh seeds of each config (default: 5, or as many as there are)."),
    ] = None,
    top: Annotated[
        int | None,
        typer.Option("--top", min=1, help="The K best by the first objective, instead of the front.", metavar="K"),
    ] = None,
    trials: Annotated[
        str | None, typer.Option("--trials", help="The configs of these trials, as in `3,17,20`.", metavar="N,N,...")
    ] = None,
    epochs: Annotated[
        int | None, typer.Option("--epochs", min=1, help="Epochs of each training (default: those of the search).")
    ] = None,
    plan: Annotated[
        bool, typer.Option("--plan", help="Show what would be trained, its time and disk; run nothing.")
    ] = False,
    no_timing: NoTiming = False,
) -> None:
    """Train again what a study found, with fresh seeds on the full budget, and score the test part, once a trial.

    The results are a study of their own, `NAME~confirm`, with the plain network beside them where the space has it. The same
    command goes on with what is missing; with more `--seeds` it adds some. `harness report NAME` shows both fronts.
    """
    from harness.code import add_paths
    from harness.confirm import Wanted, confirmation
    from harness.run import run_study

    if top is not None and trials is not None:
        raise StudyError(f"--top {top} and --trials {trials}: choose one of them")
    found = confirmation(name, driving.storage, Wanted(seeds, top, numbers(trials, "--trials", TRIAL_NUMBERS), epochs))
    folders = tuple(dict.fromkeys((*driving.folders, *found.code)))
    add_paths(list(folders))
    options = replace(driving.options(data=found.data), code=folders)
    if plan:
        _show(found.study, options.data, driving.storage, driving.as_json, timing=not no_timing)
        return
    finish(found.study.name, options, driving, lambda **live: run_study(found.study, options, **live))


def _show(study: "Study", data: "Path", storage: str, as_json: bool, *, timing: bool) -> None:
    from harness.plan import make_plan

    found = make_plan(study, data, storage, timing=timing)
    if as_json:
        print(json.dumps(found.to_json()))
        return
    console.print(study.name, style="bold", markup=False)
    for line in found.lines():
        console.print(line, markup=False, soft_wrap=True)
