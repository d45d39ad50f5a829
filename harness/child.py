"""A process that works for the one that began it: told on a line of stdin what to do, and gone when that one is.

Its stdin stays open: that it ends says that whoever began it has ended, however that went.
"""

import contextlib
import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from typing import IO, Any


@contextlib.contextmanager
def begun(
    module: str,
    asked: dict[str, Any],
    *,
    stdout: IO[str] | int = subprocess.DEVNULL,
    stderr: IO[str] | int | None = subprocess.DEVNULL,
    environment: Mapping[str, str] = {},
) -> Iterator[subprocess.Popen[str]]:
    """A module as such a process, which finds modules where this one does; nothing of it, nor of what it has begun, is
    left behind the block. What a terminal signals is for whoever began it alone."""
    child = subprocess.Popen(
        [sys.executable, "-m", module],
        env={**os.environ, **environment},
        stdin=subprocess.PIPE,
        stdout=stdout,
        stderr=stderr,
        start_new_session=True,
        text=True,
    )
    try:
        tell(child, asked | {"path": sys.path})
        yield child
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(child.pid, signal.SIGKILL)
        with contextlib.suppress(BrokenPipeError), child:
            child.wait()


def tell(child: subprocess.Popen[str], what: dict[str, Any]) -> None:
    """Sends it a line; who has died meanwhile is seen by its exit code."""
    assert child.stdin is not None
    with contextlib.suppress(BrokenPipeError):
        child.stdin.write(json.dumps(what) + "\n")
        child.stdin.flush()


def told(at_end: Callable[[], None] = lambda: None, hear: Callable[[Any], None] = lambda _: None) -> dict[str, Any]:
    """In such a process: what to do. From now on `hear` is given what each later line says, and the process ends with that
    which has begun it, after `at_end`."""
    found: dict[str, Any] = json.loads(sys.stdin.readline())
    sys.path[:] = dict.fromkeys((*found["path"], *sys.path))

    def follow() -> None:
        for line in sys.stdin:
            hear(json.loads(line))
        at_end()
        os._exit(0)

    threading.Thread(target=follow, daemon=True).start()
    return found
