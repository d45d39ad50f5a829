"""Large studies: what is asked of the database, and made of its rows, does not grow with the number of trials where it need
not. Counted, not timed; `make bench-size` has the seconds."""

import random
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path
from typing import Any

import optuna
import pytest
from sqlalchemy import Engine, event

from harness.cli import main
from harness.config import ResNet
from harness.record import Epoch
from harness.report.facts import gather
from harness.report.tables import columns, kept_whole
from harness.results import open_study
from harness.space import vary
from harness.storage import reader
from harness.storage.copying import copy
from harness.storage.reader import read_records
from harness.strategies import proposers
from harness.strategies.proposers import Bred, Proposal, proposer
from harness.study import Evolution, Random, Study
from harness.trial import Outcome, Report
from tests.execution.desk import Desk, attention, curve, outcome, price

FEW, MANY = 20, 200
SPACE = vary(ResNet, depth=8, stages=(attention, attention, attention))


@contextmanager
def statements() -> Iterator[Counter[str]]:
    """How many statements of each kind are sent to databases."""
    found: Counter[str] = Counter()

    def note(_: Any, __: Any, statement: str, *___: Any) -> None:
        found[statement.split(maxsplit=1)[0]] += 1

    event.listen(Engine, "before_cursor_execute", note)
    try:
        yield found
    finally:
        event.remove(Engine, "before_cursor_execute", note)


def filled(folder: Path, trials: int) -> Desk:
    """A finished search; each tenth trial failed."""
    folder.mkdir()
    desk = Desk(folder, Study(name="large", space=SPACE, strategy=Random(trials=trials)))
    ledger = desk.open()
    while (assignment := ledger.next()) is not None:
        failed = Outcome("failed", reason="no luck")
        ended = failed if assignment.number % 10 == 9 else outcome(assignment)
        ledger.report(assignment.number, Report(curve(2), ended))
    assert ledger.rows == trials
    ledger.store.set_attributes(1, {"asked": desk.study.to_json()})
    desk.close()
    return desk


@pytest.fixture(scope="module")
def desks(tmp_path_factory: pytest.TempPathFactory) -> list[Desk]:
    folder = tmp_path_factory.mktemp("sizes")
    return [filled(folder / str(trials), trials) for trials in (FEW, MANY)]


def opened(desk: Desk) -> None:
    desk.open()
    desk.close()


@pytest.mark.parametrize(
    "verb",
    [
        lambda desk: read_records(desk.storage, 1),
        lambda desk: open_study("large", desk.storage).front(),
        lambda desk: main.app(["status", "large", "--storage", desk.storage], standalone_mode=False),
        opened,
    ],
    ids=["records", "front", "status", "a driver begins"],
)
def test_ten_times_the_trials_cost_no_more_statements(desks: list[Desk], verb: Callable[[Desk], Any]) -> None:
    counts = []
    for desk in desks:
        with statements() as found:
            verb(desk)
        counts.append(found)
    assert counts[0] == counts[1] and counts[0].total() < 40


def test_copies_are_written_in_batches(desks: list[Desk], tmp_path: Path) -> None:
    with statements() as found:
        copy([desks[1].storage], f"sqlite:///{tmp_path}/copy.db")
    assert found["INSERT"] < 30 and found["SELECT"] < 60


def test_no_object_is_made_of_a_trial_that_nobody_asked_for(desks: list[Desk], monkeypatch: pytest.MonkeyPatch) -> None:
    made: Counter[str] = Counter()
    monkeypatch.setattr(reader, "Row", type("Counted", (reader.Row,), {"__init__": counting(reader.Row, made)}))
    monkeypatch.setattr(Epoch, "from_row", lambda row: made.update(["epoch"]))
    monkeypatch.setattr(optuna.trial.FrozenTrial, "__init__", counting(optuna.trial.FrozenTrial, made))
    best = open_study("large", desks[1].storage).front()
    assert made == {"Row": len(best)} and len(best) < MANY / 4
    main.app(["status", "large", "--storage", desks[1].storage], standalone_mode=False)
    assert made == {"Row": 2 * len(best) + MANY // 10}
    opened(desks[1])
    assert made == {"Row": 2 * len(best) + MANY // 10 + MANY}, "a driver makes one of each row, and neither curves nor more"


def counting(kind: type, made: Counter[str]) -> Callable[..., None]:
    original = kind.__init__  # type: ignore[misc]

    def init(self: Any, *given: Any, **named: Any) -> None:
        made[kind.__name__] += 1
        original(self, *given, **named)

    return init


def test_a_search_that_goes_on_builds_no_networks_and_keeps_what_matters(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(proposers, "KEPT", 50)
    study = Study(name="large", space=SPACE, strategy=Evolution(trials=999, population=4, children=8))
    priced: list[Any] = []
    made = proposer(study, study.open_space(), 0, lambda config: priced.append(config) or price(config))  # type: ignore[func-returns-value]
    assert isinstance(made, Bred)
    rng = random.Random(0)
    for index in range(500):
        params = made.space.active(made.space.draw(rng))
        made.remember(Proposal(params, 0), (index / 500, rng.random(), rng.random()))
    assert priced == [] and len(made._trials) < 100
    values = [values for _, values in made._trials]
    assert max(values)[0] == 499 / 500 and made.propose() is not None


def test_the_page_keeps_the_front_whole_and_others_evenly(desks: list[Desk]) -> None:
    found = open_study("large", desks[1].storage)
    facts = gather(found.study, found.attributes, found.records)
    whole = kept_whole(facts.trials, 60)
    assert {trial.number for trial in facts.front} <= set(whole) and whole == sorted(set(whole))
    assert 50 < len(whole) <= 60 and max(b - a for a, b in pairwise(whole)) < 10
    assert kept_whole(facts.trials, MANY) == list(range(MANY))
    assert columns([facts], [])["whole"] is None
