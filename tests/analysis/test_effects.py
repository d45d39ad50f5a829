"""Effects equal scipy's and statsmodels' on fixed data; verdicts say what the intervals allow; missing seeds are named."""

import math

import numpy as np
import pytest
import statsmodels.api as sm
from hypothesis import given
from hypothesis import strategies as st
from scipy import optimize, stats
from statsmodels.stats.multitest import multipletests
from statsmodels.stats.power import TTestPower

from harness.analysis.effects import EffectError, Values, effects, holm, power, seeds_needed, sensitivity, smallest_effect


def table(rows: dict[str, list[float]]) -> dict[str, dict[int, float]]:
    return {arm: dict(enumerate(values)) for arm, values in rows.items()}


PLAIN = [0.912, 0.905, 0.921, 0.899, 0.915, 0.908]
SE = [0.919, 0.915, 0.926, 0.909, 0.921, 0.912]
ECA = [0.911, 0.909, 0.919, 0.903, 0.913, 0.906]
ALL = table({"plain": PLAIN, "se": SE, "eca": ECA})


def test_one_arm_is_scipys_paired_test() -> None:
    (found,) = effects(table({"plain": PLAIN, "se": SE}), "plain")
    expected = stats.ttest_rel(SE, PLAIN)
    interval = expected.confidence_interval(0.95)
    assert not found.pooled and found.test.df == expected.df == 5
    assert found.test.p == found.adjusted == pytest.approx(expected.pvalue, rel=1e-12)
    assert (found.low, found.high) == pytest.approx((interval.low, interval.high), rel=1e-12)
    assert found.correlation == pytest.approx(stats.pearsonr(PLAIN, SE).statistic)
    assert found.verdict == "helps" and found.mean == pytest.approx(np.mean(SE))


def test_arms_that_share_a_variance_are_statsmodels_blocks() -> None:
    se, eca = effects(ALL, "plain")
    y = np.array([*PLAIN, *SE, *ECA])
    design = np.zeros((18, 8))
    design[:, 0] = 1
    for row in range(18):
        arm, seed = divmod(row, 6)
        if arm:
            design[row, arm] = 1
        if seed:
            design[row, 2 + seed] = 1
    fit = sm.OLS(y, design).fit()
    for place, found in ((1, se), (2, eca)):
        assert found.pooled and found.test.df == fit.df_resid == 10
        assert found.difference == pytest.approx(fit.params[place], abs=1e-12)
        assert found.test.error == pytest.approx(fit.bse[place], rel=1e-9)
        assert found.test.p == pytest.approx(fit.pvalues[place], rel=1e-9)
        assert (found.low, found.high) == pytest.approx(fit.conf_int()[place], rel=1e-9)
    assert [se.adjusted, eca.adjusted] == pytest.approx(holm([se.test.p, eca.test.p]))


def test_arms_of_different_variance_stand_alone() -> None:
    wild = [0.9 + 0.2 * (-1) ** seed * (1 + seed / 10) for seed in range(6)]
    assert not any(effect.pooled for effect in effects(table({"plain": PLAIN, "se": SE, "wild": wild}), "plain"))


def test_equivalence_is_two_one_sided_tests() -> None:
    (found,) = effects(table({"plain": PLAIN, "eca": ECA}), "plain", margin=0.01)
    differences = np.array(ECA) - PLAIN
    upper = stats.ttest_1samp(differences, 0.01, alternative="less").pvalue
    lower = stats.ttest_1samp(differences, -0.01, alternative="greater").pvalue
    assert found.equivalent == pytest.approx(max(upper, lower), rel=1e-9)
    assert found.verdict == "no difference" and found.words == "no difference larger than 0.01"


def test_a_primary_comparison_is_tested_alone() -> None:
    se, eca = effects(ALL, "plain", primary="se")
    assert se.adjusted == se.test.p and se.verdict == "helps"
    assert eca.verdict == "not tested" and eca.adjusted == 1.0


def test_what_is_smaller_can_be_better() -> None:
    assert effects(ALL, "plain", larger_is_better=False)[0].verdict == "hurts"


def test_missing_seeds_are_named_and_nothing_is_averaged_over_fewer() -> None:
    values: Values = {"plain": dict(enumerate(PLAIN)), "se": {seed: SE[seed] for seed in (0, 1, 2, 4)}, "none": {}}
    se, none = effects(values, "plain")
    assert se.seeds == (0, 1, 2, 4) and se.missing == (3, 5) and not se.pooled
    assert se.mean == pytest.approx(np.mean([SE[seed] for seed in se.seeds]))
    assert none.seeds == () and none.missing == (0, 1, 2, 3, 4, 5)
    assert none.verdict == "undecided" and none.high == math.inf and math.isnan(none.difference)
    assert none.words == "undecided (fewer than two seeds)"


def test_one_seed_decides_nothing() -> None:
    (found,) = effects({"plain": {0: 0.5}, "se": {0: 0.9}}, "plain", margin=1.0)
    assert found.verdict == "undecided" and found.low == -math.inf


def test_equal_values_differ_in_nothing() -> None:
    (same,) = effects(table({"plain": PLAIN, "twin": PLAIN}), "plain", margin=0.01)
    assert same.test.p == 1.0 and same.verdict == "no difference"


