"""The facts of a report: what a study's records say, in plain values. Figures, page and tables only draw them."""

import math
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

from harness.analysis.arms import Arms, arms_of, shape_of
from harness.analysis.front import front, measured
from harness.config import Backbone, Scalar
from harness.cost import Cost, Shape
from harness.design import Design, Exhaustive, arms
from harness.record import Record, State, uncollected
from harness.report.words import Difference, Unit, differences, is_share, unit
from harness.space import Space, Span
from harness.strategies.stopping import recalled
from harness.study import EXACT, METRICS, UNLEARNED, Objective, Search, Study, maximize, minimize

PLACED = "latency, "
"""What the name of a latency begins with that tells its device and batch."""
MANY = 24
"""Arms beyond which only the best are drawn and listed."""
STATES: tuple[State, ...] = ("complete", "stopped", "failed", "running")


@dataclass(frozen=True)
class Trial:
    """A record and what the report says about it."""

    record: Record
    on_front: bool
    """On the front over all of the study's objectives."""
    space: Space

    @property
    def number(self) -> int:
        return self.record.number

    @property
    def differs(self) -> tuple[Difference, ...]:
        """Its choices, in the space's order."""
        return differences(self.record.params, self.space.parameters)

    @property
    def label(self) -> str:
        """What differs, as in a caption: stage 2 SE · ratio 8; stage 3 none."""
        return "; ".join(map(str, self.differs)) or "nothing varies"

    def value(self, metric: str) -> float | None:
        """A metric or a cost, or a latency by its place; None where it was not measured or is not a number."""
        return values_of([self.record], metric)[0]


