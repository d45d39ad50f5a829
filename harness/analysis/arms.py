"""The arms of a study and what was measured for each: what effects are computed from."""

import math
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from harness.analysis.front import measured
from harness.analysis.sequential import Course, Rule, follow
from harness.config import Config
from harness.cost import Shape, network_cost
from harness.design import Arm, Design, Sequential, arms, chosen_words, planned
from harness.errors import ConfigError
from harness.record import Record
from harness.space import Params, Space
from harness.study import EXACT, Exhaustive, Study


@dataclass(frozen=True)
class Arms:
    """The arms of a study by name, the baseline first, each with its records by seed."""

    names: tuple[str, ...]
    params: Mapping[str, Params]
    records: Mapping[str, Mapping[int, Record]]
    """Complete ones only."""
    planned: Mapping[str, tuple[int, ...]]
    """The seeds that each arm is to have: where they come in sequence those that the results so far ask for."""
    course: Course | None = None
    """What the results so far have decided, where seeds come in sequence."""
    beyond: int = 0
    """Complete trials that the results do not ask for, left out: of seeds behind an arm's last look."""

    @property
    def baseline(self) -> str:
        return self.names[0]

    @property
    def seeds(self) -> tuple[int, ...]:
        """Those that the baseline is to have, which are all that any arm is to have."""
        return self.planned[self.baseline]

    def values(self, metric: str) -> dict[str, dict[int, float]]:
        """Arm to seed to measured value."""
        return {name: {seed: measured(record, metric) for seed, record in self.records[name].items()} for name in self.names}

    def costs(self) -> dict[str, dict[str, int]]:
        """Params and MACs of each arm that has a record."""
        return {name: dict(next(iter(found.values())).costs) for name, found in self.records.items() if found}

    @property
    def missing(self) -> dict[str, tuple[int, ...]]:
        """Planned seeds that an arm has no complete trial of, by arm; arms that lack none are left out."""
        lacking = {name: tuple(seed for seed in self.planned[name] if seed not in self.records[name]) for name in self.names}
        return {name: seeds for name, seeds in lacking.items() if seeds}


def shape_of(attributes: Mapping[str, Any]) -> Shape | None:
    """Pictures and classes of a stored study's data, where they were recorded."""
    data = attributes.get("data") or {}
    sides, classes = list(data.get("shape") or ()), data.get("classes")
    return Shape(int(sides[0]), int(sides[1]), int(sides[2]), int(classes)) if len(sides) == 3 and classes else None


def arms_of(study: Study, space: Space, records: Sequence[Record], shape: Shape | None = None) -> Arms | None:
    """The arms of a design, or of an exhaustive study with several seeds; None for a search, which plans none. What breaks
    a constraint on exact costs, for pictures of `shape`, is never trained and is no arm."""
    every = study.strategy if isinstance(study.strategy, Exhaustive) and len(study.seeds) > 1 else None
    if isinstance(study.strategy, Design):
        told = arms(study.strategy, space)
    elif every is not None and every.declared:
        told = arms(every, space)
    elif every is not None:
        told = list(_seen(space, records))
    else:
        return None
    if shape is not None and any(bound.metric in EXACT for bound in study.constraints):
        told = [arm for place, arm in enumerate(told) if not place or _is_allowed(study, space.config(arm.params), shape)]
    found: dict[str, dict[int, Record]] = {arm.name: {} for arm in told}
    by_params = {_frozen(arm.params): arm.name for arm in told}
    for record in sorted(records, key=lambda record: record.number):
        name = by_params.get(_frozen(record.params))
        if name is not None and record.state == "complete":
            found[name].setdefault(record.seed, record)
    if len(told) < 2:
        return None
    if isinstance(study.seeds, Sequential):
        return _in_sequence(contest(study, space), compared_by(study), found, records)
    names = tuple(arm.name for arm in told)
    return Arms(names, {arm.name: arm.params for arm in told}, found, dict.fromkeys(names, study.seeds))


def _is_allowed(study: Study, config: Config, shape: Shape) -> bool:
    """Whether a config keeps the constraints on exact costs; what has no closed form is taken to."""
    try:
        cost = network_cost(config.network, shape)._asdict()
    except ConfigError:
        return True
    return all(bound.holds(cost) for bound in study.constraints if bound.metric in EXACT)


