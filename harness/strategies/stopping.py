"""Who goes on from a rung: asynchronous successive halving over metrics so far and exact costs, decided here alone.

A ladder knows every trial at every rung it has reached, those of earlier runs too; backends only carry out what it says. A
trial is ranked by what it had measured at the rung itself, so that it does not matter when its message arrives.
"""

import math
import statistics
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from harness.record import Epoch, Record
from harness.study import UNLEARNED, Asha, Halving, Objective, Study

if TYPE_CHECKING:
    import numpy as np

Point = tuple[float, ...]
"""A trial at a rung: its objectives, the smaller the better."""


class Stopped(NamedTuple):
    """A trial that was stopped and that no later row has gone on with."""

    key: str
    rung: int
    epochs: int
    """Epochs planned."""


class Ladder:
    """The trials at each rung; without a rule there are no rungs, and everybody goes on."""

    def __init__(self, rule: Halving | None, objectives: Sequence[Objective]) -> None:
        self._rule, self._objectives = rule, ranked_by(rule, objectives)
        self._rungs: dict[int, dict[str, Point]] = {}
        self._stopped: dict[int, Stopped] = {}
        self._growth: dict[tuple[str, int], list[float]] = {}
        """By metric and rung: how many times its value there a trial had in the end."""
        self.promoted: set[int] = set()
        """Stopped trials that a later row goes on with."""

    def rungs(self, epochs: int) -> tuple[int, ...]:
        """Where a trial of so many epochs is compared with the others."""
        return self._rule.rungs(epochs) if self._rule else ()

    def recall(self, record: Record) -> None:
        """Takes up a row of an earlier run."""
        if record.promotes is not None:
            self.promotes(record.promotes)
        if self._rule is not None and record.curve:
            self.reached(record.key, record.config.training.epochs, record.curve, record.costs)
        if record.state == "stopped" and record.curve:
            self.stopped(record.number, record.key, len(record.curve), record.config.training.epochs)

    def reached(self, key: str, epochs: int, curve: Sequence[Epoch], costs: Mapping[str, int]) -> None:
        """Notes a trial at every rung of its curve; a trial that was run twice counts once."""
        for rung in self.rungs(epochs):
            if len(curve) == epochs:
                self._note_growth(rung, curve)
            if rung <= len(curve):
                values = (o.sign * so_far(o.metric, curve[:rung], costs, epochs) for o in self._objectives)
                self._rungs.setdefault(rung, {})[key] = tuple(values)

    def _note_growth(self, rung: int, curve: Sequence[Epoch]) -> None:
        last = curve[-1].metrics()
        for metric, value in curve[rung - 1].metrics().items():
            if value > 0 and metric in last:
                self._growth.setdefault((metric, rung), []).append(last[metric] / value)

    def expected(self, objective: Objective, curve: Sequence[Epoch], costs: Mapping[str, int], epochs: int) -> float:
        """An objective at the end of a trial that was stopped: what is learned grows as it did in those that ended."""
        now = so_far(objective.metric, curve, costs, epochs)
        growth = self._growth.get((objective.metric, len(curve)))
        return now * statistics.median(growth) if growth else now

    def verdict(self, key: str, rung: int) -> str:
        """Why a trial is to be stopped at a rung that it has reached; nothing where it goes on.

        At least one an objective goes on, whatever the reduction factor."""
        there = self._rungs[rung]
        if self._rule is None or len(there) < self._rule.quorum:
            return ""
        room = max(len(there) // self._rule.reduction_factor, len(self._objectives))
        found = place(list(there.values()), list(there).index(key))
        if found <= room:
            return ""
        return f"stopped early at epoch {rung}: {ordinal(found)} of {len(there)} at this rung, room for {room}"

    def stopped(self, number: int, key: str, rung: int, epochs: int) -> None:
        """A trial was stopped at a rung."""
        self._stopped[number] = Stopped(key, rung, epochs)

    def promotes(self, number: int) -> None:
        """A row goes on with a stopped trial."""
        self._stopped.pop(number, None)
        self.promoted.add(number)

    @property
    def saved(self) -> int:
        """Epochs that were not trained because trials were stopped."""
        return sum(stopped.epochs - stopped.rung for stopped in self._stopped.values())

    def best(self) -> Iterator[int]:
        """Stopped trials that may be promoted, the best first: by the rung they reached, then by rank among them there."""
        for rung in sorted({stopped.rung for stopped in self._stopped.values()}, reverse=True):
            numbers = [number for number, stopped in self._stopped.items() if stopped.rung == rung]
            points = [self._rungs[rung][self._stopped[number].key] for number in numbers]
            yield from (numbers[index] for index in ordered(points))


def recalled(study: Study, records: Sequence[Record]) -> Ladder:
    """What a study's rows, by number, tell of its rungs."""
    ladder = Ladder(study.stopping, study.objectives)
    for record in records:
        ladder.recall(record)
    return ladder


def ranked_by(rule: Halving | None, objectives: Sequence[Objective]) -> list[Objective]:
    """The objectives that decide who goes on."""
    learned = [objective for objective in objectives if objective.metric not in UNLEARNED]
    return learned[:1] if isinstance(rule, Asha) else list(objectives)


def so_far(metric: str, curve: Sequence[Epoch], costs: Mapping[str, int], epochs: int) -> float:
    """A metric or cost of a trial that has trained a part of its epochs; its seconds are those of all at this pace."""
    if metric in costs:
        return float(costs[metric])
    if metric == "seconds":
        return math.fsum(point.seconds for point in curve) * epochs / len(curve)
    return curve[-1].metrics()[metric]


# -- ranks ------------------------------------------------------------------------------------------------------------


def ordered(points: Sequence[Point]) -> Iterator[int]:
    """Indices of points, the best first: front by front, within a front those first that tell most of it."""
    if points:
        values, fronts = _ranked(points)
        for front in range(fronts.max() + 1):
            yield from _spread(values, fronts == front)


def place(points: Sequence[Point], index: int) -> int:
    """The place of one point among them, from 1; equal points share the best of their places."""
    values, fronts = _ranked(points)
    before = int((fronts < fronts[index]).sum())
    equal = (values == values[index]).all(axis=1)
    return before + 1 + next(at for at, other in enumerate(_spread(values, fronts == fronts[index])) if equal[other])


def _ranked(points: Sequence[Point]) -> "tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]":
    """The points with each objective replaced by its rank from 0 to 1, which no scale can distort, and their fronts."""
    import moocore
    import numpy as np

    raw = np.asarray(points, float).reshape(len(points), -1)
    places = np.stack([np.unique(column, return_inverse=True)[1] for column in raw.T], axis=1)
    fronts = places[:, 0] if raw.shape[1] == 1 else moocore.pareto_rank(places.astype(float))
    return places / np.maximum(places.max(axis=0), 1), fronts


def _spread(values: "np.ndarray[Any, Any]", chosen: "np.ndarray[Any, Any]") -> Iterator[int]:
    """Indices of a front in the order of an epsilon-net: the best on each objective, then ever the one that is farthest from
    all before it; the earlier where equal."""
    import numpy as np

    members = np.flatnonzero(chosen)
    front = values[members]
    extremes = iter(dict.fromkeys(int(np.lexsort((front.sum(axis=1), column))[0]) for column in front.T))
    distance = np.full(len(front), np.inf)
    for _ in members:
        found = next(extremes, None)
        found = int(distance.argmax()) if found is None else found
        yield int(members[found])
        distance = np.minimum(distance, np.linalg.norm(front - front[found], axis=1).round(9))
        distance[found] = -1.0


def ordinal(number: int) -> str:
    """1st, 2nd, 3rd, 11th."""
    teens = 10 <= number % 100 <= 20
    return f"{number}{'th' if teens else {1: 'st', 2: 'nd', 3: 'rd'}.get(number % 10, 'th')}"
