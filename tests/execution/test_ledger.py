"""The ledger, with fake trials of no time: one row per planned trial, whatever is cut short and where."""

import re
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import optuna
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from harness.analysis.front import front
from harness.config import Config, Custom, ExpAtt, ResNet, SqueezeExcite, Training
from harness.depot import Bucket, Depot, depot
from harness.execution.ledger import HOPELESS, Rules
from harness.record import Epoch
from harness.space import choose, span, vary
from harness.storage.lease import Lease, LeaseError
from harness.storage.reader import read_points
from harness.study import Evolution, Exhaustive, Random, Study, Tpe, at_most, minimize
from harness.trial import Outcome, Report
from tests import s3
from tests.conftest import theirs
from tests.execution.conftest import in_any_place
from tests.execution.desk import Desk, attention, curve, finish_all, outcome, price

STRATEGIES = (Evolution(trials=6, population=2), Tpe(trials=6), Random(trials=6), Exhaustive())


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
        assert ledger.screened_out > 0
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
    finish_all(made.open(rules=Rules(trials=2)))
    assert_whole(made, 2)
    finish_all(made.open(rules=Rules(trials=1)))
    assert_whole(made, 2)
    finish_all(made.open())
    assert_whole(made, 6)


def test_what_another_tool_leaves_in_a_study_is_no_trial_of_ours(desk: Callable[..., Desk]) -> None:
    made = desk()
    finish_all(made.open(rules=Rules(trials=2)))
    others = optuna.load_study(study_name=made.study.name, storage=theirs(made.storage))
    others.ask()
    others.tell(others.ask(), [0.5, 1.0, 1.0])
    finish_all(made.open())
    assert [(record.number, record.state) for record in made.records()] == [(n, "complete") for n in (0, 1, 4, 5, 6, 7)]
    assert read_points(made.storage, 1, 3)[:, 0].tolist() == [0, 1, 4, 5, 6, 7]


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
    assert made.records()[0].reason == "killed, 3 times in a row"
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
    monkeypatch.setattr("harness.key.ENGINE", 3)
    ledger = made.open()
    finish_all(ledger)
    old, *_, anew = made.records()
    assert old.state == "failed" and "has changed since the trial was begun" in old.reason
    assert ledger.finished == {"complete": 6, "failed": 1} and anew.number == 6
    assert [record.replaces for record in made.records()].count(0) == 1


def fail(reason: str, cause: Any = "") -> Report:
    return Report((), Outcome("failed", reason=reason, cause=cause))


def test_failed_trials_run_again_on_request_and_name_the_old(desk: Callable[..., Desk]) -> None:
    made = desk()
    ledger = made.open()
    first = ledger.next()
    assert first is not None
    ledger.report(first.number, fail("the server was rebooted"))
    finish_all(ledger)
    again = made.open()
    assert again.done and again.next() is None, "failed trials are not retried by themselves"
    ledger = made.open(rules=Rules(retry_failed=True))
    assert ledger.planned == 7 and not ledger.done
    finish_all(ledger)
    records = made.records()
    assert [record.replaces for record in records] == [None] * 6 + [0]
    assert (records[6].key, records[6].params, records[6].state) == (records[0].key, records[0].params, "complete")
    assert made.open(rules=Rules(retry_failed=True)).done, "what was replaced is not retried"


def test_a_changed_module_makes_its_failed_trials_missing_again(
    desk: Callable[..., Desk], monkeypatch: pytest.MonkeyPatch
) -> None:
    made = desk()
    ledger = made.open()
    first = ledger.next()
    assert first is not None
    ledger.report(first.number, fail("a bug in the module"))
    finish_all(ledger)
    monkeypatch.setattr("harness.key.ENGINE", 3)  # stands for any change of the key
    ledger = made.open()
    assert ledger.planned == 7
    finish_all(ledger)
    assert made.records()[6].replaces == 0 and made.records()[6].key != made.records()[0].key


def test_a_study_in_which_all_fails_for_one_reason_stops(desk: Callable[..., Desk]) -> None:
    made = desk(Random(trials=30))
    ledger = made.open()
    while (assignment := ledger.next()) is not None:
        ledger.report(assignment.number, fail(f"RuntimeError: no kernel image, attempt {assignment.number}"))
    assert ledger.finished == {"failed": HOPELESS}
    assert f"the first {HOPELESS} trials all failed for one reason: RuntimeError: no kernel image" in ledger.trouble


