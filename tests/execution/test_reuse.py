"""What another study of the database has finished is taken over whole, marked, and never trained twice."""

import json
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import optuna
import pytest

from harness.config import ResNet, SqueezeExcite
from harness.design import AddOneIn
from harness.errors import HarnessError
from harness.execution import reuse
from harness.execution.ledger import Rules
from harness.record import Record
from harness.report.facts import gather
from harness.report.sentences import done
from harness.report.tables import trials_csv
from harness.run import Options, resume_study, run_study
from harness.space import choose, vary
from harness.storage.reader import Stored, read_records, read_studies
from harness.storage.store import Store
from harness.storage.tables import DatabaseAway
from harness.study import Evolution, Exhaustive, Random, Study, SuccessiveHalving, Tpe, maximize, minimize
from harness.trial import Outcome, Report
from tests.conftest import theirs
from tests.execution.desk import INFO, Desk, attention, curve, finish_all, outcome

SPACE = vary(ResNet, depth=8, stages=(None, attention, attention))
PART = vary(ResNet, depth=8, stages=(None, None, attention))


def study(name: str, space: Any = SPACE, strategy: Any = Exhaustive(), **fields: Any) -> Study:  # noqa: B008
    return Study(**{"name": name, "space": space, "strategy": strategy} | fields)


def rows(desk: Desk) -> list[Record]:
    (stored,) = read_studies(desk.storage, desk.study.name)
    return read_records(desk.storage, stored.study_id)


@pytest.fixture
def first(tmp_path: Path) -> Desk:
    """A finished study of six configs."""
    made = Desk(tmp_path, study("first", PART))
    finish_all(made.open())
    return made


def trained(desk: Desk, **options: Any) -> int:
    """Runs a study to its end; how many trials were handed out."""
    ledger, count = desk.open(**options), 0
    while (assignment := ledger.next()) is not None:
        count += 1
        ledger.report(assignment.number, Report(curve(2), outcome(assignment)))
    assert ledger.done
    return count


def test_a_study_that_overlaps_trains_only_the_rest(first: Desk) -> None:
    second = Desk(first.folder, study("second"))
    assert trained(second) == 30
    found = rows(second)
    assert Counter(record.state for record in found) == {"complete": 36} and len({record.key for record in found}) == 36
    originals = {record.key: record for record in rows(first)}
    taken = [record for record in found if record.reused]
    assert len(taken) == 6
    for record in taken:
        original = originals[record.key]
        assert record.reused == {"study": "first", "number": original.number, "commit": ""}
        assert (record.metrics, record.curve, record.device) == (original.metrics, original.curve, original.device)
        assert record.remark == f"taken over from first, trial {original.number}"
    assert trained(Desk(first.folder, study("second"))) == 0


def test_optuna_reads_a_row_that_was_taken_over(first: Desk) -> None:
    second = Desk(first.folder, study("second", PART))
    assert trained(second) == 0
    loaded = optuna.load_study(study_name="second", storage=theirs(second.storage))
    one, other = loaded.trials, optuna.load_study(study_name="first", storage=theirs(second.storage)).trials
    assert [trial.values for trial in one] == [trial.values for trial in other]
    assert [trial.intermediate_values for trial in one] == [trial.intermediate_values for trial in other]
    assert [trial.number for trial in one] == list(range(6)) and all(trial.datetime_complete for trial in one)


def test_a_trial_taken_over_twice_names_who_trained_it(first: Desk) -> None:
    trained(Desk(first.folder, study("second", PART)))
    trained(third := Desk(first.folder, study("third", PART)))
    assert {record.reused["study"] for record in rows(third) if record.reused} == {"first"}


def test_nothing_is_taken_over_where_the_user_says_so(first: Desk) -> None:
    second = Desk(first.folder, study("second", PART))
    assert trained(second, rules=Rules(reuse=False)) == 6
    assert not any(record.reused for record in rows(second))


@pytest.mark.parametrize("objectives", [(maximize("accuracy"), minimize("seconds"))])
def test_time_is_never_taken_over(first: Desk, objectives: Any) -> None:
    assert trained(Desk(first.folder, study("second", PART, objectives=objectives))) == 6


