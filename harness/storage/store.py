"""The Optuna study as the only truth: rows written whole, begun in one commit and finished in one."""

import json
import math
import time
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from types import TracebackType
from typing import Any, Self, TypeVar

from optuna import create_study, load_study, logging
from optuna.distributions import BaseDistribution, distribution_to_json
from optuna.exceptions import DuplicatedStudyError, ExperimentalWarning, StorageInternalError
from optuna.storages import RDBStorage
from sqlalchemy import Connection, delete, func, insert, select, update
from sqlalchemy.exc import IntegrityError, OperationalError, ProgrammingError, SQLAlchemyError

from harness.config import Scalar
from harness.errors import StorageError, one_line
from harness.record import Epoch, Record, State
from harness.storage import tables
from harness.storage.reader import finished_by_key, numbered, records_of, trial_of
from harness.storage.tables import DatabaseAway, database_file, engine_options, full, readable, shown, tune
from harness.study import Objective

OUTAGE = 120.0
"""Seconds that a run waits for a database that is away, beside the wait for a lock."""
T = TypeVar("T")
FINISHED = {"complete": "COMPLETE", "stopped": "PRUNED", "failed": "FAIL"}


@contextmanager
def _by_optuna(url: str) -> Iterator[None]:
    """Turns what Optuna says of a database into what the database said, in one line."""
    with readable(url):
        try:
            yield
        except StorageInternalError as error:
            raise (error.__cause__ if isinstance(error.__cause__, SQLAlchemyError) else error) from None


def _open(url: str, tries: int = 20) -> RDBStorage:
    """Optuna's storage, its tables made; of several drivers that make them at one instant, all but one try again."""
    for left in reversed(range(tries)):
        try:
            return RDBStorage(full(url), engine_kwargs=engine_options(url))
        except RuntimeError as error:  # tables of another version of Optuna
            raise StorageError(f"{shown(url)}: {one_line(error)}") from None
        except (IntegrityError, OperationalError, ProgrammingError) as error:
            another_makes_them = isinstance(error, IntegrityError) or "already exists" in str(error)
            if not (left and another_makes_them):
                raise
            time.sleep(0.1)
    raise AssertionError("unreachable")


