"""Looks are paid for: boundaries are what other computations give, verdicts and intervals say one thing, and what a study
follows is what was simulated."""

import math
import random

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from harness.analysis.sequential import (
    FINEST,
    KINDS,
    Rule,
    boundary,
    chance,
    course_effects,
    expected,
    extended,
    follow,
    simulated,
    smallest_shown,
)

ARMS = ("base", "a", "b", "c", "d")
Table = dict[str, dict[int, float]]


def table(rng: np.random.Generator, gains: tuple[float, ...], seeds: int = 10, noise: float = 1.0) -> Table:
    values = rng.normal(0, noise, (len(gains) + 1, seeds)) + np.array([0.0, *gains])[:, None] + rng.normal(0, 1, seeds)
    return {arm: dict(enumerate(map(float, row))) for arm, row in zip(ARMS, values)}


def test_a_single_look_is_the_plain_test() -> None:
    assert boundary(0.05, 5, 5) == pytest.approx(0.05, rel=0.03)
    assert boundary(0.05, 5, 5, sides=1) == pytest.approx(0.05, rel=0.03)


def test_looks_cost_what_was_measured_elsewhere() -> None:
    """Four arms, a look after each seed from 3 to 10: a constant level of 0.00254 a look and arm."""
    assert boundary(0.05 / 4, 3, 10) == pytest.approx(0.00254, rel=0.05)


@pytest.mark.parametrize(("first", "most"), [(2, 3), (3, 10)])
def test_boundaries_hold_for_scipys_own_test(first: int, most: int) -> None:
    drawn = np.random.default_rng(77).standard_normal((40_000, most))
    ps = np.array([stats.ttest_1samp(drawn[:, :count], 0, axis=1).pvalue for count in range(first, most + 1)])
    for level in (0.05, 0.0125):
        claimed = float((ps.min(axis=0) < boundary(level, first, most)).mean())
        assert claimed == pytest.approx(level, abs=4 * math.sqrt(level / 40_000))


def test_a_level_finer_than_the_draws_is_shared_out_among_the_looks() -> None:
    assert boundary(FINEST / 10, 3, 10) == FINEST / 10 / 8
    ps = np.geomspace(1e-9, 1, 400)
    levels = chance(ps, 3, 10)
    assert (np.diff(levels) >= 0).all() and levels[-1] == 1.0
    for level in (FINEST / 30, FINEST, 0.0125, 0.05):
        limit = boundary(level, 3, 10)
        below, above = chance(np.array([limit * (1 - 1e-9), limit * (1 + 1e-9)]), 3, 10)
        assert below <= level < above


def test_more_seeds_at_most_cost_level() -> None:
    assert extended(0.05, 3, 10, 10) == pytest.approx(0.05, abs=1e-4)
    assert 0.05 < extended(0.05, 3, 10, 15) < extended(0.05, 3, 10, 30) < 0.10


@given(
    st.integers(0, 10**6),
    st.lists(st.sampled_from((0.0, 0.3, 2.0)), min_size=1, max_size=4),
    st.sampled_from((None, 1.5)),
    st.integers(2, 4),
)
@settings(max_examples=60, deadline=None)
def test_one_study_is_followed_as_many_are_simulated(
    seed: int, gains: list[float], margin: float | None, first: int
) -> None:
    values = table(np.random.default_rng(seed), tuple(gains), noise=0.5)
    rule = Rule(first, 10, margin)
    bench = simulated(np.array([[[*cells.values()] for cells in values.values()]]), rule)
    course = follow(values, {}, "base", rule)
    assert [one.kind for one in course.arms.values()] == [KINDS[kind] for kind in bench.kind[0]]
    assert [one.asked for one in course.arms.values()] == list(bench.seeds[0])
    assert [one.share for one in course.arms.values()] == pytest.approx(list(bench.share[0]))
    for effect in course_effects(course, values, "base"):
        differs = effect.verdict in ("helps", "hurts")
        assert differs == (effect.adjusted <= 0.05) == (not effect.low <= 0 <= effect.high)
        assert (effect.verdict == "no difference") == (not differs and effect.equivalent <= 0.05)
        if margin and effect.verdict == "no difference":
            assert abs(effect.difference) < margin


