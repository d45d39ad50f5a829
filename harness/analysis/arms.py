"""The arms of a study and what was measured for each: what effects are computed from."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from harness.analysis.front import measured
from harness.design import Arm, Design, arms
from harness.record import Record
from harness.report.words import differences
from harness.space import Params, Space
from harness.study import Exhaustive, Study


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
        planned = arms(study.strategy, space)
    elif isinstance(study.strategy, Exhaustive) and len(study.seeds) > 1:
        planned = list(_seen(space, records))
    else:
        return None
    found: dict[str, dict[int, Record]] = {arm.name: {} for arm in planned}
    by_params = {_frozen(arm.params): arm.name for arm in planned}
    for record in sorted(records, key=lambda record: record.number):
        name = by_params.get(_frozen(record.params))
        if name is not None and record.state == "complete":
            found[name].setdefault(record.seed, record)
    names = tuple(arm.name for arm in planned)
    return Arms(names, {arm.name: arm.params for arm in planned}, found, study.seeds) if len(names) > 1 else None


def _seen(space: Space, records: Iterable[Record]) -> Iterable[Arm]:
    """The configs that were trained, in the order of their rows, named by what is chosen."""
    seen: dict[tuple[tuple[str, str], ...], Params] = {}
    for record in sorted(records, key=lambda record: record.number):
        seen.setdefault(_frozen(record.params), dict(record.params))
    for params in seen.values():
        yield Arm("; ".join(map(str, differences(params, space.parameters))) or "nothing varies", params)


def _frozen(params: Params) -> tuple[tuple[str, str], ...]:
    return tuple(sorted((name, repr(value)) for name, value in params.items()))