class Store:
    """One database, opened for writing; one driver writes, everybody may read.

    Raises StorageError, in one line, where the database cannot be opened, read or written.
    """

    def __init__(self, url: str) -> None:
        self.url = url
        logging.set_verbosity(logging.WARNING)
        file = database_file(url)
        if file is not None and not file.parent.is_dir():
            raise StorageError(f"--storage {shown(url)}: there is no folder {file.parent}; make it, or name another place")
        with _by_optuna(url):
            self._optuna = _open(url)
            self.engine = self._optuna.engine
            self._ids: dict[tuple[int, int], int] = {}
            tune(self.engine)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        """Gives the connections back."""
        self._optuna.remove_session()
        self.engine.dispose()

    # the study

    def create(self, name: str, objectives: Sequence[Objective]) -> int:
        """The id of the study of this name, made where there is none; `set_attributes` then says what it is.

        Raises StorageError where a study of this name was made by something else."""
        directions = [objective.direction for objective in objectives]
        with _by_optuna(self.url):
            try:
                study = create_study(storage=self._optuna, study_name=name, directions=directions)
            except DuplicatedStudyError:
                study = load_study(storage=self._optuna, study_name=name)
                rows = tables.trials.c
                counted = select(rows.trial_id).where(rows.study_id == self._optuna.get_study_id_from_name(name)).limit(1)
                with self.engine.connect() as connection:
                    empty = connection.execute(counted).first() is None and not study.user_attrs
                ours = "definition" in study.user_attrs  # read last: a quicker driver writes it before its first trial
                same = [direction.name.lower() for direction in study.directions] == directions
                if not (ours or (empty and same)):  # what is empty is our own, cut short while it was made
                    raise StorageError(
                        f"{shown(self.url)} has a study {name!r} that this harness did not make: choose another name"
                    ) from None
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", ExperimentalWarning)
                study.set_metric_names([objective.metric for objective in objectives])
            return self._optuna.get_study_id_from_name(name)

    def set_attributes(self, study_id: int, attributes: Mapping[str, Any]) -> None:
        """Writes attributes of a study, all or none."""
        rows = tables.study_attributes
        with readable(self.url), self.engine.begin() as connection:
            connection.execute(delete(rows).where(rows.c.study_id == study_id, rows.c.key.in_(list(attributes))))
            values = [
                {"study_id": study_id, "key": key, "value_json": json.dumps(value)} for key, value in attributes.items()
            ]
            connection.execute(insert(rows), values)

    def records(self, study_id: int) -> list[Record]:
        """Every trial, by number."""
        with readable(self.url), self.engine.connect() as connection:
            return records_of(connection, study_id)

    def numbered(self, study_id: int, numbers: Sequence[int]) -> list[Record]:
        """The trials of these numbers."""
        return self._read(lambda connection: numbered(connection, study_id, numbers))

    def finished_elsewhere(self, study_id: int, since: datetime | None = None) -> dict[str, int]:
        """The ids of the complete trials of every other study by key (of a key the first), or of those ended `since`."""
        return self._read(lambda connection: finished_by_key(connection, since, but=study_id))

    def trial(self, trial_id: int) -> tuple[str, Record] | None:
        """The trial of an id with the name of its study; None where it is gone."""
        return self._read(lambda connection: trial_of(connection, trial_id))

    # rows

    def begin(
        self,
        study_id: int,
        params: Mapping[str, Scalar],
        distributions: Mapping[str, BaseDistribution],
        attributes: Mapping[str, Any],
    ) -> int:
        """Writes a whole RUNNING row in one commit; returns its number."""
        return self._insert(study_id, params, distributions, attributes, {"state": "RUNNING"})

    def take_over(
        self,
        study_id: int,
        params: Mapping[str, Scalar],
        distributions: Mapping[str, BaseDistribution],
        attributes: Mapping[str, Any],
        values: Sequence[float],
        curve: Sequence[Epoch],
    ) -> int:
        """Writes a whole COMPLETE row, trained before, in one commit; returns its number."""
        row = {"state": "COMPLETE", "datetime_complete": datetime.now(UTC).replace(tzinfo=None)}
        return self._insert(study_id, params, distributions, attributes, row, values, curve)

    def _insert(
        self,
        study_id: int,
        params: Mapping[str, Scalar],
        distributions: Mapping[str, BaseDistribution],
        attributes: Mapping[str, Any],
        row: Mapping[str, Any],
        values: Sequence[float] = (),
        curve: Sequence[Epoch] = (),
    ) -> int:
        one, began = tables.trials, datetime.now(UTC).replace(tzinfo=None)
        chosen = [
            {
                "param_name": name,
                "param_value": distributions[name].to_internal_repr(value),
                "distribution_json": distribution_to_json(distributions[name]),
            }
            for name, value in params.items()
        ]

        def write(again: bool) -> int:
            written = self._written(study_id, attributes["key"], row["state"]) if again else None
            if written is not None:
                return written
            with self.engine.begin() as connection:
                newest = select(one.c.number).where(one.c.study_id == study_id).order_by(one.c.trial_id.desc()).limit(1)
                following = func.coalesce(newest.scalar_subquery() + 1, 0)
                own = {"study_id": study_id, "number": following, "datetime_start": began, **row}
                trial_id: int = connection.execute(insert(one).values(own)).inserted_primary_key[0]  # type: ignore[index]
                if chosen:
                    connection.execute(insert(tables.trial_params), [{"trial_id": trial_id, **choice} for choice in chosen])
                self._write_attributes(connection, trial_id, attributes)
                self._write_curve(connection, trial_id, curve)
                self._write_values(connection, trial_id, values)
                number = int(connection.execute(select(one.c.number).where(one.c.trial_id == trial_id)).scalar_one())
            self._ids[study_id, number] = trial_id
            return number

        return self._patiently(write)

    def _patiently(self, write: Callable[[bool], T]) -> T:
        """Tries again while the database is locked or away; `write(True)` reckons with a commit whose answer was lost."""
        end, pause, again = time.monotonic() + OUTAGE, 0.1, False
        while True:
            try:
                with readable(self.url):
                    return write(again)
            except DatabaseAway:
                if time.monotonic() > end:
                    raise
            time.sleep(pause)
            pause, again = min(2 * pause, 5.0), True

    def _read(self, read: Callable[[Connection], T]) -> T:
        """What is read while trials run, of a database that may be locked or away for a while."""

        def ask(again: bool) -> T:
            with self.engine.connect() as connection:
                return read(connection)

        return self._patiently(ask)

    def _written(self, study_id: int, key: str, state: str) -> int | None:
        """The number of the row of a key in a state, if there is one."""
        one, rows = tables.trials, tables.trial_attributes
        query = (
            select(one.c.number)
            .join(rows, rows.c.trial_id == one.c.trial_id)
            .where(one.c.study_id == study_id, one.c.state == state)
            .where(rows.c.key == "key", rows.c.value_json == json.dumps(key))
        )
        with self.engine.connect() as connection:
            return connection.execute(query).scalar_one_or_none()

    def progress(self, study_id: int, number: int, curve: Sequence[Epoch], device: str = "") -> None:
        """Writes the curve so far of a running row, and where it is trained, in one commit."""

        def write(again: bool) -> None:
            with self.engine.begin() as connection:
                trial_id = self._claim(connection, study_id, number, state="RUNNING")
                self._write_curve(connection, trial_id, curve)
                self._write_attributes(connection, trial_id, {"device": device} if device else {})

        self._patiently(write)

    def finish(
        self,
        study_id: int,
        number: int,
        state: State,
        *,
        values: Sequence[float] = (),
        curve: Sequence[Epoch] = (),
        attributes: Mapping[str, Any] | None = None,
    ) -> None:
        """Ends a running row in one commit: curve, attributes, values and state together, or nothing."""
        if not all(map(math.isfinite, values)):
            raise ValueError(f"values {values} of trial {number} are not finite")
        ended = {"state": FINISHED[state], "datetime_complete": datetime.now(UTC).replace(tzinfo=None)}

        def write(again: bool) -> None:
            with self.engine.begin() as connection:
                if again and self._state(connection, study_id, number) == FINISHED[state]:
                    return
                trial_id = self._claim(connection, study_id, number, **ended)
                self._write_curve(connection, trial_id, curve)
                self._write_attributes(connection, trial_id, attributes or {})
                self._write_values(connection, trial_id, values)

        self._patiently(write)
        self._ids.pop((study_id, number), None)

    def amend(self, study_id: int, numbers: Sequence[int], change: Callable[[Record], Mapping[str, Any]]) -> None:
        """Writes attributes of finished rows, of all or of none, in one commit; nothing else of them changes. `change` is
        given each row as it is within that commit, and gives the attributes to be written."""
        one = tables.trials.c

        def write(again: bool) -> None:
            with self.engine.begin() as connection:
                for number in numbers:
                    trial_id = self._trial_id(connection, study_id, number)
                    finished = update(tables.trials).where(one.trial_id == trial_id, one.state != "RUNNING")
                    if connection.execute(finished.values(number=number)).rowcount != 1:  # locks the row and changes nothing
                        raise StorageError(f"trial {number} is still running: measure it when it is finished")
                    (record,) = records_of(connection, study_id, one.trial_id == trial_id)
                    self._write_attributes(connection, trial_id, change(record))

        self._patiently(write)

    def _trial_id(self, connection: Connection, study_id: int, number: int) -> int:
        """The id of a row by its number, which no index knows: looked for once."""
        if (study_id, number) not in self._ids:
            one = tables.trials.c
            query = select(one.trial_id).where(one.study_id == study_id, one.number == number)
            self._ids[study_id, number] = int(connection.execute(query).scalar_one())
        return self._ids[study_id, number]

    def _state(self, connection: Connection, study_id: int, number: int) -> str:
        one = tables.trials.c
        trial_id = self._trial_id(connection, study_id, number)
        return str(connection.execute(select(one.state).where(one.trial_id == trial_id)).scalar_one())

    def _claim(self, connection: Connection, study_id: int, number: int, **change: Any) -> int:
        """Changes a row that may still be written, in one statement that locks it; a finished row is frozen."""
        one, trial_id = tables.trials.c, self._trial_id(connection, study_id, number)
        running = update(tables.trials).where(one.trial_id == trial_id, one.state == "RUNNING")
        if connection.execute(running.values(change)).rowcount != 1:
            state = self._state(connection, study_id, number)
            raise StorageError(
                f"trial {number} is {state} already and cannot be changed: does another driver run this study?"
            )
        return trial_id

    def _write_values(self, connection: Connection, trial_id: int, values: Sequence[float]) -> None:
        rows = [
            {"trial_id": trial_id, "objective": index, "value": value, "value_type": "FINITE"}
            for index, value in enumerate(values)
        ]
        if rows:
            connection.execute(insert(tables.trial_values), rows)

    def _write_curve(self, connection: Connection, trial_id: int, curve: Sequence[Epoch]) -> None:
        if not curve:
            return
        self._write_attributes(connection, trial_id, {"curve": [point.row() for point in curve]})
        points = tables.trial_points
        connection.execute(delete(points).where(points.c.trial_id == trial_id))
        rows = [
            {
                "trial_id": trial_id,
                "step": point.epoch,
                "intermediate_value": point.headline,
                "intermediate_value_type": "FINITE",
            }
            for point in curve
        ]
        connection.execute(insert(points), rows)

    def _write_attributes(self, connection: Connection, trial_id: int, attributes: Mapping[str, Any]) -> None:
        if not attributes:
            return
        rows = tables.trial_attributes
        connection.execute(delete(rows).where(rows.c.trial_id == trial_id, rows.c.key.in_(list(attributes))))
        values = [{"trial_id": trial_id, "key": key, "value_json": json.dumps(value)} for key, value in attributes.items()]
        connection.execute(insert(rows), values)