def test_failures_for_several_reasons_or_after_a_success_stop_nothing(desk: Callable[..., Desk]) -> None:
    made = desk(Random(trials=12))
    ledger = made.open()
    for index in range(12):
        assignment = ledger.next()
        assert assignment is not None
        done = Report(curve(1), outcome(assignment))
        ledger.report(assignment.number, done if index == 3 else fail("one" if index < 2 else "another"))
    assert ledger.done and ledger.trouble == ""


def test_what_ran_out_of_memory_beside_others_runs_alone_before_it_counts(desk: Callable[..., Desk]) -> None:
    made = desk(Random(trials=3))
    ledger = made.open()
    first, second = ledger.next(), ledger.next()
    assert first is not None and second is not None
    ledger.report(first.number, fail("CUDA out of memory", "memory"))
    assert made.records()[0].state == "running"
    third = ledger.next()
    assert third is not None and third.number == 2 and ledger.next() is None, "it waits until it is alone"
    for other in (second, third):
        ledger.report(other.number, Report(curve(2), outcome(other)))
    assert ledger.next() == first and ledger.next() is None
    ledger.report(first.number, fail("CUDA out of memory", "memory"))
    assert made.records()[0].state == "failed" and ledger.done


def test_what_runs_out_of_memory_alone_has_failed(desk: Callable[..., Desk]) -> None:
    ledger = desk(Random(trials=1)).open()
    first = ledger.next()
    assert first is not None
    ledger.report(first.number, fail("CUDA out of memory", "memory"))
    assert ledger.finished == {"failed": 1}


def test_a_half_done_design_is_completed_when_a_module_changes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "gate_of_ledger.py").write_text("1")
    monkeypatch.syspath_prepend(str(tmp_path))
    gates = [Custom("gate_of_ledger:Gate", label=name, place=name) for name in ("branch", "block", "stage")]  # type: ignore[arg-type]
    study = Study(
        name="s", space=vary(ResNet, depth=8, stages=(None, choose(*gates), choose(*gates))), strategy=Exhaustive()
    )
    made = Desk(tmp_path, study)
    finish_all(made.open(rules=Rules(trials=5)))
    (tmp_path / "gate_of_ledger.py").write_text("2")
    ledger = made.open()
    finish_all(ledger)
    cells = {str(sorted(record.params.items())) for record in made.records()}
    assert len(cells) == ledger.planned == len(made.records()) == 9


def test_a_module_edited_while_the_study_runs_ends_the_run_and_no_trial(desk: Callable[..., Desk]) -> None:
    made = desk()
    ledger = made.open()
    first = ledger.next()
    assert first is not None
    ledger.report(first.number, fail("the source of lab.gate was edited while the study ran", "source"))
    assert ledger.next() is None and "was edited" in ledger.trouble
    assert made.records()[0].state == "running"


def test_a_place_where_a_trial_cannot_run_costs_it_no_more_than_a_worker(desk: Callable[..., Desk]) -> None:
    made = desk()
    ledger = made.open()
    first = ledger.next()
    assert first is not None
    ledger.report(first.number, fail("there is no folder data/train", "pictures"))
    assert made.records()[0].state == "running" and ledger.next() == first


def test_a_module_that_does_not_import_fails_its_trial_at_once_where_there_is_one_machine(
    desk: Callable[..., Desk],
) -> None:
    made = desk()
    ledger = made.open()
    first = ledger.next()
    assert first is not None
    ledger.report(first.number, fail("lab.gate:Gate: importing lab.gate failed", "module"))
    (row, *_) = made.records()
    assert row.state == "failed" and row.reason == "lab.gate:Gate: importing lab.gate failed"


def test_a_full_disk_stops_the_run_and_fails_no_trial(desk: Callable[..., Desk]) -> None:
    made = desk()
    ledger = made.open()
    first = ledger.next()
    assert first is not None
    ledger.report(first.number, fail("runs cannot be written (No space left on device): free some space", "disk"))
    assert ledger.next() is None and "No space left" in ledger.trouble and "harness resume s" in ledger.trouble
    assert made.records()[0].state == "running"
    finish_all(made.open())
    assert_whole(made, 6)


