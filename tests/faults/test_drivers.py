"""Two drivers on one study: exactly one runs, the other says who does; a dead one's place is taken at once."""

import time
from collections.abc import Callable

import pytest
from lab import Lab, searched

from tests.conftest import BOTH

MakeLab = Callable[[str, str], Lab]
PLACES = ("open", "create", "take")
"""Where both wait for the shot: before the database is there, before the study is, before it has an owner."""


def race(lab: Lab, place: str) -> None:
    drivers = [lab.local(SABOTAGE=f"{place}:wait:1", FAKE_PAUSE=0.2) for _ in range(2)]
    for driver in drivers:
        lab.wait_for(driver, lambda pid=driver.pid: (lab.folder / f"ready-{pid}").exists())
    (lab.folder / "go").touch()
    while all(driver.code is None for driver in drivers):
        time.sleep(0.01)
    loser, winner = sorted(drivers, key=lambda driver: driver.code is None)
    assert loser.code == 2 and loser.printed.count("\n") == 1, loser.printed
    assert "is run by " in loser.printed and f"pid {winner.pid}" in loser.printed
    assert winner.code is None
    assert winner.shoot(), winner.printed
    last = lab.local()
    assert last.wait() == 0, last.printed
    lab.assert_whole(6, caused=1)


@pytest.mark.parametrize("make_lab", BOTH, indirect=True)
@pytest.mark.parametrize("place", PLACES[::2])
def test_two_drivers_started_at_one_instant(make_lab: MakeLab, place: str) -> None:
    race(make_lab(searched("Random(trials=6)"), "two drivers at one instant, the winner killed"), place)


@pytest.mark.faults_long
@pytest.mark.parametrize("attempt", range(20))
def test_two_drivers_started_at_one_instant_often(make_lab: MakeLab, attempt: int) -> None:
    place = PLACES[attempt % len(PLACES)]
    race(make_lab(searched("Random(trials=6)"), "two drivers at one instant, the winner killed"), place)
