"""The trials as rows: for the page, as CSV, and the front as JSON."""

import csv
import io
import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import chain
from typing import Any

from harness.config import Scalar
from harness.record import Epoch, Record
from harness.report.facts import Facts, Trial
from harness.report.words import Unit, choice_title, chosen_words, place_of

MAX_TRACEBACK = 4000
"""Characters of a traceback that the page keeps, its end."""
MAX_POINTS, FEWEST_POINTS = 200_000, 20
"""Epochs that the page keeps of all curves together, and of each one at least."""
MAX_WHOLE = 10_000
"""Trials of which the page keeps config, curve and radii: of more, those of the front, and others evenly by number."""
MAX_RADII = 200_000
"""Learned radii that the page keeps of the ends of trials."""


def trials_csv(facts: Facts) -> str:
    """Every trial, one row each; the choices of the space are the last columns, empty where a choice was not active."""
    names = list(dict.fromkeys([*facts.space.parameters, *(name for trial in facts.trials for name in trial.record.params)]))
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    head = ["number", "state", "front", "seed", "key", *facts.metrics]
    head += ["epochs", "device", "started", "ended", "promotes", "reason"]
    writer.writerow(head + names)
    for trial, *reached in zip(facts.trials, *map(facts.column, facts.metrics)):
        record = trial.record
        times = [moment.isoformat() if moment else "" for moment in (record.started, record.ended)]
        fixed: list[object] = [record.number, record.state, int(trial.on_front), record.seed, record.key]
        fixed += ["" if value is None else value for value in reached]
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


# -- the page's data ---------------------------------------------------------------------------------------------------


