"""Fronts with uncertainty and factorial effects, against brute force and textbook formulas."""

import math
from itertools import product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from harness.analysis.certainty import attainment, certainty
from harness.analysis.effects import EffectError
from harness.analysis.factors import factors

NOISE = np.random.default_rng(0)
FIVE = {f"c{i}": {seed: (0.1 - 0.02 * i + NOISE.normal(0, 0.01), 100.0 + 50 * i) for seed in range(6)} for i in range(5)}


def test_chances_are_those_of_resampled_seeds() -> None:
    """Every resample of three seeds, one by one, for the config that is dominated in some of them."""
    cells = {"a": {0: (1.0, 1.0), 1: (1.0, 1.0), 2: (1.0, 1.0)}, "b": {0: (0.5, 2.0), 1: (1.2, 2.0), 2: (0.9, 2.0)}}
    first = [0.5, 1.2, 0.9]
    exact = np.mean([np.mean([first[index] for index in drawn]) < 1 for drawn in product(range(3), repeat=3)])
    found = certainty(cells, resamples=4_000)
    assert found.chance["a"] == 1.0 and found.chance["b"] == pytest.approx(exact, abs=0.03)
    assert found.front == ("b", "a") and found.seeds == (0, 1, 2)


def test_hypervolume_is_the_area_above_the_front() -> None:
    cells = {"a": {0: (0.0, 2.0)}, "b": {0: (1.0, 1.0)}, "c": {0: (2.0, 0.0)}, "worse": {0: (2.0, 2.0)}}
    found = certainty(cells)
    assert found.reference == pytest.approx((2.2, 2.2))
    assert found.hypervolume == pytest.approx(2.2 * 0.2 + 1.2 * 1.0 + 0.2 * 1.0)
    assert found.low == found.high == found.hypervolume and found.chance["worse"] == 0.0


def test_the_knee_is_the_corner() -> None:
    cells = {"a": {0: (0.0, 10.0)}, "corner": {0: (1.0, 1.0)}, "b": {0: (10.0, 0.0)}}
    found = certainty(cells)
    assert found.knee == "corner" and found.stability == 1.0


def test_the_interval_holds_the_volume_and_repeats() -> None:
    found = certainty(FIVE)
    assert found.low < found.hypervolume < found.high and found == certainty(FIVE)


@given(st.lists(st.lists(st.tuples(st.integers(0, 5), st.integers(0, 5)), min_size=3, max_size=3), min_size=1, max_size=5))
@settings(deadline=None, max_examples=30)
def test_a_config_that_another_beats_at_every_seed_is_never_on_the_front(rows: list[list[tuple[int, int]]]) -> None:
    cells = {f"c{place}": {seed: (float(x), float(y)) for seed, (x, y) in enumerate(row)} for place, row in enumerate(rows)}
    cells["beaten"] = {seed: (x + 1, y + 1) for seed, (x, y) in cells["c0"].items()}
    found = certainty(cells, resamples=20)
    assert found.chance["beaten"] == 0 and "beaten" not in found.front
    assert max(found.chance.values()) > 0 and all(found.chance[name] <= 1 for name in cells)


def test_attainment_of_one_seed_is_its_front() -> None:
    cells = {"a": {0: (0.0, 2.0)}, "b": {0: (1.0, 1.0)}, "worse": {0: (2.0, 2.0)}}
    assert sorted(attainment(cells, (100,))[100]) == [(0.0, 2.0), (1.0, 1.0)]


def test_what_has_no_front_is_told() -> None:
    with pytest.raises(EffectError, match="the configs share no seed"):
        certainty({"a": {0: (1.0, 1.0)}, "b": {1: (1.0, 1.0)}})
    with pytest.raises(EffectError, match="no config"):
        certainty({})


def two_by_two(interaction: float) -> list[tuple[dict[str, str | int], dict[int, float]]]:
    noise = np.random.default_rng(3)
    return [
        (
            {"kernel": kernel, "heads": heads, "depth": 20},
            {
                seed: 0.9 + 0.02 * (kernel == "a") + interaction * (kernel == "a" and heads == 2) + noise.normal(0, 0.003)
                for seed in range(4)
            },
        )
        for kernel in "ab"
        for heads in (1, 2)
    ]


def test_main_effects_and_interaction_are_the_textbooks_contrasts() -> None:
    """A 2^2 in r blocks: the sum of squares of a contrast is its square over 4r (Montgomery, section 6.2)."""
    cells = two_by_two(0.02)
    kernel, heads, both = factors(cells)
    assert [factor.names for factor in (kernel, heads, both)] == [("kernel",), ("heads",), ("kernel", "heads")]
    table = np.array([[values[seed] for seed in range(4)] for _, values in cells])  # a1 a2 b1 b2
    squares = {
        name: float((np.array(signs) @ table.sum(axis=1)) ** 2 / 16)
        for name, signs in {"kernel": (1, 1, -1, -1), "heads": (1, -1, 1, -1), "both": (1, -1, -1, 1)}.items()
    }
    blocks = float(((table.mean(axis=0) - table.mean()) ** 2).sum() * 4)
    residual = float(((table - table.mean()) ** 2).sum()) - sum(squares.values()) - blocks
    for factor, name in ((kernel, "kernel"), (heads, "heads"), (both, "both")):
        f = squares[name] / (residual / 9)
        assert factor.f == pytest.approx(f, rel=1e-6) and factor.p == pytest.approx(stats.f.sf(f, 1, 9), rel=1e-6)
        assert factor.share == pytest.approx(squares[name] / (squares[name] + residual), rel=1e-6)
    assert kernel.means["a",] == pytest.approx(table[:2].mean())
    assert both.means["a", "2"] == pytest.approx(table[1].mean())


def test_no_interaction_is_claimed_where_there_is_none() -> None:
    *_, both = factors(two_by_two(0.0))
    assert both.adjusted > 0.05


def test_what_has_no_factors_is_told() -> None:
    with pytest.raises(EffectError, match="no choice has two values"):
        factors([({"a": 1}, {0: 0.5}), ({"a": 1}, {0: 0.6})])
    with pytest.raises(EffectError, match="nothing is left to tell them from noise"):
        factors([({"a": 1}, {0: 0.5}), ({"a": 2}, {0: 0.6})])
    assert math.isfinite(factors([({"a": 1}, {0: 0.5, 1: 0.51}), ({"a": 2}, {0: 0.6, 1: 0.62})])[0].p)


def test_differences_that_are_equal_over_few_seeds_claim_no_factor() -> None:
    """Values in steps of 0.01, whose rounding has variance 0.01^2 / 12 and sums to SS = 0.02^2 / 8 an effect: F is 6."""
    first = {("a", 1): 0.90, ("a", 2): 0.91, ("b", 1): 0.90, ("b", 2): 0.90}
    cells: list[tuple[dict[str, str | int], dict[int, float]]] = [
        ({"kernel": kernel, "heads": heads}, {0: one, 1: one + 0.01}) for (kernel, heads), one in first.items()
    ]
    for factor in factors(cells):
        assert factor.f == pytest.approx(6) and factor.p == pytest.approx(stats.f.sf(6, 1, 3)) and factor.adjusted > 0.05
    with pytest.raises(EffectError, match="all values are equal"):
        factors([(levels, {0: 0.1 + 0.2, 1: 0.3}) for levels, _ in cells])
