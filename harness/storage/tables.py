"""Optuna's tables as SQLAlchemy Core sees them, and how a database is opened.

Optuna's own objects read a study trial by trial and write a row in some 14 commits. Here all rows are read in a handful of
queries and a row is finished in one transaction. Only columns that have been the same since schema 12 (Optuna 3) are named;
a contract test reads everything back through `optuna.load_study`.
"""

import os
import re
import sqlite3
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from sqlalchemy import (
    Column,
    Connection,
    DateTime,
    Engine,
    Enum,
    Float,
    Integer,
    MetaData,
    String,
    Table,
    Text,
    create_engine,
    event,
    inspect,
)
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import (
    ArgumentError,
    DBAPIError,
    InterfaceError,
    NoSuchModuleError,
    OperationalError,
    SQLAlchemyError,
)

from harness.errors import StorageError, one_line

PATIENCE = 60
"""Seconds to wait for a locked database."""
POSTGRES = "postgresql+psycopg"
"""Dialect and driver of PostgreSQL URLs that name no driver."""
NETWORK_DISKS = ("nfs", "cifs", "smb", "lustre", "gpfs", "beegfs", "ceph", "glusterfs", "fuse.sshfs", "9p", "afs")


class DatabaseAway(StorageError):
    """The database is locked, restarts or cannot be reached: it may come back."""


meta = MetaData()
states = Enum("RUNNING", "COMPLETE", "PRUNED", "FAIL", "WAITING", name="trialstate")
studies = Table("studies", meta, Column("study_id", Integer, primary_key=True), Column("study_name", String))
directions = Table(
    "study_directions",
    meta,
    Column("study_direction_id", Integer, primary_key=True),
    Column("study_id", Integer),
    Column("objective", Integer),
    Column("direction", Enum("NOT_SET", "MINIMIZE", "MAXIMIZE", name="studydirection")),
)
trials = Table(
    "trials",
    meta,
    Column("trial_id", Integer, primary_key=True),
    Column("number", Integer),
    Column("study_id", Integer),
    Column("state", states),
    Column("datetime_start", DateTime),
    Column("datetime_complete", DateTime),
)


def _attributes(table: str, key: str, owner: str) -> Table:
    columns = (
        Column(key, Integer, primary_key=True),
        Column(owner, Integer),
        Column("key", String),
        Column("value_json", Text),
    )
    return Table(table, meta, *columns)


study_attributes = _attributes("study_user_attributes", "study_user_attribute_id", "study_id")
study_system = _attributes("study_system_attributes", "study_system_attribute_id", "study_id")
trial_attributes = _attributes("trial_user_attributes", "trial_user_attribute_id", "trial_id")
trial_system = _attributes("trial_system_attributes", "trial_system_attribute_id", "trial_id")
trial_params = Table(
    "trial_params",
    meta,
    Column("param_id", Integer, primary_key=True),
    Column("trial_id", Integer),
    Column("param_name", String),
    Column("param_value", Float),
    Column("distribution_json", Text),
)
trial_values = Table(
    "trial_values",
    meta,
    Column("trial_value_id", Integer, primary_key=True),
    Column("trial_id", Integer),
    Column("objective", Integer),
    Column("value", Float),
    Column("value_type", Enum("FINITE", "INF_POS", "INF_NEG", name="trialvaluetype")),
)
trial_points = Table(
    "trial_intermediate_values",
    meta,
    Column("trial_intermediate_value_id", Integer, primary_key=True),
    Column("trial_id", Integer),
    Column("step", Integer),
    Column("intermediate_value", Float),
    Column("intermediate_value_type", Enum("FINITE", "INF_POS", "INF_NEG", "NAN", name="trialintermediatevaluetype")),
)


