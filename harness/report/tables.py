"""The trials as rows: for the page, as CSV, and the front as JSON."""

import csv
import io
from collections.abc import Iterable, Iterator
from typing import Any

from harness.config import Scalar
from harness.report.facts import Facts, values
from harness.study import METRICS

MAX_TRACEBACK = 4000
"""Characters of a traceback that the page keeps, its end."""


def trials_csv(facts: Facts) -> str:
    """Every trial, one row each; the choices of the space are the last columns, empty where a choice was not active."""
    names = list(dict.fromkeys([*facts.space.parameters, *(name for trial in facts.trials for name in trial.record.params)]))
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    head = ["number", "state", "front", "seed", "key", *METRICS]
    head += ["epochs", "device", "started", "ended", "promotes", "reason"]
    writer.writerow(head + names)
    for trial in facts.trials:
        record = trial.record
        times = [moment.isoformat() if moment else "" for moment in (record.started, record.ended)]
        fixed: list[object] = [record.number, record.state, int(trial.on_front), record.seed, record.key]
        fixed += ["" if (value := trial.value(metric)) is None else value for metric in METRICS]
        fixed += [record.epochs, record.device, *times, "" if record.promotes is None else record.promotes, record.remark]
        writer.writerow(fixed + [_cell(record.params[name]) if name in record.params else "" for name in names])
    return text.getvalue()


def _cell(value: Scalar) -> str:
    return str(value).lower() if isinstance(value, bool) or value is None else str(value)


def front_json(facts: Facts) -> dict[str, Any]:
    """The objectives and the trials of the front, ready for another program."""
    objectives = facts.study.objectives
    return {
        "study": facts.study.name,
        "question": facts.study.question,
        "objectives": [{"metric": objective.metric, "direction": objective.direction} for objective in objectives],
        "front": [
            {
                "number": trial.number,
                "params": trial.record.params,
                "key": trial.record.key,
                "seed": trial.record.seed,
                "values": {objective.metric: trial.value(objective.metric) for objective in objectives},
                "costs": trial.record.costs,
                "config": trial.record.config_json,
            }
            for trial in facts.front
        ],
    }


def table(facts: Facts) -> dict[str, Any]:
    """The page's table: columns with their units, rows as arrays, long texts once, and one config from which the others are
    told by their changes: this keeps the page of ten thousand trials small."""
    base = facts.trials[0].record.config_json if facts.trials else {}
    units = [unit for metric, unit in facts.units.items() if values(facts.trials, metric)]
    texts: dict[str, int] = {}

    def once(text: str) -> int:
        return texts.setdefault(text, len(texts))

    rows = [
        [
            trial.number,
            trial.record.state,
            int(trial.on_front),
            [[difference.place, " · ".join(difference.chosen)] for difference in trial.differs],
            [trial.value(unit.metric) for unit in units],
            trial.record.epochs,
            trial.record.seed,
            trial.record.key,
            once(trial.record.device),
            once(trial.record.remark),
            once(trial.record.traceback[-MAX_TRACEBACK:]),
            list(changes(base, trial.record.config_json)),
        ]
        for trial in facts.trials
    ]
    shown = [{"title": unit.title, "scale": unit.scale, "decimals": unit.decimals, "symbol": unit.symbol} for unit in units]
    return {"metrics": shown, "config": base, "rows": rows, "texts": list(texts)}


def changes(base: Any, other: Any, path: tuple[str | int, ...] = ()) -> Iterator[tuple[tuple[str | int, ...], Any]]:
    """What to put where in `base` to make it `other`: paths such as (network, stages, 1), each with its new value."""
    pairs: Iterable[tuple[str | int, Any, Any]]
    if isinstance(base, dict) and isinstance(other, dict) and base.keys() == other.keys():
        pairs = [(name, base[name], other[name]) for name in base]
    elif isinstance(base, list) and isinstance(other, list) and len(base) == len(other):
        pairs = [(index, *both) for index, both in enumerate(zip(base, other))]
    else:
        if base != other or type(base) is not type(other):
            yield path, other
        return
    for name, old, new in pairs:
        yield from changes(old, new, (*path, name))
