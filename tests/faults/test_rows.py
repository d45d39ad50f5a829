"""Drivers killed (-9) at each step of the row protocol and at random moments: no row is lost, none is there twice."""

import random
import signal
import time
from collections.abc import Callable, Iterator
from itertools import product

import pytest
from lab import ONE, THREE, Lab, in_sequence, listed, real, searched

from tests.conftest import BOTH

MakeLab = Callable[[str, str], Lab]
SEARCHES = {
    "random, 1 objective": searched("Random(trials=40)", ONE),
    "evolution, 3 objectives": searched("Evolution(trials=40, population=4)", THREE),
    "tpe, 3 objectives": searched("Tpe(trials=40)", THREE),
    "tpe, 1 objective": searched("Tpe(trials=40)", ONE),
    "exhaustive, 3 objectives": listed(),
}
PLANNED = {name: 72 if "exhaustive" in name else 40 for name in SEARCHES}
FAST = "evolution, 3 objectives"
BIRTH = [("open", 1), ("open", 2), ("create", 1), ("create", 2), ("take", 1), ("attributes", 1)]
"""Steps before the first row, with the commit at which to strike inside."""
LIFE = ("begin", "progress", "report", "finish", "settle")
WHEN = ("before", "inside", "after")
SOME = ("begin:inside:2", "begin:after:1", "progress:inside:1", "report:after:2", "finish:inside:1", "settle:before:1")
long = pytest.mark.faults_long
on_both = pytest.mark.parametrize("make_lab", BOTH, indirect=True)


def births() -> Iterator[object]:
    """What happens before the first row: in the fast suite only what is cut short in the middle."""
    for (step, count), when in product(BIRTH, WHEN):
        if when == "inside" or count == 1:
            first = when == "inside" and count == 1
            yield pytest.param(f"{step}:{when}:{count}", marks=[] if first else long)


@on_both
def test_killed_at_some_steps_of_a_row(make_lab: MakeLab) -> None:
    lab = make_lab(SEARCHES[FAST], f"kill -9 at each step ({FAST})")
    caused = sum(map(lab.strike, SOME))
    lab.run_to_the_end()
    lab.assert_whole(PLANNED[FAST], caused=caused)


@long
@on_both
@pytest.mark.parametrize("name", SEARCHES)
def test_killed_at_each_step_of_a_row(make_lab: MakeLab, name: str) -> None:
    lab = make_lab(SEARCHES[name], f"kill -9 at each step ({name})")
    rng = random.Random(name)
    plans = [f"{step}:{when}:{rng.choice((1, 2))}" for step, when in product(LIFE, WHEN)]
    caused = sum(lab.strike(plan) for plan in plans if not plan.startswith(("report:inside", "settle:inside")))
    lab.run_to_the_end()
    lab.assert_whole(PLANNED[name], caused=caused)


@on_both
@pytest.mark.parametrize("plan", [*births()])
def test_killed_while_a_study_is_made(make_lab: MakeLab, plan: str) -> None:
    lab = make_lab(searched("Random(trials=3)"), "kill -9 while a study is made")
    lab.strike(plan)
    lab.run_to_the_end()
    lab.assert_whole(3, caused=1)


@on_both
def test_killed_when_the_last_trial_is_done(make_lab: MakeLab) -> None:
    lab = make_lab(searched("Random(trials=2)"), "kill -9 at each step (end of a run)")
    lab.strike("release:before:1")
    lab.run_to_the_end()
    lab.assert_whole(2, caused=1)


SEQUENCE = ("begin:inside:3", "finish:inside:3", "look:before:3", "settle:before:2", "look:after:4", "begin:after:2")


def test_killed_while_seeds_come_in_sequence(make_lab: MakeLab) -> None:
    """The rows are those that the rule asks for, as if nobody had been killed."""
    calm = make_lab(in_sequence(), "nothing (seeds in sequence)")
    calm.run_to_the_end()
    lab = make_lab(in_sequence(), "kill -9 at each step (seeds in sequence)")
    caused = sum(map(lab.strike, SEQUENCE))
    lab.run_to_the_end()
    planned = calm.states["COMPLETE"]
    assert 16 < planned <= 48
    lab.assert_whole(planned, caused=caused)


def kill_at_random(lab: Lab, name: str, times: int) -> None:
    rng, caused = random.Random(name), 0
    for _ in range(times):
        driver = lab.local(FAKE_PAUSE=0.01)
        time.sleep(rng.uniform(0.3, 0.9))
        caused += driver.shoot()
    lab.run_to_the_end()
    lab.assert_whole(PLANNED[name], caused=caused)


@on_both
def test_killed_at_some_moments(make_lab: MakeLab) -> None:
    kill_at_random(make_lab(SEARCHES[FAST], "kill -9 at random (some)"), FAST, 4)


@long
@pytest.mark.parametrize("name", SEARCHES)
def test_killed_at_random_moments(make_lab: MakeLab, name: str) -> None:
    kill_at_random(make_lab(SEARCHES[name], f"kill -9 at random ({name})"), name, 16)


REAL_STEPS = [f"{step}:{when}:1" for step, when in product(("save", "final", "finish", "settle"), WHEN)]


@long
def test_killed_at_each_step_of_a_checkpoint(make_lab: MakeLab) -> None:
    lab = make_lab(real(trials=8), "kill -9 at each step (real trials)")
    caused = sum(lab.strike(plan) for plan in REAL_STEPS if plan != "settle:inside:1")
    lab.run_to_the_end()
    lab.assert_whole(8, caused=caused)


@long
@pytest.mark.parametrize(("name", "moments"), [("random, 1 objective", WHEN[1:2]), (FAST, WHEN[::2])])
def test_killed_on_ray(make_lab: MakeLab, name: str, moments: tuple[str, ...]) -> None:
    lab = make_lab(SEARCHES[name], "kill -9 on Ray")
    rng, caused = random.Random(name), 0
    plans = [f"{step}:{when}:{rng.choice((1, 2, 3))}" for step in ("begin", "progress", "finish") for when in moments]
    for plan in plans:
        driver = lab.on_ray(SABOTAGE=plan, FAKE_PAUSE=0.3 if "progress" in plan else 0.02)  # fast epochs travel together
        assert driver.wait() == -signal.SIGKILL, driver.printed
        caused += 1
    for _ in range(4):  # while Ray starts, runs, or ends
        driver = lab.on_ray(FAKE_PAUSE=0.02)
        time.sleep(rng.uniform(1.0, 8.0))
        caused += driver.shoot()
    driver = lab.on_ray()
    assert driver.wait() == 0, driver.printed
    lab.assert_whole(PLANNED[name], caused=caused)
