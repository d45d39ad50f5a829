"""A study replayed against a finished one, whose records stand in for training: hours of a cluster in seconds.

The ledger, the proposer and the stopping rule are the real ones, over a database that is thrown away; workers and their
clock are made up. What a search finds on one seed of the table is scored on the others, so that luck earns nothing.
"""

import contextlib
import heapq
import math
import statistics
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import count
from typing import Any, Protocol

from harness.analysis.front import measured, nondominated
from harness.config import Config
from harness.cost import Cost
from harness.data.pictures import DataInfo
from harness.errors import ConfigError, SpaceError, StudyError
from harness.execution.ledger import Ledger, Places, Rules
from harness.key import canonical, identity
from harness.preflight import pricing
from harness.record import Record
from harness.report.words import counted, differences, duration, listed, unit
from harness.space import Params
from harness.storage.reader import read_records, read_studies
from harness.storage.store import Store
from harness.storage.tables import runs_beside
from harness.study import EXACT, Objective, Study
from harness.trial import Outcome, Report

MARGIN = 0.1
"""How far beyond the worst of the table the reference point of the hypervolume lies, as a share of its range."""
SHARES = (0.9, 0.95, 0.99)
"""Shares of the final hypervolume whose epochs are told."""
ROWS = 7
"""Of the course of a search, each twice as far as the one before."""


# -- the table ----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Cell:
    """One config of the table: its record for each seed."""

    name: str
    records: Mapping[int, Record]

    @property
    def record(self) -> Record:
        """That of its first seed, which has params and costs of all."""
        return next(iter(self.records.values()))

    @property
    def params(self) -> Params:
        return self.record.params

    def value(self, metric: str, seeds: Sequence[int]) -> float:
        """A metric or a cost, the mean over seeds."""
        return math.fsum(measured(self.records[seed], metric) for seed in seeds) / len(seeds)


class Table:
    """The configs that a study has trained with each of its seeds."""

    def __init__(self, name: str, study: Study, info: DataInfo, records: Sequence[Record]) -> None:
        self.name, self.study, self.info = name, study, info
        found: dict[str, dict[int, Record]] = {}
        for record in records:
            if record.state == "complete" and record.seed in study.seeds:
                found.setdefault(cell_name(record.config), {})[record.seed] = record
        self.cells = {name: Cell(name, seeds) for name, seeds in found.items() if len(seeds) == len(study.seeds)}
        if not self.cells:
            words = f"with each of its seeds {listed(study.seeds)}" if len(study.seeds) > 1 else "as yet"
            raise StudyError(f"--simulate {name}: no config of it is complete {words}; `harness run {name}` trains them")

    @staticmethod
    def read(storage: str, name: str) -> "Table":
        """The finished trials of a study; raises a HarnessError where there are none."""
        stored = read_studies(storage, name)[0]
        study = Study.from_json(stored.attributes["definition"])
        info = DataInfo.from_json(stored.attributes["data"])
        return Table(stored.name, study, info, read_records(storage, stored.study_id))

    @property
    def auto(self) -> dict[str, Any]:
        """What the `auto` of its trainings came to."""
        training = next(iter(self.cells.values())).record.config.training
        return {name: getattr(training, name) for name in ("precision", "compile", "augment", "loading")}

    def seeds(self, repeat: int) -> tuple[int, tuple[int, ...]]:
        """The seed that a repetition searches on, and those it is scored on: the others, where there are others."""
        seeds = self.study.seeds
        searched = seeds[repeat % len(seeds)]
        return searched, tuple(seed for seed in seeds if seed != searched) or seeds


def cell_name(config: Config) -> str:
    """The identity of a config without its seed, whatever engine or source trained it."""
    return canonical(identity(config))


def matched(study: Study, table: Table, seed: int = 0) -> Study:
    """The study as it is replayed: what is `auto` as in the table, with a seed of the repetition's own.

    Raises StudyError for an objective that the table did not measure."""
    record = next(iter(table.cells.values())).record
    for objective in study.objectives:
        if not math.isfinite(measured(record, objective.metric)):
            raise StudyError(f"Study.objectives: {objective.metric} was not measured in {table.name}; leave it out")
    return Study.from_json(study.settled(table.auto).to_json() | {"seeds": [seed]})