def test_other_objectives_and_seeds_take_what_there_is(first: Desk) -> None:
    second = Desk(first.folder, study("second", PART, objectives=(minimize("loss"),), seeds=(0, 1)))
    assert trained(second) == 6
    assert {record.seed: record.reused is not None for record in rows(second)} == {0: True, 1: False}


@pytest.mark.parametrize("strategy", [Evolution(trials=6, population=2), Tpe(trials=6), Random(trials=6)])
def test_searches_are_told_what_was_taken_over(tmp_path: Path, strategy: Any) -> None:
    trained(Desk(tmp_path, study("all")))
    searched = Desk(tmp_path, study("second", strategy=strategy))
    assert trained(searched) == 0
    assert len(rows(searched)) == 6
    assert trained(Desk(tmp_path, study("halved", strategy=strategy, stopping=SuccessiveHalving()))) == 0


def test_only_what_is_complete_is_taken_over(tmp_path: Path) -> None:
    first = Desk(tmp_path, study("first", PART))
    ledger = first.open()
    for _ in range(2):
        assignment = ledger.next()
        assert assignment is not None
        ledger.report(assignment.number, Report(curve(1), Outcome("failed", reason="x")))
    assert ledger.next() is not None  # left running
    assert trained(Desk(tmp_path, study("second", PART))) == 6


def test_a_failed_trial_run_again_may_be_taken_over(first: Desk) -> None:
    second = Desk(first.folder, study("second", PART))
    ledger = second.open(rules=Rules(reuse=False))
    assignment = ledger.next()
    assert assignment is not None
    ledger.report(assignment.number, Report((), Outcome("failed", reason="x")))
    assert trained(second, rules=Rules(retry_failed=True)) == 0
    again = next(record for record in rows(second) if record.replaces is not None)
    assert (again.replaces, again.state, again.reused is not None) == (0, "complete", True)


@pytest.mark.parametrize("step", ["before", "after"])
def test_a_driver_that_dies_around_the_write_costs_nothing(first: Desk, monkeypatch: pytest.MonkeyPatch, step: str) -> None:
    second = Desk(first.folder, study("second"))
    real, written = Store.take_over, []

    def dies(self: Store, *given: Any) -> int:
        if len(written) == 2 and step == "before":
            raise KeyboardInterrupt
        written.append(real(self, *given))
        if len(written) == 3:
            raise KeyboardInterrupt
        return written[-1]

    monkeypatch.setattr(Store, "take_over", dies)
    with pytest.raises(KeyboardInterrupt):
        finish_all(second.open())
    monkeypatch.undo()
    trained(second)
    found = rows(second)
    assert Counter(record.state for record in found) == {"complete": 36} and len({record.key for record in found}) == 36
    assert [record.number for record in found] == list(range(36))


