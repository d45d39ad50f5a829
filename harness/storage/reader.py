"""Reading studies in bulk: a handful of queries however many trials, and neither Optuna nor torch imported."""

import json
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cached_property
from itertools import groupby
from operator import itemgetter
from types import MappingProxyType
from typing import Any

from sqlalchemy import ColumnElement, Connection, Table, func, select

from harness.config import Scalar
from harness.errors import StorageError, hint
from harness.record import Epoch, Measurement, Record, State
from harness.storage import tables
from harness.storage.tables import reading, shown

SHORT = (
    *("key", "seed", "costs", "metrics", "measured", "device", "reason", "traceback"),
    *("replaces", "promotes", "inherited", "reused"),
)
"""Attributes of a trial that are read at once."""
TOGETHER = 1000
"""Trials that are named in one query."""
ABSENT: dict[str, Any] = {"key": "", "seed": 0, "costs": {}, "metrics": {}}
"""What stands for those that a row has not got and a record has no default for."""
STATES: dict[str, State] = {"RUNNING": "running", "COMPLETE": "complete", "PRUNED": "stopped", "FAIL": "failed"}


@dataclass(frozen=True)
class Stored:
    """A study as its database knows it."""

    name: str
    study_id: int
    attributes: dict[str, Any]
    """definition, created, data, provenance and what else was written down when it was created."""
    counts: dict[State, int]


def read_studies(url: str, name: str | None = None) -> list[Stored]:
    """Every study of ours in a database, or the one of a name; raises StorageError when there is none of that name."""
    with reading(url) as connection:
        found = studies_of(connection) if tables.made(connection) else []
    if name is None:
        return [study for study in found if "definition" in study.attributes]
    chosen = [study for study in found if study.name == name.removesuffix("@1")]
    if "@" not in name and (newest := revisions([study for study in found if "definition" in study.attributes], name)):
        chosen = newest[-1:]
    names = [study.name for study in found]
    if not chosen:
        known = f"it has {', '.join(names[:10])}" if names else "it has none"
        raise StorageError(f"{shown(url)} has no study {name!r} ({known}){hint(name, names)}")
    if "definition" not in chosen[0].attributes:
        raise StorageError(
            f"{name!r} in {shown(url)} was not made by this harness: it has no definition; `harness report {name}` shows"
            " what plain Optuna knows of it"
        )
    return chosen


def revision(name: str) -> tuple[str, int]:
    """The name that a study's author gave it, and which revision it is: kernels@2 is the second of kernels."""
    base, _, number = name.partition("@")
    return base, int(number) if number.isdigit() else 1


def revisions(studies: Sequence[Stored], name: str) -> list[Stored]:
    """The revisions of a study, the newest last."""
    return sorted((study for study in studies if revision(study.name)[0] == name), key=lambda study: revision(study.name)[1])


def studies_of(connection: Connection) -> list[Stored]:
    """Every study of a database, others' too, on an open connection."""
    attributes: dict[int, dict[str, Any]] = defaultdict(dict)
    rows = tables.study_attributes
    for owner, key, value in connection.execute(select(rows.c.study_id, rows.c.key, rows.c.value_json)):
        attributes[owner][key] = json.loads(value)
    counts: dict[int, dict[State, int]] = defaultdict(dict)
    one = tables.trials.c
    for owner, state, count in connection.execute(
        select(one.study_id, one.state, func.count()).group_by(one.study_id, one.state)
    ):
        if state in STATES:
            counts[owner][STATES[state]] = count
    listed = connection.execute(select(tables.studies.c.study_name, tables.studies.c.study_id).order_by("study_id"))
    return [Stored(name, study_id, attributes[study_id], counts[study_id]) for name, study_id in listed]


def read_records(url: str, study_id: int, wanted: ColumnElement[bool] | None = None) -> list[Record]:
    """Every trial of a study, or those of it that are wanted, by number."""
    with reading(url) as connection:
        return records_of(connection, study_id, wanted)


def read_numbered(url: str, study_id: int, numbers: Sequence[int]) -> list[Record]:
    """The trials of these numbers, by number."""
    with reading(url) as connection:
        return _numbered(connection, study_id, numbers)


def read_notable(url: str, study_id: int) -> list[Record]:
    """The trials that there is something to say of, one by one: stopped, failed, taken over, or measured on devices."""
    rows, one = tables.trial_attributes.c, tables.trials.c
    said = select(rows.trial_id).where(rows.key.in_(("reused", "measured")))
    notable = one.state.in_(("PRUNED", "FAIL")) | one.trial_id.in_(said)
    with reading(url) as connection:
        found = connection.execute(select(one.number).where(one.study_id == study_id, notable).order_by(one.number))
        return _numbered(connection, study_id, found.scalars().all())


def _numbered(connection: Connection, study_id: int, numbers: Sequence[int]) -> list[Record]:
    some = (numbers[place : place + TOGETHER] for place in range(0, len(numbers), TOGETHER))
    return [record for few in some for record in records_of(connection, study_id, tables.trials.c.number.in_(few))]


