"""A run that waits for machines of a cluster says for what, and ends when its time is up."""

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


@pytest.mark.parametrize(
    ("cpus", "gpus", "nodes", "words"),
    [
        (1, None, [], "1 CPU free: the cluster has no machine for trials yet"),
        (1, None, [{"memory": 1e9}], "1 CPU free: the cluster has no machine for trials yet"),
        (1, None, [{"CPU": 2.0}] * 2, "1 CPU free: the cluster has 4 CPUs and 0 GPUs on 2 machines"),
        (2, 2.0, [{"CPU": 2.0, "GPU": 2.0}], "2 CPUs and 2 GPUs free: the cluster has 2 CPUs and 2 GPUs on 1 machine"),
        (
            2,
            2.0,
            [{"CPU": 2.0, "GPU": 1.0}] * 4,
            "2 CPUs and 2 GPUs free: the cluster has 8 CPUs and 4 GPUs on 4 machines, too few on each",
        ),
    ],
)
def test_what_is_waited_for_is_said(
    cpus: int, gpus: float | None, nodes: list[dict[str, float]], words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Room, "nodes", nodes)
    assert Room(cpus, gpus).words() == f"waiting for a machine with {words}"
