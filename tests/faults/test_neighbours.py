"""Two users' studies at once on one machine, each with a Ray of its own: whatever one does, the other does not notice."""

import signal
from collections.abc import Callable

import pytest
from lab import Driver, Lab, searched

MakeLab = Callable[[str, str], Lab]
FAULT = "two studies at once on one machine, one of them killed"


def side_by_side(make_lab: MakeLab, trials: int) -> tuple[tuple[Lab, Driver], tuple[Lab, Driver]]:
    """Drivers that keep their temporary files in one place, as users of a machine do, with room for one trial and for three;
    both run by now."""
    one, other = (make_lab(searched(f"Random(trials={trials})"), FAULT) for _ in range(2))
    place = str(one.temp)
    pairs = (
        (one, one.on_ray("--concurrency", "1", TMPDIR=place, HOME=one.folder, FAKE_PAUSE=0.1)),
        (other, other.on_ray("--concurrency", "3", TMPDIR=place, HOME=other.folder, FAKE_PAUSE=0.1)),
    )
    for lab, driver in pairs:
        lab.wait_for_rows(driver, 1)
    return pairs


def test_one_is_killed_and_the_other_ends_whole(make_lab: MakeLab) -> None:
    (one, killed), (other, undisturbed) = side_by_side(make_lab, 24)
    assert one.states["RUNNING"] <= 1 and other.states["RUNNING"] <= 3
    assert killed.shoot(), killed.printed
    assert undisturbed.wait() == 0 and "goes on with another worker" not in undisturbed.printed, undisturbed.printed
    one.run_to_the_end()
    other.assert_whole(24, caused=0)
    one.assert_whole(24, caused=1)


@pytest.mark.faults_long
@pytest.mark.parametrize("attempt", range(4))
def test_one_ends_in_whatever_way_while_the_other_runs(make_lab: MakeLab, attempt: int) -> None:
    (one, first), (other, second) = side_by_side(make_lab, 30)
    (struck, spared) = (first, second) if attempt % 2 else (second, first)
    struck.send(signal.SIGTERM if attempt < 2 else signal.SIGKILL)
    struck.wait()
    assert spared.wait() == 0 and "goes on with another worker" not in spared.printed, spared.printed
    for lab in (one, other):
        lab.run_to_the_end()
    other.assert_whole(30, caused=0)
    one.assert_whole(30, caused=1)
