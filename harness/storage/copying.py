"""Studies moved between databases and merged by key: commutative, idempotent, and whole whenever it is cut short.

A finished trial is known everywhere by its key, how it ended and when (`Event`). What the target has stays, under its
number; what it lacks is appended in the order in which trials were begun. Of a key that was trained to its end twice, the
training that ended first is kept wherever the two meet, so that it does not matter which of them is copied first.
"""

import json
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from datetime import datetime
from itertools import groupby, islice
from typing import Any, NamedTuple, TypeVar

from sqlalchemy import Connection, Table, and_, delete, func, insert, select, update
from sqlalchemy.exc import IntegrityError

from harness.errors import StorageError, StudyError, hint
from harness.storage import tables
from harness.storage.lease import Holder, Lease, holders
from harness.storage.reader import Stored, revision, studies_of
from harness.storage.store import Store
from harness.storage.tables import readable, reading, shown
from harness.study import Study, differences

BATCH = 200
"""Trials that are written in one transaction, each of them whole."""
FINISHED = ("COMPLETE", "PRUNED", "FAIL")
TIMED = ("seconds", "pictures_per_second", "peak_memory", "energy", "latency", "inference_memory")
"""Metrics that differ whenever a trial is repeated."""
CHILDREN = (
    tables.trial_params,
    tables.trial_values,
    tables.trial_points,
    tables.trial_attributes,
    tables.trial_system,
)
REFERENCES = ("replaces", "promotes")
"""Attributes that are numbers of other trials of the study."""
AT_ONCE = 32
"""Sources that are open at a time: a process may have some 250 files open on a Mac, and an SQLite database is three."""
T = TypeVar("T")


class Event(NamedTuple):
    """A finished trial as it is known in every database: by its key (of a plain Optuna study its parameters), how it ended,
    and when."""

    key: str
    state: str
    started: datetime | None
    ended: datetime | None
    again: int = 0
    """How many before it are just the same."""


@dataclass(frozen=True)
class Head:
    """A row of some database, without its content."""

    event: Event
    trial_id: int
    number: int
    place: int
    """Which source it is of."""

    @property
    def order(self) -> tuple[Any, ...]:
        """Trials are appended in the order in which they were begun."""
        event = self.event
        return (event.started or datetime.min, event.ended or datetime.min, event.key, event.state, event.again)


class Open:
    """Connections to sources, however many there are: the one that was used longest ago is closed for the next."""

    def __init__(self) -> None:
        self._open: dict[str, tuple[Connection, ExitStack]] = {}

    def __getitem__(self, url: str) -> Connection:
        if url not in self._open:
            if len(self._open) >= AT_ONCE:
                self._close(next(iter(self._open)))
            stack = ExitStack()
            self._open[url] = (stack.enter_context(reading(url)), stack)
        self._open[url] = self._open.pop(url)
        return self._open[url][0]

    def __enter__(self) -> "Open":
        return self

    def __exit__(self, *_: object) -> None:
        for url in list(self._open):
            self._close(url)

    def _close(self, url: str) -> None:
        self._open.pop(url)[1].close()


@dataclass(frozen=True)
class Source:
    """A study to be copied, in its database."""

    url: str
    opened: Open
    stored: Stored
    directions: tuple[str, ...]
    holder: Holder | None
    """Who runs it, if anybody does."""

    @property
    def connection(self) -> Connection:
        """To the database, to be used at once."""
        return self.opened[self.url]

    @property
    def ours(self) -> bool:
        """Whether this harness made it; else it is plain Optuna's."""
        return "definition" in self.stored.attributes


@dataclass
class Copied:
    """What became of a study."""

    name: str
    target: str
    copied: int = 0
    there: int = 0
    """Trials that the target had already."""
    conflicts: list[str] = field(default_factory=list)
    """Keys that were trained twice, with different results: which was kept, a line each."""
    left: int = 0
    """Trials of the sources that are not finished, and stay behind."""
    ours: bool = True
    """Whether this harness made it; else it is plain Optuna's, and can be shown but not run."""
    notes: list[str] = field(default_factory=list)


Progress = Callable[[str, int, int], None]
"""Is told a study, how many of its trials are written, and how many there are to write."""