# -- the score ----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Score:
    """The hypervolume of a front, as a share of that of training everything: found on one seed, measured on others.

    Each objective runs from 0, the best of the table, to 1, its worst; costs by their logarithm."""

    objectives: Sequence[Objective]
    cells: Sequence[Cell]
    """All that the study may train."""
    seed: int
    scored: tuple[int, ...]

    @cached_property
    def _whole(self) -> float:
        return self._volume(self.front(self.cells))

    @cached_property
    def _ranges(self) -> list[tuple[float, float]]:
        columns = zip(*(self._raw(cell, self.scored) for cell in self.cells))
        return [(min(column), max(column)) for column in columns]

    def _raw(self, cell: Cell, seeds: Sequence[int]) -> tuple[float, ...]:
        """The objectives, the smaller the better."""

        def scaled(objective: Objective) -> float:
            value = cell.value(objective.metric, seeds)
            return objective.sign * (math.log(value) if objective.metric in EXACT else value)

        return tuple(map(scaled, self.objectives))

    def front(self, cells: Sequence[Cell]) -> list[Cell]:
        """The cells that no other beats on the seed that was searched on."""
        kept = nondominated([self._raw(cell, (self.seed,)) for cell in cells])
        return [cell for cell, stays in zip(cells, kept) if stays]

    def _volume(self, cells: Sequence[Cell]) -> float:
        import moocore
        import numpy as np

        points = [
            [(value - low) / (high - low or 1.0) for value, (low, high) in zip(self._raw(cell, self.scored), self._ranges)]
            for cell in cells
        ]
        return float(moocore.hypervolume(np.array(points), ref=[1 + MARGIN] * len(self.objectives))) if cells else 0.0

    def share(self, front: Sequence[Cell]) -> float:
        """The share of a front: 1 for that of all cells; more is possible, for what is on it was chosen on another seed."""
        return self._volume(front) / self._whole


# -- the replay ---------------------------------------------------------------------------------------------------------


class Player(Protocol):
    """Who proposes trials and decides after each epoch whether they go on."""

    def next(self) -> tuple[int, Config] | None:
        """The number and config of a trial to begin now, if there is one."""

    def goes_on(self, number: int, record: Record, epochs: int) -> bool:
        """Takes the trial's result after so many epochs."""


@dataclass
class LedgerPlayer:
    """The ledger of a real run."""

    ledger: Ledger

    def next(self) -> tuple[int, Config] | None:
        assignment = self.ledger.next()
        if assignment is None:
            return None
        return assignment.number, self.ledger.space.config(self.ledger.running[assignment.number].params)

    def goes_on(self, number: int, record: Record, epochs: int) -> bool:
        done = epochs == len(record.curve)
        outcome = Outcome("complete", metrics=record.metrics, device=record.device) if done else None
        self.ledger.report(number, Report(record.curve[:epochs], outcome))
        return not self.ledger.over(number)


@dataclass(frozen=True)
class Mark:
    """Where a search stands when a trial has ended."""

    epochs: int
    seconds: float
    share: float


@dataclass(frozen=True)
class Replay:
    """One repetition."""

    epochs: int
    seconds: float
    complete: int
    stopped: int
    marks: tuple[Mark, ...]
    front: tuple[Cell, ...]

    def reached(self, share: float) -> int | None:
        """Epochs from which on the front has had so much of the hypervolume; None where it does not in the end."""
        below = [index for index, mark in enumerate(self.marks) if mark.share < share]
        following = below[-1] + 1 if below else 0
        return self.marks[following].epochs if following < len(self.marks) else None

    def share(self, epochs: float) -> float:
        """The share after so many epochs."""
        return next((mark.share for mark in reversed(self.marks) if mark.epochs <= epochs), 0.0)


