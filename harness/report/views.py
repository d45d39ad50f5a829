"""The facts behind each figure: fronts over one cost, the choice that tells trials apart, curves."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from harness.analysis.front import front, measured
from harness.config import Scalar
from harness.report.facts import Facts, Trial, values
from harness.report.words import choice_title
from harness.study import Objective

MAX_CURVES = 60


@dataclass(frozen=True)
class Axis:
    """The trials over one cost: those that no other beats on it and on the main metric, and the beaten ones."""

    cost: Objective
    front: tuple[Trial, ...]
    """From the least value of the cost to the greatest."""
    beaten: tuple[Trial, ...]
    wide: bool
    """The costs span so much that a logarithmic axis shows them better."""


def axes(facts: Facts) -> list[Axis]:
    """One per cost that differs between the complete trials."""
    return [axis for cost in facts.costs if (axis := _axis(facts, cost))]


def _axis(facts: Facts, cost: Objective) -> Axis | None:
    shown = [trial for trial in facts.complete if trial.value(cost.metric) is not None]
    spread = values(shown, cost.metric)
    if len(set(spread)) < 2:
        return None
    shown.sort(key=lambda trial: (measured(trial.record, cost.metric), trial.number))
    best = {record.number for record in front([trial.record for trial in shown], (facts.main, cost))}
    return Axis(
        cost=cost,
        front=tuple(trial for trial in shown if trial.number in best),
        beaten=tuple(trial for trial in shown if trial.number not in best),
        wide=min(spread) > 0 and max(spread) > 5 * min(spread),
    )


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
    drawn: tuple[Trial, ...]
    total: int
    """How many trials have a curve."""
    since: int
    """The epoch from which on to draw: a quarter into long curves, so that the differences that remain can be seen."""
    edge: float | None
    """What nine of ten curves are better than from there on; None where all epochs are drawn."""


def curves(facts: Facts, limit: int = MAX_CURVES) -> Curves:
    """The front's curves, the best of them where they are too many, and others evenly by number."""
    having = [trial for trial in facts.trials if trial.record.curve]
    first = [trial for trial in facts.front if trial.record.curve][:limit]
    rest = thinned([trial for trial in having if not trial.on_front], limit - len(first))
    metric = "loss" if facts.main.metric == "loss" else "accuracy"
    drawn = tuple(rest + first[::-1])
    longest = max((len(trial.record.curve) for trial in drawn), default=0)
    since = longest // 4 if longest >= 8 else 1
    passed = [getattr(epoch, metric) for trial in drawn for epoch in trial.record.curve if epoch.epoch == since]
    finite = sorted(filter(math.isfinite, passed), reverse=metric == "loss")
    return Curves(metric, drawn, len(having), since, finite[len(finite) // 10] if since > 1 and finite else None)


def thinned(trials: Sequence[Trial], limit: int) -> list[Trial]:
    """At most so many of them, evenly spaced."""
    if len(trials) <= limit:
        return list(trials)
    return [trials[index * len(trials) // limit] for index in range(limit)]