def copy(
    sources: Sequence[str],
    target: str,
    names: Sequence[str] = (),
    *,
    rename: str | None = None,
    progress: Progress = lambda *_: None,
) -> list[Copied]:
    """Copies the finished trials of studies (all, or those named, with their revisions) into the target, which is made where
    it is not there; a study that is there already is merged with.

    Raises StorageError or StudyError, before anything of a study is written, for studies of one name that are not one."""
    with Open() as opened:
        found = [source for url in sources for source in _sources(url, opened)]
        chosen = _chosen(found, names, [shown(url) for url in sources])
        groups = defaultdict(list)
        for source in chosen:
            groups[_renamed(source.stored.name, rename)].append(source)
        if rename is not None and len({revision(source.stored.name)[0] for source in chosen}) > 1:
            raise StudyError(f"--as {rename}: there is more than one study to copy; name the one that is meant")
        _assert_elsewhere(sources, target, rename)
        with Store(target) as store:
            return [_copied(store, name, group, progress) for name, group in groups.items()]


def _copied(store: Store, name: str, sources: Sequence[Source], progress: Progress) -> Copied:
    """One study, from all its sources."""
    for one in sources[1:]:
        _assert_one(name, sources[0], one.stored, one.directions, one.url)
    with readable(store.url):
        with store.engine.connect() as connection:
            there = next((one for one in studies_of(connection) if one.name == name), None)
            ways = _directions(connection, there.study_id) if there is not None else ()
        if there is not None and (there.attributes or there.counts):  # else it was cut short while it was made
            for one in sources:
                _assert_one(name, one, there, ways, store.url)
        study_id = there.study_id if there is not None else _make(store, name, sources[0])
        with Lease.take(store.engine, study_id):  # one writer: nobody runs it meanwhile
            with store.engine.begin() as connection:
                _merge_attributes(connection, study_id, name, sources)
            return _Merge(store, study_id, name, sources, progress).run()


# -- what there is ----------------------------------------------------------------------------------------------------


def _sources(url: str, opened: Open) -> list[Source]:
    with readable(url):
        if not tables.made(connection := opened[url]):
            return []
        living = {study_id: holder for study_id, holder in holders(url).items() if holder.alive}
        return [
            Source(url, opened, stored, _directions(connection, stored.study_id), living.get(stored.study_id))
            for stored in studies_of(connection)
        ]


def _chosen(found: Sequence[Source], names: Sequence[str], places: Sequence[str]) -> list[Source]:
    """The studies of the names, with their revisions; raises StorageError for a name that nobody has."""
    known = sorted({source.stored.name for source in found})
    for name in names:
        if not any(name in (one, revision(one)[0]) for one in known):
            told = f"there is {', '.join(known[:10])}" if known else "there is none"
            raise StorageError(f"{', '.join(places[:3])}: no study {name!r} ({told}){hint(name, known)}")
    chosen = [one for one in found if not names or {one.stored.name, revision(one.stored.name)[0]} & set(names)]
    if not chosen:
        raise StorageError(f"{', '.join(places[:3])}: there is no study to copy")
    return chosen


def _renamed(name: str, rename: str | None) -> str:
    return name if rename is None else name.replace(revision(name)[0], rename, 1)


def _assert_elsewhere(sources: Sequence[str], target: str, rename: str | None) -> None:
    places = [tables.database_file(url) or tables.full(url) for url in (*sources, target)]
    same = [str(place.resolve() if hasattr(place, "resolve") else place) for place in places]
    if same[-1] in same[:-1] and rename is None:
        raise StorageError(f"{shown(target)}: source and target are one database; name another target, or --as NEWNAME")


def _directions(connection: Connection, study_id: int) -> tuple[str, ...]:
    rows = tables.directions.c
    query = select(rows.direction).where(rows.study_id == study_id).order_by(rows.objective)
    return tuple(connection.execute(query).scalars())


# -- studies that are one ---------------------------------------------------------------------------------------------


def _assert_one(name: str, source: Source, other: Stored, directions: tuple[str, ...], url: str) -> None:
    """Raises StudyError where a study and another of its name, in the database of a URL, are not one and the same."""
    remedy = f"; copy it beside that one with `--as NEWNAME {source.stored.name}`"
    where = f"study {name!r} of {shown(source.url)} is not the one in {shown(url)}"
    if source.ours != ("definition" in other.attributes):
        raise StudyError(f"{where}: one of them was made by this harness, the other by plain Optuna{remedy}")
    if source.directions != directions:
        ways = " and ".join(", ".join(found).lower() or "nothing" for found in (directions, source.directions))
        raise StudyError(f"{where}: their objectives differ ({ways}){remedy}")
    if not source.ours:
        return
    changes = differences(_identity(other), _identity(source.stored))
    if changes:
        told = "; ".join(changes[:4]) + (f"; and {len(changes) - 4} more" if len(changes) > 4 else "")
        raise StudyError(f"{where}: {told}{remedy}")


