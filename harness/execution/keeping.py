"""What finished trials leave on disk: the final weights of the front, of all, or of none."""

import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from harness.analysis.front import front
from harness.record import Record
from harness.study import Study

Keep = Literal["front", "all", "none"]
PASSING = ("last-*", "*.part")
"""Files that are there only while a trial runs."""


class Keeper:
    """Clears a trial's folder away when it is finished, but for the final weights of those that are kept."""

    def __init__(self, keep: Keep, runs: str, study: Study, records: list[Record]) -> None:
        self._keep, self._folder, self._objectives = keep, Path(runs) / study.name, study.objectives
        unsettled = self._unsettled(records)
        best = front([record for record in records if record not in unsettled], study.objectives)
        self._front = {record.number: self._values(record) for record in best}
        for record in unsettled:
            self.settle(record.number, self._values(record) if record.state == "complete" else ())

    def settle(self, number: int, values: Sequence[float]) -> None:
        """A trial has ended, with objective values or without any."""
        if not values or self._keep == "none" or (self._keep == "front" and not self._joins_front(number, list(values))):
            self._clear(number)
        for pattern in PASSING:
            for path in (self._folder / str(number)).glob(pattern):
                path.unlink(missing_ok=True)

    def _unsettled(self, records: list[Record]) -> list[Record]:
        """Trials whose row a driver finished that was killed before it cleared up after them."""
        left = {path.parent.name for pattern in PASSING for path in self._folder.glob(f"*/{pattern}")}
        return [record for record in records if record.state != "running" and str(record.number) in left]

    def _values(self, record: Record) -> list[float]:
        return [record.value(objective.metric) for objective in self._objectives]

    def _joins_front(self, number: int, values: list[float]) -> bool:
        if any(self._beats(other, values) for other in self._front.values()):
            return False
        for beaten in [other for other, theirs in self._front.items() if self._beats(values, theirs)]:
            del self._front[beaten]
            self._clear(beaten)
        self._front[number] = values
        return True

    def _beats(self, one: Sequence[float], other: Sequence[float]) -> bool:
        """As good on every objective, better on one."""
        signs = [objective.sign for objective in self._objectives]
        gaps = [sign * (theirs - ours) for sign, ours, theirs in zip(signs, one, other, strict=True)]
        return min(gaps) >= 0 and max(gaps) > 0

    def _clear(self, number: int) -> None:
        shutil.rmtree(self._folder / str(number), ignore_errors=True)
