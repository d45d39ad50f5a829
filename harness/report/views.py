"""The facts behind each figure: fronts over one cost, the choice that tells trials apart, curves."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from statistics import fmean
from typing import TypeVar

from harness.analysis.effects import half_width
from harness.analysis.front import knee, measured, nondominated
from harness.config import ResNet, Scalar
from harness.cost import network_cost
from harness.design import Factorial
from harness.presets import PRESETS
from harness.report.facts import Facts, Trial
from harness.report.words import choice_title
from harness.study import EXACT, Exhaustive, Objective

T = TypeVar("T")
MAX_CURVES = 60
CIFAR_DEPTHS, SMALL = (20, 32, 44, 56, 110), 32
"""The residual networks of He et al. (arXiv 1512.03385, section 4.2), for pictures of at most so many pixels a side."""
BESIDE = 1.15
"""Published networks are shown up to so many times beyond the costs of the trials."""


@dataclass(frozen=True)
class Spot:
    """A config on a picture of main metric and cost: one trial, or the mean of its seeds."""

    trials: tuple[Trial, ...]
    cost: float
    value: float
    name: str = ""
    """The arm's, of a design."""
    half: float = 0.0
    """Half of the 95 % interval of the mean (Student's t); 0 for a single trial."""

    @property
    def on_front(self) -> bool:
        """Whether a trial of it is on the study's front over all objectives."""
        return any(trial.on_front for trial in self.trials)


@dataclass(frozen=True)
class Reference:
    """A mark to compare with: a published network's cost, or what the baseline reaches."""

    name: str
    cost: float | None = None
    value: float | None = None


@dataclass(frozen=True)
class Axis:
    """The configs over one cost: those that no other beats on it and on the main metric, and the beaten ones."""

    cost: Objective
    front: tuple[Spot, ...]
    """From the least value of the cost to the greatest."""
    beaten: tuple[Spot, ...]
    wide: bool
    """The costs span so much that a logarithmic axis shows them better."""
    knee: Spot | None = None
    """Of a front of three or more: the one nearest to its ideal corner, with both axes as long as the front reaches."""
    references: tuple[Reference, ...] = ()

    @property
    def positive(self) -> bool:
        """Whether a logarithmic axis can show all."""
        return all(spot.cost > 0 for spot in self.front + self.beaten)

    @cached_property
    def reach(self) -> tuple[float, float] | None:
        """What of the main metric to show where intervals, as of two seeds, would press all means into a line: the means,
        and as much again above and below; None where all of it fits."""
        means = [spot.value for spot in self.front + self.beaten]
        low, high = min(means), max(means)
        ends = [spot.value + side * spot.half for spot in self.front for side in (-1, 1)]
        room = high - low
        if not room or (min(ends) >= low - room and max(ends) <= high + room):
            return None
        return max(low - room, min(low - room / 20, *ends)), min(high + room, max(high + room / 20, *ends))


def axes(facts: Facts) -> list[Axis]:
    """One per cost that differs between the complete trials."""
    return [axis for cost in facts.costs if (axis := _axis(facts, cost))]


def spots(facts: Facts, cost: Objective) -> list[Spot]:
    """The configs that have both metrics, from the least cost to the greatest: single trials, or means over the seeds."""
    shown = [trial for trial in facts.complete if trial.value(cost.metric) is not None]
    if facts.arms is None:
        found = [_spot((trial,), facts.main.metric, cost.metric) for trial in shown]
    else:
        have = {trial.number: trial for trial in shown}
        seen = {
            name: [have[r.number] for r in each.values() if r.number in have] for name, each in facts.arms.records.items()
        }
        found = [_spot(tuple(trials), facts.main.metric, cost.metric, name) for name, trials in seen.items() if trials]
    return sorted(found, key=lambda spot: (spot.cost, spot.trials[0].number))


def _spot(trials: tuple[Trial, ...], main: str, cost: str, name: str = "") -> Spot:
    reached = [value for trial in trials if (value := trial.value(main)) is not None]
    spent = fmean(value for trial in trials if (value := trial.value(cost)) is not None)
    half = half_width(reached) if len(reached) > 1 else 0.0
    return Spot(trials, spent, fmean(reached), name, half)


def _axis(facts: Facts, cost: Objective) -> Axis | None:
    shown = spots(facts, cost)
    spread = [spot.cost for spot in shown]
    if len(set(spread)) < 2:
        return None
    points = [(cost.sign * spot.cost, facts.main.sign * spot.value) for spot in shown]
    kept = nondominated(points)
    best = tuple(spot for spot, on in zip(shown, kept) if on)
    turn = knee([point for point, on in zip(points, kept) if on]) if len(best) > 2 else None
    return Axis(
        cost=cost,
        front=best,
        beaten=tuple(spot for spot, on in zip(shown, kept) if not on),
        wide=min(spread) > 0 and max(spread) > 5 * min(spread),
        knee=None if turn is None else best[turn],
        references=(*_baseline(facts, shown), *_published(facts, cost.metric, min(spread), max(spread))),
    )