def _identity(stored: Stored) -> dict[str, Any]:
    """What two parts of one study share: the definition but for its size and wording, and the pictures."""
    plain = Study.from_json(stored.attributes["definition"]).to_json()
    plain["strategy"] = {name: value for name, value in plain["strategy"].items() if name != "trials"}
    plain["training"] = _without(plain["training"], "loading")
    pictures = (stored.attributes.get("data") or {}).get("fingerprint")
    size = (
        "name",
        "question",
        *(["seeds"] if isinstance(plain["seeds"], list) else []),
    )  # given out by a rule: the rule counts
    return {name: value for name, value in plain.items() if name not in size} | {"data": pictures}


def _without(plain: Any, field: str) -> Any:
    """JSON without a field that depends on the machine, and no number on it."""
    if isinstance(plain, dict):
        return {name: _without(value, field) for name, value in plain.items() if name != field}
    return [_without(item, field) for item in plain] if isinstance(plain, list) else plain


def _make(store: Store, name: str, source: Source) -> int:
    """An empty study like the source, in one commit; of several that are made at one instant, the first one's."""
    connection, study_id = source.connection, source.stored.study_id
    metric_names = _attributes(connection, tables.study_system, "study_id", study_id)
    try:
        with store.engine.begin() as made:
            new = made.execute(insert(tables.studies).values(study_name=name)).inserted_primary_key
            found: int = new[0] if new is not None else 0
            ways = [{"study_id": found, "objective": index, "direction": way} for index, way in enumerate(source.directions)]
            made.execute(insert(tables.directions), ways)
            _write_attributes(made, tables.study_system, "study_id", found, metric_names)
            _write_attributes(made, tables.study_attributes, "study_id", found, _first([source], name))
        return found
    except IntegrityError:
        with store.engine.connect() as again:
            return next(one.study_id for one in studies_of(again) if one.name == name)


def _merge_attributes(connection: Connection, study_id: int, name: str, sources: Sequence[Source]) -> None:
    """Writes what the study is from now on: as the earliest of its parts, with the seeds and the budget of all."""
    old = {key: json.loads(text) for key, text in _attributes(connection, tables.study_attributes, "study_id", study_id)}
    new = _first(sources, name, old)
    if changed := [(key, text) for key, text in new if old.get(key, ...) != json.loads(text)]:
        rows = tables.study_attributes.c
        connection.execute(
            delete(tables.study_attributes).where(rows.study_id == study_id, rows.key.in_([key for key, _ in changed]))
        )
        _write_attributes(connection, tables.study_attributes, "study_id", study_id, changed)


def _first(sources: Sequence[Source], name: str, target: Mapping[str, Any] | None = None) -> list[tuple[str, str]]:
    """The attributes of the merged study as rows keep them. Folders are the target's own affair, and a shard's part is not
    the whole's."""
    parts = [dict(source.stored.attributes) for source in sources] + ([dict(target)] if target else [])
    earliest = min(parts, key=lambda part: (str(part.get("created", "~")), json.dumps(part, sort_keys=True)))
    found = {**{key: value for part in parts for key, value in part.items()}, **earliest}
    found.pop("shard", None)
    if "definition" in earliest:
        for key in ("definition", "asked"):
            found[key] = _widened([part[key] for part in parts if key in part], found[key]) | {"name": name}
    places = (target or {}).get("places")
    if places is None and "places" in found:
        places = {key: value for key, value in found["places"].items() if key != "runs"}
    return [(key, json.dumps(value)) for key, value in (found | ({"places": places} if places else {})).items()]


def _widened(parts: Sequence[dict[str, Any]], first: dict[str, Any]) -> dict[str, Any]:
    """A definition with the seeds of all, in order where they differ, and the largest budget."""
    strategy = dict(first["strategy"])
    if "trials" in strategy:
        strategy["trials"] = max(part["strategy"]["trials"] for part in parts)
    if isinstance(first["seeds"], dict):
        return first | {"strategy": strategy}
    seeds = [tuple(part["seeds"]) for part in parts]
    every = list(seeds[0]) if len(set(seeds)) == 1 else sorted({seed for some in seeds for seed in some})
    return first | {"seeds": every, "strategy": strategy}


