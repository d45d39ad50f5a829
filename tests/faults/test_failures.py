"""Losses that are no number, exceptions in a user's code, workers that die: results with a reason, never the end."""

import os
import random
import signal
import time
from collections.abc import Callable

import pytest
from lab import Lab, real, searched

MakeLab = Callable[[str, str], Lab]
KINDS = [("nan", "nan"), ("inf", "inf"), ("raise", "ValueError: no luck")]


@pytest.mark.parametrize(
    ("backend", "fault", "reason"),
    [
        *(("local", *kind) for kind in KINDS),
        *(pytest.param("ray", *kind, marks=pytest.mark.faults_long) for kind in KINDS[::2]),
    ],
)
def test_a_failing_trial_is_a_result(make_lab: MakeLab, backend: str, fault: str, reason: str) -> None:
    lab = make_lab(searched("Random(trials=16)"), f"{fault} ({backend})")
    driver = (lab.on_ray if backend == "ray" else lab.local)(FAKE_FAULT=fault)
    assert driver.wait() == 1, driver.printed
    failed = lab.states["FAIL"]
    reasons = lab.select("SELECT value_json FROM trial_user_attributes WHERE key = 'reason'")
    assert 0 < failed == len(reasons) and all(reason in words for (words,) in reasons), reasons
    lab.assert_whole(16, caused=failed, failed=failed)


@pytest.mark.faults_long
@pytest.mark.parametrize("kind", ["fake", "real"])
def test_workers_are_killed(make_lab: MakeLab, kind: str) -> None:
    """Only those of this driver: they are found in its own session."""
    study = searched("Random(trials=24)") if kind == "fake" else real(trials=8, epochs=20, limit=600)
    lab = make_lab(study, f"workers killed ({kind})")
    driver, rng, caused = lab.on_ray(FAKE_PAUSE=0.4), random.Random(kind), 0
    lab.wait_for_rows(driver, 1)
    while driver.code is None and caused < 12:
        workers = [pid for pid, words in lab.processes().items() if words.startswith("ray::Worker")]
        if workers:
            os.kill(rng.choice(workers), signal.SIGKILL)
            caused += 1
        time.sleep(rng.uniform(0.5, 1.5))
    assert driver.wait() == 0, driver.printed
    lab.assert_whole(24 if kind == "fake" else 8, caused=caused)


@pytest.mark.faults_long
@pytest.mark.parametrize("name", ["raylet", "gcs_server"])
def test_a_part_of_ray_is_killed(make_lab: MakeLab, name: str) -> None:
    """The run ends, for no fault of a trial's."""
    lab = make_lab(searched("Random(trials=12)"), f"{name} killed")
    driver = lab.on_ray(FAKE_PAUSE=0.3)
    lab.wait_for_rows(driver, 1)
    (part,) = [pid for pid, words in lab.processes().items() if words.split()[0].endswith(f"/{name}")]
    os.kill(part, signal.SIGKILL)
    driver.wait(120)
    assert driver.code in (0, 1, 2) and "Traceback" not in driver.printed, (driver.code, driver.printed)
    last = lab.local()
    assert last.wait() == 0, last.printed
    lab.assert_whole(12, caused=1)
