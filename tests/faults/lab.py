"""A folder to break things in: a study of fake or real trials, drivers as processes of their own, and what must hold after.

Whatever is done to it, a study that is run to its end afterwards has as many finished rows as planned, none RUNNING, at most
one COMPLETE row a key, numbers without a gap, no checkpoint, no temporary folder and no process of a dead driver.
"""

import contextlib
import json
import multiprocessing
import multiprocessing.context
import os
import re
import shutil
import signal
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache
from multiprocessing import forkserver
from pathlib import Path

import saboteur
from sqlalchemy import NullPool, create_engine
from sqlalchemy.exc import OperationalError, ProgrammingError

from harness.execution.keeping import PROMOTABLE
from harness.storage.tables import parse_url

FAKES = '''
"""Trials of no time: a made-up accuracy, one line in a log for each epoch, and what FAKE_FAULT asks to go wrong."""
import hashlib, os, time
from pathlib import Path

def run(context):
    config = context.config
    name = hashlib.sha256(config.model_dump_json().encode()).hexdigest()[:12]
    unlucky, fault = int(name, 16) % 3 == 0, os.environ.get("FAKE_FAULT")
    for epoch in range(1, config.training.epochs + 1):
        time.sleep(float(os.environ.get("FAKE_PAUSE", "0")))
        with Path(os.environ["FAKE_LOG"]).open("a") as log:
            log.write(f"{name} {epoch}\\n")
        if unlucky and epoch == 2 and fault == "raise":
            raise ValueError(f"no luck with {name}")
        loss = float(fault) if unlucky and epoch == 2 and fault in ("nan", "inf") else 1 / epoch
        yield {"accuracy": int(name[:4], 16) / 0x10000, "loss": loss}

def seeded(context):
    config = context.config
    name = hashlib.sha256(f"{config.model_dump_json()} {context.seed}".encode()).hexdigest()[:12]
    for epoch in range(1, config.training.epochs + 1):
        with Path(os.environ["FAKE_LOG"]).open("a") as log:
            log.write(f"{name} {epoch}\\n")
        yield {"accuracy": int(name[:4], 16) / 0x10000, "loss": 1 / epoch}
'''

STUDY = """
from harness.config import ExpAtt, ResNet, SqueezeExcite, Training
from harness.space import choose, span, vary
from harness.study import *

{space}
STUDY = Study(
    name="{name}",
    question="Is every trial there?",
    space=SPACE,
    training={training},
    strategy={strategy},
    stopping={stopping},
    objectives={objectives},
    trial={trial!r},
)
"""

SEARCHED = """
attention = vary(ExpAtt, kernel=choose("gaussian", "laplacian", "cauchy"), radius=span(0.5, 4.0, log=True))
SPACE = vary(ResNet, depth=8, width=choose(0.5, 1.0), stages=(None, attention, attention))
"""
LISTED = """
attention = vary(ExpAtt, kernel=choose("gaussian", "laplacian", "cauchy"), radius=choose(1.0, 2.0))
SPACE = vary(ResNet, depth=8, width=choose(0.5, 1.0), stages=(None, attention, attention))
"""
IN_SEQUENCE = "OneAtATime(), seeds=Sequential(first=2, most=6)"
REAL = """
attention = choose(None, SqueezeExcite(ratio=4), vary(ExpAtt, radius=span(0.5, 4.0, log=True)))
SPACE = vary(ResNet, depth=8, width=0.5, stages=(None, attention, attention))
"""
ONE = '(maximize("accuracy"),)'
THREE = '(maximize("accuracy"), minimize("params"), minimize("macs"))'


def searched(strategy: str, objectives: str = THREE, epochs: int = 3, stopping: str | None = None) -> str:
    """A study of fake trials with six parameters."""
    training = f"vary(Training, epochs={epochs}, lr=span(0.01, 0.2, log=True))"
    return STUDY.format(
        name="fake",
        space=SEARCHED,
        training=training,
        strategy=strategy,
        stopping=stopping,
        objectives=objectives,
        trial="fakes:run",
    )


def listed(objectives: str = THREE) -> str:
    """72 cells of fake trials with six parameters."""
    training = "vary(Training, epochs=3, lr=choose(0.1))"
    return STUDY.format(
        name="fake",
        space=LISTED,
        training=training,
        strategy="Exhaustive()",
        stopping=None,
        objectives=objectives,
        trial="fakes:run",
    )