def parse_url(url: str) -> URL:
    """The storage URL, checked, a PostgreSQL one with the driver that is used; raises StorageError for what is none."""
    try:
        parsed = make_url(url)
    except (ArgumentError, ValueError):  # the latter for a port that is no number
        raise StorageError(f"--storage {masked(url)}: not a database URL; write sqlite:///harness.db, say") from None
    if parsed.host and "@" in f"{parsed.host}{parsed.database}":
        raise StorageError(
            f"--storage {masked(url)}: there is more than one @; write %40 for one in a password, or keep the password in"
            " ~/.pgpass"
        )
    return parsed.set(drivername=POSTGRES) if parsed.drivername in ("postgresql", "postgres") else parsed


def masked(text: str) -> str:
    """What may be a URL, whether or not it is well written, without what may be its password."""
    return re.sub(r"(password=)[^&\s]*", r"\1***", re.sub(r":(?!//)[^\s]*@", ":***@", text), flags=re.IGNORECASE)


def password_of(url: str) -> str:
    """The password that a URL spells out, whether before the host or among the options; empty where there is none."""
    parsed = parse_url(url)
    return str(parsed.password or parsed.query.get("password") or "")


def shown(url: str | URL) -> str:
    """The URL without its password, as a user writes it."""
    parsed = parse_url(url) if isinstance(url, str) else url
    hidden = {name: "***" for name in parsed.query if "password" in name}
    plain = parsed.set(drivername="postgresql") if parsed.drivername == POSTGRES else parsed
    return plain.update_query_dict(hidden).render_as_string(hide_password=True).replace("%2A%2A%2A", "***")


def full(url: str | URL) -> str:
    """The URL with its password, for those who open the database and nobody else."""
    return (parse_url(url) if isinstance(url, str) else url).render_as_string(hide_password=False)


def lasting(url: str) -> str:
    """The URL as it may be written down: without a password, the path of a file in full."""
    parsed, file = parse_url(url), database_file(url)
    if file is not None and not str(file).startswith("file:"):
        return f"sqlite:///{file.resolve()}"
    options = {name: value for name, value in parsed.query.items() if "password" not in name}
    driver = "postgresql" if parsed.drivername == POSTGRES else parsed.drivername
    plain = URL.create(driver, parsed.username, None, parsed.host, parsed.port, parsed.database, options)
    return plain.render_as_string()


def database_file(url: str) -> Path | None:
    """The file of an SQLite URL, None for a database of another kind or in memory."""
    parsed = parse_url(url)
    if parsed.get_backend_name() != "sqlite" or not parsed.database or parsed.database == ":memory:":
        return None
    return Path(parsed.database)


def runs_beside(url: str) -> Path:
    """Where checkpoints lie unless the user names a place: beside an SQLite database, else in the working folder."""
    file = database_file(url)
    return (file.parent if file is not None else Path()) / "runs"


def is_there(url: str) -> bool:
    """Whether a database may be read: a file that exists, or a server."""
    file = database_file(url)
    return file is None or file.exists()


def on_network_disk(path: Path, mounts: str | None = None) -> str | None:
    """The type of the network file system the path lies on, if any."""
    if mounts is None:
        listing = Path("/proc/mounts")
        mounts = listing.read_text() if listing.exists() else ""
    found, kind = "", ""
    for line in mounts.splitlines():
        _, where, system, *_ = line.split()
        inside = str(path).startswith(where.rstrip("/") + "/") or str(path) == where
        if inside and len(where) >= len(found):
            found, kind = where, system
    return kind if kind.startswith(NETWORK_DISKS) else None


def engine_options(url: str) -> dict[str, Any]:
    """What SQLAlchemy is told for this database: patience with locks, and a probe of pooled connections."""
    kind = parse_url(url).get_backend_name()
    if kind == "sqlite":
        return {"connect_args": {"timeout": PATIENCE}}
    patience = {"connect_timeout": 10, "tcp_user_timeout": 30_000} if kind == "postgresql" else {}
    return {"pool_pre_ping": True, "connect_args": patience}


