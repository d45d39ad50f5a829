"""What finished trials leave behind: the final weights of the front, of all, or of none; of stopped ones a checkpoint."""

from collections.abc import Iterable, Sequence
from fnmatch import filter as matching
from itertools import islice
from operator import le
from typing import Literal

from harness.analysis.front import front
from harness.depot import depot, tokens
from harness.record import Record
from harness.study import Study

Keep = Literal["front", "all", "none"]
PASSING = ("last-*", "*.part")
"""Files that are there only while a trial runs."""
PROMOTABLE = 10
"""Stopped trials whose checkpoints stay beside the front's weights: the best, for `--promote`."""

Point = tuple[float, ...]
"""Values of the objectives, the smaller the better; those of many trials may be equal."""


def beats(one: Point, other: Point) -> bool:
    """As good on every objective, better on one."""
    return one != other and all(map(le, one, other))


class Keeper:
    """Clears a trial's folder away when it is finished, but for the final weights of those that are kept."""

    def __init__(self, keep: Keep, runs: str, study: Study, records: list[Record]) -> None:
        self._keep, self._folder, self._objectives = keep, depot(runs) / study.name, study.objectives
        left = self._folder.inside()
        unsettled = [  # their rows were finished by a driver that was killed before it cleared up after them
            record
            for record in records
            if record.state in ("complete", "failed")
            and any(matching(left.get(str(record.number), ()), pattern) for pattern in PASSING)
        ]
        waiting = {record.number for record in unsettled}
        best = front([record for record in records if record.number not in waiting], study.objectives)
        self._stopped = {r.number for r in records if r.state == "stopped" and str(r.number) in left}
        self._front: dict[Point, list[int]] = {}
        for record in best:
            self._front.setdefault(self._point(self._values(record)), []).append(record.number)
        for record in unsettled:
            self.settle(record.number, self._values(record) if record.state == "complete" else ())

    def settle(self, number: int, values: Sequence[float]) -> None:
        """A trial has ended, with objective values or without any."""
        if not values or self._keep == "none" or (self._keep == "front" and not self._joins_front(number, values)):
            self._clear(number)
        else:
            self._remove(number, PASSING)

    def stopped(self, number: int) -> None:
        """A trial was stopped early; `spare` says whose checkpoints stay."""
        if self.holds(number):
            self._stopped.add(number)
            self._remove(number, ("*.part",))
        else:
            self._clear(number)

    def spare(self, pending: Iterable[int], best: Iterable[int]) -> None:
        """Clears the checkpoints of stopped trials away, but for those about to be promoted and what `keep` leaves: the best
        ten that there are (front), all, or none."""
        if self._keep == "all" or (self._keep == "front" and len(self._stopped) <= PROMOTABLE):
            return
        kept = islice((number for number in best if number in self._stopped), PROMOTABLE if self._keep == "front" else 0)
        for number in self._stopped - {*pending, *kept}:
            self._clear(number)
            self._stopped.remove(number)

    def holds(self, number: int) -> bool:
        """Whether there is a checkpoint to go on from."""
        return bool(tokens((self._folder / str(number)).names()))

    def hand_over(self, number: int, heir: int) -> None:
        """Gives the checkpoint of a stopped trial to the row that goes on with it; a second time changes nothing."""
        self._stopped.discard(number)
        if self.holds(number):
            if self.holds(heir):  # copied already, in a store, by a driver that was killed before it removed this one
                self._clear(number)
            else:
                self._folder.rename(str(number), str(heir))

    def _values(self, record: Record) -> list[float]:
        return [record.value(objective.metric) for objective in self._objectives]

    def _point(self, values: Sequence[float]) -> Point:
        return tuple(objective.sign * value for objective, value in zip(self._objectives, values, strict=True))

    def _joins_front(self, number: int, values: Sequence[float]) -> bool:
        point = self._point(values)
        if any(beats(other, point) for other in self._front):
            return False
        for beaten in [other for other in self._front if beats(point, other)]:
            for other in self._front.pop(beaten):
                self._clear(other)
        self._front.setdefault(point, []).append(number)
        return True

    def _remove(self, number: int, patterns: Iterable[str]) -> None:
        folder = self._folder / str(number)
        names = folder.names() or ()
        for pattern in patterns:
            folder.remove(matching(names, pattern))

    def _clear(self, number: int) -> None:
        (self._folder / str(number)).clear()
