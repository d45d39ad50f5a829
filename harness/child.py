"""A process that works for the one that began it: told on a line of stdin what to do, and gone when that one is.

Its stdin stays open: that it ends says that whoever began it has ended, however that went.
"""

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from typing import IO, Any


@contextlib.contextmanager
def begun(
    module: str, asked: dict[str, Any], *, stdout: IO[str] | int, stderr: IO[str] | int, **environment: str
) -> Iterator[subprocess.Popen[str]]:
    """A module as such a process; nothing of it, nor of what it has begun itself, is left behind the block.

    What a terminal signals is for whoever began it alone."""
    child = subprocess.Popen(
        [sys.executable, "-m", module],
        env=os.environ | environment,
        stdin=subprocess.PIPE,
        stdout=stdout,
        stderr=stderr,
        start_new_session=True,
        text=True,
    )
    try:
        tell(child, asked)
        yield child
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(child.pid, signal.SIGKILL)
        with child, contextlib.suppress(BrokenPipeError):
            child.wait()


def tell(child: subprocess.Popen[str], what: dict[str, Any]) -> None:
    """Sends it a line; who has died meanwhile is seen by its exit code."""
    assert child.stdin is not None
    with contextlib.suppress(BrokenPipeError):
        child.stdin.write(json.dumps(what) + "\n")
        child.stdin.flush()


def told() -> dict[str, Any]:
    """In such a process: what to do. From now on it ends with whoever began it."""
    found: dict[str, Any] = json.loads(sys.stdin.readline())

    def follow() -> None:
        sys.stdin.read()
        if "folder" in found:  # its own, and of others that end likewise
            shutil.rmtree(found["folder"], ignore_errors=True)
        os._exit(0)

    threading.Thread(target=follow, daemon=True).start()
    return found