@dataclass(frozen=True)
class Contest:
    """The comparisons of a design whose seeds come in sequence."""

    rule: Rule
    params: Mapping[str, Params]
    """The arms by name, the baseline first."""
    names: Mapping[tuple[tuple[str, str], ...], str]

    @property
    def baseline(self) -> str:
        return next(iter(self.params))

    def name(self, params: Params) -> str | None:
        """The arm of these parameters, None where it is none of the design."""
        return self.names.get(_frozen(params))

    def course(self, values: Mapping[str, Mapping[int, float]], gone: Mapping[str, Collection[int]]) -> Course:
        return follow(values, gone, self.baseline, self.rule)

    def asked(self, course: Course) -> dict[str, int]:
        """Seeds that each arm is to have, by what the results so far say."""
        return {self.baseline: course.asked} | {name: one.asked for name, one in course.arms.items()}


def contest(study: Study, space: Space) -> Contest:
    """The comparisons of a study whose seeds come in sequence."""
    assert isinstance(study.seeds, Sequential)
    assert isinstance(study.strategy, Design)
    told = arms(study.strategy, space)
    return Contest(
        rule_of(study.seeds, study.strategy),
        {arm.name: arm.params for arm in told},
        {_frozen(arm.params): arm.name for arm in told},
    )


def rule_of(seeds: Sequential, design: Design) -> Rule:
    """What is looked at, and when: the margin is the design's where the seeds name none."""
    return Rule(seeds.first, seeds.most, seeds.smallest_effect or design.margin, design.primary)


def _in_sequence(
    contest: Contest, metric: str, complete: Mapping[str, Mapping[int, Record]], records: Sequence[Record]
) -> Arms:
    """The arms with the trials that the results ask for; a trial that failed and does not run again is not waited for."""
    ended: dict[str, set[int]] = {name: set() for name in contest.params}
    for record in sorted(records, key=lambda record: record.number):
        if (name := contest.name(record.params)) is not None:
            (ended[name].discard if record.state == "running" else ended[name].add)(record.seed)
    values = {
        name: {seed: value for seed, record in found.items() if math.isfinite(value := measured(record, metric))}
        for name, found in complete.items()
    }
    course = contest.course(values, ended)
    planned = {name: tuple(range(asked)) for name, asked in contest.asked(course).items()}
    kept = {
        name: {seed: found[seed] for seed in sorted(values[name]) if seed in planned[name]}
        for name, found in complete.items()
    }
    beyond = sum(len(values[name]) - len(kept[name]) for name in kept)
    return Arms(tuple(contest.params), contest.params, kept, planned, course, beyond)


def compared_by(study: Study) -> str:
    """The metric that arms are compared by: the first objective that has to be trained for, else accuracy."""
    return next((objective.metric for objective in study.objectives if objective.metric not in EXACT), "accuracy")


MOST_PLANNED = 200
"""Configs of an exhaustive study up to which they are planned as comparisons."""


def plans_comparisons(study: Study) -> bool:
    """Whether a study says before training what it compares: a design does, and so does every config of a small space, each
    with several seeds."""
    strategy = study.strategy
    if isinstance(strategy, Exhaustive):
        return len(study.seeds) > 1 and (strategy.declared or study.open_space(check=False).size <= MOST_PLANNED)
    return isinstance(strategy, Design)


def plan_of(study: Study, training: Any) -> dict[str, Any] | None:
    """The plan of a design, which is hashed and stored before training; None for what plans no comparison. `training` is the
    recipe as its author wrote it, in plain JSON."""
    if not plans_comparisons(study):
        return None
    assert isinstance(study.strategy, Design | Exhaustive)
    return planned(study.strategy, study.open_space(check=False), study.seeds, compared_by(study), training)


def _seen(space: Space, records: Iterable[Record]) -> Iterable[Arm]:
    """The configs that were trained, in the order of their rows, named by what is chosen."""
    seen: dict[tuple[tuple[str, str], ...], Params] = {}
    for record in sorted(records, key=lambda record: record.number):
        seen.setdefault(_frozen(record.params), dict(record.params))
    for params in seen.values():
        yield Arm(chosen_words(params, space), params)


def _frozen(params: Params) -> tuple[tuple[str, str], ...]:
    return tuple(sorted((name, repr(value)) for name, value in params.items()))
