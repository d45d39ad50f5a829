"""The verb that measures networks on devices: measure."""

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from harness.cli.options import DATABASE, AsJson, Code, Storage, console
from harness.cli.running import signals
from harness.errors import HarnessError

if TYPE_CHECKING:
    from harness.measuring import Done, Step
    from harness.record import Measurement

verbs = typer.Typer()
PANEL = "Run"


@verbs.command(rich_help_panel=PANEL)
def measure(
    name: Annotated[str, typer.Argument(help="The study's name in the database.")],
    device: Annotated[str | None, typer.Option("--device", help="What to measure on: `cpu` or `cuda`.", metavar="D")] = None,
    batches: Annotated[list[int], typer.Option("--batch", min=1, help="Pictures at once. Repeatable.", metavar="N")] = [1],  # noqa: B006
    threads: Annotated[
        int | None, typer.Option("--threads", min=1, help="CPU threads (default: as many as the study's trials have).")
    ] = None,
    trials: Annotated[list[int], typer.Option("--trials", help="Only this trial. Repeatable.", metavar="NUMBER")] = [],  # noqa: B006
    front: Annotated[bool, typer.Option("--front", help="Only the trials on the front.")] = False,
    again: Annotated[bool, typer.Option("--again", help="Also what was measured before.")] = False,
    file: Annotated[
        Path | None,
        typer.Option(
            "--from",
            help="Bring the numbers of a phone or a board: a CSV of trial (or key), device, batch, latency_ms, and if you"
            " have them spread_ms, peak_memory_mb.",
            metavar="FILE.csv",
        ),
    ] = None,
    storage: Storage = DATABASE,
    code: Code = [],  # noqa: B006
    as_json: AsJson = False,
) -> None:
    """Add latency and memory on a device to the finished trials of a study.

    Networks are built anew from their configs, weights are not needed, and measured one after the other: keep the machine
    idle meanwhile. Ctrl-C ends after the present one; the same command goes on with what is missing. States, objective
    values and keys of trials stay as they are. Exit code 1: some could not be measured.
    """
    from harness.measuring import Asked, bring, measure_study

    if (device is None) == (file is None):
        raise HarnessError(f"harness measure {name}: give --device cpu or cuda to measure here, or --from FILE.csv")
    if file is not None:
        done = bring(name, storage, file)
        _say(done, storage, as_json, brought=True)
        return
    asked = Asked(device or "", tuple(dict.fromkeys(batches)), threads, tuple(trials), front, again)
    columns = (TextColumn("measuring"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    quiet = as_json or not console.is_terminal
    with signals() as caught, Progress(*columns, console=Console(stderr=True), transient=True, disable=quiet) as bar:
        task = bar.add_task("", total=None)

        def progress(place: int, total: int, step: "Step") -> None:
            bar.update(task, completed=place, total=total)
            if not as_json:
                console.print(f"[{place}/{total}] {step.words}: {_words(step)}", markup=False, soft_wrap=True)

        folders = [str(folder.resolve()) for folder in code]
        done = measure_study(name, storage, asked, code=folders, progress=progress, stop=lambda: bool(caught))
    _say(done, storage, as_json, brought=False)
    if caught and done.left:
        sys.exit(130 if caught[0] == 2 else 143)
    sys.exit(1 if done.problems else 0)


def _words(step: "Step") -> str:
    return f"not measured: {step.problem}" if step.problem else "; ".join(map(_of, step.measured))


def _of(one: "Measurement") -> str:
    """batch 32: 31.47 ms (quartiles 0.52 ms apart), 9.866 MB"""
    from harness.report.words import metric_text

    spread = "" if one.spread is None else f" (quartiles {metric_text('latency', one.spread)} apart)"
    memory = "" if one.memory is None else f", {metric_text('inference_memory', one.memory)}"
    return f"batch {one.batch} {metric_text('latency', one.latency)}{spread}{memory}"


def _say(done: "Done", storage: str, as_json: bool, *, brought: bool) -> None:
    """What came of it, and what can be done with it."""
    from harness.measuring import QUIET
    from harness.report.words import counted
    from harness.storage.tables import shown

    if as_json:
        print(json.dumps(done.to_json()))
        return
    measured = sum(len(step.numbers) for step in done.steps if step.measured)
    where = "" if storage == DATABASE else f" --storage {shown(storage)}"
    lines = [f"{done.study}: {counted(measured, 'trial')} {'given numbers' if brought else 'measured'}"]
    if done.skipped:
        lines[0] += f", {counted(done.skipped, 'trial')} measured before (--again measures them anew)"
    if done.busiest >= QUIET:
        lines.append(
            f"note: others kept up to {done.busiest:.1f} cores busy meanwhile, which may have slowed it: on an idle machine"
            " --again tells"
        )
    if done.left:
        lines.append(f"interrupted: {counted(done.left, 'network')} left, the same command goes on")
    elif measured:
        lines.append(f"see it: `harness status {done.study}{where}`")
    for line in lines:
        console.print(line, markup=False, soft_wrap=True)
