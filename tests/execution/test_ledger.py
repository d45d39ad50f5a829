"""The ledger, with fake trials of no time: one row per planned trial, whatever is cut short and where."""

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from harness.config import Config, ExpAtt, ResNet, SqueezeExcite, Training
from harness.cost import Cost, Shape, network_cost
from harness.data.sources import DataInfo
from harness.execution.ledger import Ledger, Places, Running, Watcher
from harness.record import Epoch, Record
from harness.space import choose, span, vary
from harness.storage.reader import read_records
from harness.storage.store import Store
from harness.study import Evolution, Exhaustive, Random, Study, Tpe, at_most
from harness.trial import Assignment, Outcome, Report

INFO = DataInfo("digits", "f1", Shape(1, 8, 8, 10), 100, 10)
STRATEGIES = (Evolution(trials=6, population=2), Tpe(trials=6), Random(trials=6), Exhaustive())
attention = choose(None, SqueezeExcite(ratio=4), vary(ExpAtt, kernel=choose("gaussian", "cauchy"), radius=choose(1.0, 2.0)))


def price(config: Config) -> Cost:
    return network_cost(config.network, INFO.shape)


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

    @property
    def storage(self) -> str:
        return f"sqlite:///{self.folder}/harness.db"

    def open(self, **options: Any) -> Ledger:
        store = Store(self.storage)
        study_id = store.create(self.study.name, self.study.objectives, {"definition": self.study.to_json()})
        places = Places("data", str(self.folder / "runs"))
        return Ledger(store, study_id, self.study, INFO, places, price, watcher=self, **options)

    def records(self) -> list[Record]:
        return read_records(self.storage, 1)

    def began(self, ledger: Ledger, running: Running) -> None:
        self.seen.append(("began", running.number))

    def ended(self, ledger: Ledger, running: Running, outcome: Outcome) -> None:
        self.seen.append((outcome.state, running.number))


@pytest.fixture
def desk(tmp_path: Path) -> Callable[..., Desk]:
    def make(strategy: Any = Evolution(trials=6, population=2), **fields: Any) -> Desk:  # noqa: B008
        space = vary(ResNet, depth=8, stages=(None, attention, attention))
        return Desk(tmp_path, Study(name="s", space=space, strategy=strategy, **fields))

    return make


def finish_all(ledger: Ledger) -> None:
    while (assignment := ledger.next()) is not None:
        ledger.report(assignment.number, Report(curve(2), outcome(assignment)))


def assert_whole(desk: Desk, planned: int) -> None:
    records = desk.records()
    assert Counter(record.state for record in records) == {"complete": planned}
    assert [record.number for record in records] == list(range(planned))
    assert len({record.key for record in records}) == planned


@pytest.mark.parametrize("strategy", STRATEGIES, ids=lambda strategy: type(strategy).__name__)
class TestEveryStrategy:
    """The contract of all strategies."""

    def test_plans_one_row_each_and_no_config_twice(self, desk: Callable[..., Desk], strategy: Any) -> None:
        made = desk(strategy)
        ledger = made.open()
        finish_all(ledger)
        assert ledger.done and ledger.planned == (36 if isinstance(strategy, Exhaustive) else 6)
        assert_whole(made, ledger.planned)

    def test_every_driver_death_costs_no_row(self, desk: Callable[..., Desk], strategy: Any) -> None:
        made = desk(strategy)
        for lived in range(1, 5):  # this driver finishes some trials and dies with two open
            ledger = made.open()
            open_ones = [ledger.next(), ledger.next()]
            for _ in range(lived % 3):
                first = open_ones.pop(0)
                if first is not None:
                    ledger.report(first.number, Report(curve(2), outcome(first)))
                open_ones.append(ledger.next())
        ledger = made.open()
        finish_all(ledger)
        assert ledger.done
        assert_whole(made, ledger.planned)

    def test_an_exhausted_space_ends_the_study(self, tmp_path: Path, strategy: Any) -> None:
        space = vary(
            ResNet, depth=8, stages=(None, None, choose(None, SqueezeExcite(ratio=4), SqueezeExcite(ratio=8, label="8")))
        )
        made = Desk(tmp_path, Study(name="s", space=space, strategy=strategy))
        ledger = made.open()
        finish_all(ledger)
        assert ledger.done and ledger.rows == 3

    def test_nothing_over_the_budget_is_trained(self, desk: Callable[..., Desk], strategy: Any) -> None:
        bound = price(Config(network=ResNet(depth=8))).params
        made = desk(strategy, constraints=(at_most("params", bound),))
        ledger = made.open()
        finish_all(ledger)
        assert ledger.refused["screened"] > 0
        assert all(record.costs["params"] <= bound for record in made.records())


def test_an_adopted_trial_keeps_number_parameters_and_curve(desk: Callable[..., Desk]) -> None:
    made = desk()
    ledger = made.open()
    first = ledger.next()
    assert first is not None
    ledger.report(first.number, Report(curve(1)))
    ledger = made.open()
    assert ledger.next() == first
    assert ledger.running[first.number].curve == curve(1)


def test_a_design_gives_every_seed_to_every_config(desk: Callable[..., Desk]) -> None:
    made = desk(Exhaustive(), seeds=(3, 5))
    ledger = made.open()
    finish_all(ledger)
    seeds: dict[str, list[int]] = {}
    for record in made.records():
        seeds.setdefault(str(sorted(record.params.items())), []).append(record.seed)
    assert len(seeds) == 36 and set(map(tuple, seeds.values())) == {(3, 5)}


