"""A run that waits for machines of a cluster ends when its time is up."""

from types import SimpleNamespace
from typing import Any

import pytest

from harness.execution.cluster import Room
from harness.execution.ray_backend import Waiting


class Clock:
    """What the backend asks of a ledger here."""

    def __init__(self, late: bool) -> None:
        self.late, self.stopping = late, False

    def out_of_time(self, pace: float) -> bool:
        return self.late

    def stop(self) -> None:
        self.stopping = True


@pytest.mark.parametrize(
    ("late", "states", "ends"),
    [
        (True, ["PENDING", "TERMINATED"], True),
        (True, ["PENDING", "RUNNING"], False),
        (True, ["TERMINATED"], False),
        (False, ["PENDING"], False),
    ],
)
def test_time_that_is_up_ends_a_wait(late: bool, states: list[str], ends: bool) -> None:
    ledger: Any = Clock(late)
    Waiting(ledger, Room(1, None), None).on_step_end(0, [SimpleNamespace(status=state) for state in states])
    assert ledger.stopping == ends