def test_keys_that_no_longer_open_the_store_end_the_run_and_fail_no_trial(desk: Callable[..., Desk]) -> None:
    made = desk()
    ledger = made.open()
    first = ledger.next()
    assert first is not None
    ledger.report(first.number, fail("--runs s3://bucket/x: Access Denied", "store"))
    assert ledger.next() is None and "Access Denied" in ledger.trouble and made.records()[0].state == "running"


def test_a_store_that_goes_away_as_a_trial_is_cleared_up_ends_the_run(tmp_path: Path, store: s3.Server) -> None:
    space = vary(ResNet, depth=8, stages=(None, attention, attention))
    made = Desk(tmp_path, Study(name="s", space=space, strategy=Random(trials=3)), runs=store.bucket())
    ledger = made.open()
    first = ledger.next()
    assert first is not None
    first.folder.make()
    first.folder.write("last-0.pt", b"weights")
    assert isinstance(ledger._keeper._folder, Bucket)
    ledger._keeper._folder = replace(ledger._keeper._folder, patience=0.3)
    store.away()
    try:
        ledger.report(first.number, Report(curve(2), outcome(first)))
    finally:
        store.back()
    assert ledger.next() is None and re.search(r"does not answer .*`harness resume s` goes on", ledger.trouble)
    assert made.records()[0].state == "complete" and made.left("last-*") == [0]
    ledger = made.open()
    assert made.left("last-*") == [], "the next run does it"
    finish_all(ledger)
    assert_whole(made, 3)
    made.close()


def test_nothing_is_started_that_would_not_end_in_time(desk: Callable[..., Desk], monkeypatch: pytest.MonkeyPatch) -> None:
    made = desk()
    now = 1000.0
    monkeypatch.setattr("harness.execution.ledger.time.monotonic", lambda: now)
    ledger = made.open(rules=Rules(seconds=60))
    first, second = ledger.next(), ledger.next()
    assert first is not None and second is not None
    ledger.report(first.number, Report((Epoch(1, 0.1, 1.0, 1.0, 25.0),)))
    now += 25
    assert not ledger.over(first.number)  # 25 + 25 fits into 60
    ledger.report(first.number, Report((Epoch(1, 0.1, 1.0, 1.0, 25.0), Epoch(2, 0.1, 1.0, 1.0, 25.0))))
    now += 25
    assert ledger.over(first.number) and ledger.next() is None  # 50 + 25 does not
    assert not ledger.over(second.number), "its epochs take no time so far"
    ledger.leave(first.number)
    ledger.report(second.number, Report(curve(2), outcome(second)))
    assert [record.state for record in made.records()] == ["running", "complete"]


@in_any_place
def test_final_weights_of_the_front_are_kept(desk: Callable[..., Desk], place: Depot) -> None:
    final_weights_are_kept(desk, place, "front")


@pytest.mark.parametrize("keep", ["all", "none"])
def test_final_weights_are_kept_by_choice(desk: Callable[..., Desk], tmp_path: Path, keep: Any) -> None:
    final_weights_are_kept(desk, depot(tmp_path / "runs"), keep)


def final_weights_are_kept(desk: Callable[..., Desk], place: Depot, keep: Any) -> None:
    made = desk(Random(trials=12))
    made.runs = str(place)
    ledger = made.open(rules=Rules(keep=keep))
    while (assignment := ledger.next()) is not None:
        assignment.folder.make()
        for name in ("last-0.pt", "final.pt"):
            assignment.folder.write(name, b"weights")
        ledger.report(assignment.number, Report(curve(2), outcome(assignment)))
    best = [record.number for record in front(made.records(), made.study.objectives)]
    assert made.left("final.pt") == {"all": list(range(12)), "none": [], "front": best}[keep]
    assert made.left("last-*") == []


def test_a_missing_metric_is_a_failure_with_a_reason(desk: Callable[..., Desk]) -> None:
    made = desk(objectives=(minimize("loss"),))
    ledger = made.open()
    first = ledger.next()
    assert first is not None
    ledger.report(first.number, Report(curve(1), Outcome("complete", metrics={"accuracy": 0.5})))
    assert made.records()[0].reason == "the trial measured no loss, which is an objective"


