"""The front of a study as a table: what differs, main metric, costs, trial number."""

import csv
import io
from dataclasses import replace

from harness.report.facts import Facts, Trial
from harness.report.section import Block, Note, Table
from harness.report.sheet import Cell, Column, Sheet, best_in_columns

MAX_FRONT = 40
"""Front trials listed on the page; the table below it holds all."""


def front_sheet(facts: Facts, comment: str = "") -> Sheet:
    """A row for each trial on the front, best first."""
    shown = [
        facts.main,
        *(cost for cost in facts.costs if any(trial.value(cost.metric) is not None for trial in facts.front)),
    ]
    seeded = len(facts.study.seeds) > 1
    units = [facts.units[objective.metric] for objective in shown]
    columns = (
        Column("config", words=True),
        Column("trial"),
        *([Column("seed")] if seeded else []),
        *(Column(unit.metric, unit.symbol) for unit in units),
    )

    def row(trial: Trial) -> tuple[Cell, ...]:
        numbers = [(trial.value(unit.metric), unit) for unit in units]
        own = [Cell(trial.label), Cell(str(trial.number), (trial.number,))]
        own += [Cell(str(trial.record.seed), (trial.record.seed,))] if seeded else []
        return (
            *own,
            *(Cell("-") if value is None else Cell(unit.figure(value), (value * unit.scale,)) for value, unit in numbers),
        )

    first = len(columns) - len(shown)
    signs = {first + place: objective.sign for place, objective in enumerate(shown)}
    total = len(facts.complete)
    notes = (
        f"{len(facts.front)} of {total} complete trials are on the front over"
        f" {', '.join(objective.metric for objective in facts.study.objectives)};"
        f" {'a seed each' if seeded else 'one seed each'}, the validation part.",
    )
    return Sheet(columns, best_in_columns([row(trial) for trial in facts.front], signs), notes, (), comment)


def front_table(facts: Facts) -> list[Block]:
    """The front for the page: of many trials the best, and how many they are; not of arms, whose means tell more."""
    if not facts.front or facts.arms is not None:
        return []
    whole = front_sheet(facts)
    shown = replace(whole, rows=whole.rows[:MAX_FRONT])
    more = [Note(f"The first {MAX_FRONT} of {len(facts.front)}; the table of trials holds all.")]
    return [Table(shown), *(more if len(whole.rows) > MAX_FRONT else [])]


def front_csv(facts: Facts) -> str:
    """Plain numbers, unrounded, one row a trial of the front."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    metrics = list(dict.fromkeys((facts.main.metric, *(cost.metric for cost in facts.costs))))
    writer.writerow(["config", "trial", "seed", *metrics])
    for trial in facts.front:
        found = [trial.value(metric) for metric in metrics]
        writer.writerow([trial.label, trial.number, trial.record.seed, *("" if value is None else value for value in found)])
    return text.getvalue()