def columns(studies: Sequence[Facts], units: Sequence[Unit]) -> dict[str, Any]:
    """Every trial of a page once, column by column, each as `coded` writes it: figures, table and panel all draw from it, so
    that ten thousand trials stay small. Rows are the trials of the first study by number, then those of the next."""
    rows = [(place, trial) for place, facts in enumerate(studies) for trial in facts.trials]
    trials = [trial for _, trial in rows]
    records = [trial.record for trial in trials]
    most = max(MAX_POINTS // max(len(trials), 1), FEWEST_POINTS)
    metrics = {unit.metric: [value for facts in studies for value in facts.column(unit.metric)] for unit in units}
    whole = kept_whole(trials)
    having = set(whole)
    return {
        "whole": whole if len(whole) < len(trials) else None,
        "study": coded([place for place, _ in rows]),
        "number": [trial.number for trial in trials],
        "state": coded([record.state for record in records]),
        "front": [row for row, trial in enumerate(trials) if trial.on_front],
        "epochs": coded([record.epochs for record in records]),
        "seed": coded([record.seed for record in records]),
        "key": [record.key for record in records],
        "device": coded([record.device for record in records]),
        "remark": coded([record.remark for record in records]),
        "traceback": coded([record.traceback[-MAX_TRACEBACK:] for record in records]),
        "values": {metric: coded([_short(value) for value in column]) for metric, column in metrics.items()},
        "choices": list(_choices(studies)),
        "config": list(_configs([records[row] for row in whole])),
        "curves": [
            curve(trial.record.curve, most, studies[place].followed.metric) if row in having else []
            for row, (place, trial) in enumerate(rows)
        ],
        "radii": radii(records, whole),
    }


def kept_whole(trials: Sequence[Trial], most: int = MAX_WHOLE) -> list[int]:
    """The places of the trials that the page keeps whole."""
    if len(trials) <= most:
        return list(range(len(trials)))
    front = [place for place, trial in enumerate(trials) if trial.on_front][:most]
    step = len(trials) / max(most - len(front), 1)
    return sorted({*front, *(int(place * step) for place in range(most - len(front)))})


def coded(values: Sequence[Any], write: Callable[[Any], Any] = lambda value: value) -> dict[str, Any] | list[Any]:
    """A column in few letters: the one value of all, or the different ones and which of them each row has, or as it is; each
    as `write` has it."""
    texts = list(map(repr, values))
    places = {text: place for place, text in enumerate(dict.fromkeys(texts))}
    if 2 * len(places) > len(values) > 1:
        return list(map(write, values))
    first = dict(zip(reversed(texts), reversed(values)))
    different = [write(first[text]) for text in places]
    return {"of": different} if len(different) == 1 else {"of": different, "at": [places[text] for text in texts]}


def _short(value: float | None) -> float | int | None:
    """Seven digits; whole numbers in full."""
    return value if value is None or isinstance(value, int) else float(f"{value:.7g}")


def _choices(studies: Sequence[Facts]) -> Iterator[dict[str, Any]]:
    """Each choice of a space: its place, its title, and in words what every trial took; null where it had none."""
    taken = [[trial.record.params for trial in facts.trials] for facts in studies]
    named = (chain(facts.space.parameters, *params) for facts, params in zip(studies, taken) if params)
    for name in dict.fromkeys(chain.from_iterable(named)):
        place, field = place_of(name)
        words = _words(field, chain.from_iterable(taken), name)
        usual = _words(field, (facts.reference for facts in studies), name)
        yield {"name": name, "title": choice_title(name), "place": place, "words": coded(words), "usual": usual}


def _words(field: str, taken: Iterable[Mapping[str, Scalar]], name: str) -> list[str | None]:
    return [chosen_words(field, params[name]) if name in params else None for params in taken]


def _configs(records: Sequence[Record]) -> Iterator[dict[str, Any]]:
    """Each leaf of the configs: its path, and the value that every trial has there, in a list; nothing in it where none."""
    leaves = [flat(record.config_json) for record in records]
    for path in dict.fromkeys(chain.from_iterable(leaves)):
        found = [leaf.get(path, ...) for leaf in leaves]
        yield {"path": path, "values": coded(found, lambda value: [] if value is ... else [value])}


NESTED = (dict, list, tuple)


def flat(part: Any) -> dict[tuple[str | int, ...], Any]:
    """What stands in plain JSON, each value by its path; an empty list or dictionary is a value."""
    found: dict[tuple[str | int, ...], Any] = {}

    def look(part: Any, path: tuple[str | int, ...]) -> None:
        for name, value in part.items() if isinstance(part, dict) else enumerate(part):
            if value and isinstance(value, NESTED):
                look(value, (*path, name))
            else:
                found[*path, name] = value

    if part and isinstance(part, NESTED):
        look(part, ())
    else:
        found[()] = part
    return found


def curve(points: Sequence[Epoch], most: int, metric: str = "accuracy") -> list[list[float | int | None]]:
    """Epochs, the metric, loss and training loss of a curve, at `most` epochs at most, evenly, with the last. All
    epochs from the first are an empty list."""
    step = -(-len(points) // most) if points else 1
    kept = points[::-1][::step][::-1]
    epochs: list[float | int | None] = [] if len(kept) == len(points) else [point.epoch for point in kept]
    found = [[_digits(point.value(name)) for point in kept] for name in (metric, "loss", "train_loss")]
    return [epochs, *found] if points else []


def _digits(value: float) -> float | None:
    return float(f"{value:.4g}") if math.isfinite(value) else None


def radii(records: Sequence[Record], whole: Iterable[int]) -> dict[str, list[list[float]]]:
    """The radii that each of these trials ended with, by place; of no more than `MAX_RADII` numbers hold: the first ones."""
    found: dict[str, list[list[float]]] = {}
    left = MAX_RADII
    for row in whole:
        places = records[row].curve[-1].radii if records[row].curve else {}
        left -= sum(map(len, places.values()))
        if left < 0:
            break
        for place, values in places.items():
            found.setdefault(place, [[]] * len(records))[row] = [float(f"{value:.3g}") for value in values]
    return found
