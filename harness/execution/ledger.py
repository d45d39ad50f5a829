"""The ledger of a running study: hands out trials, writes their rows, and is the only one who does.

    proposal --screen--> row (RUNNING, whole) --assignment--> worker --report--> row (finished, whole)

Backends ask it for the next trial and tell it what came back; they decide nothing. A row that a crash left RUNNING is
adopted: same number, same parameters, on from its last checkpoint. Retries belong here and not to Ray.
"""

import contextlib
import re
import time
from collections import Counter, deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import islice
from typing import Any

from harness.code import source_hash
from harness.config import Config
from harness.cost import Cost
from harness.data.pictures import DataInfo
from harness.design import Sequential
from harness.errors import ConfigError, DiskError, SpaceError
from harness.execution.filled import Filled
from harness.execution.keeping import Keep, Keeper, Point, beats
from harness.execution.reuse import Elsewhere, may_stand, origin
from harness.key import trial_key
from harness.latency import MEASURED, answer
from harness.record import Epoch, Record, origin_words, spent
from harness.shard import STRIDE, Dealt, Shard
from harness.space import Params
from harness.storage.lease import Lease, LeaseError
from harness.storage.store import Store
from harness.strategies.proposers import Cells, Proposal, Proposer, distributions, proposed, proposer
from harness.strategies.rounds import Rounds
from harness.strategies.stopping import recalled
from harness.study import Search, Study
from harness.trial import Assignment, Outcome, Report
from harness.weights import anywhere

ATTEMPTS = 3
"""Times in a row that a trial may lose its worker without having finished another epoch."""
HOPELESS = 5
"""Trials that fail for one reason, before any is complete, after which the study stops."""
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
    alone: bool = False
    """Ran out of memory beside others, or out of its share: it runs again with nothing beside it, before that counts."""
    told: float = 0.0
    device: str = ""
    """Where it is trained, once its worker has said so."""

    @property
    def number(self) -> int:
        return self.assignment.number

    @property
    def pace(self) -> float:
        """Seconds of its last epoch, 0 before the first."""
        return self.curve[-1].seconds if self.curve else 0.0


class Watcher:
    """Is told what happens; the live table and the plain log are watchers."""

    def changed(self, changes: Sequence[str]) -> None:
        """The study differs from what was run under its name before."""

    def shares(self, words: str) -> None:
        """It is measured, or was decided, how many trials share a GPU."""

    def began(self, ledger: "Ledger", running: Running) -> None:
        """A trial was handed out."""

    def advanced(self, ledger: "Ledger", running: Running) -> None:
        """A trial finished an epoch."""

    def ended(self, ledger: "Ledger", running: Running, outcome: Outcome) -> None:
        """A trial's row was finished."""

    def lost(self, ledger: "Ledger", running: Running, reason: str) -> None:
        """A trial lost its worker and waits for another."""

    def waits(self, words: str) -> None:
        """What a Ray cluster lacks: a free worker, which is waited for, or a folder."""

    def looked(self, ledger: "Ledger", standing: str) -> None:
        """Results have changed what is decided, where seeds come in sequence."""


@dataclass(frozen=True)
class Places:
    """Where a study's files are: data, checkpoints, and folders of the user's modules."""

    data: str
    runs: str
    code: tuple[str, ...] = ()


@dataclass(frozen=True)
class Rules:
    """How far a run is to go, which changes no trial's numbers."""

    trials: int | None = None
    """Stop when the study has this many trials."""
    seconds: float | None = None
    """Start no epoch that would not end within so many seconds of the run's start."""
    retry_failed: bool = False
    """Run the configs of failed trials again, as new rows that name the old."""
    keep: Keep = "front"
    """Whose final weights stay on disk."""
    promote: int = 0
    """Go on with so many of the trials that were stopped early, the best, as new rows; those of earlier runs count."""
    reuse: bool = True
    """Take over what another study of the database has finished, instead of training it again."""
    shard: Shard | None = None
    """Run this part of the study alone."""
    reuse_from: tuple[str, ...] = ()
    """Other databases whose finished trials count too; they are only read."""