# -- rows -------------------------------------------------------------------------------------------------------------


def heads(connection: Connection, study_id: int, place: int = 0) -> list[Head]:
    """Every row of a study, by number."""
    one, rows = tables.trials, tables.trial_attributes
    named = and_(rows.c.trial_id == one.c.trial_id, rows.c.key == "key")
    query = (
        select(one.c.trial_id, one.c.number, one.c.state, one.c.datetime_start, one.c.datetime_complete, rows.c.value_json)
        .select_from(one.outerjoin(rows, named))
        .where(one.c.study_id == study_id)
        .order_by(one.c.number, one.c.trial_id)
    )
    listed = connection.execute(query).all()
    plain = _params(connection, study_id) if any(key is None for *_, key in listed) else {}
    seen: Counter[tuple[Any, ...]] = Counter()
    found = []
    for trial_id, number, state, started, ended, key in listed:
        known = (json.loads(key) if key is not None else plain.get(trial_id, ""), state, started, ended)
        found.append(Head(Event(*known, again=seen[known]), trial_id, number, place))
        seen[known] += 1
    return found


def _params(connection: Connection, study_id: int) -> dict[int, str]:
    """The parameters of trials without a key, as one text each."""
    rows, one = tables.trial_params, tables.trials
    query = (
        select(rows.c.trial_id, rows.c.param_name, rows.c.param_value)
        .join(one, one.c.trial_id == rows.c.trial_id)
        .where(one.c.study_id == study_id)
        .order_by(rows.c.trial_id, rows.c.param_name)
    )
    listed = groupby(connection.execute(query), key=lambda row: row[0])
    return {trial_id: repr([tuple(row[1:]) for row in some]) for trial_id, some in listed}


@dataclass(frozen=True)
class Write:
    """A row to be written: appended, or in the place of one that is there."""

    head: Head
    number: int
    trial_id: int | None = None
    """The row of the target that gets the content; None appends one."""


