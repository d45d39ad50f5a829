"""A worker of Ray between two trials."""

from collections.abc import Iterator

from harness.execution.ray_backend import Worker
from harness.trial import Outcome, Report


def test_a_trial_that_is_told_holds_nothing_any_more() -> None:
    held = True

    def reports() -> Iterator[Report]:
        nonlocal held
        yield Report((), Outcome("complete"))
        held = False

    worker = Worker.__new__(Worker)  # its constructor asks a running Ray
    worker._reports, worker._rungs = reports(), ()
    assert worker.step()["done"] and not held
