"""Seeds added only where a comparison is undecided, without paying for the looks in false claims.

Group-sequential testing with a constant nominal level at every look (Pocock 1977; Jennison and Turnbull 2000, chapter 2),
exact for Student's t on growing samples, inside Holm's procedure over the arms (Ye et al. 2013; Tamhane et al. 2021,
Statistics in Medicine 40:5333): an arm that is decided frees its share of the level for the others. Each arm is tested by
its own paired differences, as arms that stop leave no seeds in common to pool a variance over. Stopping an arm earlier than
the rule says costs no level.
"""

import math
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Literal

from harness.analysis.effects import LEVEL, Effect, Look, Test, Values, Verdict, paired_test, pairing

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Numbers = NDArray[np.float64]

DRAWS = 400_000
"""Simulated comparisons behind a boundary: at a level of 0.01 it is known to 1.6 % of itself."""
FINEST = 0.001
"""Level below which the draws are too few, and the bound of Bonferroni over the looks stands for them."""
SEEN = 0.2
"""Nominal p beyond which a look decides nothing and is not told from 1."""
Kind = Literal["open", "differs", "close", "not tested", "without trials"]
OPEN, DIFFERS, CLOSE, GONE = range(4)


@dataclass(frozen=True)
class Rule:
    """What is tested, and when: at every seed from `first` to `most`, at `level` over all arms, or of the primary alone."""

    first: int
    most: int
    margin: float | None = None
    """The smallest difference that matters: an arm shown to be within it needs no more seeds either."""
    primary: str | None = None
    level: float = LEVEL


# -- boundaries -------------------------------------------------------------------------------------------------------


def boundary(level: float, first: int, most: int, *, sides: int = 2) -> float:
    """The nominal p at every look from `first` to `most` seeds below which a comparison without effect comes in `level` of
    the cases."""
    if level < FINEST:
        return level / _looks(first, most)
    return float(_ordered(first, most, sides)[math.floor(level * DRAWS)])


def chance(p: "Numbers", first: int, most: int, *, sides: int = 2) -> "Numbers":
    """The level at which a nominal p would be just on the boundary: a p-value that has paid for its looks."""
    import numpy as np

    found = np.searchsorted(_ordered(first, most, sides), p, side="right") / DRAWS
    bound = p * _looks(first, most)
    return np.where(bound < FINEST, bound, np.where(p > SEEN, 1.0, np.maximum(found, FINEST)))


def extended(level: float, first: int, before: int, most: int) -> float:
    """How often a comparison without effect is claimed where `most` was raised from `before` after all its looks."""
    early, late = _smallest(first, before, 2), _smallest(before + 1, most, 2)
    claimed = (early < boundary(level, first, before)) | (late < boundary(level, first, most))
    return float(claimed.mean())


def _looks(first: int, most: int) -> int:
    return most - first + 1


@lru_cache(maxsize=16)
def _ordered(first: int, most: int, sides: int) -> "Numbers":
    import numpy as np

    return np.sort(_smallest(first, most, sides))


@lru_cache(maxsize=16)
def _smallest(first: int, most: int, sides: int) -> "Numbers":
    """The smallest p over all looks of comparisons without any effect, simulated once; 1 where it is above `SEEN`."""
    import numpy as np
    from scipy.special import stdtr, stdtrit

    rng = np.random.default_rng(20_201)
    total, squares = np.zeros(DRAWS), np.zeros(DRAWS)
    smallest: Numbers = np.ones(DRAWS)
    for count in range(1, most + 1):
        drawn = rng.standard_normal(DRAWS)
        total, squares = total + drawn, squares + drawn**2
        if count >= first:
            variance = (squares - total**2 / count) / (count - 1)
            scores = total / np.sqrt(count * variance)
            scores = np.abs(scores) if sides == 2 else scores
            far = np.flatnonzero(scores >= -stdtrit(count - 1, SEEN / sides))
            smallest[far] = np.minimum(smallest[far], sides * stdtr(count - 1, -scores[far]))
    return smallest


# -- the rule, look by look -------------------------------------------------------------------------------------------


