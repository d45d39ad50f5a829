"""Real trials, cut short and gone on with: the final weights are those of an uninterrupted study, bit for bit."""

import random
import signal
import time
from collections.abc import Callable

import pytest
from lab import Lab, real

MakeLab = Callable[[str, str], Lab]
STUDY = real(trials=3, epochs=3, limit=200)


@pytest.fixture(scope="module")
def weights() -> dict[str, str]:
    """Those of a study that nobody disturbs."""
    lab = Lab(STUDY, "nothing")
    try:
        driver = lab.local()
        assert driver.wait() == 0, driver.printed
        found = lab.weights()
    finally:
        lab.close()
    assert len(found) == 3 and len(set(found.values())) == 3 and None not in found.values()
    return found


def test_killed_at_some_steps(make_lab: MakeLab, weights: dict[str, str]) -> None:
    lab = make_lab(STUDY, "kill -9 at some steps, weights compared (local)")
    plans = ("save:after:2", "finish:after:1", "save:inside:1")
    for plan in plans:
        assert lab.local(SABOTAGE=plan).wait() == -signal.SIGKILL
    last = lab.local()
    assert last.wait() == 0, last.printed
    lab.assert_whole(3, caused=len(plans))
    assert lab.weights() == weights


@pytest.mark.faults_long
def test_killed_at_random_and_resumed_with_another_concurrency(make_lab: MakeLab, weights: dict[str, str]) -> None:
    lab = make_lab(STUDY, "kill -9 at random, weights compared (Ray)")
    rng, caused = random.Random(1), 0
    for concurrency in (1, 2, 1):
        driver = lab.on_ray("--concurrency", str(concurrency))
        lab.wait_for(driver, lambda: any(lab.folder.rglob("last-*.pt")))
        time.sleep(rng.uniform(0, 1))
        caused += driver.shoot()
    last = lab.on_ray("--concurrency", "2")
    assert last.wait() == 0, last.printed
    lab.assert_whole(3, caused=caused)
    assert lab.weights() == weights
