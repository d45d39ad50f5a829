"""A study replayed against a table: the real ledger, an honest clock and score; and what every search must keep to."""

import math
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from itertools import count
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from scipy.stats import binomtest

from harness.config import Config, ExpAtt, ResNet, SqueezeExcite, Training
from harness.errors import StudyError
from harness.record import Record
from harness.simulate import (
    LedgerPlayer,
    Mark,
    Prices,
    Replay,
    Score,
    Table,
    allowed,
    cell_name,
    matched,
    opened,
    replay,
    simulate,
)
from harness.space import Params, Space, choose, span, vary
from harness.storage.store import Store
from harness.strategies.proposers import assert_fits, proposer
from harness.study import Asha, Auto, Evolution, Random, Study, SuccessiveHalving, Tpe, at_most, maximize
from tests.made_table import GOALS, made, price, records, study_of

slot: Any = choose(
    None, SqueezeExcite(ratio=4), vary(ExpAtt, kernel=choose("gaussian", "laplacian"), radius=choose(1.0, 2.0))
)
SPACE = vary(ResNet, depth=8, width=choose(1.0, 2.0), stages=(None, None, slot))


def formula(params: Params) -> float:
    kernel = {"gaussian": 0.1, "laplacian": 0.05}.get(str(params.get("stages.3.expatt.kernel")), 0.0)
    return 0.4 + 0.2 * float(params["width"] == 2.0) + kernel


TABLE = made(SPACE, formula, noise=0.01)
BRED = Evolution(trials=12, population=3, children=6)


class Everything:
    """Trains each cell in turn and stops none; what it was told is kept."""

    def __init__(self, table: Table) -> None:
        self.left = list(enumerate(cell.record.config for cell in table.cells.values()))
        self.told: list[tuple[int, int]] = []

    def next(self) -> Any:
        return self.left.pop(0) if self.left else None

    def goes_on(self, number: int, record: Record, epochs: int) -> bool:
        self.told.append((number, epochs))
        return True


def score(table: Table = TABLE, searched: int = 0, scored: tuple[int, ...] = (1,)) -> Score:
    return Score(GOALS, list(table.cells.values()), searched, scored)


# -- the clock and the score


@pytest.mark.parametrize("workers", [1, 3, 100])
def test_the_clock_is_that_of_so_many_workers(workers: int) -> None:
    player = Everything(TABLE)
    found = replay(player, TABLE, score(), workers)
    cells = len(TABLE.cells)
    assert (found.epochs, found.complete, found.stopped) == (9 * cells, cells, 0)
    assert found.seconds == pytest.approx(9 * math.ceil(cells / workers)), "each epoch takes a second"
    assert sorted(player.told) == [(number, epoch) for number in range(cells) for epoch in range(1, 10)]
    assert found.share(math.inf) == pytest.approx(1.0)
    if workers == 3:
        assert player.told[:4] == [(0, 1), (1, 1), (2, 1), (0, 2)]


def test_luck_on_the_searched_seed_earns_nothing() -> None:
    lucky = {name: cell for name, cell in TABLE.cells.items()}
    worst = min(lucky.values(), key=lambda cell: cell.value("accuracy", (1,)))
    seeds = {0: replace(worst.records[0], metrics={**worst.records[0].metrics, "accuracy": 0.99}), 1: worst.records[1]}
    lucky[worst.name] = replace(worst, records=seeds)
    cells = list(lucky.values())
    fooled = Score(GOALS, cells, 0, (1,))
    chosen = fooled.front(cells)
    assert any(cell.name == worst.name for cell in chosen), "it looks best"
    honest = Score(GOALS, cells, 1, (1,))
    assert fooled._volume(chosen) < honest._volume(honest.front(cells))


def test_the_hypervolume_is_that_of_hand_counted_boxes() -> None:
    table = made(vary(ResNet, depth=8, width=choose(1.0, 2.0)), lambda params: 0.2 + 0.3 * float(params["width"] == 2.0))
    small, large = sorted(table.cells.values(), key=lambda cell: cell.record.costs["params"])
    whole = 1.1 * 1.1 * 0.1 + 1.1 * 0.1 * 0.1 - 0.1 * 0.1 * 0.1  # (accuracy 1, costs 0) and (accuracy 0, costs 1)
    boxes = ((small, 0.1 * 1.1 * 1.1), (large, 1.1 * 0.1 * 0.1))
    found = score(table)
    for cell, box in boxes:
        assert found.share([cell]) == pytest.approx(box / whole)
    assert found.share([small, large]) == pytest.approx(1.0)