@dataclass
class Ledger:
    """One study being run: `next()` until it gives None, and `report()` or `lost()` for each trial handed out."""

    store: Store
    study_id: int
    study: Study
    info: DataInfo
    places: Places
    price: Price
    sources: Mapping[str, str] = field(default_factory=dict)
    """Hashes of the user's modules as they were when the run began."""
    rules: Rules = Rules()
    lease: Lease | None = None
    watcher: Watcher = field(default_factory=Watcher)
    asked_to_stop: Callable[[], bool] = lambda: False
    earlier: Sequence[Record] = ()
    """Trials of earlier revisions of the study: a search begins with those that still hold."""
    memory: float = 1.0
    """Share of a GPU's memory that a trial may take beside others, from when it is handed out."""
    devices: int = 1
    """Processes that share each batch of a trial."""
    cores: int | None = None
    """Reserved for a trial; None: as many as it has threads."""

    def __post_init__(self) -> None:
        self.began = time.monotonic()
        self.space = self.study.open_space(check=False)
        self.trouble = ""
        """Why the run ended itself, if it did."""
        self.late = False
        """Whether time was up before all was done."""
        self.refused: Counter[str] = Counter()
        """Proposals not trained: screened (no network, or over a constraint) or duplicate."""
        self.looked_at = self.screened_out = 0
        """Configs priced in this run, and those of them that broke a constraint and were never trained."""
        self.running: dict[int, Running] = {}
        self.best: dict[str, float] = {}
        self.front: list[Point] = []
        """The objectives of the trials that no other beats, the smaller the better; equal ones once."""
        self.notes: list[str] = []
        """What is worth telling of how the run began."""
        self._stopped = self._exhausted = False
        self._waiting: deque[Running] = deque()
        self._alone: deque[Running] = deque()
        self._again: deque[Record] = deque()
        self._reasons: Counter[str] = Counter()
        self._distributions = distributions(self.space)
        records = self.store.records(self.study_id)
        self.rows = len(records)
        self.finished = Counter(record.state for record in records if record.state != "running")
        numbered = partial(self.store.numbered, self.study_id)
        self._filled = Filled(records, numbered, lambda record: self._cell(record.config, record.seed))
        self._keeper = Keeper(self.rules.keep, self.places.runs, self.study, records)
        self._proposer = self._strategy(len(records))
        self._rounds = Rounds(self.study, self.space) if isinstance(self.study.seeds, Sequential) else None
        if self._rounds is not None:
            self._proposer = self._rounds
        self.standing = ""
        """What the results so far have decided, where seeds come in sequence."""
        self._elsewhere = Elsewhere(self.store, self.study_id, self.rules.reuse_from)
        self.reused = 0
        """Trials of other studies taken over in this run."""
        self.untrained = sum(record.untrained for record in records)
        """Trials whose network broke a measured constraint."""
        self.beside = 0.0
        """Cores that others kept busy while latency was measured in this run, at most."""
        self.spent: Counter[str] = Counter()
        """Seconds of workers in this run's trials: training, evaluation, the rest."""
        self.ladder = recalled(self.study, records)
        for record in records:
            self._recall(record)
        self._kept = deque(self._still_holding())
        self._failed_again(records)
        self._promote(records)
        self._keeper.spare(self._pending, self.ladder.best())
        self._expect_again()
        repeated = sum(record.replaces is not None or record.promotes is not None for record in records)
        self.planned = self._count_planned(repeated + len(self._again))
        self._look()
        self.looked_at = self.screened_out = 0

    # what there is to do

    def _expect_again(self) -> None:
        """Where seeds come in sequence, what runs again is waited for."""
        if self._rounds is not None:
            for record in self._again:
                self._rounds.expect(record)
            self.standing = self._rounds.course.words

    def _look(self) -> None:
        """Where seeds come in sequence: counts what the results so far ask for, and tells what they have decided."""
        if self._rounds is None:
            return
        filled = len(self._filled)
        cells = filled + self._rounds.left
        again = self.rows - filled + len(self._again)
        self.planned = max(min(cells, self.rules.trials or cells) + again, self.rows)
        if (standing := self._rounds.course.words) != self.standing:
            self.standing = standing
            self.watcher.looked(self, standing)

    def _strategy(self, rows: int) -> Proposer:
        """Who proposes, after so many rows: of a shard its own part, or a search of its own."""
        shard = self.rules.shard
        if shard is None:
            return proposer(self.study, self.space, rows, self._priced)
        whole = proposer(self.study, self.space, rows + shard.index * STRIDE, self._priced)
        return whole if shard.split(self.study) == "searches" else Dealt(whole, shard, self.study, self._planned_cell)

    def _planned_cell(self, proposal: Proposal) -> str | None:
        passed = self._screen(proposal)
        return None if passed is None else self._cell(passed[0], proposal.seed)

    def _count_planned(self, repeated: int) -> int:
        """Rows the study is to have: its budget or its cells, and those that take up earlier ones."""
        shard = self.rules.shard
        if shard is not None and isinstance(dealt := self._strategy(0), Dealt):
            planned = dealt.count()
        elif isinstance(self.study.strategy, Search):
            planned = self.study.strategy.trials if shard is None else shard.share(self.study.strategy.trials)
        else:
            passed = filter(None, map(self._screen, Cells(self.study, self.space).all()))
            planned = len({self._cell(config, seed) for config, seed, _ in passed})
        return max(min(planned, self.rules.trials or planned) + repeated, self.rows)

    def _recall(self, record: Record) -> None:
        """Takes up a row of an earlier run: its result, or the trial itself where it was cut short."""
        if self._rounds is not None:
            self._rounds.recall(record)
        if record.state == "complete":
            values = [record.value(objective.metric) for objective in self.study.objectives]
            self._note_best(values)
            self._proposer.remember(proposed(record), values)
        elif record.state == "stopped" and record.curve:
            known = self._values_expected(record.costs, record.curve, record.config.training.epochs)
            self._proposer.remember(proposed(record), known)
        elif record.state == "running":
            running = self._adopt(record)
            if self._key(record.config, record.seed) == record.key:
                self._waiting.append(running)
            else:
                reason = "the engine or the source of a module has changed since the trial was begun"
                self._end(running, Outcome("failed", reason=reason))
                self._again.append(record)

    def _adopt(self, record: Record) -> Running:
        proposal, epochs = proposed(record), record.config.training.epochs
        promotes = record.promotes
        assignment = self._assignment(record.number, record.key, record.seed, record.config_json, record.costs, promotes)
        return Running(assignment, record.params, proposal, epochs, record.curve)

    def _still_holding(self) -> Iterator[Proposal]:
        """Complete trials of earlier revisions that this search could have proposed; a design proposes them by itself."""
        if not (isinstance(self.study.strategy, Search) and self.rules.reuse):
            return
        for record in self.earlier:
            cell = self._cell(record.config, record.seed)
            new = not self._filled.has(cell, record.seed, record.costs)
            if record.state == "complete" and record.seed in self.study.seeds and new:
                with contextlib.suppress(SpaceError):
                    params = self.space.params(record.config)
                    if self._elsewhere.find(self._key(record.config, record.seed)) is not None:
                        yield self._proposer.adopt(params, record.seed)

    def _failed_again(self, records: list[Record]) -> None:
        """Failed trials to be run anew: all on request, and those whose user module has changed since."""
        replaced = {record.replaces for record in records}
        for record in records:
            if record.state == "failed" and record.number not in replaced:
                changed = self._key(record.config, record.seed) != record.key
                if changed or self.rules.retry_failed:
                    self._again.append(record)

    def _promote(self, records: list[Record]) -> None:
        """Stopped trials to go on with: the best, as many as are asked for, those promoted before among them."""
        wanted = max(self.rules.promote - len(self.ladder.promoted), 0)
        stopped = {record.number: record for record in records if record.state == "stopped"}
        chosen = [stopped[number] for number in islice(self.ladder.best(), wanted)]
        self._again.extend(chosen)
        if len(chosen) < wanted:
            total = len(self.ladder.promoted) + len(chosen)
            self.notes.append(f"--promote {self.rules.promote}: {total} in all, no other trial was stopped early")
        if gone := [str(record.number) for record in chosen if not self._inherited(record)]:
            self.notes.append(f"trained from the beginning, as their checkpoints are gone: trials {', '.join(gone)}")

    def _inherited(self, record: Record) -> int:
        """Epochs that need not be trained again when a stopped trial is promoted."""
        same = self._key(record.config, record.seed) == record.key
        return record.epochs if same and self._keeper.holds(record.number) else 0

    @property
    def _pending(self) -> list[int]:
        """Stopped trials about to be promoted."""
        return [record.number for record in self._again if record.state == "stopped"]

    @property
    def done(self) -> bool:
        """Whether nothing is left to hand out, now or later."""
        if self._waiting or self._alone or self._again or self._waits:
            return False
        return self._exhausted or self.rows >= self.planned

    @property
    def _waits(self) -> bool:
        """Whether results that are still to come may ask for more."""
        return self._rounds is not None and self._rounds.waiting

    @property
    def stopping(self) -> bool:
        """Whether the run is to end: nothing is handed out any more, what runs is left for next time."""
        asked = self.asked_to_stop() or (self.lease is not None and (self.lease.stop_asked or bool(self.lease.must_stop)))
        return self._stopped or asked

    def stop(self, trouble: str = "") -> None:
        """Ends the run, for a reason of its own."""
        self._stopped, self.trouble = True, self.trouble or trouble

    def out_of_time(self, pace: float) -> bool:
        """Whether an epoch of so many seconds would end too late."""
        late = self.rules.seconds is not None and time.monotonic() - self.began + pace > self.rules.seconds
        self.late |= late
        return late

    def over(self, number: int) -> bool:
        """Whether a trial that was handed out is not to go on: it has ended or was stopped early, the run ends, or its next
        epoch does not fit into the time left."""
        running = self.running.get(number)
        return running is None or self.stopping or self.out_of_time(running.pace)

    # handing out

    def next(self) -> Assignment | None:
        """The next trial to run: an adopted one first, else a new row. None when there is nothing to hand out now."""
        pace = max((running.pace for running in self.running.values()), default=0.0)
        if self.stopping or self.out_of_time(pace) or any(running.alone for running in self.running.values()):
            return None
        running = self._waiting.popleft() if self._waiting else self._begin()
        if running is None and self._alone and not self.running:
            running = self._alone.popleft()
        if running is None:
            return None
        running.assignment = replace(running.assignment, memory=1.0 if running.alone else self.memory)
        self.running[running.number] = running
        self.watcher.began(self, running)
        return running.assignment

    def anything_to_train(self) -> bool:
        """Takes over what other studies have finished, up to the first trial that has to be trained, which then waits to be
        handed out; whether there is one."""
        if not (self._waiting or self._alone or self.stopping or self.out_of_time(0.0)):
            running = self._begin()
            if running is not None:
                self._waiting.append(running)
        return bool(self._waiting or self._alone)

    def _proposals(self) -> Iterator[tuple[Proposal, Record | None]]:
        """Earlier trials to be taken up, then what the strategy proposes, as long as there is room."""
        while self._again:
            record = self._again.popleft()
            yield proposed(record), record
        while self.rows < self.planned and self._kept:
            yield self._kept.popleft(), None
        while self.rows < self.planned and not self._only_chooses and (proposal := self._proposer.propose()) is not None:
            yield proposal, None
        if self.rows < self.planned and not self._waits:
            self._exhausted, self.planned = True, self.rows

    @property
    def _only_chooses(self) -> bool:
        """Whether a search has but finished trials to choose among, which are all known."""
        return self.study.needs_elsewhere and isinstance(self.study.strategy, Search)

    def _begin(self) -> Running | None:
        """Writes the row of the next proposal that passes the screen."""
        for proposal, earlier in self._proposals():
            known = earlier is None and self._filled.chose(proposal.params, proposal.seed)
            passed = None if known else self._screen(proposal)
            if passed is None or (earlier is None and self._has_row(passed[0], proposal.seed, passed[2])):
                self.looked_at += known
                self.refused["duplicate" if known or passed else "screened"] += 1
                self._proposer.told(proposal, None)
                if self.stopping:
                    return None
                continue
            attributes = self._attributes(proposal, passed[0], passed[2], earlier)
            found = self._finished_elsewhere(attributes)
            if not self._may_stand(found):
                self.refused["screened" if found else "unmeasured"] += 1
                self._proposer.told(proposal, None)
                continue
            running = self._write(proposal, passed[0], attributes, found)
            if found is None:
                return running
            self._settle(running, found[1], attributes["reused"])
            if self.stopping:
                return None
        return None

    def _attributes(self, proposal: Proposal, config: Config, cost: Cost, earlier: Record | None) -> dict[str, Any]:
        """What a row says from its beginning."""
        key, plain = self._key(config, proposal.seed), config.model_dump(mode="json")
        attributes: dict[str, Any] = {"key": key, "seed": proposal.seed, "config": plain, "costs": cost._asdict()}
        if proposal.memory:
            attributes["proposal"] = proposal.memory
        return attributes | (self._lineage(earlier) if earlier is not None else {})

    def _finished_elsewhere(self, attributes: Mapping[str, Any]) -> tuple[str, Record] | None:
        """The same trial in another study, if it can stand here: it has all objectives, of which time is none, for it tells
        of another machine or hour; latency was measured on the device that this study asks for."""
        metrics = {objective.metric for objective in self.study.objectives}
        if not self.rules.reuse or not may_stand(self.study) or "promotes" in attributes:
            return None
        metrics |= {constraint.metric for constraint in self.study.constraints}
        found = self._elsewhere.find(attributes["key"])
        return found if found is not None and metrics <= {*self._metrics(found[1]), *attributes["costs"]} else None

    def _metrics(self, record: Record) -> dict[str, float]:
        """The metrics of a trial of another study as they are here: latency is that of this study's first device."""
        own = {name: value for name, value in record.metrics.items() if name not in MEASURED}
        asked = next(iter(self.study.measures), None)
        found = None if asked is None else answer(asked, record.measured)
        return own if found is None else own | found.metrics()

    def _may_stand(self, found: tuple[str, Record] | None) -> bool:
        """Whether a cell may have a row: one finished within the measured constraints, or one that can be measured here."""
        if found is None:
            return not self.study.needs_elsewhere
        metrics = self._metrics(found[1])
        return all(constraint.holds(metrics) for constraint in self.study.constraints)

    def _write(
        self, proposal: Proposal, config: Config, attributes: dict[str, Any], found: tuple[str, Record] | None
    ) -> Running:
        """The row of a new trial, or the whole of one that was finished elsewhere, in one commit."""
        active = {name: self._distributions[name] for name in proposal.params}
        self._fence()
        if found is None:
            number = self.store.begin(self.study_id, proposal.params, active, attributes)
        else:
            study, record = found
            metrics = self._metrics(record)
            told: dict[str, Any] = {"metrics": metrics, "device": record.device, "provenance": record.provenance}
            told |= {"measured": [one.to_json() for one in record.measured]} if record.measured else {}
            attributes |= told | {"reused": origin(study, record)}
            values = self._values(attributes["costs"], metrics)
            number = self.store.take_over(self.study_id, proposal.params, active, attributes, values, record.curve)
        self._filled.add(self._cell(config, proposal.seed), proposal.params, proposal.seed)
        self.rows += 1
        key, plain, costs = attributes["key"], attributes["config"], attributes["costs"]
        assignment = self._assignment(number, key, proposal.seed, plain, costs, attributes.get("promotes"))
        return Running(assignment, proposal.params, proposal, config.training.epochs)

    def _settle(self, running: Running, record: Record, reused: dict[str, Any]) -> None:
        """Reckons with a row that was taken over."""
        costs, metrics = running.assignment.costs, self._metrics(record)
        values = self._values(costs, metrics)
        running.curve = record.curve
        self.finished["complete"] += 1
        self.reused += 1
        self._note_best(values)
        self.ladder.reached(running.assignment.key, running.epochs, record.curve, costs)
        self._keep(self._keeper.settle, running.number, values)
        self._proposer.told(running.proposal, values)
        self._look()
        self.watcher.ended(self, running, Outcome("complete", metrics=metrics, reason=origin_words(reused)))

    def _values(self, costs: Mapping[str, int], metrics: Mapping[str, float]) -> list[float]:
        """The objectives of a complete trial."""
        found = {**costs, **metrics}
        return [float(found[objective.metric]) for objective in self.study.objectives]

    def _lineage(self, earlier: Record) -> dict[str, Any]:
        """What a row says of the one that it takes up."""
        if earlier.state == "stopped":
            return {"promotes": earlier.number, "inherited": self._inherited(earlier)}
        promoted = {} if earlier.promotes is None else {"promotes": earlier.promotes}
        return {"replaces": earlier.number} | promoted

    def _screen(self, proposal: Proposal) -> tuple[Config, int, Cost] | None:
        """Config, seed and exact cost of a proposal; None for one that is no network or breaks a constraint."""
        try:
            config = self.space.config(proposal.params)
            cost = self._priced(config)
        except ConfigError:
            return None
        return config, proposal.seed, cost

    def _priced(self, config: Config) -> Cost:
        """The exact cost of a config that may be trained; raises ConfigError for one that breaks a constraint."""
        cost = self.price(config)
        self.looked_at += 1
        for constraint in self.study.constraints:
            if not constraint.holds(cost._asdict()):
                self.screened_out += 1
                raise ConfigError(f"the network has not {constraint}")
        return cost

    def _key(self, config: Config, seed: int) -> str:
        def source(target: str) -> str:
            return self.sources.get(target) or source_hash(target)

        return trial_key(config, seed, self.info.fingerprint, source, trial=self.study.trial, test=self.info.scored_on)

    def _cell(self, config: Config, seed: int) -> str:
        """The key without the source of the user's modules: what was trained is not trained again for a moved comment."""
        return trial_key(config, seed, self.info.fingerprint, lambda _: "", trial=self.study.trial, test=self.info.scored_on)

    def _has_row(self, config: Config, seed: int, cost: Cost) -> bool:
        return self._filled.has(self._cell(config, seed), seed, cost._asdict())

    def _assignment(
        self,
        number: int,
        key: str,
        seed: int,
        config: dict[str, Any],
        costs: Mapping[str, int],
        promotes: int | None,
    ) -> Assignment:
        """What a worker is told; who goes on with a stopped trial is given its checkpoint, and is not stopped again."""
        if promotes is not None:
            self.ladder.promotes(promotes)
            self._keep(self._keeper.hand_over, promotes, number)
        sources = dict(self.sources)
        if init := config["training"].get("init"):
            config = {**config, "training": {**config["training"], "init": anywhere(init)}}
            sources |= {anywhere(init): sources[init]} if init in sources else {}
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
            cores=max((self.cores or 1) // self.devices, self.study.threads),
            devices=self.devices,
            token=self.lease.token if self.lease else 0,
            trial=self.study.trial,
            sources=sources,
            code=self.places.code,
            shape=(*self.info.shape,),
            wanted=self.study.learned,
            rungs=self.ladder.rungs(config["training"]["epochs"]) if promotes is None else (),
            measure=tuple(latency.model_dump() for latency in self.study.measures),
            bounds=tuple(bound.model_dump() for bound in self.study.constraints if bound.metric in MEASURED),
            test=self.info.scored_on,
        )

    # taking back

    def report(self, number: int, report: Report) -> None:
        """An epoch was finished, or the whole trial; at a rung it is decided whether the trial goes on."""
        running, outcome = self.running[number], report.outcome
        running.device = report.device or running.device
        at_rung = False
        if len(report.curve) > len(running.curve):
            running.curve, running.lost = report.curve, 0
            key, costs = running.assignment.key, running.assignment.costs
            self.ladder.reached(key, running.epochs, running.curve, costs)
            at_rung = outcome is None and len(running.curve) in running.assignment.rungs
        if at_rung and (reason := self.ladder.verdict(running.assignment.key, len(running.curve))):
            self._end(self.running.pop(number), Outcome("stopped", reason=reason))
        elif outcome is None:
            if at_rung or time.monotonic() - running.told >= TOLD_EVERY:
                self._tell(running)  # who has passed a rung is known to the next driver too
            self.watcher.advanced(self, running)
        elif outcome.cause in ("disk", "store", "source"):
            self.leave(number)
            self.stop(f"{outcome.reason}; `harness resume {self.study.name}` goes on")
        elif outcome.cause in ("pictures", "place"):
            self.lost(number, outcome.reason)
        elif outcome.cause == "bound":
            self.untrained += 1
            self._end(self.running.pop(number), replace(outcome, state="stopped"))
        elif outcome.cause == "memory" and not running.alone and (len(self.running) > 1 or running.assignment.memory < 1):
            running.alone = True
            self._alone.append(self.running.pop(number))
        else:
            self._end(self.running.pop(number), outcome)

    def lost(self, number: int, reason: str, *, counted: bool = True) -> None:
        """A worker died, or cannot train: its trial waits for another one, unless that has been counted too often."""
        running = self.running.pop(number)
        running.lost += counted
        if running.lost < ATTEMPTS:
            self._waiting.append(running)
            self.watcher.lost(self, running, reason)
        else:
            self._end(running, Outcome("failed", reason=f"{reason}, {ATTEMPTS} times in a row"))

    def leave(self, number: int) -> None:
        """A trial is cut short by the end of the run: its row stays RUNNING and is adopted next time."""
        running = self.running.pop(number, None)
        if running is not None and running.curve and not (self.lease and self.lease.must_stop):
            self._tell(running)

    def _tell(self, running: Running) -> None:
        self._fence()
        self.store.progress(self.study_id, running.number, running.curve, running.device)
        running.told = time.monotonic()

    def _end(self, running: Running, outcome: Outcome) -> None:
        """Finishes the row, tells the strategy and the watcher, and keeps or clears away what the trial left on disk."""
        found = {**running.assignment.costs, **outcome.metrics}
        missing = [objective.metric for objective in self.study.objectives if objective.metric not in found]
        if outcome.state == "complete" and missing:
            outcome = Outcome("failed", reason=f"the trial measured no {missing[0]}, which is an objective")
        attributes: dict[str, Any] = {"device": outcome.device, "provenance": outcome.provenance, "metrics": outcome.metrics}
        if outcome.measured:
            attributes["measured"] = outcome.measured
            self.beside = max(self.beside, *(one.get("busy", 0.0) for one in outcome.measured))
        values: list[float] = []
        known: list[float] | None = None
        if outcome.state == "complete":
            values = known = self._values(running.assignment.costs, outcome.metrics)
            self._note_best(values)
        else:
            attributes |= {"reason": outcome.reason, "traceback": outcome.traceback}
        self._fence()
        self.store.finish(
            self.study_id, running.number, outcome.state, values=values, curve=running.curve, attributes=attributes
        )
        self.finished[outcome.state] += 1
        self.spent.update(spent(running.curve, outcome.metrics.get("seconds")))
        if outcome.state == "stopped" and running.curve:
            known = self._values_expected(running.assignment.costs, running.curve, running.epochs)
            self.ladder.stopped(running.number, running.assignment.key, len(running.curve), running.epochs)
            self._keep(self._keeper.stopped, running.number)
            self._keep(self._keeper.spare, self._pending, self.ladder.best())
        else:
            self._keep(self._keeper.settle, running.number, values)
        self._proposer.told(running.proposal, known)
        self.watcher.ended(self, running, outcome)
        self._look()
        self._give_up_if_hopeless(outcome)

    def _keep(self, clear_up: Callable[..., None], *told: Any) -> None:
        """Keeps what a trial left, or clears it away; where that cannot be the run ends, and the next one does it."""
        try:
            clear_up(*told)
        except DiskError as error:
            self.stop(f"{error}; `harness resume {self.study.name}` goes on")

    def _values_expected(self, costs: Mapping[str, int], curve: Sequence[Epoch], epochs: int) -> list[float]:
        """The objectives of a stopped trial as its strategy is told them: what it might have reached."""
        return [self.ladder.expected(objective, curve, costs, epochs) for objective in self.study.objectives]

    def _give_up_if_hopeless(self, outcome: Outcome) -> None:
        """Ends a study in which everything fails for one reason."""
        if outcome.state == "failed":
            self._reasons[re.sub(r"\d+", "#", outcome.reason)] += 1
        if (
            not (self.finished["complete"] or self.finished["stopped"])
            and len(self._reasons) == 1
            and self._reasons.total() >= HOPELESS
        ):
            self.stop(f"the first {self._reasons.total()} trials all failed for one reason: {outcome.reason}")

    def _fence(self) -> None:
        """Raises LeaseError rather than let a driver write that no longer has the study."""
        if self.lease is not None and (reason := self.lease.must_stop):
            raise LeaseError(reason)

    def _note_best(self, values: list[float]) -> None:
        for objective, value in zip(self.study.objectives, values, strict=True):
            old = self.best.get(objective.metric, value)
            self.best[objective.metric] = min(old, value, key=lambda found: found * objective.sign)
        point = tuple(objective.sign * value for objective, value in zip(self.study.objectives, values, strict=True))
        if not any(other == point or beats(other, point) for other in self.front):
            self.front = [point, *(other for other in self.front if not beats(point, other))]