def replay(player: Player, table: Table, score: Score, workers: int, most: float = math.inf) -> Replay:
    """Plays one search to its end, or until `most` epochs were trained, by the table's own seconds."""
    clock, turn = 0.0, count()
    waiting: list[tuple[float, int, int, Record, int, Cell]] = []
    marks: list[Mark] = []
    complete: list[Cell] = []
    front: list[Cell] = []
    epochs = stopped = 0

    def ends(record: Record, epoch: int) -> float:
        return clock + record.curve[epoch - 1].seconds

    while epochs < most:
        while len(waiting) < workers and (given := player.next()) is not None:
            number, config = given
            cell = table.cells[cell_name(config)]
            record = cell.records[score.seed]
            heapq.heappush(waiting, (ends(record, 1), next(turn), number, record, 1, cell))
        if not waiting:
            break
        clock, _, number, record, epoch, cell = heapq.heappop(waiting)
        epochs += 1
        if player.goes_on(number, record, epoch) and epoch < len(record.curve):
            heapq.heappush(waiting, (ends(record, epoch + 1), next(turn), number, record, epoch + 1, cell))
        elif epoch == len(record.curve):
            complete.append(cell)
            if front != (front := score.front([*front, cell])):
                marks.append(Mark(epochs, clock, score.share(front)))
        else:
            stopped += 1
    return Replay(epochs, clock, len(complete), stopped, tuple(marks), tuple(front))


@dataclass(frozen=True)
class Simulation:
    """All repetitions of a study against a table."""

    table: str
    study: Study
    cells: int
    """Configs of the table that the study may train."""
    seeds: tuple[int, ...]
    workers: int
    everything: int
    """Epochs of training all cells once."""
    replays: tuple[Replay, ...]
    lacking: tuple[Config, ...]
    """Configs that were proposed and that the table does not have."""

    def reached(self, share: float) -> tuple[float, int]:
        """The median of epochs to a share over the repetitions, infinite where most do not get there; and how many do."""
        found = [one.reached(share) for one in self.replays]
        median = statistics.median(math.inf if epochs is None else epochs for epochs in found)
        return median, sum(epochs is not None for epochs in found)

    def to_json(self) -> dict[str, Any]:
        reached = {f"{share:g}": self.reached(share) for share in SHARES}
        return {
            "table": self.table,
            "study": self.study.name,
            "cells": self.cells,
            "seeds": list(self.seeds),
            "workers": self.workers,
            "everything": self.everything,
            "reached": {name: {"epochs": _finite(epochs), "times": times} for name, (epochs, times) in reached.items()},
            "repetitions": [
                {
                    "epochs": one.epochs,
                    "hours": one.seconds / 3600,
                    "complete": one.complete,
                    "stopped": one.stopped,
                    "hypervolume": [[mark.epochs, mark.seconds / 3600, mark.share] for mark in one.marks],
                    "front": [cell.params for cell in one.front],
                }
                for one in self.replays
            ],
            "lacking": len(self.lacking),
        }

    def lines(self) -> Iterator[str]:
        """The simulation in words."""
        seeds = f"searched on one of seeds {listed(self.seeds)}, scored on the rest"
        how = seeds if len(self.seeds) > 1 else "searched and scored on one seed"
        yield f"simulated against {self.table}: {counted(self.cells, 'config')}, {how}; {counted(self.workers, 'worker')}"
        if self.lacking:
            yield f"note: {counted(len(self.lacking), 'config')} proposed that {self.table} lacks: passed over"
        epochs = [one.epochs for one in self.replays]
        times = f"{len(epochs)} repetitions, medians (and ranges)" if len(epochs) > 1 else "one repetition"
        yield f"{times}; to train everything takes {counted(self.everything, 'epoch')}"
        seconds = statistics.median(one.seconds for one in self.replays)
        yield f"  trained: {_spread(epochs, ',.0f')} epochs in {duration(seconds)} of simulated time"
        complete, stopped = ([getattr(one, state) for one in self.replays] for state in ("complete", "stopped"))
        yield f"  trials: {_spread(complete, '.0f')} complete, {_spread(stopped, '.0f')} stopped early"
        yield "  hypervolume of the front found, as a share of that of training everything:"
        longest = max(epochs)
        for point in sorted({max(round(longest / 2**step), 1) for step in range(ROWS)}):
            yield f"  {point:8,} epochs  {_spread([100 * one.share(point) for one in self.replays], '.1f')} %"
        for share in SHARES:
            median, got = self.reached(share)
            when = f"from epoch {median:,.0f} on" if math.isfinite(median) else "not reached"
            yield f"  {100 * share:.0f} %: {when}" + (f" ({got} of {len(epochs)} got there)" if len(epochs) > 1 else "")
        front = self.replays[0].front
        yield f"front{' of the first repetition' if len(epochs) > 1 else ''}: {counted(len(front), 'config')}"
        yield from sorted(map(self._words, front))

    def _words(self, cell: Cell) -> str:
        """A config of the front by its objectives, the mean over all seeds, and its choices."""

        def value(metric: str) -> str:
            found = cell.value(metric, self.seeds)
            text = unit(metric, [found], self.study.units.get(metric, "")).text(found)
            return text if metric == "accuracy" else f"{text} {metric}"

        texts = [value(objective.metric) for objective in self.study.objectives]
        return f"  {', '.join(texts)} ({'; '.join(map(str, differences(cell.params, cell.params)))})"


