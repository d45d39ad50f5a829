"""The arms of a study and what was measured for each: what effects are computed from."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from harness.analysis.front import measured
from harness.design import Arm, Design, arms, planned
from harness.record import Record
from harness.report.words import differences
from harness.space import Params, Space
from harness.study import EXACT, Exhaustive, Study


@dataclass(frozen=True)
class Arms:
    """The arms of a study by name, the baseline first, each with its records by seed."""

    names: tuple[str, ...]
    params: Mapping[str, Params]
    records: Mapping[str, Mapping[int, Record]]
    """Complete ones only."""
    seeds: tuple[int, ...]
    """What every arm is planned to have."""

    @property
    def baseline(self) -> str:
        return self.names[0]

    def values(self, metric: str) -> dict[str, dict[int, float]]:
        """Arm to seed to measured value."""
        return {name: {seed: measured(record, metric) for seed, record in self.records[name].items()} for name in self.names}

    def costs(self) -> dict[str, dict[str, int]]:
        """Params and MACs of each arm that has a record."""
        return {name: dict(next(iter(found.values())).costs) for name, found in self.records.items() if found}

    @property
    def missing(self) -> dict[str, tuple[int, ...]]:
        """Planned seeds that an arm has no complete trial of, by arm; arms that lack none are left out."""
        lacking = {name: tuple(seed for seed in self.seeds if seed not in self.records[name]) for name in self.names}
        return {name: seeds for name, seeds in lacking.items() if seeds}


def arms_of(study: Study, space: Space, records: Sequence[Record]) -> Arms | None:
    """The arms of a design, or of an exhaustive study with several seeds; None for a search, which plans none."""
    if isinstance(study.strategy, Design):
        told = arms(study.strategy, space)
    elif isinstance(study.strategy, Exhaustive) and len(study.seeds) > 1:
        told = list(_seen(space, records))
    else:
        return None
    found: dict[str, dict[int, Record]] = {arm.name: {} for arm in told}
    by_params = {_frozen(arm.params): arm.name for arm in told}
    for record in sorted(records, key=lambda record: record.number):
        name = by_params.get(_frozen(record.params))
        if name is not None and record.state == "complete":
            found[name].setdefault(record.seed, record)
    names = tuple(arm.name for arm in told)
    return Arms(names, {arm.name: arm.params for arm in told}, found, study.seeds) if len(names) > 1 else None


def compared_by(study: Study) -> str:
    """The metric that arms are compared by: the first objective that has to be trained for, else accuracy."""
    return next((objective.metric for objective in study.objectives if objective.metric not in EXACT), "accuracy")


def plan_of(study: Study, training: Any) -> dict[str, Any] | None:
    """The plan of a design, which is hashed and stored before training; None for what plans no comparison. `training` is the
    recipe as its author wrote it, in plain JSON."""
    if not isinstance(study.strategy, Design):
        return None
    return planned(study.strategy, study.open_space(check=False), study.seeds, compared_by(study), training)


def _seen(space: Space, records: Iterable[Record]) -> Iterable[Arm]:
    """The configs that were trained, in the order of their rows, named by what is chosen."""
    seen: dict[tuple[tuple[str, str], ...], Params] = {}
    for record in sorted(records, key=lambda record: record.number):
        seen.setdefault(_frozen(record.params), dict(record.params))
    for params in seen.values():
        yield Arm("; ".join(map(str, differences(params, space.parameters))) or "nothing varies", params)


def _frozen(params: Params) -> tuple[tuple[str, str], ...]:
    return tuple(sorted((name, repr(value)) for name, value in params.items()))
