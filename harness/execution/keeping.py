"""What finished trials leave on disk: the final weights of the front, of all, or of none."""

import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from harness.analysis.front import front
from harness.record import Record
from harness.study import Study

Keep = Literal["front", "all", "none"]


class Keeper:
    """Clears a trial's folder away when it is finished, but for the final weights of those that are kept."""

    def __init__(self, keep: Keep, runs: str, study: Study, records: list[Record]) -> None:
        self._keep, self._folder, self._objectives = keep, Path(runs) / study.name, study.objectives
        best = front(records, study.objectives)
        self._front = {record.number: [record.value(objective.metric) for objective in study.objectives] for record in best}

    def settle(self, number: int, values: Sequence[float]) -> None:
        """A trial has ended, with objective values or without any."""
        for checkpoint in (self._folder / str(number)).glob("last-*"):
            checkpoint.unlink(missing_ok=True)
        if not values or self._keep == "none" or (self._keep == "front" and not self._joins_front(number, list(values))):
            self._clear(number)

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
