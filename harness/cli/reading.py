"""Verbs that show what is stored: status, report."""

import json
import re
from collections import Counter
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.table import Table

from harness.cli.options import DATABASE, AsJson, Storage, console
from harness.errors import HarnessError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from harness.analysis.sequential import Course
    from harness.record import Record
    from harness.storage.reader import Stored

verbs = typer.Typer()
PANEL = "See"


@verbs.command(rich_help_panel=PANEL)
def status(
    name: Annotated[str | None, typer.Argument(help="A study; without one, all of them.")] = None,
    storage: Storage = DATABASE,
    failed: Annotated[bool, typer.Option("--failed", help="Show why trials failed, with tracebacks.")] = False,
    watched: Annotated[
        bool, typer.Option("--watch", help="Follow a study while it runs, from any terminal that reaches its database.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """List every study, or show one: counts, front, failures with reasons.

    With --watch the view is that of the run itself, a second old at most; it ends when the run does. Where the output is no
    terminal there is a line for each trial that ends."""
    from harness.storage.reader import read_studies, revision, revisions

    if watched:
        if name is None:
            raise HarnessError("harness status --watch: which study? Name it; `harness status` lists them")
        _watch(name, storage, as_json)
        return
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


def _watch(name: str, storage: str, as_json: bool) -> None:
    """Follows a study until nobody runs it, or Ctrl-C."""
    from contextlib import suppress

    from rich.console import Group
    from rich.live import Live
    from rich.text import Text

    from harness.live import drawn
    from harness.watching import Seen, look, watch

    told: dict[int, None] = {}

    def say(seen: Seen) -> None:
        """A line for each trial that has ended since the last look; first of all where the study stands."""
        if not told:
            told.update(dict.fromkeys([-1, *(record.number for record in seen.finished)]))
            print(json.dumps(asdict(seen.view)) if as_json else seen.view.line(), flush=True)
        for count, record in enumerate(seen.finished, start=1):
            if record.number not in told:
                told[record.number] = None
                print(json.dumps(asdict(seen.view)) if as_json else seen.line(record, count), flush=True)

    with suppress(KeyboardInterrupt):
        if as_json or not console.is_terminal:
            last = watch(name, storage, say)
        else:
            with Live(console=console, auto_refresh=False, transient=True) as live:

                def show(seen: Seen) -> None:
                    hint = Text("Ctrl-C ends this view, not the run", style="dim")
                    live.update(Group(drawn(seen.view, console.width), hint), refresh=True)

                last = watch(name, storage, show)
        if not as_json:
            console.print(last.view.line(), markup=False, soft_wrap=True)
            console.print(f"nobody runs {last.stored.name} (any more)", style="dim", markup=False)
        return
    console.print(look(name, storage).view.line(), markup=False, soft_wrap=True)


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
    from harness.analysis.arms import arms_of, shape_of
    from harness.confirm import confirming
    from harness.design import Listed
    from harness.report.comparison import lacking_words
    from harness.report.sentences import counts, early_stopping
    from harness.report.words import chosen_text, counted, metric_text
    from harness.results import read_front
    from harness.shard import Shard
    from harness.storage.lease import holders
    from harness.storage.reader import read_notable, read_records, read_studies, revision, revisions
    from harness.strategies.stopping import recalled
    from harness.study import Search, Study

    study = Study.from_json(stored.attributes["definition"])
    whole = study.stopping is not None or not isinstance(study.strategy, Search)  # else a few trials and SQL tell all
    records = (read_records if whole else read_notable)(storage, stored.study_id)
    every = read_studies(storage)
    best = read_front(storage, stored.study_id, study.objectives)
    metrics = [objective.metric for objective in study.objectives]
    failures, stops = ([record for record in records if record.state == state] for state in ("failed", "stopped"))
    saved = recalled(study, records).saved
    shard = Shard.from_json(stored.attributes.get("shard"))
    arms = arms_of(study, study.open_space(check=False), records, shape_of(stored.attributes))
    lacking = lacking_words(arms) if arms is not None else ""
    course = None if arms is None else arms.course
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
        timed = {record.number: [one.to_json() for one in record.measured] for record in records if record.measured}
        told = {"front": rows, **reasons, "saved_epochs": saved, "reused": reused, "measured": timed}
        told |= {"shard": shard and str(shard), "missing": dict(arms.missing) if arms is not None else {}}
        told["confirmed"] = {one.name: one.counts for one in confirming(every, stored.name)}
        told |= {} if course is None else {"sequential": course.to_json()}
        print(json.dumps(_study_row(stored) | told))
        return
    others = [one for one in revisions(every, revision(stored.name)[0]) if one.name != stored.name]
    over = [record for record in stops if record.untrained]
    states = counts(stored.counts, len(over)) or "no trials yet"
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
    for one in confirming(every, stored.name):
        console.print(f"confirmed by {one.name}: {counts(one.counts) or 'no trials yet'}", markup=False, style="dim")
    if isinstance(study.strategy, Listed):
        rule = f"confirms {study.strategy.rule} of {study.strategy.of}, on the test part"
        console.print(f"{rule}; {counted(len(study.strategy.configs) * len(study.seeds), 'trial')} planned", style="dim")
    if holder is not None and holder.alive:
        console.print(f"run by {holder.words}", markup=False, style="green")
    if shard is not None:
        console.print(f"{shard.words(study)}; `harness copy` merges it with the others", markup=False, style="dim")
    elif lacking:
        console.print(lacking, markup=False, style="dim")
    if study.stopping is not None:
        longest = max((record.config.training.epochs for record in records), default=0)
        words = early_stopping(study, longest)
        console.print(f"early stopping: {words}; {counted(saved, 'epoch')} saved", markup=False, style="dim")
    if course is not None:
        _print_course(course)
    if best:
        console.print(f"\nfront ({len(best)} of {stored.counts.get('complete', 0)} finished trials)", style="dim")
        table = Table(box=None, padding=(0, 1), header_style="dim")
        for column in ("trial", *metrics):
            table.add_column(column, justify="right", no_wrap=True)
        table.add_column("chosen", overflow="fold")
        order = study.open_space(check=False).parameters
        for record in sorted(best, key=lambda record: record.value(metrics[0]) * study.objectives[0].sign):
            values = [metric_text(metric, record.value(metric), study.units.get(metric, "")) for metric in metrics]
            table.add_row(str(record.number), *values, chosen_text(record.params, order))
        console.print(table)
    if taken := Counter(str(record.reused["study"]) for record in records if record.reused):
        words = ", ".join(f"{counted(count, 'trial')} from {name}" for name, count in taken.items())
        console.print(f"taken over: {words}", markup=False, style="dim")
    if over:
        console.print(f"not trained: {counted(len(over), 'trial')}, for the network breaks a constraint", style="dim")
    for line in measured_lines(records):
        console.print(line, markup=False, style="dim")
    if failed:
        for record in failures:
            console.print(f"trial {record.number} failed: {record.reason}", style="red", markup=False)
            if record.traceback:
                console.print(record.traceback.rstrip(), markup=False, style="dim")
    else:
        for line in failed_lines(failures):
            console.print(line, style="red", markup=False)


def failed_lines(failures: "Sequence[Record]") -> list[str]:
    """Each reason once: trials 3, 8, 12 and 40 more failed: the loss is nan."""
    found: dict[str, list[int]] = {}
    for record in failures:
        found.setdefault(record.reason, []).append(record.number)
    lines = []
    for reason, numbers in found.items():
        named = ", ".join(map(str, numbers[:3])) + (f" and {len(numbers) - 3} more" if len(numbers) > 3 else "")
        lines.append(f"trial{'s' * (len(numbers) > 1)} {named} failed: {reason}")
    return lines


def measured_lines(records: "Sequence[Record]") -> list[str]:
    """What was measured on which device: measured: batch 1 on NVIDIA H200, 12 trials, 0.310 ms to 1.204 ms."""
    from harness.report.words import counted, metric_text

    found: dict[str, dict[int, float]] = {}
    for record in records:
        for one in record.measured:
            found.setdefault(one.title, {})[record.number] = one.latency
    lines = []
    for title, latencies in found.items():
        low, high = (metric_text("latency", bound(latencies.values())) for bound in (min, max))
        lines.append(f"measured: {title}, {counted(len(latencies), 'trial')}, {low} to {high}")
    return lines


def _print_course(course: "Course") -> None:
    """What seeds in sequence have decided, and what it took."""
    from harness.report.words import counted

    so_far = "" if course.ended else " so far"
    console.print(f"seeds in sequence: {course.words}", markup=False)
    saved = f"{counted(course.cells, 'trial')} asked for{so_far}, {course.saved} fewer than with every seed for every arm"
    console.print(f"  {saved}", markup=False, style="dim")
    kinds = {"differs": "decided, differs", "close": "decided, within the margin"}
    for arm, standing in course.arms.items():
        words = f"  {arm}: {kinds.get(standing.kind, standing.kind)}, {counted(standing.asked, 'seed')}"
        console.print(words, markup=False, style="dim")


@verbs.command(rich_help_panel=PANEL)
def report(
    names: Annotated[list[str], typer.Argument(metavar="NAME...", help="A study, or several for one page of all.")],
    storage: Storage = DATABASE,
    out: Annotated[
        Path | None, typer.Option("--out", help="Folder of the page (default: `reports/NAME`).", metavar="DIR")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Write the page: fronts, effects, radii, curves, trials; with trials.csv and front.json beside it.

    Several studies come on one page, with common axes."""
    from harness.export import confirmed_of
    from harness.report.page import Source, write_pages
    from harness.report.plain import write_plain
    from harness.storage.plain import read_plain
    from harness.storage.reader import read_records, read_studies
    from harness.study import Study

    plain = read_plain(storage, names[0]) if len(names) == 1 else None
    words = "+".join(dict.fromkeys(names))  # the names of others may be paths
    folder = out or Path("reports") / (words if plain is None else re.sub(r"[^\w.-]|^\.+", "-", words))
    sources = []
    for stored in (read_studies(storage, name)[0] for name in dict.fromkeys(names) if plain is None):
        study, again = Study.from_json(stored.attributes["definition"]), confirmed_of(stored.name, storage)
        sources.append(Source(study, stored.attributes, read_records(storage, stored.study_id), again))
    try:
        page = write_plain(plain, folder) if plain is not None else write_pages(sources, folder)
    except OSError as error:
        raise HarnessError(f"--out {folder}: the page cannot be written there ({error.strerror})") from None
    if as_json:
        print(json.dumps({"page": str(page.resolve())}))
    else:
        console.print(str(page.resolve()), markup=False, soft_wrap=True)
