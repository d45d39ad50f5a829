"""Studies that plain Optuna made: read for their page, and for nothing else."""

import json
import math
from collections import defaultdict
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import select

from harness.config import Scalar
from harness.storage import tables
from harness.storage.reader import params_of, rows_of, studies_of
from harness.storage.tables import reading

METRIC_NAMES = "study:metric_names"
"""Where Optuna keeps what a study's values are called."""
INFINITE = {"INF_POS": math.inf, "INF_NEG": -math.inf}


@dataclass(frozen=True)
class PlainTrial:
    """A trial as Optuna knows it."""

    number: int
    state: str
    params: dict[str, Scalar]
    values: tuple[float, ...]
    """One an objective; none where it did not complete."""
    started: datetime | None
    ended: datetime | None


@dataclass(frozen=True)
class PlainStudy:
    """A study of plain Optuna's, without configs."""

    name: str
    metrics: tuple[str, ...]
    directions: tuple[str, ...]
    """minimize or maximize, one a metric."""
    attributes: dict[str, Any]
    trials: tuple[PlainTrial, ...]
    """By number."""


def read_plain(url: str, name: str) -> PlainStudy | None:
    """The study of a name where plain Optuna made it; None where this harness did, or where there is none."""
    with reading(url) as connection:
        if not tables.made(connection):
            return None
        stored = next((one for one in studies_of(connection) if one.name == name), None)
        if stored is None or "definition" in stored.attributes:
            return None
        owner, system = stored.study_id, tables.study_system.c
        ways = select(tables.directions.c.direction).where(tables.directions.c.study_id == owner).order_by("objective")
        directions = tuple(way.lower() for way in connection.execute(ways).scalars())
        query = select(system.value_json).where(system.study_id == owner, system.key == METRIC_NAMES)
        named = connection.execute(query).scalar_one_or_none()
        wanted, one = tables.trials.c.study_id == owner, tables.trials.c
        params = params_of(connection, wanted)
        values: dict[int, dict[int, float]] = defaultdict(dict)
        for trial, objective, value, kind in rows_of(
            connection, wanted, tables.trial_values, "objective", "value", "value_type"
        ):
            values[trial][objective] = INFINITE.get(kind, value)
        listed = connection.execute(
            select(one.trial_id, one.number, one.state, one.datetime_start, one.datetime_complete)
            .where(wanted)
            .order_by(one.number)
        )
        trials = tuple(
            PlainTrial(number, state, params[trial], tuple(values[trial][index] for index in sorted(values[trial])), *times)
            for trial, number, state, *times in ((*row[:3], *map(_utc, row[3:])) for row in listed)
        )
    unnamed = [f"value {index}" for index in range(1, len(directions) + 1)] if len(directions) > 1 else ["value"]
    metrics = tuple(json.loads(named)) if named is not None else tuple(unnamed)
    return PlainStudy(name, metrics, directions, stored.attributes, trials)


def _utc(moment: datetime | None) -> datetime | None:
    return moment and moment.replace(tzinfo=UTC)
