"""The front of a study as a table: what differs, main metric, costs, trial number."""

import csv
import io

from harness.report.facts import Facts, Trial
from harness.report.sheet import Cell, Column, Sheet, best_in_columns


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