def tune(engine: Engine) -> None:
    """SQLite in WAL on local disks; with a rollback journal on network ones, where WAL does not work."""
    if engine.dialect.name != "sqlite":
        return
    file = database_file(full(engine.url))
    remote = file is not None and on_network_disk(file.resolve())

    @event.listens_for(engine, "connect")
    def pragmas(connection: Any, _: Any) -> None:
        cursor = connection.cursor()
        _keep_journal(cursor, "DELETE" if remote else "WAL")
        cursor.execute(f"PRAGMA synchronous={'FULL' if remote else 'NORMAL'}")
        cursor.close()

    engine.dispose()  # a connection made before this listener would go without


def _keep_journal(cursor: Any, mode: str) -> None:
    """Sets the journal of a connection: SQLite does not wait here for a process that is just making the same database."""
    end = time.monotonic() + PATIENCE
    while True:
        try:
            cursor.execute(f"PRAGMA journal_mode={mode}")
            return
        except sqlite3.OperationalError as error:
            if "locked" not in str(error) or time.monotonic() > end:
                raise
        time.sleep(0.02)


def open_engine(url: str) -> Engine:
    """An engine for an existing database; raises StorageError where there is none."""
    file = database_file(url)
    if file is not None and not file.exists():
        raise StorageError(f"there is no database at {file}: start a study with `harness run`, or name another by --storage")
    if file is not None and _is_frozen(file):
        url = f"sqlite:///file:{file.resolve()}?mode=ro&immutable=1&uri=true"
    with readable(url):
        engine = create_engine(parse_url(url), **engine_options(url))
        with engine.connect():
            return engine


@contextmanager
def reading(url: str) -> Iterator[Connection]:
    """A connection to an existing database, closed at the end; raises StorageError, in one line, for whatever goes wrong."""
    with readable(url):
        engine = open_engine(url)
        try:
            with engine.connect() as connection:
                yield connection
        finally:
            engine.dispose()


def made(connection: Connection) -> bool:
    """Whether all tables are there: one that a driver was making when it was killed holds no study yet, and the next driver
    makes the rest."""
    return set(meta.tables) <= set(inspect(connection).get_table_names())


def _is_frozen(file: Path) -> bool:
    """Whether a database lies where nothing can be written and nothing is pending: SQLite must be told not to try."""
    log = file.with_name(file.name + "-wal")
    pending = log.exists() and log.stat().st_size > 0
    return not pending and not (os.access(file.parent, os.W_OK) and os.access(file, os.W_OK))


@contextmanager
def readable(url: str) -> Iterator[None]:
    """Turns what SQLAlchemy and the drivers raise into one line that names the database and no password."""
    try:
        yield
    except (NoSuchModuleError, ImportError, SQLAlchemyError) as error:
        cause = error.orig if isinstance(error, DBAPIError) and error.orig is not None else error
        if isinstance(error, ImportError) and parse_url(url).drivername == POSTGRES:
            remedy = "pip install 'attention-harness[postgres]'"
            raise StorageError(f"{shown(url)}: psycopg cannot be imported; {remedy}") from None
        remedy = ""
        if isinstance(error, (NoSuchModuleError, ImportError)):
            remedy = "; is its driver installed?"
        elif "disk is full" in str(cause) or "No space left" in str(cause):
            remedy = "; free some space, then the same command goes on"
        kind = DatabaseAway if _passes(error, cause) else StorageError
        raise kind(f"{shown(url)}: {_without_password(one_line(cause), url)}{remedy}") from None


def _without_password(words: str, url: str) -> str:
    """An error's words, should its driver have quoted the password."""
    parsed, password = parse_url(url), password_of(url)
    known = (parsed.username, parsed.host, parsed.database)
    return words.replace(password, "***") if password and password not in known else words


def _passes(error: Exception, cause: BaseException) -> bool:
    """Whether waiting helps: a lock, a lost connection, a server that restarts."""
    if not isinstance(error, (OperationalError, InterfaceError)):
        return isinstance(error, DBAPIError) and error.connection_invalidated
    sqlite = type(cause).__module__.startswith("sqlite3")
    return not sqlite or "locked" in str(cause) or "busy" in str(cause)
