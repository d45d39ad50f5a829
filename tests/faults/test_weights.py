"""Real trials, cut short and gone on with: the final weights are those of an uninterrupted study, bit for bit."""

import random
import time
from collections.abc import Callable
from functools import cache

import pytest
from lab import Lab, real

MakeLab = Callable[[str, str], Lab]


@cache
def weights(study: str) -> dict[str, str]:
    """Those of a study that nobody disturbs."""
    lab = Lab(study, "nothing")
    try:
        lab.run_to_the_end()
        found = lab.weights()
    finally:
        lab.close()
    assert len(set(found.values())) == len(found) > 1 and None not in found.values()
    return found


@pytest.mark.parametrize(
    ("trials", "plans"),
    [
        (2, ("save:after:2", "finish:after:1")),
        pytest.param(3, ("save:after:2", "finish:after:1", "save:inside:1"), marks=pytest.mark.faults_long),
    ],
)
def test_killed_at_some_steps(make_lab: MakeLab, trials: int, plans: tuple[str, ...]) -> None:
    study = real(trials=trials, limit=30 * trials)
    lab = make_lab(study, "kill -9 at some steps, weights compared (local)")
    caused = sum(map(lab.strike, plans))
    lab.run_to_the_end()
    lab.assert_whole(trials, caused=caused)
    assert lab.weights() == weights(study)


@pytest.mark.faults_long
def test_killed_at_random_and_resumed_with_another_concurrency(make_lab: MakeLab) -> None:
    study = real(trials=3, limit=200)
    lab = make_lab(study, "kill -9 at random, weights compared (Ray)")
    rng, caused = random.Random(1), 0
    for concurrency in (1, 2, 1):
        driver = lab.on_ray("--concurrency", str(concurrency))
        lab.wait_for(driver, lambda: any(lab.folder.rglob("last-*.pt")))
        time.sleep(rng.uniform(0, 1))
        caused += driver.shoot()
    last = lab.on_ray("--concurrency", "2")
    assert last.wait() == 0, last.printed
    lab.assert_whole(3, caused=caused)
    assert lab.weights() == weights(study)
