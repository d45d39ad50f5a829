"""A study of fake trials of no time in a temporary database, for the tests of the ledger."""

import fnmatch
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from harness.config import Config, ExpAtt, SqueezeExcite
from harness.cost import Cost, Shape, network_cost
from harness.data.pictures import DataInfo
from harness.depot import depot
from harness.execution.ledger import Ledger, Places, Running, Watcher
from harness.record import Epoch, Record
from harness.space import choose, vary
from harness.storage.reader import read_records
from harness.storage.store import Store
from harness.study import Study
from harness.trial import Assignment, Outcome, Report

INFO = DataInfo("digits", "f1", Shape(1, 8, 8, 10), 100, 10)
attention = choose(None, SqueezeExcite(ratio=4), vary(ExpAtt, kernel=choose("gaussian", "cauchy"), radius=choose(1.0, 2.0)))


def price(config: Config) -> Cost:
    return network_cost(config.network, INFO.shape, lambda *_: Cost(1, 1))


def outcome(assignment: Assignment) -> Outcome:
    """A made-up accuracy that depends on the key alone."""
    accuracy = int(assignment.key[:4], 16) / 0x10000
    return Outcome("complete", metrics={"accuracy": accuracy, "loss": 1.0, "seconds": 0.1}, device="none")


def curve(length: int) -> tuple[Epoch, ...]:
    return tuple(Epoch(epoch, 0.1 * epoch, 1.0, 1.0, 0.1) for epoch in range(1, length + 1))


@dataclass
class Desk(Watcher):
    """A study in a temporary database, opened as often as a driver would be."""

    folder: Path
    study: Study
    seen: list[tuple[str, int]] = field(default_factory=list)
    source: Callable[[str], str] | None = None
    storage: str = ""
    """By default a file in the folder."""
    runs: str = ""
    """Where trials leave their weights, by default in the folder."""

    stores: list[Store] = field(default_factory=list)
    """Opened, and to be closed: no driver closes what it dies with."""

    def __post_init__(self) -> None:
        self.storage = self.storage or f"sqlite:///{self.folder}/harness.db"
        self.runs = self.runs or f"{self.folder}/runs"

    def close(self) -> None:
        for store in self.stores:
            store.close()

    def open(self, **options: Any) -> Ledger:
        store = Store(self.storage)
        self.stores.append(store)
        study_id = store.create(self.study.name, self.study.objectives)
        store.set_attributes(study_id, {"definition": self.study.to_json()})
        places = Places("data", self.runs)
        return Ledger(store, study_id, self.study, INFO, places, price, watcher=self, **options)

    def left(self, pattern: str) -> list[int]:
        """Trials that have left such a file."""
        left = (depot(self.runs) / self.study.name).inside()
        return sorted(int(number) for number, names in left.items() if fnmatch.filter(names, pattern))

    def records(self) -> list[Record]:
        return read_records(self.storage, 1)

    def began(self, ledger: Ledger, running: Running) -> None:
        self.seen.append(("began", running.number))

    def ended(self, ledger: Ledger, running: Running, outcome: Outcome) -> None:
        self.seen.append((outcome.state, running.number))


def finish_all(ledger: Ledger) -> None:
    while (assignment := ledger.next()) is not None:
        ledger.report(assignment.number, Report(curve(2), outcome(assignment)))