@dataclass
class Bench:
    """Judges the tested arms of many studies at once: arrays of studies by arms."""

    rule: Rule
    shape: tuple[int, int]
    kind: "NDArray[np.int64]" = field(init=False)
    share: "Numbers" = field(init=False)
    """The part of the level at which an arm was judged last: for a difference."""
    calm: "Numbers" = field(init=False)
    """The same for no difference as large as the margin."""
    seeds: "NDArray[np.int64]" = field(init=False)
    """Seeds at an arm's last look."""

    def __post_init__(self) -> None:
        import numpy as np

        self.kind, self.seeds = np.zeros(self.shape, int), np.zeros(self.shape, int)
        self.share, self.calm = np.full(self.shape, self._share(0.0)), np.full(self.shape, self._share(0.0))

    def _share(self, decided: float) -> float:
        return self.rule.level / max(self.shape[1] - decided, 1)

    def look(self, seeds: int, differ: "Numbers", close: "Numbers") -> None:
        """A look at so many seeds, by p-values that have paid for their looks; those of settled arms are not read."""
        self.seeds[self.kind == OPEN] = seeds
        self._step(DIFFERS, differ, self.share)
        if self.rule.margin is not None:
            self._step(CLOSE, close, self.calm)

    def _step(self, kind: int, p: "Numbers", share: "Numbers") -> None:
        """Holm's steps over all arms: those settled before, or just now, free their share for the open ones."""
        import numpy as np

        while True:
            decided = (self.kind == kind).sum(axis=1, keepdims=True)
            left = self.rule.level / np.maximum(self.shape[1] - decided, 1)
            still = self.kind == OPEN
            share[still] = np.broadcast_to(left, self.shape)[still]
            new = still & (p <= left)
            if not new.any():
                return
            self.kind[new] = kind


def simulated(values: "Numbers", rule: Rule) -> Bench:
    """What the rule says of studies given as values of studies by arms, the baseline first, by `most` seeds."""
    import numpy as np
    from scipy.special import stdtr

    differences = values[:, 1:] - values[:, :1]
    totals, squares = differences.cumsum(axis=2), (differences**2).cumsum(axis=2)
    bench = Bench(rule, differences.shape[:2])
    for count in range(rule.first, rule.most + 1):
        mean = totals[..., count - 1] / count
        variance = (squares[..., count - 1] - count * mean**2) / (count - 1)
        error = np.sqrt(np.maximum(variance, np.finfo(float).tiny) / count)
        differ = chance(2 * stdtr(count - 1, -np.abs(mean) / error), rule.first, rule.most)
        close = differ
        if rule.margin is not None:
            close = chance(stdtr(count - 1, (np.abs(mean) - rule.margin) / error), rule.first, rule.most, sides=1)
        bench.look(count, differ, close)
    return bench


# -- one study --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Standing:
    """Where the comparison of an arm with the baseline stands after its last look."""

    kind: Kind
    asked: int
    """Seeds that the rule asks of the arm so far: those from 0 on."""
    seeds: tuple[int, ...]
    """Those that the last look compared; before the first look those that both have so far."""
    test: Test
    p: float = 1.0
    """Of no difference, having paid for the looks; at most `share` where the arm differs."""
    share: float = 0.0
    """The part of the level that Holm's procedure left to the comparison."""
    nominal: float = 0.0
    """The boundary of the nominal p at that share; 0 before the first look."""
    close: float = 1.0
    """p of a difference as large as the margin, as `p`."""
    calm: float = 0.0
    """The part of the level that was left to that claim."""


@dataclass(frozen=True)
class Course:
    """How far the seeds of a study have come."""

    rule: Rule
    looks: int
    """Seeds that the last look had of every arm then open; 0 before the first."""
    arms: Mapping[str, Standing]
    """Every arm but the baseline, in the order of the design."""
    asked: int
    """Seeds that the rule asks of the baseline so far: as many as of any arm."""

    def of(self, kind: Kind) -> tuple[str, ...]:
        return tuple(arm for arm, standing in self.arms.items() if standing.kind == kind)

    @property
    def open(self) -> tuple[str, ...]:
        return self.of("open")

    @property
    def tested(self) -> int:
        """Comparisons that share the level."""
        return len(self.arms) - len(self.of("not tested"))

    @property
    def ended(self) -> bool:
        """Whether no arm gets a seed any more."""
        return self.looks == self.rule.most or not self.open

    @property
    def round(self) -> int:
        """Looks taken."""
        return max(self.looks - self.rule.first + 1, 0)

    @property
    def cells(self) -> int:
        """Trials that the rule asks for so far."""
        return self.asked + sum(standing.asked for standing in self.arms.values())

    @property
    def saved(self) -> int:
        """Trials less than with `most` seeds for every arm; what open arms may still need counts as saved until then."""
        return self.rule.most * (1 + len(self.arms)) - self.cells

    @property
    def words(self) -> str:
        """How many comparisons are open: `round 4: 3 of 7 comparisons still open`."""
        still, all_ = len(self.open), f"{self.tested} comparison{'s' * (self.tested != 1)}"
        if not self.round:
            return f"{all_} open until the first look, at {self.rule.first} seeds"
        if not still:
            return f"round {self.round}: no comparison is open, of {self.tested}"
        if self.ended:
            return f"round {self.round}, the last: {still} of {all_} undecided"
        return f"round {self.round}: {still} of {all_} still open"

    def to_json(self) -> dict[str, Any]:
        """What is decided, and what it took."""
        kinds: tuple[Kind, ...] = ("open", "differs", "close", "not tested", "without trials")
        found = {kind: list(self.of(kind)) for kind in kinds if self.of(kind)}
        counts = {"round": self.round, "ended": self.ended, "trials": self.cells, "saved": self.saved}
        return counts | {"arms": found, "seeds": {arm: one.asked for arm, one in self.arms.items()}}


