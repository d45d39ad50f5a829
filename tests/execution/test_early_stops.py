"""Early stopping in the ledger: stopped rows are whole and final, what is known at a rung survives, promotion goes on."""

from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import optuna
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from optuna.trial import TrialState

from harness.analysis.front import front
from harness.config import ResNet, Training
from harness.depot import Depot, depot
from harness.execution.keeping import PROMOTABLE, Keeper
from harness.execution.ledger import HOPELESS, Ledger, Rules
from harness.record import Epoch, Record
from harness.space import choose, vary
from harness.strategies.proposers import Bred, Shadow
from harness.strategies.stopping import Ladder
from harness.study import Asha, Evolution, Random, Study, SuccessiveHalving, Tpe, maximize, minimize
from harness.trial import Assignment, Outcome, Report
from tests.conftest import content, theirs
from tests.execution.conftest import in_any_place
from tests.execution.desk import Desk, attention, outcome

EPOCHS = 10
TRAINING = vary(Training, epochs=EPOCHS, lr=choose(0.01, 0.02, 0.05, 0.1, 0.2))
MakeDesk = Callable[..., Desk]


def curve(assignment: Assignment, length: int) -> tuple[Epoch, ...]:
    """The made-up accuracy of a key, approached in a straight line."""
    final = outcome(assignment).metrics["accuracy"]
    return tuple(Epoch(epoch, final * epoch / EPOCHS, 1.0, 1.0, 0.01) for epoch in range(1, length + 1))


def train(ledger: Ledger, assignment: Assignment, *, since: int = 0, until: int = EPOCHS) -> int:
    """Reports epoch by epoch, as long as the ledger lets it; the epochs trained."""
    for length in range(since + 1, until + 1):
        done = outcome(assignment) if length == EPOCHS else None
        ledger.report(assignment.number, Report(curve(assignment, length), done))
        if ledger.over(assignment.number):
            return length - since
    return until - since


def train_all(ledger: Ledger) -> int:
    trained = 0
    while (assignment := ledger.next()) is not None:
        trained += train(ledger, assignment, since=len(ledger.running[assignment.number].curve))
    return trained


@pytest.fixture
def stopping(desk: MakeDesk) -> MakeDesk:
    """A desk with a study of ten epochs in which some are stopped early."""

    def make(strategy: Any = Random(trials=30), rule: Any = Asha(), **fields: Any) -> Desk:  # noqa: B008
        return desk(strategy, stopping=rule, training=TRAINING, **fields)

    return make


def stopped(desk: Desk) -> list[Record]:
    return [record for record in desk.records() if record.state == "stopped"]


def assert_sound(desk: Desk, planned: int) -> None:
    """Rows as planned; the stopped ones end at a rung and say why; no key is complete twice."""
    records = desk.records()
    assert [record.number for record in records] == list(range(planned))
    assert {record.state for record in records} <= {"complete", "stopped"}
    for record in records:
        if record.state == "stopped":
            assert record.epochs in (1, 3, 9) and record.reason.startswith(f"stopped early at epoch {record.epochs}: ")
            assert not record.metrics and record.promotes is None
        else:
            assert record.epochs == EPOCHS
    done = Counter(record.key for record in records if record.state == "complete")
    assert max(done.values()) == 1
    assert all(record.state == "complete" for record in front(records, desk.study.objectives))


@pytest.mark.parametrize("objectives", [1, 3])
@pytest.mark.parametrize(
    "strategy", [Random(trials=30), Evolution(trials=30, population=4), Tpe(trials=30)], ids=lambda s: s.kind
)
def test_every_strategy_bears_stopped_trials(stopping: MakeDesk, strategy: Any, objectives: int) -> None:
    goals = {"objectives": (maximize("accuracy"),)} if objectives == 1 else {}
    made = stopping(strategy, SuccessiveHalving(), **goals)
    for limit in (12, 30):  # the second driver recalls what the first has stopped
        ledger = made.open(rules=Rules(trials=limit))
        train_all(ledger)
    assert_sound(made, 30)
    epochs = sum(record.epochs for record in made.records())
    assert ledger.finished["stopped"] > 5 and ledger.ladder.saved == 30 * EPOCHS - epochs > 50
    assert made.open().done and made.open().next() is None, "what is stopped is not trained by a resume"