class _Merge:
    """What the target lacks of a study, and writing it."""

    def __init__(self, store: Store, study_id: int, name: str, sources: Sequence[Source], progress: Progress) -> None:
        self.store, self.study_id, self.sources, self.progress = store, study_id, sources, progress
        self.found = Copied(name, shown(store.url), ours=sources[0].ours)
        with store.engine.connect() as connection:
            mine = heads(connection, study_id, place=-1)
        self.numbers = {head.event: head.number for head in mine}
        """Where each event is, or will be."""
        self.best = {head.event.key: head for head in mine if head.event.state == "COMPLETE"}
        self.begun = {head.event.key: head for head in mine if head.event.state == "RUNNING"}
        self.following = max((head.number for head in mine), default=-1) + 1
        self.there: list[tuple[Head, Head]] = []
        self.mine = {head.event: head for head in mine}
        self.writes: dict[int, Write] = {}
        """By number."""
        self.events: dict[tuple[int, int], Event] = {}
        """Of the sources, by place and number."""

    def run(self) -> Copied:
        for source in self.sources:
            self._look(source)
        every = [
            head
            for place, source in enumerate(self.sources)
            for head in heads(source.connection, source.stored.study_id, place)
        ]
        self.events = {(head.place, head.number): head.event for head in every}
        incoming = sorted((head for head in every if head.event.state in FINISHED), key=lambda head: head.order)
        self.found.left = len(every) - len(incoming)
        for head in incoming:
            self._settle(head)
        self._write()
        self._measured()
        if self.found.left:
            words = (
                "1 trial is not finished and stays"
                if self.found.left == 1
                else f"{self.found.left} trials are not finished and stay"
            )
            self.found.notes.append(f"{words} behind")
        return self.found

    def _look(self, source: Source) -> None:
        if source.holder is not None:
            self.found.notes.append(
                f"{shown(source.url)} is being run by {source.holder.process.words}: what is finished by now is copied, copy"
                " again for the rest"
            )

    # who is who

    def _settle(self, head: Head) -> None:
        """Decides what becomes of a finished row of a source."""
        event = head.event
        if event in self.numbers:
            self.found.there += 1
            if event in self.mine:
                self.there.append((head, self.mine[event]))
        elif event.state == "COMPLETE" and self._keyed(head) and event.key in self.best:
            self._contest(head, self.best[event.key])
        elif event.state == "COMPLETE" and self._keyed(head) and event.key in self.begun:
            row = self.begun.pop(event.key)
            self._plan(Write(head, row.number, row.trial_id))
        else:
            self._plan(Write(head, self.following))
            self.following += 1

    def _keyed(self, head: Head) -> bool:
        """Whether equal keys mean one trial: in studies of ours; plain Optuna may try the same parameters twice."""
        return self.sources[head.place].ours

    def _plan(self, write: Write) -> None:
        self.writes[write.number] = write
        self.numbers[write.head.event] = write.number
        if write.head.event.state == "COMPLETE":
            self.best[write.head.event.key] = write.head
        self.found.copied += 1

    def _contest(self, head: Head, holder: Head) -> None:
        """A key that was trained to its end twice: the training that ended first is kept."""
        number = self.numbers[holder.event]
        wins = self._rank(head) < self._rank(holder)
        self._tell_difference(head, holder, wins)
        if wins:
            old = self.writes.get(number)
            row = old.trial_id if old is not None else holder.trial_id
            del self.numbers[holder.event]
            self._plan(Write(head, number, row))
            self.found.copied -= old is not None
        else:
            self.numbers[head.event] = number
            self.found.there += 1

    def _rank(self, head: Head) -> tuple[Any, ...]:
        event = head.event
        return (event.ended or datetime.max, event.started or datetime.max, json.dumps(self._values(head)))

    def _tell_difference(self, head: Head, holder: Head, wins: bool) -> None:
        new, old = self._values(head), self._values(holder)
        if new == old:
            return
        kept, other = (head, holder) if wins else (holder, head)
        told = ", ".join(
            f"{metric} {old[metric]!r} and {new[metric]!r}" for metric in new if metric in old and old[metric] != new[metric]
        )
        self.found.conflicts.append(
            f"key {head.event.key}: {told}; kept is trial {kept.number} of {self._where(kept)}, which ended before trial"
            f" {other.number} of {self._where(other)}"
        )

    def _where(self, head: Head) -> str:
        return shown(self.sources[head.place].url) if head.place >= 0 else self.found.target

    def _values(self, head: Head) -> dict[str, Any]:
        """What a repeated trial should give again."""
        rows = tables.trial_attributes.c
        query = select(rows.value_json).where(rows.trial_id == head.trial_id, rows.key == "metrics")
        with self._at(head) as connection:
            text = connection.execute(query).scalar_one_or_none()
        found = json.loads(text) if text is not None else {}
        return {metric: value for metric, value in sorted(found.items()) if not metric.startswith(TIMED)}

    @contextmanager
    def _at(self, head: Head) -> Iterator[Connection]:
        if head.place >= 0:
            yield self.sources[head.place].connection
        else:
            with self.store.engine.connect() as connection:
                yield connection

    # writing

    def _write(self) -> None:
        """In batches, in the order of numbers, so that whatever is cut short goes on where it was."""
        writes, done = [self.writes[number] for number in sorted(self.writes)], 0
        self.progress(self.found.name, 0, len(writes))
        for some in _pieces(writes):
            content = self._content(some)
            with self.store.engine.begin() as connection:
                ids = self._rows(connection, some)
                for table in CHILDREN:
                    old = [write.trial_id for write in some if write.trial_id is not None]
                    if old:
                        connection.execute(delete(table).where(table.c.trial_id.in_(old)))
                    rows = [row | {"trial_id": ids[w.number]} for w in some for row in content[table.name][w.number]]
                    if rows:
                        connection.execute(insert(table), rows)
            done += len(some)
            self.progress(self.found.name, done, len(writes))

    def _rows(self, connection: Connection, writes: Sequence[Write]) -> dict[int, int]:
        """The rows themselves; gives their ids by number."""
        one, ids = tables.trials, {}
        new = []
        for write in writes:
            event = write.head.event
            said = {"state": event.state, "datetime_start": event.started, "datetime_complete": event.ended}
            if write.trial_id is None:
                new.append(said | {"study_id": self.study_id, "number": write.number})
            else:
                connection.execute(update(one).where(one.c.trial_id == write.trial_id).values(said))
                ids[write.number] = write.trial_id
        if new:
            before = connection.execute(select(func.coalesce(func.max(one.c.trial_id), 0))).scalar_one()
            connection.execute(insert(one), new)
            made = select(one.c.number, one.c.trial_id).where(one.c.study_id == self.study_id, one.c.trial_id > before)
            ids |= {number: trial_id for number, trial_id in connection.execute(made)}
        return ids

    def _content(self, writes: Sequence[Write]) -> dict[str, dict[int, list[dict[str, Any]]]]:
        """What belongs to rows, by table and number, references to other trials put right."""
        found: dict[str, dict[int, list[dict[str, Any]]]] = {table.name: defaultdict(list) for table in CHILDREN}
        for place, some in _by_place(writes, lambda write: write.head.place):
            source, numbers = self.sources[place], {write.head.trial_id: write.number for write in some}
            for table in CHILDREN:
                key = table.primary_key.columns[0]
                query = select(table).where(table.c.trial_id.in_(list(numbers))).order_by(key)
                for row in source.connection.execute(query).mappings():
                    plain = {name: row[name] for name in row if name not in (key.name, "trial_id")}
                    found[table.name][numbers[row["trial_id"]]].append(plain)
        for write in writes:
            self._own(write, found[tables.trial_attributes.name][write.number])
        return found

    def _own(self, write: Write, rows: list[dict[str, Any]]) -> None:
        """Numbers of other trials as they are in the target; and where the trial was trained, under which number, as its
        weights lie there."""
        source = self.sources[write.head.place]
        for row in rows:
            if row["key"] in REFERENCES and row["value_json"] != "null":
                row["value_json"] = json.dumps(self._number(write.head.place, int(json.loads(row["value_json"]))))
        runs = source.stored.attributes.get("places", {}).get("runs")
        if source.ours and not any(row["key"] == "origin" for row in rows):
            folder = {} if runs is None else {"folder": f"{runs}/{source.stored.name}/{write.head.number}"}
            told = {"database": shown(source.url), "study": source.stored.name, "number": write.head.number, **folder}
            rows.append({"key": "origin", "value_json": json.dumps(told)})

    def _number(self, place: int, number: int) -> int:
        """The number in the target of a source's finished trial."""
        return self.numbers[self.events[place, number]]

    def _measured(self) -> None:
        """Measurements that trials were given since they were copied: those of all, in the order in which they were made."""
        for some in _pieces(self.there):
            with self.store.engine.begin() as connection:
                old = _measurements(connection, [row.trial_id for _, row in some])
                for place, pairs in _by_place(some, lambda pair: pair[0].place):
                    own = {head.trial_id: row.trial_id for head, row in pairs}
                    for trial_id, found in _measurements(self.sources[place].connection, list(own)).items():
                        known = old.get(own[trial_id], [])
                        if more := [one for one in found if one not in known]:
                            together = sorted([*known, *more], key=lambda one: str(one.get("measured", "")))
                            _replace(connection, own[trial_id], "measured", together)
                            old[own[trial_id]] = together