@dataclass(frozen=True)
class Facts:
    """What a report needs to know of a study; each fact is computed once, when first asked for."""

    study: Study
    attributes: dict[str, Any]
    """What the store keeps with the study; any of it may be missing."""
    trials: tuple[Trial, ...]
    """By number."""
    space: Space
    confirmed: "Facts | None" = None
    """Of the study that confirms this one, where there is one."""

    # which metrics

    def column(self, metric: str) -> list[float | None]:
        """A metric of every trial, None where it has none; looked up once."""
        if metric not in self._columns:
            self._columns[metric] = values_of((trial.record for trial in self.trials), metric)
        return self._columns[metric]

    @cached_property
    def _columns(self) -> dict[str, list[float | None]]:
        return {}

    def known(self, metric: str) -> list[float]:
        """The values of a metric, of the trials that have it."""
        return [value for value in self.column(metric) if value is not None]

    @cached_property
    def main(self) -> Objective:
        """What the answer is about: the first objective that has to be trained for, else accuracy."""
        learned = (objective for objective in self.study.objectives if objective.metric not in EXACT)
        return next(learned, maximize("accuracy"))

    @cached_property
    def costs(self) -> tuple[Objective, ...]:
        """What the main metric is set against: the exact costs, and any further objective."""
        own: dict[str, Objective] = {objective.metric: objective for objective in self.study.objectives}
        exact = tuple(own.get(metric, minimize(metric)) for metric in EXACT)
        further = tuple(own[metric] for metric in own if metric not in (*EXACT, self.main.metric))
        timed = (metric for metric in self.timed if metric not in own)  # a place is no name that a study may give
        return exact + further + tuple(Objective.model_construct(metric=metric, direction="minimize") for metric in timed)

    @cached_property
    def timed(self) -> tuple[str, ...]:
        """Latencies that trials measured: one, or of several devices and batches each by its place."""
        places = dict.fromkeys(PLACED + one.title for trial in self.trials for one in trial.record.measured)
        return tuple(places) if len(places) > 1 else ("latency",) if self.known("latency") else tuple(places)

    @cached_property
    def thrift(self) -> Objective:
        """The cost to save on: the last exact one among the objectives, MACs by default."""
        exact = (objective for objective in reversed(self.study.objectives) if objective.metric in EXACT)
        return next(exact, minimize("macs"))

    @cached_property
    def units(self) -> dict[str, Unit]:
        """One unit per metric for the whole report."""
        return units_of([self])

    @cached_property
    def metrics(self) -> tuple[str, ...]:
        """Ours, and whatever a loop of the user's own measured."""
        named = (objective.metric for objective in self.study.objectives)
        return tuple(dict.fromkeys((*METRICS, *named, *(name for trial in self.trials for name in trial.record.metrics))))

    @cached_property
    def followed(self) -> Objective:
        """The metric whose curves are shown, and the way it should go: the main one where it is known after each epoch."""
        learned = [objective for objective in (self.main, *self.study.objectives) if objective.metric not in UNLEARNED]
        seen = (name for trial in self.trials for point in trial.record.curve[-1:] for name in point.metrics())
        metric = "accuracy" if self.study.trial is None else next(seen, "accuracy")
        return learned[0] if learned else maximize(metric) if metric != "loss" else minimize(metric)

    @cached_property
    def in_points(self) -> bool:
        """Whether differences of the main metric are points of percent."""
        return is_share(self.main.metric, self.main.unit)

    # what it is compared with

    @cached_property
    def arms(self) -> Arms | None:
        """The arms of a design, or of an exhaustive study with several seeds; None for a search."""
        return arms_of(self.study, self.space, [trial.record for trial in self.trials], self.shape)

    @cached_property
    def ranked(self) -> bool:
        """Whether the arms are the many configs of a space, of which the first is a baseline by chance: they are ranked,
        rather than each told against it."""
        by_chance = isinstance(self.study.strategy, Exhaustive) and not self.study.strategy.declared
        return self.arms is not None and by_chance and len(self.arms.names) > MANY

    @cached_property
    def reference(self) -> dict[str, Scalar]:
        """What a trial's choices are told against: those of a design's baseline, else of each choice between values the one
        that most trials took, the earlier where equal; a span has none."""
        if self.arms is not None and isinstance(self.study.strategy, Design):
            return dict(self.arms.params[self.arms.baseline])
        found: dict[str, Scalar] = {}
        choices = [name for name, domain in self.space.parameters.items() if not isinstance(domain, Span)]
        for name in choices:
            taken = Counter(trial.record.params[name] for trial in self.trials if name in trial.record.params)
            if taken:
                found[name] = max(taken, key=lambda value, taken=taken: taken[value])  # type: ignore[misc]
        return found

    @cached_property
    def shape(self) -> Shape | None:
        """Pictures and classes of the study's data, where they were recorded."""
        return shape_of(self.attributes)

    @cached_property
    def grids(self) -> dict[str, list[int]]:
        """Height and width of what leaves each stage of the networks, by its number; nothing where that is not known."""
        if self.best is None or self.shape is None:
            return {}
        network = self.best.record.config.network
        if isinstance(network, Backbone):
            return {}
        found = network.pieces(self.shape, lambda *_: Cost(0, 0))
        return {name.removeprefix("stage "): list(grid[1:]) for name, _, grid in found if name.startswith("stage ")}

    # how many

    @cached_property
    def states(self) -> dict[State, int]:
        """Trials per state, of the states that occur."""
        found = Counter(trial.record.state for trial in self.trials)
        return {state: found[state] for state in STATES if found[state]}

    @cached_property
    def untrained(self) -> int:
        """Stopped trials that broke a measured constraint before their first epoch."""
        return sum(trial.record.untrained for trial in self.trials)

    @cached_property
    def planned(self) -> int | None:
        """How many trials the strategy asks for; of an exhaustive study at most, as constraints and twins drop out."""
        strategy = self.study.strategy
        if isinstance(strategy, Search):
            return strategy.trials
        if isinstance(strategy, Design):
            named = arms(strategy, self.space) if self.arms is None else self.arms.names
            return len(named) * len(self.study.seeds)
        total = self.space.size * len(self.study.seeds)
        return int(total) if math.isfinite(total) else None

    @cached_property
    def epochs(self) -> int:
        """Epochs trained, in all; those that a promoted trial was handed count once."""
        return sum(trial.record.epochs - trial.record.inherited for trial in self.trials if trial.record.reused is None)

    @cached_property
    def reused(self) -> dict[str, int]:
        """Trials taken over from each other study."""
        return dict(Counter(str(found["study"]) for trial in self.trials if (found := trial.record.reused)))

    @cached_property
    def saved(self) -> int:
        """Epochs that early stopping saved."""
        return recalled(self.study, [trial.record for trial in self.trials]).saved

    @cached_property
    def seconds(self) -> float:
        """Seconds trained, in all: as measured at the end, or epoch by epoch where a trial has no end."""
        own = [trial for trial in self.trials if trial.record.reused is None]
        spent = (trial.value("seconds") or sum(epoch.seconds for epoch in trial.record.curve) for trial in own)
        promoted = (trial.record for trial in own if trial.record.inherited)
        handed = (epoch.seconds for record in promoted for epoch in record.curve[: record.inherited])
        return sum(spent) - sum(handed)

    # what came out

    def worth(self, trial: Trial) -> tuple[float, float, int]:
        """Sorts the best first by the main metric, the cheaper first where equal."""
        price = measured(trial.record, self.thrift.metric)
        return (self._loss(trial), self.thrift.sign * price if math.isfinite(price) else 0, trial.number)

    def _loss(self, trial: Trial) -> float:
        return self.main.sign * measured(trial.record, self.main.metric)

    @cached_property
    def complete(self) -> tuple[Trial, ...]:
        """The complete trials that have the main metric, best first."""
        reached = zip(self.trials, self.column(self.main.metric))
        found = (trial for trial, value in reached if value is not None and trial.record.state == "complete")
        return tuple(sorted(found, key=self.worth))

    @cached_property
    def best(self) -> Trial | None:
        return self.complete[0] if self.complete else None

    @cached_property
    def front(self) -> tuple[Trial, ...]:
        """The study's front over all its objectives, best first."""
        return tuple(sorted((trial for trial in self.trials if trial.on_front), key=self.worth))

    @cached_property
    def tolerance(self) -> float:
        """What 'about as good as the best' means: one point of accuracy, 5 % of anything else."""
        best = self.best.value(self.main.metric) if self.best else None
        return 0.01 if self.in_points else 0.05 * abs(best or 0)

    @cached_property
    def thrifty(self) -> Trial | None:
        """The cheapest trial about as good as the best; the better one where costs are equal."""
        if self.best is None:
            return None
        limit = self._loss(self.best) + self.tolerance + 1e-12
        near = [trial for trial in self.complete if self._loss(trial) <= limit]
        priced = [trial for trial in near if trial.value(self.thrift.metric) is not None]
        return min(priced, key=lambda trial: self.thrift.sign * measured(trial.record, self.thrift.metric), default=None)

    # where it comes from

    def settings(self, name: str) -> list[Any]:
        """The values of a training setting among the trials, as resolved; each once. Data of one's own go by their name."""
        if name == "dataset" and self.study.data is not None:
            return [self.study.data.name]
        return distinct(self._settings.get(name, {}).values())

    @cached_property
    def _settings(self) -> dict[str, dict[str, Any]]:
        """Of each training setting the different values, by how they are spelled."""
        found: dict[str, dict[str, Any]] = {}
        for trial in self.trials:
            for name, value in trial.record.config_json.get("training", {}).items():
                found.setdefault(name, {}).setdefault(repr(value), value)
        return found

    def origins(self, name: str) -> list[Any]:
        """The values of a provenance entry (commit, host, threads, ...) of the trials and of the study; each once."""
        whole = self.attributes.get("provenance") or {}
        return distinct([*(trial.record.provenance.get(name) for trial in self.trials), whole.get(name)])

    @cached_property
    def versions(self) -> dict[str, list[str]]:
        """Every version of every library that trials ran with."""
        found: dict[str, list[str]] = {}
        for versions in self.origins("versions"):
            for library, version in versions.items():
                if str(version) not in found.setdefault(str(library), []):
                    found[str(library)].append(str(version))
        return dict(sorted(found.items()))

    @cached_property
    def devices(self) -> dict[str, int]:
        """Trials per device, the most used first."""
        return dict(Counter(trial.record.device for trial in self.trials if trial.record.device).most_common())