def test_a_stopped_row_is_optunas_pruned_with_its_curve(stopping: MakeDesk) -> None:
    made = stopping()
    train_all(made.open())
    first = stopped(made)[0]
    trial = optuna.load_study(study_name="s", storage=theirs(made.storage)).trials[first.number]
    assert trial.state == TrialState.PRUNED and trial.user_attrs["reason"] == first.reason
    assert trial.intermediate_values == {point.epoch: point.accuracy for point in first.curve}
    assert trial.values is None and set(made.seen) >= {("began", first.number), ("stopped", first.number)}


def test_no_trial_is_stopped_at_its_last_epoch_or_trains_beyond_a_stop(stopping: MakeDesk) -> None:
    made = stopping()
    trained = train_all(made.open())
    assert trained == sum(record.epochs for record in made.records())
    assert {record.epochs for record in made.records() if record.state == "complete"} == {EPOCHS}


def test_verdicts_follow_from_the_database_alone(stopping: MakeDesk) -> None:
    """A study opened anew for each trial stops the same ones, for the same reasons, as one run in one go."""
    made = stopping()
    for limit in (1, 2, 3, 5, 8, 13, 21, 30):
        train_all(made.open(rules=Rules(trials=limit)))
    ladder = Ladder(made.study.stopping, made.study.objectives)
    for record in made.records():
        for rung in ladder.rungs(EPOCHS):
            if rung <= record.epochs:
                ladder.reached(record.key, EPOCHS, record.curve[:rung], record.costs)
                assert ladder.verdict(record.key, rung) == (record.reason if rung == record.epochs else "")
    assert len(stopped(made)) > 10


def beaten(ledger: Ledger) -> Assignment:
    """A trial that stands before a rung at which it will be the last."""
    for _ in range(8):
        assignment = ledger.next()
        assert assignment is not None
        ledger.report(
            assignment.number, Report(tuple(Epoch(e, 0.9, 1.0, 1.0, 0.0) for e in range(1, EPOCHS + 1)), outcome(assignment))
        )
    assignment = ledger.next()
    assert assignment is not None
    return assignment


LAST = tuple(Epoch(epoch, 0.0, 1.0, 1.0, 0.01) for epoch in (1, 2, 3, 4))


def test_who_has_passed_a_rung_is_known_to_the_next_driver(stopping: MakeDesk) -> None:
    made = stopping()
    ledger = made.open()
    first = ledger.next()
    assert first is not None
    ledger.report(first.number, Report(LAST[:1]))
    assert made.records()[0].curve == LAST[:1], "written at once"
    ledger = made.open()
    assert ledger.next() == first
    beaten(ledger)
    ledger.report(first.number, Report(LAST[:1]))  # begun again from its checkpoint, or from nothing
    assert first.number in ledger.running, "once passed is passed"
    ledger.report(first.number, Report(LAST[:3]))
    assert "at epoch 3: 9th of 9" in stopped(made)[0].reason


def test_a_trial_whose_driver_died_before_the_verdict_is_judged_by_the_next(stopping: MakeDesk) -> None:
    made = stopping()
    last = beaten(made.open())
    ledger = made.open()
    assert ledger.next() == last and last.rungs == (1, 3, 9)
    ledger.report(last.number, Report(LAST[:1]))
    assert "at epoch 1: 9th of 9 at this rung, room for 3" in stopped(made)[0].reason and ledger.over(last.number)


@pytest.mark.parametrize(("strategy", "who"), [(Evolution(trials=30), Bred), (Tpe(trials=30), Shadow)], ids=["bred", "tpe"])
def test_a_strategy_is_told_what_a_stopped_trial_had_reached(
    stopping: MakeDesk, strategy: Any, who: type[Bred | Shadow], monkeypatch: pytest.MonkeyPatch
) -> None:
    made, told = stopping(strategy, objectives=(maximize("accuracy"), minimize("seconds"), minimize("params"))), []
    monkeypatch.setattr(who, "told", lambda _, proposal, values: told.append(values))
    ledger = made.open()
    beaten(ledger)
    ledger.report(8, Report(LAST[:1]))
    reached = [0.0, 0.1, float(stopped(made)[0].costs["params"])]  # seconds are those of all epochs at this pace
    assert told.pop() == reached
    monkeypatch.setattr(who, "remember", lambda _, proposal, values: told.append(values))
    made.open()
    assert told[-1] == reached


