"""Seeds in sequence: who proposes the cells of a design that the results so far ask for."""

import math
from collections import deque
from collections.abc import Sequence
from typing import Any

from harness.analysis.arms import compared_by, contest
from harness.analysis.front import measured
from harness.analysis.sequential import Course
from harness.record import Record
from harness.space import Params, Space
from harness.strategies.proposers import Proposal
from harness.study import Study

Place = tuple[str, int]
"""An arm and a seed."""


class Rounds:
    """The cells of a design whose seeds come in sequence, the smallest seed first.

    Which cells there are in the end depends on the results alone, and not on the order in which they came. What it has
    proposed, or expects, and was not told the end of, it waits for."""

    def __init__(self, study: Study, space: Space) -> None:
        self._contest, self._metric = contest(study, space), compared_by(study)
        self._objective = [objective.metric for objective in study.objectives].index(self._metric)
        self._begun: set[Place] = set()
        self._values: dict[str, dict[int, float]] = {name: {} for name in self._contest.params}
        self._gone: dict[str, set[int]] = {name: set() for name in self._contest.params}
        self._queue: deque[Place] = deque()
        self._course: Course | None = None

    @property
    def course(self) -> Course:
        """How far the results so far have come; what they ask for and was not proposed yet is in the queue then."""
        if self._course is None:
            self._course = self._contest.course(self._values, self._gone)
            asked = self._contest.asked(self._course)
            cells = ((name, seed) for seed in range(self._course.asked) for name in asked if seed < asked[name])
            self._queue = deque(cell for cell in cells if cell not in self._begun)
        return self._course

    @property
    def left(self) -> int:
        """Cells that the results so far ask for and that were not proposed yet."""
        return len(self._queue) if self.course else 0

    @property
    def waiting(self) -> bool:
        """Whether results are still to come, which may ask for more."""
        return any(seed not in self._values[name] and seed not in self._gone[name] for name, seed in self._begun)

    def propose(self) -> Proposal | None:
        """The next cell; None until results ask for more, and at the end."""
        if not self.left:
            return None
        name, seed = self._queue.popleft()
        self._begun.add((name, seed))
        return Proposal(self._contest.params[name], seed)

    def told(self, proposal: Proposal, values: Sequence[float] | None) -> None:
        """How a cell ended: with its objectives, or without a result."""
        self._take(proposal.params, proposal.seed, math.nan if values is None else values[self._objective])

    def recall(self, record: Record) -> None:
        """A row of an earlier run: what it says, or that it runs on now."""
        if record.state == "running":
            self.expect(record)
        else:
            self._take(
                record.params, record.seed, measured(record, self._metric) if record.state == "complete" else math.nan
            )

    def expect(self, record: Record) -> None:
        """The cell of a row runs now, or again: its result is waited for."""
        if (name := self._contest.name(record.params)) is not None:
            self._begun.add((name, record.seed))
            self._gone[name].discard(record.seed)
            self._course = None

    def _take(self, params: Params, seed: int, value: float) -> None:
        if (name := self._contest.name(params)) is None:
            return
        self._begun.add((name, seed))
        if math.isfinite(value):
            self._values[name][seed] = value
        else:
            self._gone[name].add(seed)
        self._course = None

    def adopt(self, params: Params, seed: int) -> Proposal:
        """A proposal of a trial that is known already."""
        return Proposal(params, seed)

    def remember(self, memory: Any, values: Sequence[float]) -> None:
        """Rows are recalled whole."""