def read_points(url: str, study_id: int) -> tuple[list[int], list[tuple[float, ...]]]:
    """The numbers of the complete trials, in order, and their values of the objectives."""
    one, rows = tables.trials, tables.trial_values
    query = (
        select(one.c.number, rows.c.value)
        .join(rows, rows.c.trial_id == one.c.trial_id)
        .where(one.c.study_id == study_id, one.c.state == "COMPLETE")
        .order_by(one.c.number, rows.c.objective)
    )
    with reading(url) as connection:
        found = groupby(connection.execute(query), key=itemgetter(0))
        points = [(number, tuple(value for _, value in some)) for number, some in found]
    return [number for number, _ in points], [values for _, values in points]


def records_of(connection: Connection, study_id: int, wanted: ColumnElement[bool] | None = None) -> list[Record]:
    """Every trial of a study, or those of it that are wanted, by number, on an open connection."""
    own = tables.trials.c.study_id == study_id
    wanted = own if wanted is None else own & wanted
    texts: dict[int, dict[str, str]] = defaultdict(dict)
    for trial, key, value in rows_of(connection, wanted, tables.trial_attributes, "key", "value_json"):
        texts[trial][key] = value
    params: dict[int, dict[str, Scalar]] = defaultdict(dict)
    spelled: dict[str, dict[str, Any]] = {}
    for trial, name, value, text in rows_of(
        connection, wanted, tables.trial_params, "param_name", "param_value", "distribution_json"
    ):
        if text not in spelled:
            spelled[text] = json.loads(text)
        params[trial][name] = external(value, spelled[text])
    one = tables.trials.c
    listed = connection.execute(
        select(one.trial_id, one.number, one.state, one.datetime_start, one.datetime_complete)
        .where(wanted)
        .order_by(one.number)
    )
    return [
        Row(
            texts[trial],
            number=number,
            state=STATES[state],
            params=params[trial],
            started=started and started.replace(tzinfo=UTC),
            ended=ended and ended.replace(tzinfo=UTC),
        )
        for trial, number, state, started, ended in listed
        if state in STATES
    ]


def finished_by_key(connection: Connection, since: datetime | None = None, *, but: int | None = None) -> dict[str, int]:
    """The ids of the complete trials of every study (`but` one) by key, of a key the first; or of those ended `since`."""
    one, rows = tables.trials, tables.trial_attributes
    query = (
        select(rows.c.value_json, one.c.trial_id)
        .join(one, rows.c.trial_id == one.c.trial_id)
        .where(one.c.state == "COMPLETE", rows.c.key == "key")
        .order_by(one.c.trial_id.desc())
    )
    if but is not None:
        query = query.where(one.c.study_id != but)
    if since is not None:
        query = query.where(one.c.datetime_complete >= since.replace(tzinfo=None))
    return {json.loads(key): trial_id for key, trial_id in connection.execute(query)}


def trial_of(connection: Connection, trial_id: int) -> tuple[str, Record] | None:
    """The trial of an id with the name of its study; None where it is gone."""
    one, named = tables.trials, tables.studies
    query = (
        select(named.c.study_id, named.c.study_name)
        .join(one, one.c.study_id == named.c.study_id)
        .where(one.c.trial_id == trial_id)
    )
    owner = connection.execute(query).one_or_none()
    records = records_of(connection, owner.study_id, one.c.trial_id == trial_id) if owner is not None else []
    return (owner.study_name, records[0]) if owner is not None and records else None


def rows_of(connection: Connection, wanted: ColumnElement[bool], table: Table, *columns: str) -> Any:
    """The rows of a table that belong to wanted trials: the trial's id, then the columns."""
    picked = [table.c.trial_id, *(table.c[column] for column in columns)]
    joined = table.join(tables.trials, tables.trials.c.trial_id == table.c.trial_id)
    first = table.primary_key.columns[0]
    return connection.execute(select(*picked).select_from(joined).where(wanted).order_by(first))


def external(value: float, distribution: dict[str, Any]) -> Scalar:
    """A parameter as it was proposed, from the number Optuna keeps for it."""
    kind, fields = distribution["name"], distribution["attributes"]
    if kind == "CategoricalDistribution":
        choice: Scalar = fields["choices"][int(value)]
        return choice
    return int(value) if kind == "IntDistribution" else float(value)


class Row(Record):
    """A record whose longer parts are made of their JSON when they are first asked for: most readers of a large study look
    at these of a few trials."""

    texts: Mapping[str, str]
    """The attributes as the database has them."""

    def __init__(self, texts: Mapping[str, str] = MappingProxyType({}), **plain: Any) -> None:
        short = {name: json.loads(texts[name]) for name in SHORT if name in texts}
        short["measured"] = tuple(Measurement(**one) for one in short.get("measured", ()))
        self.__dict__.update(ABSENT | short | plain, texts=texts)

    def _long(self, name: str) -> Any:
        """What a longer attribute says; None where it is not there."""
        return json.loads(self.texts[name]) if name in self.texts else None

    @cached_property
    def curve(self) -> tuple[Epoch, ...]:
        return tuple(map(Epoch.from_row, self._long("curve") or ()))

    @cached_property
    def epochs(self) -> int:
        written = self.texts.get("curve", "[]")  # as `Epoch.row` gives its points: lists that no other lists stand beside
        return 0 if written == "[]" else written.count("], [") + 1

    @cached_property
    def config_json(self) -> dict[str, Any]:
        return self._long("config") or {}

    @cached_property
    def provenance(self) -> dict[str, Any]:
        return self._long("provenance") or {}

    @cached_property
    def proposal(self) -> dict[str, Any]:
        return self._long("proposal") or {}
