"""Labs for the tests of faults, and the table of what was done and what it cost."""

from collections.abc import Callable, Iterator
from dataclasses import asdict, astuple, fields
from typing import Any

import pytest
from lab import TALLIES, Lab, Tally


@pytest.fixture
def make_lab(request: pytest.FixtureRequest) -> Iterator[Callable[[str, str], Lab]]:
    """A lab by its study and the name of what is done to it; with `on_both`, on either database."""
    made: list[Lab] = []
    on_server = getattr(request, "param", "sqlite") == "postgresql"
    server = request.getfixturevalue("server") if on_server else None

    def make(study: str, fault: str) -> Lab:
        made.append(Lab(study, fault) if server is None else Lab(study, f"{fault}, PostgreSQL", server.url(server.fresh())))
        return made[-1]

    yield make
    for lab in made:
        lab.close()


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: Any) -> None:
    """What another process of this run has caused (pytest-xdist)."""
    for line in getattr(node, "workeroutput", {}).get("tallies", ()):
        theirs = Tally(**line)
        TALLIES.setdefault(theirs.fault, Tally(theirs.fault)).add(theirs)


def pytest_sessionfinish(session: pytest.Session) -> None:
    if hasattr(session.config, "workeroutput"):
        session.config.workeroutput["tallies"] = [asdict(tally) for tally in TALLIES.values()]


def pytest_terminal_summary(terminalreporter: Any) -> None:
    if not TALLIES:
        return
    names = [field.name for field in fields(Tally)]
    rows = [["" if cell is None else str(cell) for cell in astuple(tally)] for _, tally in sorted(TALLIES.items())]
    total = [sum(getattr(tally, name) or 0 for tally in TALLIES.values()) for name in names[1:]]
    lines = [names, *rows, ["all", *map(str, total)]]
    widths = [max(len(line[column]) for line in lines) for column in range(len(names))]
    terminalreporter.section("faults")
    for line in lines:
        cells = [line[0].ljust(widths[0]), *(cell.rjust(width) for cell, width in zip(line[1:], widths[1:], strict=True))]
        terminalreporter.write_line("  ".join(cells))