def follow(values: Values, gone: Mapping[str, Collection[int]], baseline: str, rule: Rule) -> Course:
    """What the results so far have settled, and which seeds they ask for, whatever order they came in.

    `gone` are the seeds of an arm whose trial ended without a value. A look is taken at n seeds once the baseline and every
    arm still open have ended each of them; a comparison with failed trials is as many pairs behind, one without any pair at
    a look gets no more seeds. An arm that no share of the level could settle goes on without waiting for the others: that
    changes the order of trials and not which there are.
    """
    import numpy as np

    arms = [arm for arm in values if arm != baseline]
    tested = [arm for arm in arms if rule.primary in (None, arm)]
    bench, looks = Bench(rule, (1, len(tested))), 0
    found = {arm: _judged(values, baseline, arm, rule.first, rule) for arm in arms}

    def ended(arm: str, seeds: int) -> bool:
        return all(seed in values[one] or seed in gone.get(one, ()) for one in (baseline, arm) for seed in range(seeds))

    for seeds in range(rule.first, rule.most + 1):
        still = [place for place, arm in enumerate(tested) if found[arm].kind == "open"]
        if not still or not all(ended(tested[place], seeds) for place in still):
            break
        looks = seeds
        p, close = np.ones((1, len(tested))), np.ones((1, len(tested)))
        for place in still:
            found[tested[place]] = one = _judged(values, baseline, tested[place], seeds, rule)
            p[0, place], close[0, place] = one.p, one.close
            bench.kind[0, place] = OPEN if one.seeds else GONE
        bench.look(seeds, p, close)
        for place in still:
            found[tested[place]] = _settled(found[tested[place]], bench, place, seeds)
    for arm in arms:
        if arm not in tested:
            found[arm] = replace(found[arm], kind="not tested", nominal=rule.level)
        elif found[arm].kind == "open" and looks < rule.most:
            asked = max(looks + 1, rule.first)
            while asked < rule.most and ended(arm, asked) and _surely_open(values, baseline, arm, asked, rule):
                asked += 1
            found[arm] = replace(found[arm], asked=asked)
    return Course(rule, looks, found, max((one.asked for one in found.values()), default=rule.first))


KINDS: dict[int, Kind] = {OPEN: "open", DIFFERS: "differs", CLOSE: "close", GONE: "without trials"}


def _settled(standing: Standing, bench: Bench, place: int, seeds: int) -> Standing:
    """An arm after a look at so many seeds."""
    rule, share, calm = bench.rule, float(bench.share[0, place]), float(bench.calm[0, place])
    nominal = boundary(share, rule.first, rule.most)
    kind = KINDS[int(bench.kind[0, place])]
    return replace(standing, kind=kind, asked=seeds, share=share, calm=calm, nominal=nominal)


def _judged(values: Values, baseline: str, arm: str, seeds: int, rule: Rule) -> Standing:
    """The comparison of an arm over so many seeds, before Holm's procedure."""
    pairs = tuple(seed for seed in range(seeds) if seed in values[arm] and seed in values[baseline])
    test, p, close = _tested(
        tuple(values[arm][seed] for seed in pairs), tuple(values[baseline][seed] for seed in pairs), rule
    )
    return Standing("open", seeds, pairs, test, p, close=close)