@pytest.mark.parametrize(
    ("shares", "epochs"),
    [([(9, 0.5), (18, 0.96), (27, 0.9), (36, 0.97)], 36), ([(9, 0.99)], 9), ([(9, 0.99), (18, 0.5)], None), ([], None)],
)
def test_a_share_is_reached_where_it_is_never_lost_again(shares: list[tuple[int, float]], epochs: int | None) -> None:
    marks = tuple(Mark(at, 0.0, share) for at, share in shares)
    assert Replay(50, 0.0, 0, 0, marks, ()).reached(0.95) == epochs


# -- tables and studies that fit, or do not


def test_seeds_take_turns_and_what_is_auto_is_as_in_the_table() -> None:
    assert [TABLE.seeds(repeat) for repeat in range(3)] == [(0, (1,)), (1, (0,)), (0, (1,))]
    single = made(SPACE, formula, seeds=(4,))
    assert single.seeds(7) == (4, (4,))
    asked = study_of(SPACE, training=Training(epochs=9), strategy=Random(trials=99), seeds=(0,))
    assert len(allowed(matched(asked, TABLE), TABLE)) == len(TABLE.cells)
    assert simulate(asked, TABLE).replays[0].complete == len(TABLE.cells), "an exhausted table ends the search"


def test_a_config_with_one_of_its_seeds_is_not_in_the_table() -> None:
    study = study_of(SPACE, seeds=(0, 1))
    assert len(Table("t", study, TABLE.info, records(study, formula)[:-1]).cells) == len(TABLE.cells) - 1
    with pytest.raises(StudyError, match="--simulate t: no config of it is complete with each of its seeds 0 and 1"):
        Table("t", study, TABLE.info, records(study, formula)[:1])


def test_what_the_table_lacks_is_told_and_passed_over() -> None:
    wider = vary(ResNet, depth=8, width=choose(1.0, 2.0, 3.0), stages=(None, None, slot))
    found = simulate(study_of(wider, strategy=Random(trials=99), seeds=(0,)), TABLE)
    assert len(found.lacking) == 6 and found.replays[0].complete == len(TABLE.cells)
    assert any("6 configs proposed that made lacks" in line for line in found.lines())
    with pytest.raises(StudyError, match=r"none of its 12 configs is one of made's: the table's space and recipe"):
        simulate(study_of(SPACE, training=Training(epochs=3), strategy=Random(trials=9), seeds=(0,)), TABLE)
    with pytest.raises(StudyError, match="energy was not measured in made"):
        simulate(study_of(SPACE, objectives=(maximize("accuracy"), maximize("energy")), seeds=(0,)), TABLE)


def test_the_words_and_the_json_of_a_simulation() -> None:
    study = study_of(SPACE, strategy=BRED, stopping=SuccessiveHalving(quorum=2), seeds=(0,))
    heard: list[int] = []
    found = simulate(study, TABLE, workers=2, repeats=3, told=heard.append)
    assert heard == [1, 2, 3]
    lines = list(found.lines())
    assert lines[0] == "simulated against made: 12 configs, searched on one of seeds 0 and 1, scored on the rest; 2 workers"
    assert lines[1] == "3 repetitions, medians (and ranges); to train everything takes 108 epochs"
    plain = found.to_json()
    for one in plain["repetitions"]:
        assert one["epochs"] < 108 and one["stopped"] > 0 and one["complete"] + one["stopped"] == 12
        assert one["hypervolume"][-1][2] == pytest.approx(1.0, abs=0.5)
    again = simulate(study, TABLE, workers=2)
    assert again.to_json()["repetitions"] == plain["repetitions"][:1], "the same repetition is the same search"
    assert len({str(one["front"]) + str(one["hypervolume"]) for one in plain["repetitions"]}) > 1


# -- what every search keeps to


@dataclass
class Heard(LedgerPlayer):
    """A ledger whose trials are written down as they begin and go on."""

    begun: list[Config] = field(default_factory=list)
    epochs: list[int] = field(default_factory=list)

    def next(self) -> tuple[int, Config] | None:
        given = super().next()
        if given is not None:
            self.begun.append(given[1])
            self.epochs.append(0)
        return given

    def goes_on(self, number: int, record: Record, epochs: int) -> bool:
        self.epochs[number] = epochs
        return super().goes_on(number, record, epochs)


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Store]:
    with Store(f"sqlite:///{tmp_path_factory.mktemp('made')}/made.db") as made:
        yield made


REPEATS = count(1000)


def played(store: Store, study: Study, table: Table, workers: int = 1, repeat: int | None = None) -> tuple[Heard, Replay]:
    repeat = next(REPEATS) if repeat is None else repeat
    player = Heard(opened(store, study, table, Prices(table), repeat))
    cells = allowed(matched(study, table), table)
    return player, replay(player, table, Score(study.objectives, cells, *table.seeds(repeat)), workers)


