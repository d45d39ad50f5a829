"""The first process of a trial on several devices, where the run has no workers: one of its own, as it ends itself where it
waits for another that is dead.

It says a report a line, and goes on when it is told to, as at a rung that may be the trial's last epoch.
"""

import contextlib
import os
import queue
import subprocess
import threading
from collections.abc import Callable, Generator
from dataclasses import asdict
from typing import Any

from harness.child import begun, tell, told
from harness.trial import Assignment, Outcome, Report, run_trial

LOOK_EVERY = 0.1
"""Seconds between looks at whether the run is to end."""
PARTING = 10.0
"""Seconds in which it ends by itself, and the trial's other processes with it."""


def run_apart(assignment: Assignment, stop: Callable[[], bool]) -> Generator[Report, None, None]:
    """What `run_trial` gives, of a process of its own; one that dies is a lost worker."""
    last, lines = Report(()), queue.SimpleQueue[str]()
    asked, quiet = {"assignment": asdict(assignment)}, {"TORCH_CPP_LOG_LEVEL": "ERROR"}
    with begun("harness.lead", asked, stdout=subprocess.PIPE, stderr=None, environment=quiet) as first:

        def listen() -> None:
            for line in first.stdout or ():
                lines.put(line)
            lines.put("")

        threading.Thread(target=listen, daemon=True).start()
        try:
            while last.outcome is None and not stop():
                try:
                    line = lines.get(timeout=LOOK_EVERY)
                except queue.Empty:
                    continue
                last = Report.from_json(line) if line else Report(last.curve, death(first.wait()))
                if last.outcome is None:
                    yield last
                    tell(first, {"on": True})
        finally:
            tell(first, {"on": False})
            with contextlib.suppress(subprocess.TimeoutExpired):
                first.wait(PARTING)
    if last.outcome is not None:
        yield last


def death(code: int) -> Outcome:
    """That of the process, which had no outcome yet."""
    return Outcome("failed", reason=f"the first process of the trial died (exit code {code})", cause="place")


def main() -> None:
    """Runs the trial; what its own code prints goes to stderr."""
    reports = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    answers, ends = queue.SimpleQueue[bool](), threading.Event()

    def hear(answer: dict[str, Any]) -> None:
        answers.put(answer["on"])
        if not answer["on"]:
            ends.set()

    assignment = Assignment(**told(hear=hear)["assignment"])
    with contextlib.closing(run_trial(assignment, ends.is_set)) as trial:
        for report in trial:
            print(report.to_json(), file=reports, flush=True)
            if not answers.get():
                break


if __name__ == "__main__":
    main()