def _surely_open(values: Values, baseline: str, arm: str, seeds: int, rule: Rule) -> bool:
    """Whether a look at so many seeds leaves the arm open, however the other arms turn out."""
    one = _judged(values, baseline, arm, seeds, rule)
    return bool(one.seeds) and one.p > rule.level and one.close > rule.level


@lru_cache(maxsize=4096)
def _tested(measured: tuple[float, ...], base: tuple[float, ...], rule: Rule) -> tuple[Test, float, float]:
    """Student's t on paired values, and both p-values, which have paid for the looks; 1 before the first of them."""
    import numpy as np

    test = paired_test([one - other for one, other in zip(measured, base)], (*measured, *base))
    if len(measured) < rule.first:
        return test, 1.0, 1.0
    p = float(chance(np.array(test.p), rule.first, rule.most))
    if rule.margin is None:
        return test, p, 1.0
    return test, p, float(chance(np.array(test.equivalence(rule.margin)), rule.first, rule.most, sides=1))


def course_effects(course: Course, values: Values, baseline: str, *, larger_is_better: bool = True) -> list[Effect]:
    """Every other arm against the baseline, as judged at its last look: its interval is the repeated confidence interval
    (Jennison and Turnbull 1989) at the share of the level that Holm's procedure left to it, so that it holds zero just where
    no difference is shown."""
    found = []
    for arm, one in course.arms.items():
        low, high = one.test.at(one.nominal) if one.nominal else (-math.inf, math.inf)
        helps = (one.test.difference > 0) == larger_is_better
        found.append(
            Effect(
                arm=arm,
                seeds=one.seeds,
                missing=tuple(seed for seed in range(one.asked) if seed not in one.seeds),
                mean=math.fsum(values[arm][seed] for seed in one.seeds) / len(one.seeds) if one.seeds else math.nan,
                test=one.test,
                low=low,
                high=high,
                pooled=False,
                adjusted=min(1.0, one.p * course.rule.level / one.share) if one.share else 1.0,
                equivalent=min(1.0, one.close * course.rule.level / one.calm) if one.calm else 1.0,
                verdict=VERDICTS.get(one.kind, "helps" if helps else "hurts"),
                margin=course.rule.margin,
                arms=course.tested,
                look=Look(len(one.seeds) if one.nominal else 0, course.rule.most, course.ended),
                **pairing([values[baseline][seed] for seed in one.seeds], [values[arm][seed] for seed in one.seeds]),
            )
        )
    return found


VERDICTS: dict[Kind, Verdict] = {
    "open": "undecided",
    "close": "no difference",
    "not tested": "not tested",
    "without trials": "undecided",
}


# -- what to expect ---------------------------------------------------------------------------------------------------


def expected(rule: Rule, arms: int, deviation: float, effect: float, *, studies: int = 1_000) -> float:
    """Trials of a study in the mean, where every one of so many tested arms has this effect and a paired difference this
    deviation: simulated, normal, the arms independent but for the baseline they share."""
    import numpy as np

    drawn = np.random.default_rng(20_202).standard_normal((studies, arms + 1, rule.most)) * deviation / math.sqrt(2)
    drawn[:, 1:] += effect
    seeds = simulated(drawn, rule).seeds
    return float((seeds.sum(axis=1) + seeds.max(axis=1)).mean())


def smallest_shown(rule: Rule, arms: int, deviation: float, *, at: float = 0.8, draws: int = 20_000) -> float:
    """The smallest effect that one of so many tested arms is found with by its last look with power `at`."""
    import numpy as np
    from scipy.optimize import brentq
    from scipy.special import stdtrit

    if deviation == 0:
        return 0.0
    nominal = boundary(rule.level / arms, rule.first, rule.most)
    drawn = np.random.default_rng(20_203).standard_normal((draws, rule.most))
    counts = np.arange(1, rule.most + 1)
    means = drawn.cumsum(axis=1) / counts
    looks = slice(rule.first - 1, rule.most)
    counts, means, squares = counts[looks], means[:, looks], (drawn**2).cumsum(axis=1)[:, looks]
    errors = np.sqrt((squares / counts - means**2) / (counts - 1))
    limits = -stdtrit(counts - 1, nominal / 2) * errors

    def missed(effect: float) -> float:
        return at - float((np.abs(means + effect) > limits).any(axis=1).mean())

    found: float = brentq(missed, 0, 1_000, xtol=1e-4)
    return found * deviation
