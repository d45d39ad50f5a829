"""`harness`, but it dies where the environment says: SABOTAGE=STEP:WHEN:N kills it (-9) at the N-th such moment.

WHEN is `before` or `after` a call of STEP, or `inside` it: at its N-th commit, just before the database commits, and for
files at its N-th fsync. `STEP:wait:N` kills nothing: it waits there until the file `go` appears, so that drivers race.
"""

import functools
import os
import signal
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import moocore  # noqa: F401  what a driver imports, so that a server of forks has it already
import optuna.storages  # noqa: F401
import ptflops  # noqa: F401
import sklearn.datasets  # noqa: F401
import torch  # noqa: F401
from sqlalchemy import Engine, event

import harness.measure.complexity
import harness.networks.build
import harness.run  # noqa: F401
from harness import trial
from harness.cli.main import main
from harness.execution.keeping import Keeper
from harness.execution.ledger import Ledger
from harness.storage.lease import Lease
from harness.storage.store import Store
from harness.strategies.stopping import Ladder
from harness.training import checkpoint, loop

STEPS: dict[str, tuple[Any, str]] = {
    "open": (Store, "__init__"),
    "create": (Store, "create"),
    "attributes": (Store, "set_attributes"),
    "take": (Lease, "take"),
    "begin": (Store, "begin"),
    "progress": (Store, "progress"),
    "report": (Ledger, "report"),
    "save": (checkpoint, "save"),
    "final": (checkpoint, "save_final"),
    "finish": (Store, "finish"),
    "verdict": (Ladder, "verdict"),
    "stop": (Store, "finish"),
    "spare": (Keeper, "spare"),
    "hand_over": (Keeper, "hand_over"),
    "settle": (Keeper, "settle"),
    "look": (Ledger, "_look"),
    "release": (Lease, "release"),
}


class Saboteur:
    """Counts the moments of one step and strikes at the N-th; of `stop`, the rows that are finished because of one."""

    def __init__(self, step: str, when: str, count: int) -> None:
        self.when, self.count = when, count
        self.counts: Callable[..., bool] = (lambda *args: "stopped" in args) if step == "stop" else (lambda *_: True)
        self.seen: Counter[str] = Counter()
        self.inside = False
        owner, name = STEPS[step]
        found = vars(owner)[name]
        if isinstance(found, classmethod):
            setattr(owner, name, classmethod(self.wrapped(found.__func__)))
        else:
            setattr(owner, name, self.wrapped(found))
        event.listen(Engine, "commit", lambda connection: self.moment("inside"))
        fsync = os.fsync

        def counted_fsync(handle: int) -> None:
            self.moment("inside")
            fsync(handle)

        os.fsync = counted_fsync

    def wrapped(self, call: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(call)
        def sabotaged(*args: Any, **kwargs: Any) -> Any:
            if not self.counts(*args):
                return call(*args, **kwargs)
            self.moment("wait")
            self.moment("before")
            self.inside = True
            try:
                found = call(*args, **kwargs)
            finally:
                self.inside = False
            self.moment("after")
            return found

        return sabotaged

    def moment(self, when: str) -> None:
        if when != self.when or (when == "inside" and not self.inside):
            return
        if threading.current_thread() is not threading.main_thread():
            return
        self.seen[when] += 1
        if self.seen[when] != self.count:
            return
        if when != "wait":
            os.kill(os.getpid(), signal.SIGKILL)
        Path(f"ready-{os.getpid()}").touch()
        while not Path("go").exists():
            time.sleep(0.0005)


def note_epochs() -> None:
    """Writes a line for every epoch that our own loop trains in this process."""
    train_epoch, train = loop.train_epoch, trial._train
    current = 0

    def followed(assignment: Any, *args: Any, **settings: Any) -> Any:
        nonlocal current
        current = assignment.number
        return train(assignment, *args, **settings)

    def noted(*args: Any, **settings: Any) -> float:
        found = train_epoch(*args, **settings)
        with Path(os.environ["FAKE_LOG"]).open("a") as log:
            log.write(f"{current} {settings['epoch']}\n")
        return found

    loop.train_epoch, trial._train = noted, followed


def drive(words: list[str], environment: dict[str, str], folder: str) -> None:
    """A driver in this very process, with its output in a file."""
    os.setsid()
    os.chdir(folder)
    os.environ.update(environment)
    log = os.open(environment["DRIVER_LOG"], os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(log, 1)
    os.dup2(log, 2)
    sys.argv = ["harness", *words]
    sabotage()
    main()


def sabotage() -> None:
    note_epochs()
    if plan := os.environ.get("SABOTAGE"):
        step, when, count = plan.split(":")
        Saboteur(step, when, int(count))


if __name__ == "__main__":
    sabotage()
    main()