def in_sequence() -> str:
    """Eight arms of fake trials whose seeds come in sequence."""
    study = STUDY.format(
        name="fake",
        space=LISTED,
        training="vary(Training, epochs=2, lr=choose(0.1))",
        strategy=IN_SEQUENCE,
        stopping=None,
        objectives=ONE,
        trial="fakes:seeded",
    )
    return f"from harness.design import OneAtATime, Sequential\n{study}"


def real(trials: int, epochs: int = 3, limit: int = 200, stopping: str | None = None) -> str:
    """Small networks on real digits, the same cells whenever it is run."""
    training = f'Training(epochs={epochs}, limit={limit}, batch_size=32, precision="fp32")'
    return STUDY.format(
        name="real",
        space=REAL,
        training=training,
        strategy=f"Random(trials={trials})",
        stopping=stopping,
        objectives=THREE,
        trial=None,
    )


@dataclass
class Tally:
    """A line of the table that `make faults` prints."""

    fault: str
    caused: int = 0
    planned: int = 0
    finished: int = 0
    stopped: int = 0
    """Early, of the finished ones."""
    lost: int = 0
    duplicated: int = 0
    retrained: int | None = 0
    """Epochs trained again; None where they were not counted."""

    def add(self, other: "Tally") -> None:
        """Counts another's too."""
        for name in ("caused", "planned", "finished", "stopped", "lost", "duplicated"):
            setattr(self, name, getattr(self, name) + getattr(other, name))
        self.retrained = None if None in (self.retrained, other.retrained) else self.retrained + other.retrained


TALLIES: dict[str, Tally] = {}