def test_what_is_settled_stays_settled_and_frees_its_share() -> None:
    rng = np.random.default_rng(1)
    noise = {arm: rng.normal(0, 0.1, 10) for arm in ("plain", "big", "same")}
    values = {"plain": noise["plain"], "big": noise["big"] + 2, "same": noise["same"], "wide": rng.normal(0.3, 2.0, 10)}
    rule, seen = Rule(3, 10, margin=0.5), set[str]()
    for count in range(3, 11):
        part = {arm: dict(enumerate(map(float, found[:count]))) for arm, found in values.items()}
        found = follow(part, {}, "plain", rule)
        assert seen <= {*found.of("differs"), *found.of("close")}
        assert sorted((*found.of("differs"), *found.of("close"), *found.open)) == ["big", "same", "wide"]
        seen = {*found.of("differs"), *found.of("close")}
    assert (found.of("differs"), found.of("close"), found.open) == (("big",), ("same",), ("wide",)) and found.ended
    assert found.arms["big"].share == 0.05 / 3 and found.arms["wide"].share == 0.05 / 2


def test_a_look_waits_for_whole_seeds() -> None:
    values = table(np.random.default_rng(3), (5.0, 0.1, 0.0, 0.0), seeds=3, noise=0.1)
    rule = Rule(3, 10)
    assert follow(values, {}, "base", rule).looks == 3
    del values["b"][2]
    waits = follow(values, {}, "base", rule)
    assert waits.looks == 0 and waits.words == "4 comparisons open until the first look, at 3 seeds"
    assert waits.arms["a"].asked == 3 and waits.arms["b"].asked == 3, "a may be decided at the first look"
    assert waits.arms["c"].asked == 4 == waits.asked, "c cannot, whatever b turns out to be"
    gone = follow(values, {"b": {2}}, "base", rule)
    assert gone.looks == 3 and gone.arms["b"].seeds == (0, 1) and gone.arms["a"].kind == "differs"
    assert gone.words == "round 1: 3 of 4 comparisons still open"


def test_the_order_of_arms_and_of_results_says_nothing() -> None:
    values = table(np.random.default_rng(8), (1.0, 0.4, 0.0, 2.0))
    plain = follow(values, {}, "base", Rule(3, 10, 1.0))
    for shuffle in range(10):
        names = random.Random(shuffle).sample(ARMS, len(ARMS))
        mixed = {name: dict(random.Random(shuffle).sample(list(values[name].items()), 10)) for name in names}
        found = follow(mixed, {}, "base", Rule(3, 10, 1.0))
        assert {arm: found.arms[arm] for arm in ARMS[1:]} == dict(plain.arms)


def test_expectations_are_those_of_a_simulation() -> None:
    rule = Rule(3, 8, 1.0)
    never, surely = expected(rule, 3, 20.0, 0.0), expected(rule, 3, 0.01, 1.0)
    assert never == pytest.approx(4 * 8, rel=0.02) and surely == 4 * 3
    assert smallest_shown(Rule(10, 10), 1, 0.3) == pytest.approx(0.3 * 0.996, rel=0.02)  # statsmodels' TTestPower
    assert smallest_shown(Rule(3, 10), 4, 0.3) > smallest_shown(Rule(3, 10), 1, 0.3)


def test_an_arm_without_variance_is_compared_by_the_rounding_of_its_values() -> None:
    base = {0: 0.5, 1: 0.501, 2: 0.5}
    flat = {"base": base, "same": base, "more": {seed: value + 0.1 for seed, value in base.items()}}
    found = follow(flat, {}, "base", Rule(3, 10, 0.01))
    assert (found.arms["same"].kind, found.arms["more"].kind) == ("close", "differs")
    coarse = {name: {seed: round(value, 1) for seed, value in cells.items()} for name, cells in flat.items()}
    assert {one.kind for one in follow(coarse, {}, "base", Rule(3, 10, 0.01)).arms.values()} == {"open"}
    assert math.isinf(
        course_effects(follow({"base": {}, "a": {}}, {}, "base", Rule(3, 10)), {"base": {}, "a": {}}, "base")[0].low
    )
