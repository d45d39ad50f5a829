"""Every signal that ends a run, once and twice, and `harness stop`: what runs is left for next time, and nothing behind."""

import signal
import time
from collections.abc import Callable

import pytest
from lab import Driver, Lab, real, searched

MakeLab = Callable[[str, str], Lab]
CODES = {"SIGINT": 130, "SIGTERM": 143, "SIGHUP": 143, "SIGUSR1": 143, "SIGUSR2": 143}
long = pytest.mark.faults_long
ON_RAY = ("SIGINT", "SIGTERM", "SIGUSR1")
"""What Ray and Tune take for themselves."""
backends = pytest.mark.parametrize("backend", ["local", pytest.param("ray", marks=long)])
PLANNED = 12


def begin(lab: Lab, backend: str, **environment: object) -> Driver:
    return lab.on_ray(**environment) if backend == "ray" else lab.local(**environment)


def assert_goes_on(lab: Lab, driver: Driver, planned: int = PLANNED) -> None:
    """It said how to go on; what it said works."""
    assert "left: `harness resume fake" in driver.printed and "Traceback" not in driver.printed, driver.printed
    last = lab.local(verb="resume")
    assert last.wait() == 0, last.printed
    lab.assert_whole(planned, caused=1)


@pytest.mark.parametrize(
    ("backend", "name"),
    [
        ("local", "SIGINT"),
        *(pytest.param("local", name, marks=long) for name in CODES if name != "SIGINT"),
        *(pytest.param("ray", name, marks=long) for name in ON_RAY),
    ],
)
def test_a_signal_ends_cleanly_and_says_how_to_go_on(make_lab: MakeLab, backend: str, name: str) -> None:
    lab = make_lab(searched(f"Evolution(trials={PLANNED}, population=4)"), f"{name} ({backend})")
    driver = begin(lab, backend, FAKE_PAUSE=0.1)
    lab.wait_for_rows(driver, 1)
    driver.send(getattr(signal, name))
    assert driver.wait(30) == CODES[name], driver.printed
    assert_goes_on(lab, driver)


@pytest.mark.parametrize(
    ("backend", "name"),
    [("local", "SIGTERM"), pytest.param("local", "SIGINT", marks=long), pytest.param("ray", "SIGTERM", marks=long)],
)
def test_a_second_signal_leaves_at_once(make_lab: MakeLab, backend: str, name: str) -> None:
    """Also from the middle of an epoch that would take minutes."""
    lab = make_lab(searched("Random(trials=3)"), f"{name} twice ({backend})")
    driver = begin(lab, backend, FAKE_PAUSE=120)
    lab.wait_for(driver, lambda: lab.states["RUNNING"] > 0)
    time.sleep(1)
    driver.send(getattr(signal, name))
    time.sleep(0.3)
    if driver.code is None:  # a trial of the user's own, in this process, is not interrupted by the first
        driver.send(getattr(signal, name))
    assert driver.wait(8) == CODES[name], driver.printed
    assert "Traceback" not in driver.printed, driver.printed
    lab.assert_nothing_left()
    last = lab.local()
    assert last.wait() == 0, last.printed
    lab.assert_whole(3, caused=2)


@backends
def test_asked_to_stop_from_elsewhere(make_lab: MakeLab, backend: str) -> None:
    lab = make_lab(searched(f"Tpe(trials={PLANNED})"), f"harness stop ({backend})")
    driver = begin(lab, backend, FAKE_PAUSE=0.2)
    lab.wait_for_rows(driver, 1)
    asked = lab.start(verb="stop")
    assert asked.wait() == 0 and f"pid {driver.pid}" in asked.printed, asked.printed
    assert driver.wait(30) == 0, driver.printed
    assert_goes_on(lab, driver)


@long
def test_signals_during_real_trials_on_ray(make_lab: MakeLab) -> None:
    lab = make_lab(real(trials=6), "SIGTERM, SIGUSR1 (real trials on Ray)")
    for name in ("SIGTERM", "SIGUSR1"):
        driver = lab.on_ray()
        done = lab.states["COMPLETE"]
        lab.wait_for_rows(driver, done + 1)
        driver.send(getattr(signal, name))
        assert driver.wait(30) == 143, driver.printed
        lab.assert_nothing_left()
    last = lab.local()
    assert last.wait() == 0, last.printed
    lab.assert_whole(6, caused=2)
