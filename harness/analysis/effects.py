"""Effects: what an arm changes against the baseline, how sure that is, and the verdict in words.

Values are paired by seed. There is one deciding test: Student's t on the differences, with one variance for all arms
where they share it (seeds as blocks, as in Dunnett's comparison with a control), Holm over the arms, and two one-sided
tests at a stated margin for "no difference" (Schuirmann 1987), with Holm too. Nothing here looks at a p-value twice.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from harness.errors import HarnessError, hint

Values = Mapping[str, Mapping[int, float]]
"""Arm to seed to measured value."""
Verdict = Literal["helps", "hurts", "no difference", "undecided", "not tested"]


LEVEL = 0.05
"""Of false claims over all arms of a study: of a difference where there is none, and of none where there is one."""


class EffectError(HarnessError):
    """Values from which no effect can be told."""


@dataclass(frozen=True)
class Test:
    """What one comparison rests on: Student's t with `df` degrees of freedom and the standard error of the difference."""

    difference: float
    error: float
    df: int
    equal: bool = False
    """Whether all differences are equal: the error is that of rounding then."""

    @property
    def p(self) -> float:
        """Two-sided p of no difference; 1 where the seeds cannot tell."""
        from scipy.stats import t

        if self.df < 1:
            return 1.0
        if self.error == 0:
            return 0.0 if self.difference else 1.0
        return float(2 * t.sf(abs(self.difference) / self.error, self.df))

    def equivalence(self, margin: float) -> float:
        """p of the two one-sided tests: that the difference is as large as the margin, in either direction."""
        from scipy.stats import t

        if self.df < 1:
            return 1.0
        if self.error == 0:
            return float(abs(self.difference) >= margin)
        return float(t.sf((margin - abs(self.difference)) / self.error, self.df))

    @property
    def interval(self) -> tuple[float, float]:
        """95 % confidence interval of the difference; everything where the seeds cannot tell."""
        return self.at(LEVEL)

    def at(self, level: float) -> tuple[float, float]:
        """The differences that the test does not reject at a level."""
        from scipy.stats import t

        if self.df < 1:
            return -math.inf, math.inf
        half = float(t.isf(level / 2, self.df)) * self.error
        return self.difference - half, self.difference + half


@dataclass(frozen=True)
class Look:
    """The last look at a comparison whose seeds are added in sequence."""

    seeds: int
    """Pairs that it rested on; 0 before the first look."""
    most: int
    last: bool
    """Whether no seed will be added any more."""


@dataclass(frozen=True)
class Effect:
    """One arm against the baseline. Differences are in the metric's own unit, positive where the arm is larger."""

    arm: str
    seeds: tuple[int, ...]
    """Those that both have: the comparison rests on them alone."""
    missing: tuple[int, ...]
    """Those that one of the two lacks."""
    mean: float
    """The arm's, over those seeds."""
    test: Test
    low: float
    high: float
    """95 % confidence interval of the difference, of this comparison alone."""
    pooled: bool
    """Whether the variance is that of all arms."""
    adjusted: float
    """p after Holm's correction over the arms."""
    equivalent: float
    """p of a difference as large as the margin, after Holm's correction; 1 without a margin."""
    verdict: Verdict
    margin: float | None
    correlation: float
    """Of the arm's values with the baseline's over the seeds."""
    gain: float
    """What pairing was worth: the variance of an unpaired difference over that of the paired one, as a factor of seeds."""
    arms: int
    """Comparisons that share the level."""
    look: Look | None = None
    """None where all seeds were fixed beforehand."""

    @property
    def difference(self) -> float:
        return self.test.difference

    @property
    def more(self) -> int | None:
        """Seeds to add for 80 % power at the margin, or at the difference seen where none is stated; None beyond 1,000, and
        where seeds come in sequence, which add themselves."""
        if self.look is not None:
            return None
        deviation = self.test.error * math.sqrt(len(self.seeds)) if self.test.df >= 1 else math.nan
        needed = seeds_needed(self.margin or abs(self.difference), deviation, LEVEL / self.arms)
        return needed and max(needed - len(self.seeds), 1)

    @property
    def words(self) -> str:
        """The verdict as a person reads it."""
        if self.verdict == "no difference":
            return f"no difference larger than {self.margin:g}"
        if self.verdict == "undecided" and self.look is not None:
            if not self.look.seeds:
                return "undecided, no look yet"
            return f"undecided after {self.look.seeds}{'' if self.look.last else f' of at most {self.look.most}'} seeds"
        if self.verdict == "undecided" and self.test.df < 1:
            return "undecided (fewer than two seeds)"
        if self.verdict == "undecided":
            more = self.more
            return f"undecided ({more} more seed{'s' * (more > 1)})" if more else "undecided (beyond 1,000 seeds)"
        return self.verdict