def _baseline(facts: Facts, shown: Sequence[Spot]) -> list[Reference]:
    """What the baseline of a comparison reaches, or the best config without any attention of a search or of many configs."""
    if facts.arms is not None and not facts.ranked:
        found = [measured(record, facts.main.metric) for record in facts.arms.records[facts.arms.baseline].values()]
        return [Reference(facts.arms.baseline, value=fmean(found))] if found else []
    slots = [name for name in facts.space.parameters if name.rpartition(".")[2] == "attention"]
    plain = [spot for spot in shown if slots and all(_absent(spot.trials[0], name) for name in slots)]
    best = min(plain, key=lambda spot: (facts.main.sign * spot.value, spot.trials[0].number), default=None)
    if best is None:
        return []
    which = f"trial {best.trials[0].number}" if len(best.trials) == 1 else f"the best of {len(plain)}"
    return [Reference(f"no attention ({which})", value=best.value)]


def _absent(trial: Trial, name: str) -> bool:
    return trial.record.params.get(name) == "none"


def _published(facts: Facts, metric: str, low: float, high: float) -> list[Reference]:
    """The published networks for pictures and classes as the study's, of a cost near those of its trials."""
    whole = facts.shape
    if metric not in EXACT or whole is None or facts.study.data is not None:
        return []
    found = [(preset.title, preset.cost) for preset in PRESETS.values() if preset.shape == whole]
    if max(whole.height, whole.width) <= SMALL:
        found += [(f"ResNet-{depth}", network_cost(ResNet(depth=depth), whole)) for depth in CIFAR_DEPTHS]
    priced = {title: float(getattr(cost, metric)) for title, cost in found}
    return [Reference(title, cost=cost) for title, cost in priced.items() if low / BESIDE <= cost <= BESIDE * high]


@dataclass(frozen=True)
class Grouping:
    """A choice by its flat name, and those of its options that were trained, in the space's order."""

    name: str
    options: tuple[Scalar, ...]

    @property
    def title(self) -> str:
        return choice_title(self.name)

    def of(self, trial: Trial) -> Scalar:
        """The option that a trial took."""
        return trial.record.params.get(self.name)


def grouping(facts: Facts) -> Grouping | None:
    """Of the always active choices of two to six options the one that explains most of the main metric's variance,
    allowing for its number of options; None where none explains any."""
    if facts.arms is not None and not isinstance(facts.study.strategy, Factorial | Exhaustive):
        return None  # the arms of other designs differ from their baseline in one place each
    scored = []
    for name, domain in facts.space.parameters.items():
        if isinstance(domain, tuple) and not facts.space.conditions[name]:
            groups: dict[Scalar, list[float]] = {option: [] for option in domain}
            for trial in facts.complete:
                groups.setdefault(trial.record.params.get(name), []).append(measured(trial.record, facts.main.metric))
            seen = tuple(option for option, group in groups.items() if group)
            if 2 <= len(seen) <= 6:
                scored.append((explained([groups[option] for option in seen]), Grouping(name, seen)))
    share, best = max(scored, key=lambda item: item[0], default=(0.0, None))
    return best if share > 0 else None


def explained(groups: Sequence[Sequence[float]]) -> float:
    """The share of the variance between the groups, less what chance would put there: epsilon squared (Kelley 1935)."""
    every = [value for group in groups for value in group]
    if len(every) <= len(groups):
        return 0.0
    total, within = _squares(every), math.fsum(map(_squares, groups))
    return 1 - (within / (len(every) - len(groups))) / (total / (len(every) - 1)) if total else 0.0


def _squares(group: Sequence[float]) -> float:
    """The sum of squared distances from the mean."""
    mean = math.fsum(group) / len(group)
    return math.fsum((value - mean) ** 2 for value in group)


@dataclass(frozen=True)
class Curves:
    """Curves of all trials, or of a sample that holds the front's; the ones to see best come last."""

    metric: str
    sign: int
    """Multiplying by it makes smaller better."""
    drawn: tuple[Trial, ...]
    total: int
    """How many trials have a curve."""
    since: int
    """The epoch from which on to draw: a quarter into long curves, so that the differences that remain can be seen."""
    edge: float | None
    """What nine of ten curves are better than from there on; None where all epochs are drawn."""


def curves(facts: Facts, limit: int = MAX_CURVES) -> Curves:
    """The front's curves, the best of them where they are too many, and others evenly by number."""
    having = [trial for trial in facts.trials if trial.record.trained]
    first = [trial for trial in facts.front if trial.record.trained][:limit]
    rest = thinned([trial for trial in having if not trial.on_front], limit - len(first))
    metric, sign = facts.followed.metric, facts.followed.sign
    drawn = tuple(rest + first[::-1])
    longest = max((len(trial.record.curve) for trial in drawn), default=0)
    since = longest // 4 if longest >= 8 else 1
    passed = [epoch.value(metric) for trial in drawn for epoch in trial.record.curve if epoch.epoch == since]
    finite = sorted(filter(math.isfinite, passed), reverse=sign > 0)
    return Curves(metric, sign, drawn, len(having), since, finite[len(finite) // 10] if since > 1 and finite else None)


def thinned(items: Sequence[T], limit: int) -> list[T]:
    """At most so many of them, evenly spaced."""
    if len(items) <= limit:
        return list(items)
    return [items[index * len(items) // limit] for index in range(limit)]