@uncollected
def gather(study: Study, attributes: dict[str, Any], records: Sequence[Record], confirmed: Facts | None = None) -> Facts:
    """The facts of a study and its records, which may be none; `confirmed` are those of the study that confirms it."""
    space = study.open_space(check=False)
    best = {record.number for record in front(records, study.objectives)}
    trials = [Trial(record, record.number in best, space) for record in sorted(records, key=lambda record: record.number)]
    return Facts(study, attributes, tuple(trials), space, confirmed)


def units_of(studies: Sequence[Facts]) -> dict[str, Unit]:
    """One unit per metric for all of these studies."""
    own = {metric: words for facts in studies for metric, words in facts.study.units.items()}
    found = {}
    for metric in dict.fromkeys(metric for facts in studies for metric in (*facts.metrics, *facts.timed)):
        seen = [value for facts in studies for value in facts.known(metric)]
        kind = "latency" if metric.startswith(PLACED) else metric
        found[metric] = replace(unit(kind, seen, own.get(metric, "")), metric=metric)
    return found


def values_of(records: Iterable[Record], metric: str) -> list[float | None]:
    """A metric or a cost of each record, or a latency by its place; None where it was not measured or is not a number."""
    if metric.startswith(PLACED):
        timed = ((one.latency for one in reversed(record.measured) if PLACED + one.title == metric) for record in records)
        found = [next(latencies, math.nan) for latencies in timed]
    else:
        found = [measured(record, metric) for record in records]
    return [value if math.isfinite(value) else None for value in found]


def values(trials: Iterable[Trial], metric: str) -> list[float]:
    """The values of a metric, of the trials that have it."""
    return [value for trial in trials if (value := trial.value(metric)) is not None]


def distinct(items: Iterable[Any]) -> list[Any]:
    """Each item once, in the order met; None and empty ones left out."""
    found = []
    for item in items:
        if item not in (None, "", {}) and item not in found:
            found.append(item)
    return found
