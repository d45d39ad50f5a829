"""One driver per study: a lease row in the database, renewed by its owner and judged by the database's clock.

The row outlives its owners, so that its token grows with each of them: what a dead driver left behind carries a smaller one.
Taking is one statement that names the token it saw: of any number of drivers that try, one finds it unchanged.
"""

import getpass
import hashlib
import json
import os
import socket
import subprocess
import threading
import time
from dataclasses import asdict, dataclass, fields
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from sqlalchemy import (
    Boolean,
    Column,
    Connection,
    Double,
    Engine,
    Integer,
    MetaData,
    Table,
    Text,
    inspect,
    literal_column,
    or_,
    select,
    true,
    update,
)
from sqlalchemy.exc import DBAPIError, IntegrityError

from harness.errors import HarnessError, StorageError
from harness.storage.tables import full, readable, reading, studies

EXPIRY = 300.0
"""Seconds a lease lasts without a renewal, by the database's clock."""
LIMIT = 240.0
"""Seconds without a renewal after which a driver ends itself."""
RENEWAL = 20.0
"""Seconds between renewals."""
POLL = 1.0
"""Seconds between looks at whether the driver is asked to stop or was taken over."""
GRACE = 3.0
"""Seconds that a renewal gets when a machine wakes from a sleep longer than the limit."""
FIRST_NAMESPACE = "pid:[4026531836]"
"""Where the processes of a Linux machine live that are in no container."""

leases = Table(
    "harness_leases",
    MetaData(),
    Column("study_id", Integer, primary_key=True, autoincrement=False),
    Column("token", Integer, nullable=False),
    Column("owner", Text, nullable=False),
    Column("taken", Double, nullable=False),
    Column("expires", Double, nullable=False),
    Column("stop", Boolean, nullable=False),
)
row = leases.c
CLOCKS = {
    "sqlite": "((julianday('now') - 2440587.5) * 86400.0)",
    "postgresql": "cast(extract(epoch from clock_timestamp()) as double precision)",
}


class LeaseError(HarnessError):
    """A study is run by another driver."""


# who


@dataclass(frozen=True, kw_only=True)
class Process:
    """A process as no other is: a number is used again, a number with its start, its boot and its namespace is not."""

    user: str = ""
    host: str = ""
    machine: str = ""
    boot: str = ""
    namespace: str = ""
    pid: int = 0
    born: str = ""
    job: str = ""
    restart: int = 0

    @property
    def words(self) -> str:
        """The process as a person would look for it."""
        return f"{self.user} on {self.host} (pid {self.pid}{f', Slurm job {self.job}' if self.job else ''})"


def this_process() -> Process:
    """The process that asks."""
    try:
        user = getpass.getuser()
    except (KeyError, OSError):  # a container may know no names
        user = "someone"
    machine = _read("/etc/machine-id")
    return Process(
        user=user,
        host=socket.gethostname(),
        machine=machine and hashlib.sha256(f"harness {machine}".encode()).hexdigest()[:12],
        boot=_read("/proc/sys/kernel/random/boot_id"),
        namespace=_namespace(),
        pid=os.getpid(),
        born=born(os.getpid()),
        job="@".join(filter(None, map(os.environ.get, ("SLURM_JOB_ID", "SLURM_CLUSTER_NAME")))),
        restart=int(os.environ.get("SLURM_RESTART_COUNT") or 0),
    )


def seen(owner: Process, me: Process) -> bool | None:
    """Whether a process lives as far as this one can see; None when it cannot."""
    if owner.job and owner.job == me.job and owner.restart < me.restart:
        return False  # Slurm ended the job before it queued it again
    if owner.host != me.host:
        return None
    if owner.boot == me.boot:
        return _lives(owner) if owner.namespace == me.namespace else None
    same = owner.machine == me.machine and owner.namespace == me.namespace == FIRST_NAMESPACE
    return False if same and owner.boot and me.boot else None


def born(pid: int) -> str:
    """When a process began, in its system's words; nothing where that cannot be seen, `ended` for one that only waits."""
    if Path("/proc/self/stat").exists():
        after_name = _read(f"/proc/{pid}/stat").rpartition(")")[2].split()
        return "" if not after_name else "ended" if after_name[0] in "ZX" else after_name[19]
    plain = {"LC_ALL": "C", "TZ": "UTC0"}
    try:
        asked = subprocess.run(
            ["/bin/ps", "-o", "lstart=", "-p", str(pid)], capture_output=True, text=True, env=plain, check=False
        )
    except OSError:
        return ""
    return " ".join(asked.stdout.split())


