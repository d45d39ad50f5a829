"""A worker of Ray between two trials."""

from collections.abc import Iterator

import pytest

from harness.execution.ray_backend import Worker
from harness.trial import LACKS, Cause, Outcome, Report


def test_a_trial_that_is_told_holds_nothing_any_more() -> None:
    held = True

    def reports() -> Iterator[Report]:
        nonlocal held
        yield Report((), Outcome("complete"))
        held = False

    worker = Worker.__new__(Worker)  # its constructor asks a running Ray
    worker._reports, worker._rungs, worker._aside = reports(), (), None
    assert worker.step()["done"] and not held


@pytest.mark.parametrize(("cause", "keeps"), [*((cause, True) for cause in LACKS), ("disk", False), ("", False)])
def test_a_machine_that_lacks_something_keeps_its_place(cause: Cause, keeps: bool) -> None:
    worker = Worker.__new__(Worker)
    worker._reports, worker._rungs, worker._aside = iter([Report((), Outcome("failed", cause=cause))]), (), None
    assert worker.step()["done"] is not keeps