@pytest.mark.parametrize(
    ("values", "baseline", "more", "words"),
    [
        (ALL, "plian", {}, "'plian' is none of the arms: plain, se, eca; did you mean 'plain'?"),
        (ALL, "plain", {"primary": "sse"}, "'sse' is none of the arms"),
        ({"plain": {0: 1.0}}, "plain", {}, "there is no arm beside the baseline 'plain'"),
        (ALL, "plain", {"margin": 0.0}, "margin = 0: the smallest difference that matters is positive"),
    ],
)
def test_refusals_are_one_line(values: Values, baseline: str, more: dict[str, float], words: str) -> None:
    with pytest.raises(EffectError) as error:
        effects(values, baseline, **more)  # type: ignore[arg-type]
    assert words in str(error.value) and "\n" not in str(error.value)


@given(st.lists(st.floats(0, 1), min_size=1, max_size=9))
def test_holm_keeps_order_and_never_helps(ps: list[float]) -> None:
    adjusted = holm(ps)
    assert all(after >= before for before, after in zip(ps, adjusted)) and max(adjusted) <= 1
    assert sorted(range(len(ps)), key=lambda index: (adjusted[index], ps[index])) == sorted(
        range(len(ps)), key=ps.__getitem__
    )


@pytest.mark.parametrize("ps", [[0.01], [0.04, 0.01], [0.2, 0.001, 0.03, 0.04], [0.5, 0.5, 0.02]])
def test_holm_is_statsmodels(ps: list[float]) -> None:
    assert holm(ps) == pytest.approx(list(multipletests(ps, method="holm")[1]))


@pytest.mark.parametrize("seeds", [2, 3, 5, 10, 40])
@pytest.mark.parametrize("effect", [0.1, 0.5, 1.0, 2.0, 60.0])
def test_power_is_statsmodels(seeds: int, effect: float) -> None:
    expected = TTestPower().power(effect, seeds, 0.05)
    assert power(2 * effect, 2.0, seeds) == pytest.approx(1.0 if math.isnan(expected) else expected, abs=1e-6)


def test_seeds_and_effects_that_a_design_can_show() -> None:
    assert seeds_needed(1.0, 1.0) == math.ceil(TTestPower().solve_power(1.0, None, 0.05, 0.8))
    assert seeds_needed(0.0, 1.0) is None and seeds_needed(1e-6, 1.0) is None
    assert power(smallest_effect(0.3, 6), 0.3, 6) == pytest.approx(0.8)
    assert smallest_effect(0.3, 1) == math.inf


@pytest.mark.parametrize(("arms", "seeds"), [(102, 10), (116, 3), (123, 2), (1000, 5)])
def test_many_arms_have_a_smallest_effect_too(arms: int, seeds: int) -> None:
    level, df = 0.05 / arms, arms * (seeds - 1)
    limit = float(stats.t.isf(level / 2, df))
    expected = optimize.brentq(lambda shift: float(stats.nct.sf(limit, df, shift)) - 0.8, 3, 9) / math.sqrt(seeds)
    assert smallest_effect(1.0, seeds, level, df=df) == pytest.approx(expected, rel=1e-6)


def test_other_methods_and_what_they_could_reach() -> None:
    three = sensitivity([1.0, 2.0, 3.0])
    assert (three.sign_flip, three.smallest, three.bootstrap) == (0.25, 0.25, None)
    ten = sensitivity([0.1 * n + 0.2 for n in range(10)])
    assert ten.sign_flip == pytest.approx(2 / 1024) == ten.smallest
    assert ten.bootstrap is not None and ten.bootstrap[0] < 0.65 < ten.bootstrap[1]


def test_arms_that_differ_by_constants_alone_are_tested_by_the_rounding_of_their_values() -> None:
    """There is no variance to share, nor a spread: an error of a step's size is assumed, so that one step is not enough."""
    values = {
        arm: {seed: 0.8 + 0.01 * seed + gain for seed in range(3)} for arm, gain in (("a", 0), ("b", 0.01), ("c", 0.02))
    }
    one, two = effects(values, "a")
    assert [one.verdict, two.verdict] == ["undecided", "helps"]
    error = 0.01 / math.sqrt(6 * 3)
    assert two.test.p == pytest.approx(2 * stats.t.sf(0.02 / error, 2)) and one.high == pytest.approx(
        0.01 + stats.t.ppf(0.975, 2) * error
    )


def test_values_of_single_precision_are_equal_where_their_digits_end() -> None:
    """A loop's own accuracy, a mean of float32: 0.01 each, to the eighth digit."""
    base = [0.78, 0.79, 0.80]
    single = {"base": [float(np.float32(one)) for one in base], "arm": [float(np.float32(one + 0.01)) for one in base]}
    (found,) = effects(table(single), "base")
    assert found.test.equal and found.verdict == "undecided"


@pytest.mark.parametrize("seeds", [2, 3])
def test_seeds_that_agree_by_chance_prove_nothing(seeds: int) -> None:
    """Accuracies are counts of a hundred pictures: a few differences are often all equal where nothing differs."""
    rng = np.random.default_rng(0)
    counts = np.round(100 * rng.normal(0.9, 0.007, (400, 2, seeds))) / 100
    claimed = 0
    for plain, arm in counts:
        (found,) = effects(table({"plain": list(plain), "arm": list(arm)}), "plain")
        claimed += found.verdict != "undecided"
    assert claimed / len(counts) <= 0.05