def test_a_lost_answer_to_the_commit_writes_no_second_row(first: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    second, real, lost = Desk(first.folder, study("second", PART)), Store._written, []
    insert = Store._write_values

    def cut(self: Store, connection: Any, trial_id: int, values: Any) -> None:
        insert(self, connection, trial_id, values)
        if not lost:
            lost.append(connection.commit())
            raise DatabaseAway("the answer is lost")

    monkeypatch.setattr(Store, "_write_values", cut)
    assert trained(second) == 0 and real is Store._written
    assert len(rows(second)) == 6


def test_what_ends_meanwhile_in_another_study_is_found(first: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reuse, "FRESH", 0.0)
    second, third = Desk(first.folder, study("second")), Desk(first.folder, study("third"))
    ledger = second.open()
    for _ in range(3):
        assignment = ledger.next()
        assert assignment is not None
        ledger.report(assignment.number, Report(curve(2), outcome(assignment)))
    other = third.open()
    assert other.next() is not None and other.reused >= 3
    finish_all(ledger)
    finish_all(other)
    assert other.reused == 35


def test_the_page_counts_what_was_trained_here(first: Desk) -> None:
    space = vary(
        ResNet, depth=8, stages=(None, None, choose(None, SqueezeExcite(ratio=4), SqueezeExcite(ratio=2, label="2")))
    )
    second = Desk(first.folder, study("second", space, AddOneIn(), seeds=(0, 1)))
    trained(second)
    facts = gather(second.study, {}, rows(second))
    assert facts.reused == {"first": 2} and facts.epochs == 2 * 4 and facts.seconds == pytest.approx(0.1 * 4)
    assert "6 complete of 6 planned, 2 of them taken over from first; 8 epochs" in dict(done(facts))["Ran"]
    assert trials_csv(facts).count("taken over from first, trial") == 2


def test_rows_of_others_are_no_finished_trials(first: Desk) -> None:
    foreign = optuna.create_study(study_name="foreign", storage=theirs(first.storage))
    key = rows(first)[0].key
    foreign.add_trial(optuna.trial.create_trial(value=1.0, user_attrs={"key": json.dumps(key)}))
    assert trained(Desk(first.folder, study("second", PART))) == 0


def test_what_other_studies_have_finished_needs_no_backend(first: Desk) -> None:
    same = Desk(first.folder, study("same", PART))
    assert not same.open().anything_to_train() and Counter(record.state for record in rows(same)) == {"complete": 6}
    more = Desk(first.folder, study("more"))
    ledger = more.open()
    assert ledger.anything_to_train() and ledger.anything_to_train(), "asked twice it begins no second row"
    states = Counter(record.state for record in rows(more))
    assert states["running"] == 1 and not ledger.running, "one waits to be handed out"
    assignment = ledger.next()
    assert assignment is not None and more.seen[-1] == ("began", assignment.number)
    assert not Desk(first.folder, study("late", PART)).open(rules=Rules(seconds=0.0)).anything_to_train()


def test_studies_on_the_same_pictures_are_told_by_fingerprint_and_test_part() -> None:
    data = {"fingerprint": "f1"}
    stored = [
        Stored("a", 1, {"data": data}, {"complete": 1}),
        Stored("b", 2, {"data": data}, {"failed": 1}),
        Stored("c", 3, {"data": {"fingerprint": "f2"}}, {"complete": 1}),
        Stored("d", 4, {"data": data | {"scored_on": "t"}}, {"complete": 1}),
        Stored("e", 5, {}, {"complete": 1}),
    ]
    assert [one.name for one in reuse.on_the_same_pictures(stored, INFO)] == ["a"]
    assert [one.name for one in reuse.on_the_same_pictures(stored, replace(INFO, scored_on="t"))] == ["d"]


def test_what_another_database_has_finished_counts_too(first: Desk, tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    before = (tmp_path / "harness.db").read_bytes()
    second = Desk(tmp_path / "elsewhere", study("second", PART))
    assert trained(second, rules=Rules(reuse_from=(first.storage,))) == 0
    assert {str((record.reused or {})["study"]) for record in rows(second)} == {f"first of {first.storage}"}
    assert [record.metrics for record in rows(second)] == [record.metrics for record in rows(first)]
    assert (tmp_path / "harness.db").read_bytes() == before, "it is only read"


def test_other_databases_count_when_the_study_goes_on(
    make_study: Callable[..., Study], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path)
    tiny = make_study(strategy=Random(trials=4))
    first, second = (Options(storage=f"sqlite:///{tmp_path}/{name}.db", backend="local") for name in ("one", "two"))
    run_study(tiny, first)
    given = Rules(trials=1, reuse_from=("sqlite:///one.db",))
    assert run_study(tiny, replace(second, rules=given)).reused == 1
    monkeypatch.chdir(tmp_path / "elsewhere")
    done = resume_study("tiny", replace(second, rules=Rules(trials=2)))
    assert (done.reused, done.trained) == (1, 0)
    (tmp_path / "one.db").rename(tmp_path / "elsewhere" / "moved.db")
    done = resume_study("tiny", replace(second, rules=Rules(trials=3)))
    assert (done.reused, done.trained) == (0, 1) and "one.db cannot be read now" in done.notes[-1]
    with pytest.raises(HarnessError, match="there is no database at"):
        resume_study("tiny", replace(second, rules=given))
    done = resume_study("tiny", replace(second, rules=Rules(reuse_from=("sqlite:///moved.db",))))
    assert (done.reused, done.trained, done.complete) == (1, 0, 4)
    assert [one.attributes["places"]["reuse_from"] for one in read_studies(second.storage)] == [
        [f"sqlite:///{tmp_path}/one.db", f"sqlite:///{tmp_path}/elsewhere/moved.db"]
    ]