def _spread(values: Sequence[float], form: str) -> str:
    """The median with the range, where there is one: 81 (74 to 90)."""
    low, median, high = (format(value, form) for value in (min(values), statistics.median(values), max(values)))
    return median if low == high else f"{median} ({low} to {high})"


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None


# -- simulate -----------------------------------------------------------------------------------------------------------


class Prices:
    """Exact costs; a config that the table lacks passes for none, and is remembered."""

    def __init__(self, table: Table) -> None:
        self._table, self._price = table, pricing(table.info.shape, classifying=False)
        self.lacking: dict[str, Config] = {}

    def __call__(self, config: Config) -> Cost:
        name = cell_name(config)
        if name not in self._table.cells:
            self.lacking[name] = config
            raise ConfigError(f"{self._table.name} has no such config")
        return self._price(config)


def allowed(study: Study, table: Table) -> list[Cell]:
    """The cells of the table that a study may train; raises StudyError where there are none."""
    space = study.open_space(check=False)

    def inside(cell: Cell) -> bool:
        with contextlib.suppress(SpaceError):
            return bool(space.params(cell.record.config))
        return False

    kept = [cell for cell in table.cells.values() if all(bound.holds(cell.record.costs) for bound in study.constraints)]
    if found := [cell for cell in kept if inside(cell)]:
        return found
    raise StudyError(
        f"--simulate {table.name}: none of its {len(table.cells):,} configs is one of {study.name}'s: the table's space and"
        " recipe (epochs, pictures, ...) have to hold the study's"
    )


def opened(store: Store, study: Study, table: Table, prices: Prices, repeat: int) -> Ledger:
    """The ledger of a repetition, in a database that is thrown away."""
    study_id = store.create(f"{study.name}~{repeat}", study.objectives)
    places, rules = Places("", str(runs_beside(store.url))), Rules(keep="none", reuse=False)
    return Ledger(store, study_id, matched(study, table, repeat), table.info, places, prices, rules=rules)


def simulate(
    study: Study,
    table: Table,
    *,
    workers: int = 1,
    repeats: int = 1,
    most: float = math.inf,
    told: Callable[[int], None] = lambda _: None,
) -> Simulation:
    """Replays a study so many times, each on the table's next seed and with proposals of its own; `told` hears of each.

    Raises a HarnessError where the study and the table do not fit together."""
    prices = Prices(table)
    cells = allowed(matched(study, table), table)
    replays = []
    with tempfile.TemporaryDirectory(prefix="harness-simulate-") as folder, Store(f"sqlite:///{folder}/table.db") as store:
        for repeat in range(repeats):
            ledger = opened(store, study, table, prices, repeat)
            score = Score(study.objectives, cells, *table.seeds(repeat))
            replays.append(replay(LedgerPlayer(ledger), table, score, workers, most))
            told(repeat + 1)
    everything = sum(len(cell.record.curve) for cell in cells)
    lacking = tuple(prices.lacking.values())
    return Simulation(table.name, study, len(cells), table.study.seeds, workers, everything, tuple(replays), lacking)