def effects(
    values: Values,
    baseline: str,
    *,
    margin: float | None = None,
    larger_is_better: bool = True,
    primary: str | None = None,
) -> list[Effect]:
    """Every other arm against the baseline, in the order of `values`.

    With a `primary` comparison declared beforehand it alone is tested, without correction. Raises EffectError where there
    is nothing to compare.
    """
    arms = [arm for arm in values if arm != baseline]
    for name in (baseline, *([primary] if primary else [])):
        if name not in values:
            raise EffectError(f"{name!r} is none of the arms: {', '.join(values)}{hint(name, values)}")
    if not arms:
        raise EffectError(f"there is no arm beside the baseline {baseline!r}: nothing to compare")
    if margin is not None and not margin > 0:
        raise EffectError(f"margin = {margin:g}: the smallest difference that matters is positive")
    tests = _tests(values, baseline, arms)
    pooled = {arm: test for arm, test in _pooled(values, baseline, arms).items() if tests[arm].df >= 1}
    tests |= pooled
    tried = [primary] if primary else arms
    differ = dict(zip(tried, holm([tests[arm].p for arm in tried])))
    close = dict(zip(tried, holm([tests[arm].equivalence(margin) if margin else 1.0 for arm in tried])))
    found = []
    for arm in arms:
        shared = paired(values, baseline, arm)
        effect = Effect(
            arm=arm,
            seeds=shared,
            missing=tuple(sorted((values[arm].keys() | values[baseline].keys()) - set(shared))),
            mean=math.fsum(values[arm][seed] for seed in shared) / len(shared) if shared else math.nan,
            test=tests[arm],
            low=tests[arm].interval[0],
            high=tests[arm].interval[1],
            pooled=arm in pooled,
            adjusted=differ.get(arm, 1.0),
            equivalent=close.get(arm, 1.0),
            verdict="not tested",
            margin=margin,
            arms=len(tried),
            look=None,
            **pairing([values[baseline][seed] for seed in shared], [values[arm][seed] for seed in shared]),
        )
        found.append(replace(effect, verdict=_verdict(effect, larger_is_better)) if arm in tried else effect)
    return found


def _verdict(effect: Effect, larger_is_better: bool) -> Verdict:
    if effect.adjusted <= LEVEL:
        return "helps" if (effect.difference > 0) == larger_is_better else "hurts"
    return "no difference" if effect.equivalent <= LEVEL else "undecided"


def paired(values: Values, one: str, other: str) -> tuple[int, ...]:
    """The seeds that both arms have."""
    return tuple(sorted(values[one].keys() & values[other].keys()))


def _tests(values: Values, baseline: str, arms: Sequence[str]) -> dict[str, Test]:
    """Each arm by its own differences."""
    found, measured = {}, [value for cells in values.values() for value in cells.values()]
    for arm in arms:
        differences = [values[arm][seed] - values[baseline][seed] for seed in paired(values, baseline, arm)]
        found[arm] = paired_test(differences, measured)
    return found


NOISE = 1e-6
"""Of a value, as a share: what is smaller is the computer's rounding, of single precision too."""


def paired_test(differences: Sequence[float], measured: Sequence[float]) -> Test:
    """Student's t on differences of what was measured.

    Where all differences are equal, which a few seeds may be by chance as values are counts of pictures or were rounded,
    their deviation is that of the rounding: of two errors, each uniform over the smallest step between measured values;
    unknown, and infinite, where all values are equal too."""
    import numpy as np

    count = len(differences)
    if count < 2:
        return Test(differences[0] if count else math.nan, math.nan, count - 1)
    deviation = float(np.std(differences, ddof=1))
    if equal := bool(deviation <= NOISE * np.abs(measured).max()):
        step = smallest_step(measured)
        deviation = math.inf if step is None else step / math.sqrt(6)
    return Test(math.fsum(differences) / count, deviation / math.sqrt(count), count - 1, equal)


def smallest_step(measured: Sequence[float]) -> float | None:
    """The smallest difference of two measured values that is more than rounding; None where there is none."""
    import numpy as np

    steps = np.diff(np.unique(measured))
    steps = steps[steps > NOISE * np.abs(measured).max()]
    return float(steps.min()) if len(steps) else None


SHARED_VARIANCE = 0.05
"""Level of the Brown-Forsythe test below which arms are not taken to share one variance."""


def _pooled(values: Values, baseline: str, arms: Sequence[str]) -> dict[str, Test]:
    """All arms by one variance, the residual of arms and seeds; nothing where they do not share their seeds or variance."""
    import numpy as np
    from scipy.stats import levene

    seeds = sorted(values[baseline])
    if len(arms) < 2 or len(seeds) < 2 or any(sorted(values[arm]) != seeds for arm in arms):
        return {}
    table = np.array([[values[arm][seed] for seed in seeds] for arm in (baseline, *arms)])
    rows = table.mean(axis=1, keepdims=True)
    residuals = table - rows - table.mean(axis=0) + table.mean()
    df = (len(table) - 1) * (len(seeds) - 1)
    variance = float((residuals**2).sum()) / df
    constant = np.abs(residuals).max() <= NOISE * np.abs(table).max()
    if constant or (len(seeds) > 2 and levene(*residuals, center="median").pvalue < SHARED_VARIANCE):
        return {}
    error = math.sqrt(2 * variance / len(seeds))
    return {arm: Test(float(row[0] - rows[0, 0]), error, df) for arm, row in zip(arms, rows[1:])}