def test_a_study_in_which_some_are_stopped_is_not_hopeless(stopping: MakeDesk) -> None:
    ledger = stopping(rule=Asha(quorum=2)).open()
    for accuracy in (0.9, 0.5):
        assignment = ledger.next()
        assert assignment is not None
        ledger.report(assignment.number, Report((Epoch(1, accuracy, 1.0, 1.0, 0.0),)))
    for _ in range(HOPELESS):
        assignment = ledger.next()
        assert assignment is not None
        ledger.report(assignment.number, Report((), Outcome("failed", reason="bad luck")))
    assert ledger.finished == {"stopped": 1, "failed": HOPELESS} and not ledger.trouble


# -- what stays on disk


def with_checkpoints(ledger: Ledger) -> None:
    """Trains all, with files where a worker would leave them."""
    while (assignment := ledger.next()) is not None:
        assignment.folder.make()
        for name in ("last-0.pt", "half.part"):
            assignment.folder.write(name, assignment.key.encode())
        train(ledger, assignment)


def checkpoints(desk: Desk) -> list[int]:
    return desk.left("last-*.pt")


@in_any_place
def test_checkpoints_of_the_best_stopped_trials_are_kept(stopping: MakeDesk, place: Depot) -> None:
    kept_by_choice(stopping, place, "front")


@pytest.mark.parametrize("keep", ["all", "none"])
def test_checkpoints_of_stopped_trials_are_kept_by_choice(stopping: MakeDesk, tmp_path: Path, keep: Any) -> None:
    kept_by_choice(stopping, depot(tmp_path / "runs"), keep)


def kept_by_choice(stopping: MakeDesk, place: Depot, keep: Any) -> None:
    made = stopping()
    made.runs = str(place)
    ledger = made.open(rules=Rules(keep=keep))
    with_checkpoints(ledger)
    best, every = list(ledger.ladder.best()), sorted(record.number for record in stopped(made))
    assert len(every) > PROMOTABLE
    assert checkpoints(made) == {"front": sorted(best[:PROMOTABLE]), "all": every, "none": []}[keep]
    assert made.left("*.part") == []
    folder = place / "s" / str(best[-1])  # as a driver leaves it that is killed before it clears up
    folder.make()
    folder.write("last-0.pt", b"")
    made.open(rules=Rules(keep=keep))
    assert checkpoints(made) == {"front": sorted(best[:PROMOTABLE]), "all": every, "none": []}[keep]


# -- promotion


@in_any_place
def test_the_best_stopped_trials_go_on_as_new_rows_that_name_the_old(stopping: MakeDesk, place: Depot) -> None:
    made = stopping()
    made.runs = str(place)
    with_checkpoints(made.open())
    best = list(made.open().ladder.best())
    ledger = made.open(rules=Rules(promote=4))
    assert ledger.planned == 34 and not ledger.notes and not ledger.done
    for number in best[:4]:
        old, assignment = made.records()[number], ledger.next()
        assert assignment is not None and (assignment.key, assignment.rungs) == (old.key, ())
        assert content(assignment.folder, "last-0.pt") == old.key.encode(), "the checkpoint is handed over"
        assert not (place / "s" / str(number)).names()
        train(ledger, assignment)
    assert ledger.done
    new = made.records()[30:]
    assert [record.promotes for record in new] == best[:4]
    assert [record.inherited for record in new] == [made.records()[number].epochs for number in best[:4]]
    assert {record.state for record in new} == {"complete"}
    assert_sound(made, 34)
    assert made.open(rules=Rules(promote=4)).done, "those of earlier runs count"
    assert made.open(rules=Rules(promote=6)).planned == 36
    ledger = made.open(rules=Rules(promote=100))
    assert "no other trial was stopped early" in ledger.notes[0]
    train_all(ledger)
    assert {record.promotes for record in made.records()} - {None} == {record.number for record in stopped(made)}


def test_a_hand_over_that_had_only_copied_is_completed(place: Depot) -> None:
    """In a store nothing is renamed: a driver may die between the copy and the removal."""
    for number in ("1", "2"):
        (place / "s" / number).make()
        (place / "s" / number).write("last-0.pt", b"weights")
    space = vary(ResNet, depth=8, stages=(None, attention, attention))
    keeper = Keeper("all", str(place), Study(name="s", space=space, strategy=Random(trials=3)), [])
    keeper.hand_over(1, 2)
    keeper.hand_over(1, 2)
    assert (place / "s").inside() == {"2": ["last-0.pt"]}


