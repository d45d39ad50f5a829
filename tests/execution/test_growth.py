"""A study that is edited and run again says what changed, keeps what still holds, and trains what is missing."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import optuna
import pytest

from harness.config import ResNet, SqueezeExcite, Training
from harness.design import AddOneIn, Exhaustive
from harness.errors import StudyError
from harness.execution.ledger import Rules
from harness.report.citation import methods
from harness.report.comparison import compared, plan_words
from harness.report.facts import gather
from harness.results import open_study
from harness.run import Options, Summary, resume_study, run_study
from harness.space import choose, vary
from harness.storage.lease import Lease, LeaseError
from harness.storage.reader import read_records, read_studies, revision
from harness.storage.store import Store
from harness.strategies.proposers import Bred
from harness.study import Evolution, Random, Study, Tpe, at_most, maximize, minimize
from tests.conftest import theirs

FAKE = """
import os

def run(context):
    seed = context.seed
    for epoch in range(1, context.training.epochs + 1):
        with open(os.environ["GROWING_LOG"], "a") as log:
            log.write(f"{seed} {epoch}\\n")
        yield {"accuracy": 0.5 + seed / 100, "loss": 1.0}
"""
TWO: Any = choose(None, SqueezeExcite(ratio=4))
THREE: Any = choose(None, SqueezeExcite(ratio=4), SqueezeExcite(ratio=2, label="se2"))
Grow = Callable[..., tuple[Summary, int]]


@pytest.fixture
def options(storage: str, tmp_path: Path) -> Options:
    (tmp_path / "growing.py").write_text(FAKE)
    return Options(storage=storage, backend="local", code=(str(tmp_path),))


@pytest.fixture
def grow(options: Options, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Grow:
    """Runs an edit of one study; gives its summary and how many trials were really trained."""
    monkeypatch.setenv("GROWING_LOG", str(tmp_path / "log"))

    def run(rules: Rules = Rules(), **fields: Any) -> tuple[Summary, int]:  # noqa: B008
        log = tmp_path / "log"
        log.write_text("")
        given: dict[str, Any] = {
            "name": "grown",
            "space": vary(ResNet, depth=8, stages=(None, TWO, TWO)),
            "training": Training(epochs=1, limit=10, precision="fp32"),
            "strategy": AddOneIn(),
            "objectives": (maximize("accuracy"),),
            "seeds": (0, 1),
            "trial": "growing:run",
        }
        done = run_study(Study(**given | fields), Options(options.storage, "local", code=options.code, rules=rules))
        return done, sum(line.endswith(" 1") for line in log.read_text().splitlines())

    return run


def names(storage: str) -> list[str]:
    return [stored.name for stored in read_studies(storage)]


def test_a_seed_is_added_in_place(grow: Grow, storage: str) -> None:
    assert grow()[1] == 6
    done, trained = grow(seeds=(0, 1, 2))
    assert (trained, done.complete, done.name, done.changes) == (3, 9, "grown", ("seeds: [0, 1] -> [0, 1, 2]",))
    assert names(storage) == ["grown"] and grow(seeds=(0, 1, 2))[0].changes == ()
    found = open_study("grown", storage)
    comparison = compared(gather(found.study, found.attributes, found.records))
    assert comparison is not None and "Not as planned before training" in plan_words(comparison)
    assert plan_words(comparison).endswith(": seed 2 added.")


@pytest.mark.parametrize(
    ("declared", "name"),
    [
        (Exhaustive(primary="stage 2 SE; stage 3 none"), "grown"),
        (Exhaustive(base=ResNet(depth=8), primary="stage 2 SE; stage 3 none"), "grown@2"),
    ],
    ids=["primary", "base"],
)
def test_what_is_declared_after_looking_is_no_plan(grow: Grow, storage: str, declared: Exhaustive, name: str) -> None:
    grow(strategy=Exhaustive(), seeds=(0,))
    assert grow(strategy=declared, seeds=(0, 1))[0].name == name
    found = open_study("grown", storage)
    facts = gather(found.study, found.attributes, found.records)
    comparison = compared(facts)
    assert comparison is not None and plan_words(comparison) == (
        "Not planned before training: the primary comparison 'stage 2 SE; stage 3 none' was declared after training had"
        " begun."
    )
    assert "was declared after training had begun as the one comparison to decide" in methods(facts)
    assert "stored before training" not in methods(facts)


EDITS = {
    "an option": ({"space": vary(ResNet, depth=8, stages=(None, TWO, THREE))}, 2, 8),
    "an arm": ({"space": vary(ResNet, depth=8, stages=(TWO, TWO, TWO))}, 2, 8),
    "an objective": ({"objectives": (maximize("accuracy"), minimize("params"))}, 0, 6),
    "a seed less": ({"seeds": (1,)}, 0, 3),
    "epochs": ({"training": Training(epochs=2, limit=10, precision="fp32")}, 6, 6),
    "a constraint": ({"constraints": (at_most("params", 76_000),)}, 0, 4),
}


@pytest.mark.parametrize(("edit", "fresh", "complete"), EDITS.values(), ids=EDITS)
def test_an_edit_opens_a_revision_that_trains_what_is_missing(
    grow: Grow, storage: str, edit: dict[str, Any], fresh: int, complete: int
) -> None:
    grow()
    done, trained = grow(**edit)
    assert (trained, done.name, done.complete, done.reused) == (fresh, "grown@2", complete, complete - fresh)
    assert "grown@2 is opened beside grown and takes over what still holds" in done.changes[0]
    records = open_study("grown", storage).records
    assert len({record.key for record in records}) == complete and {record.state for record in records} == {"complete"}
    again, trained = grow(**edit)
    assert (trained, again.name, again.complete, again.changes) == (0, "grown@2", complete, ())
    assert sorted(names(storage)) == ["grown", "grown@2"]
    assert len(optuna.load_study(study_name="grown@2", storage=theirs(storage)).directions) == len(again.best)


def test_commands_show_revisions_as_one(grow: Grow, storage: str, options: Options) -> None:
    grow()
    grow(objectives=(minimize("loss"),))
    grow()  # taken back: a third revision, nothing trained
    assert open_study("grown", storage).study.name == "grown@3"
    found = [open_study(name, storage).study.name for name in ("grown@1", "grown@2", "grown@3")]
    assert found == ["grown", "grown@2", "grown@3"]
    assert resume_study("grown", options).name == "grown@3"
    with pytest.raises(StudyError, match=r"'grown@1' is an earlier revision: `harness resume grown` goes on with grown@3"):
        resume_study("grown@1", options)
    with pytest.raises(StudyError, match="@ counts the revisions of a study; leave it out"):
        grow(name="grown@2")


def test_what_a_revision_left_running_is_ended(grow: Grow, storage: str, options: Options) -> None:
    grow(rules=Rules(trials=2))
    with Store(storage) as store:
        record = read_records(storage, 1)[0]
        attributes = {"key": "k", "seed": 0, "config": record.config_json, "costs": record.costs}
        store.begin(1, {}, {}, attributes)
        with Lease.take(store.engine, 1), pytest.raises(LeaseError):
            grow(seeds=(1,))
    assert names(storage) == ["grown"]
    assert grow(seeds=(1,))[0].complete == 3
    last = read_records(storage, 1)[-1]
    assert (last.state, last.reason) == ("failed", "left unfinished when grown@2 took the study's place")


def test_a_search_begins_with_what_still_holds(grow: Grow, storage: str) -> None:
    search = {"seeds": (0,), "space": vary(ResNet, depth=8, stages=(TWO, TWO, TWO))}
    assert grow(strategy=Random(trials=4), **search)[1] == 4
    search |= {"strategy": Evolution(trials=6, population=2), "objectives": (maximize("accuracy"), minimize("loss"))}
    done, trained = grow(**search)
    assert (done.name, done.reused, trained, done.complete) == ("grown@2", 4, 2, 6)
    assert grow(**search | {"strategy": Evolution(trials=7, population=2)})[0].name == "grown@2"


def test_another_search_goes_on_in_the_same_study_and_knows_what_was_found(
    grow: Grow, storage: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    search: dict[str, Any] = {"seeds": (0,), "space": vary(ResNet, depth=8, stages=(THREE, THREE, THREE))}
    remembered: list[Any] = []
    monkeypatch.setattr(Bred, "remember", lambda _, proposal, values: remembered.append((proposal.params, values)))
    strategies = [Random(trials=4), Tpe(trials=6), Evolution(trials=8, population=2), Evolution(trials=9, children=4)]
    for before, strategy in enumerate(strategies):
        done, trained = grow(strategy=strategy, **search)
        assert (done.name, done.reused, done.complete) == ("grown", 0, strategy.trials)
        assert trained == strategy.trials - (strategies[before - 1].trials if before else 0)
    assert names(storage) == ["grown"]
    rows = [(record.params, [0.5]) for record in read_records(storage, 1)]
    assert remembered[:6] == rows[:6], "those of the draws and of TPE"
    assert done.changes == ("strategy.population: 2 -> 16", "strategy.children: 64 -> 4")
    assert grow(strategy=Tpe(trials=9), **search)[0].changes == (
        "strategy: evolution -> tpe, which goes on from what is there",
    )


def test_names_of_revisions() -> None:
    assert [revision(name) for name in ("a", "a@2", "a~b=1@10")] == [("a", 1), ("a", 2), ("a~b=1", 10)]


@pytest.mark.parametrize("step", ["set_attributes", "finish", "take_over"])
def test_a_driver_that_dies_while_it_opens_a_revision_costs_nothing(
    grow: Grow, storage: str, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    grow(rules=Rules(trials=3))
    with Store(storage) as store:  # a row that was running
        record = read_records(storage, 1)[0]
        store.begin(1, {}, {}, {"key": "k", "seed": 0, "config": record.config_json, "costs": record.costs})

    def dies(*_: Any, **__: Any) -> None:
        raise KeyboardInterrupt

    edit: dict[str, Any] = {"objectives": (maximize("accuracy"), minimize("params"))}
    with monkeypatch.context() as patch:
        patch.setattr(Store, step, dies)
        with pytest.raises(KeyboardInterrupt):
            grow(**edit)
    done, trained = grow(**edit)
    assert (done.name, done.complete, done.reused, trained) == ("grown@2", 6, 3, 3)
    assert {one.state for one in read_records(storage, 1)} == {"complete", "failed"}
    assert sorted(names(storage)) == ["grown", "grown@2"]
