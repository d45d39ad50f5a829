"""The front: the trials that no other trial beats."""

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

from harness.record import Record
from harness.study import Objective

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


def measured(record: Record, metric: str) -> float:
    """A metric or a cost by name, NaN where the trial has none."""
    return record.costs.get(metric, record.metrics.get(metric, math.nan))


def front(records: Sequence[Record], objectives: Sequence[Objective]) -> list[Record]:
    """The complete records that no other complete one beats: as good on every objective and better on one. Ties stay, and
    so does the order; a record that lacks an objective is not among them."""
    complete = [record for record in records if record.state == "complete"]
    points = [tuple(o.sign * measured(record, o.metric) for o in objectives) for record in complete]
    return [record for record, kept in zip(complete, nondominated(points)) if kept]


def nondominated(points: "Sequence[Sequence[float]] | NDArray[np.float64]") -> list[bool]:
    """Which points no other beats, smaller being better; ties stay, what is not finite does not."""
    import moocore
    import numpy as np

    if not len(points):
        return []
    every = np.array(points, dtype=float)
    finite, kept = np.isfinite(every).all(axis=1), np.zeros(len(points), dtype=bool)
    if finite.any():
        kept[finite] = moocore.is_nondominated(np.ascontiguousarray(every[finite]), keep_weakly=True)
    return [bool(one) for one in kept]


def knee(front: Sequence[Sequence[float]]) -> int:
    """Of the points of a front, smaller being better, the one nearest to its ideal corner along the diagonal, after scaling
    to the unit cube: for two objectives the farthest from the line through the ends (Das 1999)."""
    import numpy as np

    on = np.array(front, dtype=float)
    reach = np.ptp(on, axis=0)
    scaled = (on - on.min(axis=0)) / np.where(reach > 0, reach, 1.0)
    return int(scaled.sum(axis=1).argmin())
