"""Early stops under fire: whoever dies while a trial is stopped or promoted, each row is whole, and no epoch is lost."""

import os
import random
import signal
import time
from collections.abc import Callable
from itertools import product

import pytest
from lab import ONE, THREE, Lab, real, searched
from test_database import locked
from test_drivers import race
from test_weights import weights

MakeLab = Callable[[str, str], Lab]
long = pytest.mark.faults_long
PLANNED = 40
HALVED = searched(f"Evolution(trials={PLANNED}, population=4)", THREE, 5, "SuccessiveHalving(quorum=4)")
STUDIES = {
    "ASHA, 1 objective": searched(f"Random(trials={PLANNED})", ONE, 5, "Asha(quorum=2)"),
    "halving, evolution, 3 objectives": HALVED,
    "halving, tpe, 3 objectives": searched(f"Tpe(trials={PLANNED})", THREE, 5, "SuccessiveHalving(quorum=4)"),
}
STEPS = [
    *(f"{step}:{when}:2" for step, when in product(("verdict", "spare"), ("before", "after"))),
    *(f"{step}:{when}:1" for step, when in product(("stop", "progress"), ("before", "inside", "after"))),
]
searches = pytest.mark.parametrize("name", STUDIES)


def test_killed_while_a_trial_is_stopped(make_lab: MakeLab) -> None:
    lab = make_lab(HALVED, "kill -9 at each step of a stop (some)")
    caused = sum(map(lab.strike, ("verdict:after:2", "stop:inside:1", "stop:after:1", "spare:before:2")))
    lab.run_to_the_end()
    lab.assert_whole(PLANNED, caused=caused)


@long
@searches
def test_killed_at_each_step_of_a_stop(make_lab: MakeLab, name: str) -> None:
    lab = make_lab(STUDIES[name], f"kill -9 at each step of a stop ({name})")
    caused = sum(map(lab.strike, STEPS))
    lab.run_to_the_end()
    lab.assert_whole(PLANNED, caused=caused)


@long
@searches
def test_killed_at_random_moments_of_a_study_with_stops(make_lab: MakeLab, name: str) -> None:
    lab = make_lab(STUDIES[name], f"kill -9 at random, early stops ({name})")
    rng, caused = random.Random(name), 0
    for _ in range(12):
        driver = lab.local(FAKE_PAUSE=0.01)
        time.sleep(rng.uniform(0.3, 0.8))
        caused += driver.shoot()
    lab.run_to_the_end()
    lab.assert_whole(PLANNED, caused=caused)


@long
@pytest.mark.parametrize(
    ("name", "plans"),
    [
        ("ASHA, 1 objective", ("verdict:after:2", "stop:inside:1")),
        ("halving, evolution, 3 objectives", ("stop:before:1", "stop:after:1")),
    ],
)
def test_killed_on_ray_while_a_trial_is_stopped(make_lab: MakeLab, name: str, plans: tuple[str, ...]) -> None:
    lab, caused = make_lab(STUDIES[name], "kill -9 on Ray, early stops"), 0
    for plan in plans:
        driver = lab.on_ray(SABOTAGE=plan, FAKE_PAUSE=0.02)
        assert driver.wait() == -signal.SIGKILL, driver.printed
        caused += 1
    driver = lab.on_ray()
    assert driver.wait() == 0, driver.printed
    lab.assert_whole(PLANNED, caused=caused)


@long
def test_workers_are_killed_where_trials_are_stopped(make_lab: MakeLab) -> None:
    """Idle ones that wait at a rung too."""
    lab = make_lab(HALVED, "workers killed, early stops")
    driver, rng, caused = lab.on_ray(FAKE_PAUSE=0.2), random.Random(1), 0
    lab.wait_for(driver, lambda: lab.states["PRUNED"] > 0)
    while driver.code is None and caused < 6:
        workers = [pid for pid, words in lab.processes().items() if words.startswith("ray::Worker")]
        if workers:
            os.kill(rng.choice(workers), signal.SIGKILL)
            caused += 1
        time.sleep(rng.uniform(0.5, 1.5))
    assert driver.wait() == 0, driver.printed
    lab.assert_whole(PLANNED, caused=caused)


@long
@pytest.mark.parametrize("fault", ["nan", "raise"])
@pytest.mark.parametrize("name", list(STUDIES)[:2])
def test_trials_fail_after_their_first_rung(make_lab: MakeLab, name: str, fault: str) -> None:
    lab = make_lab(STUDIES[name], f"{fault}, early stops")
    driver = lab.local(FAKE_FAULT=fault)
    assert driver.wait() == 1, driver.printed
    failed = lab.states["FAIL"]
    assert failed > 0
    lab.assert_whole(PLANNED, caused=failed, failed=failed)


@long
def test_a_signal_among_stops(make_lab: MakeLab) -> None:
    lab = make_lab(HALVED, "SIGTERM, early stops")
    driver = lab.local(FAKE_PAUSE=0.1)
    lab.wait_for(driver, lambda: lab.states["PRUNED"] > 0)
    driver.send(signal.SIGTERM)
    assert driver.wait(30) == 143, driver.printed
    lab.run_to_the_end()
    lab.assert_whole(PLANNED, caused=1)


@long
def test_a_database_is_locked_while_trials_are_stopped(make_lab: MakeLab) -> None:
    lab = make_lab(HALVED, "database locked for 10 s, early stops")
    driver = lab.local(FAKE_PAUSE=0.02)
    lab.wait_for(driver, lambda: lab.states["PRUNED"] > 0)
    with locked(lab.database, 10):
        time.sleep(1)
        assert driver.code is None, driver.printed
    assert driver.wait() == 0, driver.printed
    lab.assert_whole(PLANNED, caused=1)


@long
def test_two_drivers_at_one_instant_with_stops(make_lab: MakeLab) -> None:
    study = searched("Random(trials=6)", ONE, 5, "Asha(quorum=2)")
    race(make_lab(study, "two drivers at one instant, early stops"), "take")


# -- real trials, stopped, promoted and compared with those of a study without stops


@long
def test_killed_while_trials_are_stopped_and_promoted(make_lab: MakeLab) -> None:
    lab = make_lab(
        real(trials=8, epochs=4, limit=60, stopping="Asha(quorum=2)"), "kill -9, early stops and promotion (real)"
    )
    caused = sum(map(lab.strike, ("verdict:before:2", "stop:inside:1", "stop:after:1", "spare:after:2", "save:after:3")))
    lab.run_to_the_end()
    stopped = lab.states["PRUNED"]
    lab.assert_whole(8, caused=caused)
    assert lab.retrained <= 1, "a stop costs no epoch, the checkpoint of an epoch at most that one"
    steps = (
        "begin:inside:1",
        "hand_over:before:1",
        "hand_over:after:1",
        "save:after:1",
        "finish:inside:1",
        "finish:after:1",
    )
    caused = sum(lab.strike(plan, "--promote", "8") for plan in steps)
    lab.run_to_the_end("--promote", "8")
    lab.assert_whole(8 + stopped, caused=caused)
    assert not list(lab.folder.rglob("last-*")), "all were promoted"
    assert lab.weights() == weights(real(trials=8, epochs=4, limit=60)), "those of a study in which nobody was stopped"
