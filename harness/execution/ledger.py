"""The ledger of a running study: hands out trials, writes their rows, and is the only one who does.

    proposal --screen--> row (RUNNING, whole) --assignment--> worker --report--> row (finished, whole)

Backends ask it for the next trial and tell it what came back; they decide nothing. A row that a crash left RUNNING is
adopted: same number, same parameters, on from its last checkpoint.
"""

import shutil
import time
from collections import Counter, deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from harness.config import Config
from harness.cost import Cost
from harness.data.sources import DataInfo
from harness.errors import ConfigError
from harness.key import trial_key
from harness.record import Epoch, Record
from harness.space import Params
from harness.storage.store import Store
from harness.strategies.proposers import Cells, Proposal, distributions, proposer
from harness.study import Search, Study
from harness.trial import Assignment, Outcome, Report

ATTEMPTS = 3
"""Times in a row that a trial may lose its worker without having finished another epoch."""
TOLD_EVERY = 1.0
"""Seconds between two writes of a running trial's curve."""

Price = Callable[[Config], Cost]


@dataclass
class Running:
    """A trial that is handed out, or waits to be."""

    assignment: Assignment
    params: Params
    proposal: Proposal
    epochs: int
    """Epochs planned."""
    curve: tuple[Epoch, ...] = ()
    lost: int = 0
    told: float = 0.0
    began: float = field(default_factory=time.monotonic)

    @property
    def number(self) -> int:
        return self.assignment.number


class Watcher:
    """Is told what happens; the live table and the plain log are watchers."""

    def began(self, ledger: "Ledger", running: Running) -> None:
        """A trial was handed out."""

    def advanced(self, ledger: "Ledger", running: Running) -> None:
        """A trial finished an epoch."""

    def ended(self, ledger: "Ledger", running: Running, outcome: Outcome) -> None:
        """A trial's row was finished."""


@dataclass(frozen=True)
class Places:
    """Where a study's files are: data, checkpoints, and folders of the user's modules."""

    data: str
    runs: str
    code: tuple[str, ...] = ()