def test_a_driver_without_its_lease_writes_nothing(desk: Callable[..., Desk]) -> None:
    made = desk()
    ledger = made.open()
    first = ledger.next()
    assert first is not None
    ledger.lease = Lease.take(ledger.store.engine, 1)
    Lease.take(ledger.store.engine, 1, take_over=True)
    with pytest.raises(LeaseError, match="was taken over"):
        ledger.lease.renew()
    for write in (
        lambda: ledger.report(first.number, Report(curve(1))),
        lambda: ledger.report(first.number, Report(curve(2), outcome(first))),
    ):
        with pytest.raises(LeaseError, match="was taken over"):
            write()
    assert ledger.stopping and ledger.next() is None
    assert made.records()[0].state == "running" and made.records()[0].curve == ()


def test_a_finished_trial_leaves_no_checkpoint(desk: Callable[..., Desk]) -> None:
    ledger = desk().open()
    first = ledger.next()
    assert first is not None
    first.folder.make()
    first.folder.write("last-0.pt", b"weights")
    ledger.report(first.number, Report(curve(2), outcome(first)))
    assert not first.folder.names()


def test_random_draws_are_the_same_however_often_they_are_interrupted(tmp_path: Path) -> None:
    found = []
    for name, interruptions in (("one", 1), ("many", 5)):
        (tmp_path / name).mkdir()
        slot = vary(ExpAtt, radius=span(0.5, 8.0, log=True))
        study = Study(name="s", space=vary(ResNet, depth=8, stages=(None, None, slot)), strategy=Random(trials=5))
        made = Desk(tmp_path / name, study)
        for limit in range(1, 6) if interruptions > 1 else (5,):
            finish_all(made.open(rules=Rules(trials=limit)))
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


@pytest.mark.parametrize("again", ["complete", "failed"])
def test_what_runs_out_of_its_share_of_memory_runs_alone_with_all_of_it(desk: Callable[..., Desk], again: str) -> None:
    """Also where nothing else runs at that moment: its share was too small all the same."""
    made = desk(Random(trials=2))
    ledger = made.open(memory=0.25)
    first = ledger.next()
    assert first is not None and first.memory == 0.25
    full = Outcome("failed", reason="OutOfMemoryError", cause="memory")
    ledger.report(first.number, Report((), full))
    assert not ledger.finished["failed"]
    second = ledger.next()
    assert second is not None and second.number != first.number
    ledger.report(second.number, Report(curve(2), outcome(second)))
    alone = ledger.next()
    assert alone is not None and (alone.number, alone.memory) == (first.number, 1.0)
    assert ledger.next() is None
    ledger.report(alone.number, Report(curve(2), outcome(alone)) if again == "complete" else Report((), full))
    assert ledger.done and ledger.finished[again] == (2 if again == "complete" else 1)


def test_cores_of_a_trial_are_shared_by_its_processes_and_hold_its_threads(desk: Callable[..., Desk]) -> None:
    def told(threads: int = 1, **given: int) -> tuple[int, int]:
        first = desk(Random(trials=1), threads=threads).open(**given).next()
        assert first is not None
        return first.cores, first.threads

    assert told(cores=16) == (16, 1) and told(cores=16, devices=4) == (4, 1)
    assert told(4) == (4, 4) == told(4, cores=1) and told() == (1, 1)


def test_a_whole_gpu_that_is_too_small_fails_at_once(desk: Callable[..., Desk]) -> None:
    ledger = desk(Random(trials=1)).open()
    first = ledger.next()
    assert first is not None and first.memory == 1.0
    ledger.report(first.number, Report((), Outcome("failed", reason="OutOfMemoryError", cause="memory")))
    assert ledger.done and ledger.finished["failed"] == 1


def test_weights_by_a_relative_path_are_found_wherever_a_worker_works(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    study = Study(
        name="s",
        space=ResNet(depth=8),
        training=vary(Training, init=choose("w.pt", "timm:resnet18.a1_in1k", None)),
        strategy=Exhaustive(),
    )
    made = Desk(tmp_path, study)
    ledger = made.open(sources={"w.pt": "f00d", "timm:resnet18.a1_in1k": "beef"})
    told = {}
    while (assignment := ledger.next()) is not None:
        told[assignment.config["training"]["init"]] = assignment
        ledger.report(assignment.number, Report(curve(1), outcome(assignment)))
    place = str(tmp_path / "w.pt")
    assert set(told) == {place, "timm:resnet18.a1_in1k", None}
    assert told[place].sources[place] == "f00d", "whose content is still checked"
    assert {record.config.training.init for record in made.records()} == {"w.pt", "timm:resnet18.a1_in1k", None}