@cache
def server() -> multiprocessing.context.ForkServerContext:
    """A process that has imported all that drivers need, and forks them."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["saboteur"])
    before = os.environ.get("PYTHONPATH")
    os.environ["PYTHONPATH"] = os.pathsep.join([str(Path(__file__).parent), *([before] if before else [])])
    try:
        forkserver.ensure_running()
    finally:
        del os.environ["PYTHONPATH"]
        if before:
            os.environ["PYTHONPATH"] = before
    return context


class Driver:
    """A `harness` command in a process of its own: forked from a server that has imported it all, or begun from nothing."""

    def __init__(self, lab: "Lab", words: tuple[str, ...], fresh: bool, environment: dict[str, str]) -> None:
        lab.started += 1
        self.fresh = fresh
        self.log = lab.folder / f"output-{lab.started}.txt"
        self.log.touch()
        shared = {"TMPDIR": str(lab.temp), "FAKE_LOG": str(lab.epochs_log), "DRIVER_LOG": str(self.log), "SABOTAGE": ""}
        environment = shared | environment
        self._forked: multiprocessing.process.BaseProcess | None = None
        self._begun: subprocess.Popen[str] | None = None
        if fresh:
            with self.log.open("a") as output:
                self._begun = subprocess.Popen(
                    [*(lab.begin or (sys.executable, saboteur.__file__)), *words],
                    cwd=lab.folder,
                    env=os.environ | environment,
                    stdout=output,
                    stderr=subprocess.STDOUT,
                    stdin=subprocess.DEVNULL,
                    start_new_session=True,
                    text=True,
                )
            self.pid = self._begun.pid
        else:
            self._forked = server().Process(target=saboteur.drive, args=(list(words), environment, str(lab.folder)))
            self._forked.start()
            self.pid = self._forked.pid or 0

    @property
    def code(self) -> int | None:
        """The exit code, negative for a signal, None while it runs."""
        return self._begun.poll() if self._begun else self._forked.exitcode if self._forked else None

    def wait(self, timeout: float = 200) -> int:
        end = time.monotonic() + timeout
        while (code := self.code) is None:
            assert time.monotonic() < end, f"still running after {timeout} s:\n{self.printed}"
            time.sleep(0.01)
        return code

    def end(self, timeout: float = 200) -> str:
        """Waits for the end; gives what was printed."""
        self.wait(timeout)
        return self.printed

    @property
    def printed(self) -> str:
        return self.log.read_text()

    def send(self, number: int) -> None:
        os.kill(self.pid, number)

    def shoot(self) -> bool:
        """kill -9; whether it was still alive."""
        with contextlib.suppress(ProcessLookupError):
            self.send(signal.SIGKILL)
        return self.wait() == -signal.SIGKILL


class Lab:
    """A folder with a study, and all that has been started in it."""

    def __init__(self, study: str, fault: str, url: str = "") -> None:
        self.study, self.fault = study, fault
        self.url = url
        """Of a database on a server; by default it is a file in the folder."""
        self.temp = Path(tempfile.mkdtemp(prefix="hf-"))  # short: Ray's sockets lie below it
        self.folder = self.temp / "lab"
        (self.folder / "studies").mkdir(parents=True)
        (self.folder / "studies" / "study.py").write_text(study)
        (self.folder / "fakes.py").write_text(FAKES)
        self.epochs_log = self.folder / "epochs.txt"
        self.epochs_log.touch()
        self.database = self.folder / "harness.db"
        self.begin: tuple[str, ...] = ()
        """What a `harness` command begins with that is not sabotaged, or runs on another machine than this."""
        self.started = 0
        self.drivers: list[Driver] = []

    def start(self, *options: str, verb: str = "run", fresh: bool = False, **environment: object) -> Driver:
        """A driver in this process's children, without Ray."""
        target = "studies/study.py" if verb == "run" else self.name
        words = (verb, target, "--storage", self.storage, *options)
        plain = {name: str(value) for name, value in environment.items()}
        driver = Driver(self, words, fresh, plain)
        self.drivers.append(driver)
        return driver

    @property
    def storage(self) -> str:
        return self.url or f"sqlite:///{self.database}"

    def local(self, *options: str, verb: str = "run", **environment: object) -> Driver:
        """A driver that runs its trials itself."""
        return self.start("--backend", "local", *options, verb=verb, **environment)

    def on_ray(self, *options: str, verb: str = "run", **environment: object) -> Driver:
        """A driver with two workers of Ray, unless the options say another number."""
        return self.start("--concurrency", "2", *options, verb=verb, fresh=True, **environment)

    def strike(self, plan: str, *options: str) -> int:
        """A driver that dies as planned."""
        driver = self.local(*options, SABOTAGE=plan)
        assert driver.wait() == -signal.SIGKILL, f"{plan}: {driver.printed}"
        return 1

    def run_to_the_end(self, *options: str) -> None:
        """A driver that nobody disturbs."""
        driver = self.local(*options)
        assert driver.wait() == 0, driver.printed

    @property
    def name(self) -> str:
        found = re.search(r'name="(.+)"', self.study)
        assert found is not None
        return found[1]

    # what there is

    def select(self, query: str) -> list[tuple]:
        if self.url:
            return self.select_from_server(query)
        if not self.database.exists():
            return []
        with contextlib.closing(sqlite3.connect(f"file:{self.database}?mode=ro", uri=True, timeout=90)) as connection:
            try:
                return connection.execute(query).fetchall()
            except sqlite3.OperationalError as error:
                if "no such table" in str(error):  # the tables are being made
                    return []
                raise

    def select_from_server(self, query: str) -> list[tuple]:
        engine = create_engine(parse_url(self.url), poolclass=NullPool)
        while True:
            try:
                with engine.connect() as connection:
                    return [tuple(row) for row in connection.exec_driver_sql(query)]
            except OperationalError:  # just restarted
                time.sleep(0.1)
            except ProgrammingError as error:
                if "does not exist" in str(error):  # the tables are being made
                    return []
                raise

    @property
    def states(self) -> Counter[str]:
        return Counter(state for (state,) in self.select("SELECT state FROM trials"))

    def wait_for(self, driver: Driver, happened: Callable[[], bool], timeout: float = 120) -> None:
        end = time.monotonic() + timeout
        while not happened():
            assert driver.code is None, f"exit code {driver.code}:\n{driver.printed}"
            assert time.monotonic() < end, driver.printed
            time.sleep(0.02)

    def wait_for_rows(self, driver: Driver, complete: int) -> None:
        self.wait_for(driver, lambda: self.states["COMPLETE"] >= complete)

    def weights(self) -> dict[str, str]:
        """The hash of the final weights, by key."""
        found = self.select(
            "SELECT k.value_json, p.value_json FROM trials t"
            " JOIN trial_user_attributes k ON k.trial_id = t.trial_id AND k.key = 'key'"
            " JOIN trial_user_attributes p ON p.trial_id = t.trial_id AND p.key = 'provenance' WHERE t.state = 'COMPLETE'"
        )
        return {key: json.loads(provenance).get("weights") for key, provenance in found}

    # what must hold

    def assert_whole(self, planned: int, *, caused: int, failed: int = 0) -> None:
        """What is promised of a study that was run to its end, after so many faults; adds to the table. Where trials are
        stopped early, some were, and each of them as whole as a complete one."""
        rows = self.select(
            "SELECT t.number, t.state, a.value_json FROM trials t"
            " LEFT JOIN trial_user_attributes a ON a.trial_id = t.trial_id AND a.key = 'key' ORDER BY t.number"
        )
        states = Counter(state for _, state, _ in rows)
        finished = sum(states[state] for state in ("COMPLETE", "PRUNED", "FAIL"))
        keys = Counter(key for _, state, key in rows if state == "COMPLETE")
        lost, duplicated = max(0, planned - finished), keys.total() - len(keys)
        found = Tally(self.fault, caused, planned, finished, states["PRUNED"], lost, duplicated, self.retrained)
        TALLIES.setdefault(self.fault, Tally(self.fault)).add(found)
        printed = self.drivers[-1].printed
        stopped = states.pop("PRUNED", 0)
        may_stop = "stopping=" in self.study and "stopping=None" not in self.study
        assert (stopped > 0) == may_stop, printed
        assert states == Counter({"COMPLETE": planned - failed - stopped} | ({"FAIL": failed} if failed else {})), printed
        assert None not in keys and max(keys.values(), default=1) == 1, "a key is COMPLETE twice"
        assert [number for number, _, _ in rows] == list(range(planned)), "numbers have a gap"
        early = self.assert_stops()
        left = [path for pattern in ("last-*", "*.part") for path in self.folder.rglob(pattern)]
        assert {path.parent.name for path in left} <= early, f"checkpoints are left: {left}"
        assert not list(self.folder.rglob(".seen-*")), "a file that other machines look for is left"
        assert not any(path.suffix == ".part" for path in left) and len(left) <= PROMOTABLE, f"more are left: {left}"
        self.assert_nothing_left()

    def assert_stops(self) -> set[str]:
        """Rows that were stopped early end at a rung, say why, and have no values; their numbers."""
        rows = self.select(
            "SELECT t.number, r.value_json, c.value_json,"
            " (SELECT count(*) FROM trial_values v WHERE v.trial_id = t.trial_id) FROM trials t"
            " LEFT JOIN trial_user_attributes r ON r.trial_id = t.trial_id AND r.key = 'reason'"
            " LEFT JOIN trial_user_attributes c ON c.trial_id = t.trial_id AND c.key = 'curve'"
            " WHERE t.state = 'PRUNED'"
        )
        for number, reason, curve, values in rows:
            epochs = len(json.loads(curve))
            assert reason.startswith(f'"stopped early at epoch {epochs}: ') and epochs in (1, 3) and values == 0, (
                number,
                reason,
            )
        return {str(number) for number, *_ in rows}

    @property
    def retrained(self) -> int | None:
        """Epochs trained more than once; our own loop counts them in drivers and not in workers of Ray."""
        lines = self.epochs_log.read_text().splitlines()
        in_workers = "fakes:run" not in self.study and any(driver.fresh for driver in self.drivers)
        return None if in_workers else len(lines) - len(set(lines))

    def processes(self) -> dict[int, str]:
        """Processes that a driver of this lab has started, drivers left out."""
        drivers = {driver.pid for driver in self.drivers}
        return {
            pid: words
            for pid, session, words in processes()
            if pid not in drivers and (session in drivers or str(self.temp) in words)
        }

    def assert_nothing_left(self, patience: float = 20) -> None:
        """No process, no temporary folder of a driver that has ended."""
        assert all(driver.code is not None for driver in self.drivers), "a driver runs still"
        end = time.monotonic() + patience
        while left := self.processes():
            assert time.monotonic() < end, f"left running: {left}"
            time.sleep(0.1)
        assert not list(self.temp.glob("harness-*")), "a temporary folder is left"

    def close(self) -> None:
        for driver in self.drivers:
            if driver.code is None:
                driver.shoot()
        for pid in self.processes():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        shutil.rmtree(self.temp, ignore_errors=True)


def processes() -> Iterator[tuple[int, int, str]]:
    """Id, session and command line of every process that lives."""
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit():
            with contextlib.suppress(OSError):
                fields = (folder / "stat").read_text().rpartition(")")[2].split()
                if fields[0] not in "ZX":
                    words = (folder / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
                    yield int(folder.name), int(fields[3]), words
