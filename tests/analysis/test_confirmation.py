"""The winner's curse on numbers made by hand."""

import math

import pytest

from harness.analysis.confirmation import loss
from harness.analysis.effects import half_width


def test_the_loss_is_that_of_the_means_with_students_interval_over_the_seeds() -> None:
    promised = {"a": 0.90, "b": 0.80}
    again = {"a": {7: 0.88, 8: 0.87, 9: 0.89}, "b": {7: 0.79, 8: 0.77, 9: 0.78}, "plain": {7: 0.5, 8: 0.5, 9: 0.5}}
    found = loss(promised, again)
    # by hand: over both, seed 7 lost 0.015, seed 8 0.03, seed 9 0.015; mean 0.02, deviation 0.00866, t(2) = 4.3027
    assert found is not None and (found.configs, found.seeds) == (2, (7, 8, 9))
    assert found.mean == pytest.approx(0.02)
    half = 4.302652729911275 * 0.008660254037844387 / math.sqrt(3)
    assert (found.low, found.high) == (pytest.approx(0.02 - half), pytest.approx(0.02 + half))


def test_a_loss_function_that_grew_is_a_loss_too() -> None:
    found = loss({"a": 0.5}, {"a": {1: 0.6, 2: 0.7}}, larger_is_better=False)
    assert found is not None and found.mean == pytest.approx(0.15)


def test_it_rests_on_what_both_have_and_on_shared_seeds() -> None:
    again = {"a": {1: 0.8, 2: 0.7}, "b": {2: 0.6, 3: 0.1}, "c": {}}
    found = loss({"a": 0.9, "b": 0.8, "c": 0.9, "d": 0.9}, again)
    assert found is not None and (found.configs, found.seeds) == (2, (2,))
    assert found.mean == pytest.approx(0.2) and (found.low, found.high) == (-math.inf, math.inf)
    assert loss({"a": 0.9}, {}) is None and loss({}, again) is None
    assert loss({"a": 1.0, "b": 1.0}, {"a": {1: 1.0}, "b": {2: 1.0}}) is None


def test_half_of_an_interval_is_scipys() -> None:
    from scipy.stats import sem, t

    values = [0.91, 0.93, 0.90, 0.95, 0.92]
    low, high = t.interval(0.95, 4, loc=sum(values) / 5, scale=sem(values))
    assert half_width(values) == pytest.approx((high - low) / 2)
    assert half_width([1.0]) == math.inf