def test_without_a_checkpoint_promotion_begins_anew_and_says_so(stopping: MakeDesk, monkeypatch: pytest.MonkeyPatch) -> None:
    made = stopping()
    with_checkpoints(made.open(rules=Rules(keep="all")))
    _, two, *_ = made.open(rules=Rules(keep="all")).ladder.best()
    (made.folder / "runs" / "s" / str(two) / "last-0.pt").unlink()
    ledger = made.open(rules=Rules(promote=3, keep="all"))
    assert ledger.notes == [f"trained from the beginning, as their checkpoints are gone: trials {two}"]
    train_all(ledger)
    assert [record.inherited > 0 for record in made.records()[30:]] == [True, False, True]
    monkeypatch.setattr("harness.key.ENGINE", 3)  # stands for any change of the key
    assert "checkpoints are gone" in made.open(rules=Rules(promote=4, keep="all")).notes[0]


def test_a_promotion_cut_short_goes_on_and_is_not_stopped(stopping: MakeDesk) -> None:
    made = stopping()
    place = depot(made.runs)
    with_checkpoints(made.open())
    ledger = made.open(rules=Rules(promote=2))
    first = ledger.next()
    assert first is not None
    back = str(made.records()[30].promotes)
    (place / "s").rename(str(first.number), back)
    ledger = made.open(rules=Rules(promote=2))  # as if the driver had died between the row and its folder
    assert ledger.next() == first
    assert first.folder.names() == ["last-0.pt"] and (place / "s" / back).names() is None
    train_all(ledger)
    ledger.report(first.number, Report(LAST))
    assert first.number in ledger.running
    ledger.report(first.number, Report(LAST, Outcome("failed", reason="the power went")))
    assert made.open(rules=Rules(promote=2)).done
    ledger = made.open(rules=Rules(retry_failed=True))
    again = ledger.next()
    assert again is not None and again.rungs == () and made.records()[32].promotes == made.records()[30].promotes
    assert made.records()[32].replaces == 30


def test_checkpoints_about_to_be_promoted_outlive_any_rule(stopping: MakeDesk) -> None:
    made = stopping()
    with_checkpoints(made.open(rules=Rules(keep="all")))
    best = list(made.open(rules=Rules(keep="all")).ladder.best())
    ledger = made.open(rules=Rules(promote=12, keep="none"))
    assert checkpoints(made) == sorted(best[:12]) and not ledger.notes


def test_promoting_where_nothing_was_stopped(desk: MakeDesk) -> None:
    ledger = desk().open(rules=Rules(promote=3))
    assert ledger.notes == ["--promote 3: 0 in all, no other trial was stopped early"] and ledger.planned == 6


@settings(max_examples=12, deadline=None, derandomize=True)
@given(
    deaths=st.lists(
        st.lists(st.sampled_from(["next", "epoch", "epochs", "lost", "leave"]), min_size=3, max_size=20), max_size=3
    ),
    promote=st.integers(0, 3),
)
def test_any_history_with_stops_ends_whole(
    tmp_path_factory: pytest.TempPathFactory, deaths: list[list[str]], promote: int
) -> None:
    space = vary(ResNet, depth=8, stages=(None, attention, attention))
    study = Study(
        name="s",
        space=space,
        training=TRAINING,
        strategy=Random(trials=8),
        stopping=SuccessiveHalving(quorum=2, first_rung=1),
    )
    made = Desk(tmp_path_factory.mktemp("any"), study)
    for steps in deaths:
        ledger = made.open(rules=Rules(promote=promote))
        for step in steps:
            number = next(iter(ledger.running), None)
            if step == "next":
                ledger.next()
            elif number is not None and step in ("epoch", "epochs"):
                running = ledger.running[number]
                done = len(running.curve)
                train(ledger, running.assignment, since=done, until=done + 1 if step == "epoch" else EPOCHS)
            elif number is not None and step == "lost" and ledger.running[number].lost < 2:
                ledger.lost(number, "killed")
            elif number is not None and step == "leave":
                ledger.leave(number)
    ledger = made.open(rules=Rules(promote=promote))
    train_all(ledger)
    promoted = {record.promotes for record in made.records()} - {None}
    assert ledger.done and len(promoted) <= promote
    assert_sound(made, 8 + len(promoted))
