"""A driver on a Ray cluster is a process of its own: Ray ends one whose head is lost, and here it is begun again."""

import contextlib
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from contextlib import AbstractContextManager

LOOKED_AFTER = "HARNESS_LOOKED_AFTER_BY"
"""In the environment of such a driver: who looks after it."""
WORDS = "HARNESS_WORDS"
"""In the environment of such a driver: what it is told to do, for its command line, which Ray keeps, shows no passwords."""
LOOK_EVERY = 0.5
"""Seconds between looks at the head."""
GONE = 3
"""Looks in a row that find nobody on its port, after which the head is lost."""
SILENT = 45.0
"""Seconds without an answer after which it is lost too; Ray would end the driver after 60."""
SOON = 60.0
"""A driver that Ray ends within so many seconds is not begun again, unless its head is lost."""

Signals = Callable[[], AbstractContextManager[list[int]]]


def is_looked_after() -> bool:
    """Whether this process is such a driver; those that it starts inherit its environment, and are none."""
    return os.environ.get(LOOKED_AFTER) == str(os.getppid())


def words_given() -> list[str] | None:
    """What such a driver is told to do; None for any other process, which is told by its command line."""
    said = os.environ.pop(WORDS, None)
    return json.loads(said) if said is not None and is_looked_after() else None


def end_with_parent() -> None:
    """Ends this process, a driver that is looked after, when who looks after it ends."""

    def follow() -> None:
        while is_looked_after():
            time.sleep(LOOK_EVERY)
        os._exit(143)

    threading.Thread(target=follow, daemon=True).start()


def watch(address: str, limit: float | None, signals: Signals) -> int:
    """Runs this very command as a driver, and again each time the cluster's head was lost and is back, which costs what a
    kill -9 does: the epochs under way. Its exit code; a negative one where time was up, or a signal came, without a head."""
    from harness.execution.cluster import BACK_AGAIN, TOLD, prepare
    from harness.storage.tables import masked

    prepare(address)
    program = sys.orig_argv[1 : len(sys.orig_argv) - len(sys.argv) + 1]
    end = None if limit is None else time.monotonic() + limit
    told, tell = os.pipe()
    os.set_blocking(told, False)
    environment = os.environ | {LOOKED_AFTER: str(os.getpid()), TOLD: str(tell)}
    with signals() as caught:
        while True:
            left = [] if end is None else ["--for", f"{max(end - time.monotonic(), 1):.0f}s"]
            words, began = [*sys.argv[1:], *left], time.monotonic()
            environment[WORDS] = json.dumps(words)
            shown = [sys.executable, *program, *map(masked, words)]
            driver = subprocess.Popen(shown, env=environment, process_group=0, pass_fds=(tell,))
            head = Head(address, told)
            code = followed(driver, head, caught)
            aborted = code == -signal.SIGABRT and time.monotonic() - began > SOON
            if code == 0 or not (head.lost or aborted):  # it may be done as the head goes
                return code if code >= 0 else 128 - code
            print(f"harness: {lost_words(head)}", file=sys.stderr, flush=True)
            while not head.answers():
                if caught or (end is not None and time.monotonic() > end):
                    return -130 if caught and caught[0] == signal.SIGINT else -143
                time.sleep(LOOK_EVERY)
            environment[BACK_AGAIN] = "1"


def lost_words(head: "Head") -> str:
    """What is said when the head is lost."""
    return (
        f"the head of the Ray cluster at {head.address} is lost: this run waits for it, then goes on from the last epochs"
        " (Ctrl-C ends it)"
    )


def followed(driver: subprocess.Popen[bytes], head: "Head", caught: list[int]) -> int:
    """The driver's exit code; signals are handed on to it, and without a head it is ended."""
    handed = 0
    while driver.poll() is None:
        if len(caught) > handed:
            handed = len(caught)
            driver.send_signal(caught[0])
        if head.is_lost():
            driver.kill()
        with contextlib.suppress(subprocess.TimeoutExpired):
            driver.wait(LOOK_EVERY)
    return driver.returncode


class Head:
    """The head of a cluster, as one who does not belong to the cluster sees it."""

    def __init__(self, address: str, told: int) -> None:
        self.address = address
        self.lost = False
        self._told = told
        self._refused, self._answered = 0, time.monotonic()

    def answers(self) -> bool | None:
        """Whether it is there; False where nobody listens, None where nothing is heard."""
        from harness.execution.cluster import answer, endpoint

        with contextlib.suppress(BlockingIOError):
            self.address = os.read(self._told, 1000).decode() or self.address
        place = endpoint(self.address)
        return True if place is None else answer(place)

    def is_lost(self) -> bool:
        """Looks again; whether it has been gone for too long."""
        found = self.answers()
        self._refused = self._refused + 1 if found is False else 0
        self._answered = time.monotonic() if found else self._answered
        self.lost = self._refused >= GONE or time.monotonic() - self._answered > SILENT
        return self.lost