class Ledger:
    """One study being run: `next()` until it gives None, and `report()` or `lost()` for each trial handed out."""

    def __init__(
        self,
        store: Store,
        study_id: int,
        study: Study,
        info: DataInfo,
        places: Places,
        price: Price,
        *,
        limit: int | None = None,
        watcher: Watcher | None = None,
        asked_to_stop: Callable[[], bool] = lambda: False,
    ) -> None:
        self.store, self.study_id, self.study, self.info, self.places = store, study_id, study, info, places
        self.space = study.open_space(check=False)
        self.watcher = watcher or Watcher()
        self._asked_to_stop, self._stopping = asked_to_stop, False
        self.refused: Counter[str] = Counter()
        """Proposals not trained: invalid, over budget, duplicate."""
        self.running: dict[int, Running] = {}
        self._price = price
        self._distributions = distributions(self.space)
        self._waiting: deque[Running] = deque()
        records = store.records(study_id)
        self.finished = Counter(record.state for record in records if record.state != "running")
        self._proposer = proposer(study, self.space, len(records))
        self.best: dict[str, float] = {}
        self._keys = {record.key for record in records}
        for record in records:
            self._recall(record)
        self.rows = len(records)
        self.planned = self._count_planned(limit)
        self._exhausted = False

    # what there is to do

    def _count_planned(self, limit: int | None) -> int:
        if isinstance(self.study.strategy, Search):
            planned = self.study.strategy.trials
        else:
            planned = len({key for key, _ in filter(None, map(self._screen, Cells(self.study, self.space).all()))})
        return max(min(planned, limit or planned), self.rows)

    def _recall(self, record: Record) -> None:
        """Takes up a row of an earlier run: its result, or the trial itself where it was cut short."""
        if record.state == "complete":
            values = [record.value(objective.metric) for objective in self.study.objectives]
            self._note_best(values)
            self._proposer.remember(record.proposal, values)
        elif record.state == "running":
            running = self._adopt(record)
            if self._key(record.config, record.seed) == record.key:
                self._waiting.append(running)
            else:
                reason = "the engine or the source of a module has changed since the trial was begun"
                self._end(running, Outcome("failed", reason=reason))
                self.finished["failed"] += 1

    def _adopt(self, record: Record) -> Running:
        proposal = Proposal(record.params, record.seed, record.proposal or None)
        assignment = self._assignment(record.number, record.key, record.seed, record.config_json, record.costs)
        return Running(assignment, record.params, proposal, record.config.training.epochs, record.curve)

    @property
    def done(self) -> bool:
        """Whether nothing is left to hand out, now or later."""
        return not self._waiting and (self._exhausted or self.rows >= self.planned)

    @property
    def stopping(self) -> bool:
        """Whether the run is to end: nothing is handed out any more, what runs is left for next time."""
        return self._stopping or self._asked_to_stop()

    def stop(self) -> None:
        """Ends the run, for a reason of its own."""
        self._stopping = True

    # handing out

    def next(self) -> Assignment | None:
        """The next trial to run: an adopted one first, else a new row. None when there is nothing more to hand out now."""
        if self.stopping:
            return None
        running = self._waiting.popleft() if self._waiting else self._begin()
        if running is None:
            return None
        self.running[running.number] = running
        self.watcher.began(self, running)
        return running.assignment

    def _begin(self) -> Running | None:
        """Writes the row of the next proposal that passes the screen."""
        while self.rows < self.planned and not self._exhausted:
            proposal = self._proposer.propose()
            if proposal is None:
                self._exhausted, self.planned = True, self.rows
                return None
            passed = self._screen(proposal)
            if passed is None or passed[0] in self._keys:
                self.refused["duplicate" if passed else "screened"] += 1
                self._proposer.told(proposal, None)
                continue
            key, (config, cost) = passed
            plain, costs = config.model_dump(mode="json"), cost._asdict()
            attributes = {"key": key, "seed": proposal.seed, "config": plain, "costs": costs}
            if proposal.memory:
                attributes["proposal"] = proposal.memory
            active = {name: self._distributions[name] for name in proposal.params}
            number = self.store.begin(self.study_id, proposal.params, active, attributes)
            self._keys.add(key)
            self.rows += 1
            assignment = self._assignment(number, key, proposal.seed, plain, costs)
            return Running(assignment, proposal.params, proposal, config.training.epochs)
        return None

    def _screen(self, proposal: Proposal) -> tuple[str, tuple[Config, Cost]] | None:
        """Key, config and exact cost of a proposal; None for one that is no network or breaks a constraint."""
        try:
            config = self.space.config(proposal.params)
        except ConfigError:
            return None
        cost = self._price(config)
        if not all(constraint.holds(cost._asdict()) for constraint in self.study.constraints):
            return None
        return self._key(config, proposal.seed), (config, cost)

    def _key(self, config: Config, seed: int) -> str:
        return trial_key(config, seed, self.info.fingerprint)

    def _assignment(self, number: int, key: str, seed: int, config: dict[str, Any], costs: Mapping[str, int]) -> Assignment:
        return Assignment(
            study=self.study.name,
            number=number,
            key=key,
            seed=seed,
            config=config,
            costs=dict(costs),
            data=self.places.data,
            fingerprint=self.info.fingerprint,
            runs=self.places.runs,
            threads=self.study.threads,
            code=self.places.code,
        )

    # taking back

    def report(self, number: int, report: Report) -> None:
        """An epoch was finished, or the whole trial."""
        running = self.running[number]
        if len(report.curve) > len(running.curve):
            running.curve, running.lost = report.curve, 0
        if report.outcome is not None:
            self._end(running, report.outcome)
            del self.running[number]
            self.finished[report.outcome.state] += 1
            self.watcher.ended(self, running, report.outcome)
        else:
            if time.monotonic() - running.told >= TOLD_EVERY:
                self.store.progress(self.study_id, number, running.curve)
                running.told = time.monotonic()
            self.watcher.advanced(self, running)

    def lost(self, number: int, reason: str) -> None:
        """A worker died: its trial waits for another one, unless that has happened too often."""
        running = self.running.pop(number)
        running.lost += 1
        if running.lost < ATTEMPTS:
            self._waiting.append(running)
            return
        outcome = Outcome("failed", reason=f"its worker was lost {ATTEMPTS} times: {reason}")
        self._end(running, outcome)
        self.finished["failed"] += 1
        self.watcher.ended(self, running, outcome)

    def leave(self, number: int) -> None:
        """A trial is cut short by the end of the run: its row stays RUNNING and is adopted next time."""
        running = self.running.pop(number, None)
        if running is not None and running.curve:
            self.store.progress(self.study_id, number, running.curve)

    def _end(self, running: Running, outcome: Outcome) -> None:
        """Finishes the row, tells the strategy, and clears the checkpoint away."""
        attributes: dict[str, Any] = {"device": outcome.device, "provenance": outcome.provenance, "metrics": outcome.metrics}
        values: list[float] = []
        if outcome.state == "complete":
            found = {**running.assignment.costs, **outcome.metrics}
            values = [float(found[objective.metric]) for objective in self.study.objectives]
            self._note_best(values)
        else:
            attributes |= {"reason": outcome.reason, "traceback": outcome.traceback}
        self.store.finish(
            self.study_id, running.number, outcome.state, values=values, curve=running.curve, attributes=attributes
        )
        self._proposer.told(running.proposal, values or None)
        shutil.rmtree(running.assignment.folder, ignore_errors=True)

    def _note_best(self, values: list[float]) -> None:
        for objective, value in zip(self.study.objectives, values, strict=True):
            old = self.best.get(objective.metric, value)
            self.best[objective.metric] = min(old, value, key=lambda found: found * objective.sign)