def _lives(owner: Process) -> bool | None:
    if os.name != "posix":
        return None  # os.kill would end it
    try:
        os.kill(owner.pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass  # somebody else's, but there
    began = born(owner.pid)
    return began == owner.born if began and owner.born else None


def _read(path: str) -> str:
    try:
        return Path(path).read_text().strip()
    except OSError:
        return ""


def _namespace() -> str:
    try:
        return str(Path("/proc/self/ns/pid").readlink())
    except OSError:
        return ""


# what others see


@dataclass(frozen=True)
class Holder:
    """Who runs a study, or ran it and left without a word."""

    process: Process
    token: int
    since: datetime
    left: float
    """Seconds until the lease ends unless it is renewed."""
    stop_asked: bool
    seen: bool | None
    """Whether its process lives, None when that cannot be seen from here."""

    @property
    def alive(self) -> bool:
        """What is seen counts; where nothing can be seen, the lease does."""
        return self.left > 0 if self.seen is None else self.seen

    @property
    def words(self) -> str:
        """Who, since when, and how long ago it gave a sign of life."""
        quiet = max(0.0, EXPIRY - self.left)
        return f"{self.process.words} since {self.since:%Y-%m-%d %H:%M:%S} UTC, last renewed {quiet:.0f} s ago"


def holders(url: str) -> dict[int, Holder]:
    """Who runs each study of a database, by study id; studies given back are not listed."""
    with reading(url) as connection:
        if not inspect(connection).has_table(leases.name):
            return {}
        now = _clock(connection.engine).label("now")
        found = connection.execute(select(leases, now).where(row.expires > 0)).all()
        return {one.study_id: _holder(one) for one in found}


def ask_to_stop(url: str, study_id: int) -> Holder | None:
    """Asks the driver of a study to end cleanly, which it notices within seconds; returns who that is, None without one."""
    holder = holders(url).get(study_id)
    if holder is None or not holder.alive:
        return None
    with reading(url) as connection:
        connection.execute(update(leases).where(row.study_id == study_id, row.token == holder.token).values(stop=True))
        connection.commit()
    return holder


def _holder(found: Any) -> Holder:
    stored = json.loads(found.owner)
    process = Process(**{field.name: stored[field.name] for field in fields(Process) if field.name in stored})
    since, left = datetime.fromtimestamp(found.taken, UTC), found.expires - found.now
    return Holder(process, found.token, since, left, found.stop, seen(process, this_process()))


# the lease itself


class Lease:
    """The right to drive a study, kept by a thread inside `with`; `token` fences off whatever earlier owners left."""

    def __init__(self, engine: Engine, study_id: int, study: str, token: int, renewed: float) -> None:
        self.study_id, self.study, self.token = study_id, study, token
        self.stop_asked = False
        self._engine, self._url = engine, full(engine.url)
        self._renewed, self._lost, self._trouble = renewed, "", ""
        self._mine = (row.study_id == study_id, row.token == token, row.expires > 0)
        self._ended = threading.Event()
        self._keeper = threading.Thread(target=self._keep, name="lease", daemon=True)

    @classmethod
    def take(cls, engine: Engine, study_id: int, *, take_over: bool = False) -> Self:
        """The lease of a study that nobody alive holds, or of any with `take_over`; raises LeaseError when it is held."""
        with readable(full(engine.url)):
            _ensure_table(engine)
            while True:
                with engine.connect() as connection:
                    study = _name(connection, study_id)
                    query = select(leases, _clock(engine).label("now")).where(row.study_id == study_id)
                    found = connection.execute(query).one_or_none()
                holder = _holder(found) if found and found.expires > 0 else None
                if holder and holder.alive and not take_over:
                    raise LeaseError(_refusal(study, holder))
                free = take_over or holder is None or holder.seen is False
                sent, token = uptime(), found.token + 1 if found else 1
                if _write(engine, study_id, token, free):
                    return cls(engine, study_id, study, token, sent)
                take_over = False  # whoever was quicker is not to be thrown out again

    def renew(self) -> None:
        """Another EXPIRY seconds; raises LeaseError when another driver has the study, StorageError without a database."""
        sent = uptime()
        with readable(self._url), self._engine.begin() as connection:
            later = {"expires": _clock(self._engine) + EXPIRY}
            kept = connection.execute(update(leases).where(*self._mine).values(later)).rowcount == 1
        if kept:
            self._renewed = sent
        else:
            self.look()

    def look(self) -> None:
        """Notices a request to stop and, raising LeaseError, another owner."""
        with readable(self._url), self._engine.connect() as connection:
            stop = connection.execute(select(row.stop).where(*self._mine)).scalar_one_or_none()
        if stop is None:
            self._lost = (
                f"study {self.study!r} was taken over from this driver, or given back: `harness status {self.study}` says "
                f"who runs it now"
            )
            raise LeaseError(self._lost)
        self.stop_asked = stop

    @property
    def must_stop(self) -> str:
        """Why the driver has to end at once, nothing while it holds the lease; once it has to, it has to for good."""
        patience = time.monotonic() + GRACE
        while self._overdue() and not self._lost:
            if not self._keeper.is_alive() or time.monotonic() > patience:
                cause = f" ({self._trouble})" if self._trouble else ""
                self._lost = (
                    f"the lease of study {self.study!r} could not be renewed for {LIMIT:.0f} s{cause}: this driver ends "
                    f"before another may take it; go on with `harness run {self.study}`"
                )
            time.sleep(0.02)  # a machine that has just woken up renews within POLL
        return self._lost

    def release(self) -> None:
        """Lets the next driver in at once; does nothing where the lease is lost, given back or out of reach."""
        try:
            with readable(self._url), self._engine.begin() as connection:
                connection.execute(update(leases).where(*self._mine).values(expires=0.0, stop=False))
        except StorageError:
            pass  # the process is seen dead, or the lease expires

    def __enter__(self) -> Self:
        self._keeper.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._ended.set()
        self._keeper.join(5)
        if not self._keeper.is_alive():  # else it waits for a database that would not answer the release either
            self.release()

    def _overdue(self) -> bool:
        return uptime() - self._renewed > LIMIT

    def _keep(self) -> None:
        while not self._ended.wait(POLL):
            try:
                if uptime() - self._renewed >= RENEWAL:
                    self.renew()
                self.look()
            except LeaseError:
                return
            except StorageError as error:
                self._trouble = str(error)


def uptime() -> float:
    """Seconds on a clock that nobody sets and that also counts while the machine sleeps."""
    number = getattr(time, "CLOCK_BOOTTIME", getattr(time, "CLOCK_MONOTONIC", None))
    return time.monotonic() if number is None else time.clock_gettime(number)


def _clock(engine: Engine) -> Any:
    """The seconds since 1970 as the database counts them."""
    kind = engine.dialect.name
    if kind not in CLOCKS:
        raise LeaseError(f"a study cannot be run from a {kind} database: use one of {', '.join(CLOCKS)}")
    return literal_column(CLOCKS[kind], Double())


def _ensure_table(engine: Engine) -> None:
    try:
        leases.create(engine, checkfirst=True)
    except DBAPIError:  # another driver made it between the check and the making
        if not inspect(engine).has_table(leases.name):
            raise


def _write(engine: Engine, study_id: int, token: int, free: bool) -> bool:
    """Makes this process the owner if nobody else has become it; `free` leaves out whether the last one's time is over."""
    now = _clock(engine)
    owner = json.dumps(asdict(this_process()))
    values = {"token": token, "owner": owner, "taken": now, "expires": now + EXPIRY, "stop": False}
    try:
        with engine.begin() as connection:
            if token == 1:
                connection.execute(leases.insert().values(study_id=study_id, **values))
                return True
            over = true() if free else or_(row.expires <= now)
            taken = update(leases).where(row.study_id == study_id, row.token == token - 1, over).values(values)
            return connection.execute(taken).rowcount == 1
    except IntegrityError:
        return False


def _name(connection: Connection, study_id: int) -> str:
    return connection.execute(
        select(studies.c.study_name).where(studies.c.study_id == study_id)
    ).scalar_one_or_none() or str(study_id)


def _refusal(study: str, holder: Holder) -> str:
    unseen = (
        f"; it cannot be seen from here: should it be dead, its lease ends in {holder.left:.0f} s"
        if holder.seen is None
        else ""
    )
    return (
        f"study {study!r} is run by {holder.words}{unseen}: end it with `harness stop {study}`, or take the study from it "
        f"with `--take-over`"
    )