def half_width(values: Sequence[float]) -> float:
    """Half of the 95 % interval of a mean by Student's t; infinite for one value."""
    import numpy as np
    from scipy.stats import t

    count = len(values)
    return float(t.ppf(1 - LEVEL / 2, count - 1) * np.std(values, ddof=1)) / math.sqrt(count) if count > 1 else math.inf


def holm(ps: Sequence[float]) -> list[float]:
    """p-values after Holm's step-down correction (1979), each to be compared to the level as it is."""
    adjusted, running = [1.0] * len(ps), 0.0
    for rank, index in enumerate(sorted(range(len(ps)), key=ps.__getitem__)):
        running = max(running, min(1.0, (len(ps) - rank) * ps[index]))
        adjusted[index] = running
    return adjusted


def pairing(one: Sequence[float], other: Sequence[float]) -> dict[str, float]:
    """Pearson's correlation and what it was worth; 0 and 1 where there are fewer than three pairs or no spread."""
    import numpy as np

    if len(one) < 3 or np.ptp(one) == 0 or np.ptp(other) == 0:
        return {"correlation": 0.0, "gain": 1.0}
    paired_variance = float(np.var(np.subtract(one, other), ddof=1))
    apart = float(np.var(one, ddof=1) + np.var(other, ddof=1))
    return {
        "correlation": float(np.corrcoef(one, other)[0, 1]),
        "gain": apart / paired_variance if paired_variance else math.inf,
    }


# -- power ------------------------------------------------------------------------------------------------------------


def power(effect: float, deviation: float, seeds: int, level: float = LEVEL, df: int | None = None) -> float:
    """Chance that a paired t-test over so many seeds finds an effect, given the deviation of a paired difference."""
    from scipy.stats import nct, t

    df = seeds - 1 if df is None else df
    if df < 1:
        return 0.0
    if deviation == 0:
        return float(effect != 0)
    limit, shift = float(t.ppf(1 - level / 2, df)), abs(effect) / deviation * math.sqrt(seeds)
    if shift > 30 * max(limit, 1):
        return 1.0  # beyond what scipy's noncentral t can say
    other = float(nct.cdf(-limit, df, shift)) if shift < 5 else 0.0  # no number where it is next to nothing
    return float(nct.sf(limit, df, shift)) + (0.0 if math.isnan(other) else other)


def seeds_needed(effect: float, deviation: float, level: float = LEVEL, *, at: float = 0.8, most: int = 1_000) -> int | None:
    """The fewest seeds whose power for an effect is `at`; None beyond `most`."""
    if not (effect > 0 and deviation >= 0) or power(effect, deviation, most, level) < at:
        return None
    low, high = 1, most
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if power(effect, deviation, middle, level) >= at else (middle, high)
    return high


def smallest_effect(deviation: float, seeds: int, level: float = LEVEL, *, at: float = 0.8, df: int | None = None) -> float:
    """The smallest effect that so many seeds find with power `at`; infinite for fewer than two."""
    from scipy.optimize import brentq

    if (seeds - 1 if df is None else df) < 1:
        return math.inf
    if deviation == 0:
        return 0.0
    found: float = brentq(lambda effect: power(effect * deviation, deviation, seeds, level, df) - at, 0, 1_000)
    return found * deviation


# -- sensitivity ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Sensitivity:
    """What other methods say of the same differences; they decide nothing."""

    sign_flip: float
    """Exact two-sided p where signs are exchangeable."""
    smallest: float
    """The smallest p that it can reach with so many seeds."""
    bootstrap: tuple[float, float] | None
    """95 % interval (bias-corrected and accelerated); None below ten seeds, where it covers too little."""


def sensitivity(differences: Sequence[float]) -> Sensitivity:
    """Sign flips (exact up to 20 seeds, else 100,000 draws) and, from ten seeds on, the bootstrap."""
    import numpy as np
    from scipy.stats import bootstrap, permutation_test

    sample = np.array(differences)
    flips = permutation_test(
        (sample,),
        np.mean,
        permutation_type="samples",
        vectorized=True,
        axis=0,
        n_resamples=2**20,
        rng=np.random.default_rng(0),
    )
    interval = None
    if len(sample) >= 10 and np.ptp(sample) > 0:
        found = bootstrap((sample,), np.mean, n_resamples=10_000, method="BCa", rng=np.random.default_rng(0))
        interval = (float(found.confidence_interval.low), float(found.confidence_interval.high))
    return Sensitivity(float(flips.pvalue), 2 / 2 ** len(sample), interval)