@settings(max_examples=12, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow])
@given(
    strategy=st.sampled_from(
        [
            Random(trials=9),
            Evolution(trials=9, population=3),
            Tpe(trials=9),
            Evolution(trials=99, children=1),
            Auto(trials=99),
        ]
    ),
    stopping=st.sampled_from([None, SuccessiveHalving(quorum=2), Asha(quorum=2, reduction_factor=2)]),
    bound=st.sampled_from([None, 80_000.0, 200_000.0]),
    workers=st.integers(1, 5),
)
def test_none_twice_none_over_a_constraint_none_stopped_on_a_front(
    store: Store, strategy: Any, stopping: Any, bound: float | None, workers: int
) -> None:
    constraints = (at_most("params", bound),) if bound else ()
    study = study_of(SPACE, strategy=strategy, stopping=stopping, constraints=constraints, seeds=(0,))
    player, found = played(store, study, TABLE, workers)
    begun = [cell_name(config) for config in player.begun]
    assert len(set(begun)) == len(begun), "no key is trained twice"
    assert all(bound is None or price(config).params <= bound for config in player.begun)
    ended = {name for name, epochs in zip(begun, player.epochs, strict=True) if epochs == 9}
    assert {cell.name for cell in found.front} <= ended, "no stopped trial is on a front"
    assert found.epochs == sum(player.epochs)
    inside = len(allowed(matched(study, TABLE), TABLE))
    assert len(begun) == min(strategy.trials, inside), "a search ends where its budget or the space does"
    ledger = player.ledger
    assert (ledger.screened_out > 0) == (bound is not None and inside < len(TABLE.cells) and ledger.looked_at > inside)


# -- the best kernel

slots: Any = choose(
    None,
    SqueezeExcite(ratio=4),
    vary(
        ExpAtt,
        kernel=choose("gaussian", "laplacian", "laplacian_l2", "cauchy"),
        radius=choose(1.5, 2.0, 3.0, 4.0),
        radius_per="head",
        heads=choose(1, 2, 4, 8),
    ),
)
KERNELS = vary(ResNet, depth=8, stages=(None, None, slots))


def test_the_best_kernel_of_a_conditional_space_is_found_more_often_than_by_chance(store: Store) -> None:
    """One kernel of four is better, by more than the noise, where there is a kernel at all. Of the trials with a kernel that
    come after the first ten, how many have the best one? By chance a quarter."""

    def accuracy(params: Params) -> float:
        return 0.5 + {"cauchy": 0.06, "gaussian": 0.02}.get(str(params.get("stages.3.expatt.kernel")), 0.0)

    table = made(KERNELS, accuracy, noise=0.02)

    def chance(strategy: Any, seeds: range) -> float:
        """The probability that drawing at random would find the best so often."""
        chosen = []
        for repeat in seeds:
            study = study_of(KERNELS, objectives=(maximize("accuracy"),), strategy=strategy, seeds=(0,))
            slots = [config.network.stages[2] for config in played(store, study, table, repeat=repeat)[0].begun[10:]]
            chosen += [slot.kernel for slot in slots if isinstance(slot, ExpAtt)]
        return float(binomtest(chosen.count("cauchy"), len(chosen), 0.25, alternative="greater").pvalue)

    assert chance(Evolution(trials=26, population=10, children=24), range(3)) < 1e-5
    assert chance(Random(trials=26), range(3, 6)) > 0.05


# -- spaces that nobody can list

HUGE = vary(
    ResNet,
    depth=20,
    stages=tuple(
        choose(
            None,
            vary(
                ExpAtt,
                kernel=choose("gaussian", "laplacian", "cauchy"),
                radius=span(1.5, 4.0, step=0.01),
                radius_per="head",
                heads=choose(1, 2),
                share=span(0.1, 0.5, step=0.05),
                multiple=2,
            ),
        )
        for _ in range(3)
    ),
)


@pytest.mark.parametrize(
    "strategy",
    [Random(trials=5), Evolution(trials=5, population=3), Tpe(trials=5), Auto(trials=20)],
    ids=lambda one: one.kind,
)
def test_a_space_of_more_configs_than_can_be_listed_is_never_listed(strategy: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    study = study_of(HUGE, strategy=strategy, constraints=(at_most("macs", 9e6),))
    space = study.open_space(check=False)
    assert space.size > 1e12
    monkeypatch.setattr(Space, "enumerate", lambda _: pytest.fail("listed"))
    assert_fits(study, space)
    made = proposer(study, space, 0, price)
    seen = set()
    for _ in range(5):
        proposal = made.propose()
        assert proposal is not None
        seen.add(repr(proposal.params))
        made.told(proposal, (0.5, 1e5, 1e6))
    assert len(seen) == 5
