"""Importance finds what was put in, tells how sure it is, and is not fooled by choices that most trials do not have."""

import random

import pytest

from harness.config import ExpAtt, ResNet, SqueezeExcite, Training
from harness.space import Params, Space, choose, span, vary
from harness.strategies.importance import MOST, RESAMPLES, Importance, importance

SPACE = Space(
    vary(
        ResNet,
        depth=choose(8, 14, 20),
        stages=(None, None, choose(None, SqueezeExcite(ratio=4), vary(ExpAtt, radius=span(0.5, 4.0, log=True)))),
        width=choose(0.5, 1.0),
    ),
    Training(),
)
GAINS = {"none": 0.0, "se": 0.05, "expatt": 0.01}


def trials(count: int, seed: int = 0) -> list[tuple[Params, float]]:
    """Attention decides nearly all, depth a little, width and radius nothing."""
    rng = random.Random(seed)
    drawn = [SPACE.draw(rng) for _ in range(count)]
    return [
        (one, 0.8 + GAINS[str(one["stages.3.attention"])] + 0.0005 * float(str(one["depth"])) + rng.gauss(0, 0.001))
        for one in drawn
    ]


def told(count: int = 80, seed: int = 0) -> Importance:
    found = importance(SPACE, trials(count, seed), maximize=True)
    assert found is not None
    return found


def test_what_decides_is_first_and_the_rest_is_little() -> None:
    found = told()
    assert [share.name for share in found.fanova[:2]] == ["stages.3.attention", "depth"]
    assert found.fanova[0].share > 0.8 and found.fanova[2].share < 0.1
    assert sum(share.share for share in found.fanova) == pytest.approx(1)
    assert sum(share.share for share in found.ped) == pytest.approx(1)
    assert (found.trials, found.resamples, found.quantile) == (80, RESAMPLES, 0.1)


def test_the_whole_repeats_and_its_ends_hold_the_resamples() -> None:
    assert told() == told()
    assert all(share.low <= share.high for share in (*told().fanova, *told().ped))


def test_a_choice_that_not_every_trial_has_is_not_taken_for_what_switches_it_on() -> None:
    found = told()
    assert "stages.3.expatt.radius" in [share.name for share in found.fanova[2:]]
    assert {share.name for share in found.ped} == {"stages.3.attention", "depth", "width"}
    assert found.ped[0].name == "stages.3.attention"


def test_small_is_as_important_as_large() -> None:
    losses = [(params, -value) for params, value in trials(80)]
    found = importance(SPACE, losses, maximize=False)
    assert found is not None and found.ped == told().ped


def test_of_many_trials_an_even_sample_is_looked_at() -> None:
    assert told(3 * MOST).trials == 3 * MOST and told(3 * MOST).fanova[0].share > 0.8


def test_nothing_is_told_where_nothing_varies() -> None:
    (params, _), *_ = made = trials(30)
    assert importance(SPACE, [(params, value) for _, value in made], maximize=True) is None
    assert importance(SPACE, [(one, 0.5) for one, _ in made], maximize=True) is None
    assert importance(SPACE, [], maximize=True) is None
