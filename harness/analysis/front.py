"""The front: the trials that no other trial beats."""

import math
from collections.abc import Sequence

from harness.record import Record
from harness.study import Objective


def measured(record: Record, metric: str) -> float:
    """A metric or a cost by name, NaN where the trial has none."""
    return record.costs.get(metric, record.metrics.get(metric, math.nan))


def front(records: Sequence[Record], objectives: Sequence[Objective]) -> list[Record]:
    """The complete records that no other complete one beats: as good on every objective and better on one. Ties stay, and
    so does the order; a record that lacks an objective is not among them."""
    import moocore
    import numpy as np

    complete = [record for record in records if record.state == "complete"]
    columns = [[measured(record, objective.metric) for record in complete] for objective in objectives]
    points = np.array(columns, dtype=float).T * [objective.sign for objective in objectives]
    finite = np.flatnonzero(np.isfinite(points).all(axis=1))
    if not finite.size:
        return []
    kept = moocore.is_nondominated(np.ascontiguousarray(points[finite]), keep_weakly=True)
    return [complete[index] for index in finite[kept]]