def test_a_design_does_not_count_equal_networks_twice(tmp_path: Path) -> None:
    slot = vary(ExpAtt, kernel=choose("gaussian", "uniform"), radius=choose(1.0, 2.0, 4.0))
    made = Desk(tmp_path, Study(name="s", space=vary(ResNet, depth=8, stages=(None, None, slot)), strategy=Exhaustive()))
    ledger = made.open()
    assert ledger.planned == 4  # three radii, and one uniform map
    finish_all(ledger)
    assert_whole(made, 4)


def test_a_limit_holds_for_a_run_and_not_for_the_study(desk: Callable[..., Desk]) -> None:
    made = desk()
    finish_all(made.open(limit=2))
    assert_whole(made, 2)
    finish_all(made.open(limit=1))
    assert_whole(made, 2)
    finish_all(made.open())
    assert_whole(made, 6)


def test_a_failed_trial_is_a_row_with_its_reason(desk: Callable[..., Desk]) -> None:
    made = desk()
    ledger = made.open()
    first = ledger.next()
    assert first is not None
    ledger.report(first.number, Report(curve(1), Outcome("failed", reason="the loss is nan", traceback="Traceback ...")))
    finish_all(ledger)
    record = made.records()[0]
    assert (record.state, record.reason, record.traceback) == ("failed", "the loss is nan", "Traceback ...")
    assert record.curve == curve(1) and ledger.done
    assert ledger.finished == {"complete": 5, "failed": 1}
    assert made.seen[:2] == [("began", 0), ("failed", 0)]


def test_a_lost_worker_is_replaced_until_it_makes_no_progress(desk: Callable[..., Desk]) -> None:
    made = desk()
    ledger = made.open()
    first = ledger.next()
    assert first is not None
    for _ in range(2):
        ledger.lost(first.number, "killed")
        assert ledger.next() == first
    ledger.report(first.number, Report(curve(1)))  # progress: the count starts again
    for _ in range(2):
        ledger.lost(first.number, "killed")
        assert ledger.next() == first
    ledger.lost(first.number, "killed")
    assert made.records()[0].reason == "its worker was lost 3 times: killed"
    finish_all(ledger)
    assert ledger.finished == {"complete": 5, "failed": 1}


def test_a_stop_leaves_the_running_rows_for_next_time(desk: Callable[..., Desk]) -> None:
    made = desk()
    asked = False
    ledger = made.open(asked_to_stop=lambda: asked)
    first = ledger.next()
    assert first is not None
    ledger.report(first.number, Report(curve(1)))
    asked = True
    assert ledger.next() is None and ledger.stopping and not ledger.done
    ledger.leave(first.number)
    assert made.records()[0].state == "running" and made.records()[0].curve == curve(1)
    asked = False
    finish_all(made.open())
    assert_whole(made, 6)


def test_a_row_whose_key_no_longer_holds_is_not_adopted(desk: Callable[..., Desk], monkeypatch: pytest.MonkeyPatch) -> None:
    made = desk()
    made.open().next()
    monkeypatch.setattr("harness.key.ENGINE", 2)
    ledger = made.open()
    finish_all(ledger)
    old = made.records()[0]
    assert old.state == "failed" and "has changed since the trial was begun" in old.reason
    assert ledger.finished == {"complete": 5, "failed": 1}


def test_a_finished_trial_leaves_no_checkpoint(desk: Callable[..., Desk]) -> None:
    ledger = desk().open()
    first = ledger.next()
    assert first is not None
    first.folder.mkdir(parents=True)
    (first.folder / "last.pt").write_bytes(b"weights")
    ledger.report(first.number, Report(curve(2), outcome(first)))
    assert not first.folder.exists()


def test_random_draws_are_the_same_however_often_they_are_interrupted(tmp_path: Path) -> None:
    found = []
    for name, interruptions in (("one", 1), ("many", 5)):
        (tmp_path / name).mkdir()
        slot = vary(ExpAtt, radius=span(0.5, 8.0, log=True))
        study = Study(name="s", space=vary(ResNet, depth=8, stages=(None, None, slot)), strategy=Random(trials=5))
        made = Desk(tmp_path / name, study)
        for limit in range(1, 6) if interruptions > 1 else (5,):
            finish_all(made.open(limit=limit))
        found.append([record.params for record in made.records()])
    assert found[0] == found[1]


@settings(max_examples=15, deadline=None, derandomize=True)
@given(deaths=st.lists(st.lists(st.sampled_from(["next", "report", "finish", "lost", "leave"]), max_size=6), max_size=4))
def test_any_history_ends_whole(tmp_path_factory: pytest.TempPathFactory, deaths: list[list[str]]) -> None:
    space = vary(ResNet, depth=8, stages=(None, attention, attention))
    made = Desk(tmp_path_factory.mktemp("any"), Study(name="s", space=space, strategy=Evolution(trials=5, population=2)))
    for steps in deaths:
        ledger = made.open()
        for step in steps:
            number = next(iter(ledger.running), None)
            if step == "next":
                ledger.next()
            elif number is not None and step == "report":
                ledger.report(number, Report(curve(len(ledger.running[number].curve) + 1)))
            elif number is not None and step == "finish":
                ledger.report(number, Report(curve(2), outcome(ledger.running[number].assignment)))
            elif number is not None and step == "lost" and ledger.running[number].lost < 2:
                ledger.lost(number, "killed")
            elif number is not None and step == "leave":
                ledger.leave(number)
    finish_all(made.open())
    assert_whole(made, 5)


def test_training_choices_are_part_of_the_key(tmp_path: Path) -> None:
    space = ResNet(depth=8)
    study = Study(name="s", space=space, training=vary(Training, lr=choose(0.1, 0.2, 0.4)), strategy=Exhaustive())
    made = Desk(tmp_path, study)
    finish_all(made.open())
    assert_whole(made, 3)
    assert [record.config.training.lr for record in made.records()] == [0.1, 0.2, 0.4]