def _measurements(connection: Connection, trial_ids: list[int]) -> dict[int, list[dict[str, Any]]]:
    rows = tables.trial_attributes.c
    query = select(rows.trial_id, rows.value_json).where(rows.trial_id.in_(trial_ids), rows.key == "measured")
    return {trial_id: json.loads(text) for trial_id, text in connection.execute(query)}


def _replace(connection: Connection, trial_id: int, key: str, value: Any) -> None:
    rows = tables.trial_attributes
    connection.execute(delete(rows).where(rows.c.trial_id == trial_id, rows.c.key == key))
    _write_attributes(connection, rows, "trial_id", trial_id, [(key, json.dumps(value))])


def _by_place(items: Iterable[T], place: Callable[[T], int]) -> Iterator[tuple[int, Iterator[T]]]:
    """What there is of each source, source by source."""
    return groupby(sorted(items, key=place), key=place)


def _pieces(items: Sequence[T]) -> Iterator[list[T]]:
    listed = iter(items)
    while some := list(islice(listed, BATCH)):
        yield some


def _attributes(connection: Connection, table: Table, owner: str, of: int) -> list[tuple[str, str]]:
    query = select(table.c.key, table.c.value_json).where(table.c[owner] == of).order_by(table.primary_key.columns[0])
    return [(key, text) for key, text in connection.execute(query)]


def _write_attributes(
    connection: Connection, table: Table, owner: str, of: int, attributes: Iterable[tuple[str, str]]
) -> None:
    if rows := [{owner: of, "key": key, "value_json": text} for key, text in attributes]:
        connection.execute(insert(table), rows)
