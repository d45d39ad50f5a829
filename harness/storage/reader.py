"""Reading studies in bulk: a handful of queries however many trials, and neither Optuna nor torch imported."""

import json
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cached_property
from itertools import chain
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from sqlalchemy import ColumnElement, Connection, Table, func, select

from harness.config import Scalar
from harness.errors import StorageError, hint
from harness.record import Epoch, Measurement, Record, State, uncollected
from harness.storage import tables
from harness.storage.tables import reading, shown

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

SHORT = (
    *("key", "seed", "costs", "metrics", "measured", "device", "provenance", "reason", "traceback"),
    *("replaces", "promotes", "inherited", "reused", "origin"),
)
"""Attributes of a trial that are read at once."""
TOGETHER = 1000
"""Trials that are named in one query."""
AT_ONCE = 200
"""Rows that are fetched at once."""
ABSENT: dict[str, Any] = {"key": "", "seed": 0, "costs": {}, "metrics": {}, "provenance": {}}
"""What stands for those that a row has not got and a record has no default for."""
RADII = list(Epoch.__dataclass_fields__).index("radii")
"""Where a point of a curve has them, as `Epoch.row` gives it."""
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
        return numbered(connection, study_id, numbers)


def read_notable(url: str, study_id: int) -> list[Record]:
    """The trials that there is something to say of, one by one: stopped, failed, taken over, or measured on devices."""
    rows, one = tables.trial_attributes.c, tables.trials.c
    said = select(rows.trial_id).where(rows.key.in_(("reused", "measured")))
    notable = one.state.in_(("PRUNED", "FAIL")) | one.trial_id.in_(said)
    with reading(url) as connection:
        found = connection.execute(select(one.number).where(one.study_id == study_id, notable).order_by(one.number))
        return numbered(connection, study_id, found.scalars().all())


def numbered(connection: Connection, study_id: int, numbers: Sequence[int]) -> list[Record]:
    """The trials of these numbers, on an open connection."""
    some = (numbers[place : place + TOGETHER] for place in range(0, len(numbers), TOGETHER))
    return [record for few in some for record in records_of(connection, study_id, tables.trials.c.number.in_(few))]


def read_points(url: str, study_id: int, objectives: int) -> "NDArray[np.float64]":
    """A row for each complete trial, by number: the number, then its values of the objectives."""
    import numpy as np

    one, values = tables.trials, [tables.trial_values.alias() for _ in range(objectives)]
    query = select(one.c.number, *(own.c.value for own in values)).order_by(one.c.number)
    keyed = tables.trial_attributes.alias()  # as what another tool has left in the study is not
    query = query.join(keyed, (keyed.c.trial_id == one.c.trial_id) & (keyed.c.key == "key"))
    query = query.where(one.c.study_id == study_id, one.c.state == "COMPLETE")
    for index, own in enumerate(values):
        query = query.join(own, (own.c.trial_id == one.c.trial_id) & (own.c.objective == index))
    with reading(url) as connection:
        found = connection.execute(query).all()
    return np.fromiter(chain.from_iterable(found), float).reshape(-1, 1 + objectives)


@uncollected
def records_of(connection: Connection, study_id: int, wanted: ColumnElement[bool] | None = None) -> list[Record]:
    """Every trial of a study, or those of it that are wanted, by number, on an open connection; rows that another tool has
    left in it have no key, and are none."""
    own = tables.trials.c.study_id == study_id
    wanted = own if wanted is None else own & wanted
    values, texts = attributes_of(connection, wanted)
    params = params_of(connection, wanted)
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
            **values[trial],
        )
        for trial, number, state, started, ended in listed
        if state in STATES and "key" in values[trial]
    ]


def attributes_of(
    connection: Connection, wanted: ColumnElement[bool]
) -> tuple[dict[int, dict[str, Any]], dict[int, dict[str, str]]]:
    """What the short attributes of wanted trials say, and the others as JSON, by the trial's id. Of each the different texts
    are parsed, all as one: most trials say the same of most."""
    columns: dict[str, tuple[list[int], list[str]]] = {key: ([], []) for key in SHORT}
    texts: dict[int, dict[str, str]] = defaultdict(dict)
    for trial, key, text in rows_of(connection, wanted, tables.trial_attributes, "key", "value_json"):
        if key in columns:
            owners, column = columns[key]
            owners.append(trial)
            column.append(text)
        else:
            texts[trial][key] = text
    values: dict[int, dict[str, Any]] = defaultdict(dict)
    for key, (owners, column) in columns.items():
        different = list(dict.fromkeys(column))
        told = dict(zip(different, json.loads(f"[{','.join(different)}]"), strict=True))
        if key == "measured":
            told = {text: tuple(Measurement(**one) for one in each) for text, each in told.items()}
        for trial, text in zip(owners, column):
            values[trial][key] = told[text]
    return values, texts


def params_of(connection: Connection, wanted: ColumnElement[bool]) -> dict[int, dict[str, Scalar]]:
    """The parameters of wanted trials as they were proposed, by the trial's id, in the order in which they were."""
    found: dict[int, dict[str, Scalar]] = defaultdict(dict)
    spelled: dict[str, Callable[[float], Scalar]] = {}
    rows = rows_of(connection, wanted, tables.trial_params, "param_name", "param_value", "distribution_json", ordered=True)
    for trial, name, value, text in rows:
        if text not in spelled:
            spelled[text] = external(json.loads(text))
        found[trial][name] = spelled[text](value)
    return found


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


def rows_of(
    connection: Connection, wanted: ColumnElement[bool], table: Table, *columns: str, ordered: bool = False
) -> Iterator[Any]:
    """The rows of a table that belong to wanted trials: the trial's id, then the columns; `ordered` as they were written."""
    picked = [table.c.trial_id, *(table.c[column] for column in columns)]
    joined = table.join(tables.trials, tables.trials.c.trial_id == table.c.trial_id)
    query = select(*picked).select_from(joined).where(wanted)
    found = connection.execute(query.order_by(*table.primary_key) if ordered else query)
    return chain.from_iterable(found.partitions(AT_ONCE))


def external(distribution: dict[str, Any]) -> Callable[[float], Scalar]:
    """What gives a parameter as it was proposed, from the number Optuna keeps for it."""
    kind, fields = distribution["name"], distribution["attributes"]
    if kind == "CategoricalDistribution":
        choices: dict[float, Scalar] = dict(enumerate(fields["choices"]))
        return choices.__getitem__
    return int if kind == "IntDistribution" else float


class Row(Record):
    """A record whose longer parts are made of their JSON when they are first asked for: most readers of a large study look
    at these of a few trials."""

    texts: Mapping[str, str]
    """The attributes as the database has them."""

    def __init__(self, texts: Mapping[str, str] = MappingProxyType({}), **known: Any) -> None:
        self.__dict__.update(ABSENT | known, texts=texts)

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

    @property
    def trained(self) -> bool:
        return self.epochs > 0

    @property
    def learned(self) -> list[Mapping[str, Sequence[float]]]:
        return [row[RADII] for row in self._long("curve") or () if len(row) > RADII and row[RADII]]

    @property
    def config_json(self) -> dict[str, Any]:  # not kept: as an object it takes ten times the memory
        return self._long("config") or {}

    @cached_property
    def proposal(self) -> dict[str, Any]:
        return self._long("proposal") or {}
