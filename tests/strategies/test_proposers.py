"""Proposers: the shadow stays small, goes on where an earlier run ended, and orders trials as NSGA-II does."""

import random
from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

from harness.config import ResNet
from harness.errors import SpaceError, StudyError
from harness.space import Span, span, vary
from harness.strategies.proposers import GENERATIONS, Cells, Proposal, Shadow, distribution, fittest, proposer
from harness.study import Evolution, Exhaustive, Study, Tpe, maximize, minimize
from tests.strategies.slots import SLOT, price

SPACE = vary(ResNet, depth=8, stages=(None, SLOT, SLOT))


def shadow(strategy: Evolution | Tpe, objectives: int = 2) -> Shadow:
    goals = (maximize("accuracy"), minimize("params"), minimize("macs"))[:objectives]
    study = Study(name="s", space=SPACE, strategy=strategy, objectives=goals)
    made = proposer(study, study.open_space(), 0, price)
    assert isinstance(made, Shadow)
    return made


def scores(proposal: Proposal, objectives: int = 2) -> tuple[float, ...]:
    """More heads in more stages are better and cost more."""
    heads = sum(int(str(value)) for name, value in proposal.params.items() if name.endswith("heads"))
    return (heads / 8, 1000.0 + heads, 5.0)[:objectives]


@pytest.mark.parametrize("objectives", [1, 2, 3])
@pytest.mark.parametrize("strategy", [Evolution(trials=9, population=8, children=1), Tpe(trials=9)], ids=str)
def test_a_shadow_stays_small_however_long_the_study(strategy: Evolution | Tpe, objectives: int) -> None:
    made = shadow(strategy, objectives)
    made.every = 60
    made.best, made.recent = min(made.best, 40), min(made.recent, 40)
    for _ in range(300):
        proposal = made.propose()
        assert proposal is not None
        made.told(proposal, scores(proposal, objectives))
    assert made._optuna is not None
    assert len(made._optuna.get_trials(deepcopy=False)) <= 60 + 80


def test_a_resumed_evolution_breeds_from_the_best_of_before() -> None:
    made, rng = shadow(Evolution(trials=9, population=8, children=1)), random.Random(0)
    for index in range(100):
        made.remember(Proposal(made.space.draw(rng), 0), (index / 100, 1000.0))
    proposal = made.propose()
    assert proposal is not None and made._optuna is not None
    trials = made._optuna.get_trials(deepcopy=False)
    assert sorted(trial.values[0] for trial in trials[:-1]) == [index / 100 for index in range(92, 100)]
    assert trials[-1].system_attrs[GENERATIONS[0]] == 1, "it is a child of the eight best, and no random draw"


def test_results_of_proposals_from_before_a_renewal_are_not_lost() -> None:
    made = shadow(Evolution(trials=9, population=4, children=1))
    made.every = 5
    early = made.propose()
    assert early is not None
    for _ in range(12):
        proposal = made.propose()
        assert proposal is not None
        made.told(proposal, scores(proposal))
    made.told(early, (0.99, 1.0))
    assert made._optuna is not None
    assert any(trial.values == [0.99, 1.0] for trial in made._optuna.get_trials(deepcopy=False) if trial.values)


def test_refused_proposals_turn_to_random_draws_and_back() -> None:
    made = shadow(Evolution(trials=9, children=1))
    made.patience = 3
    for _ in range(3):
        proposal = made.propose()
        assert proposal is not None and proposal.token > 0
        made.told(proposal, None)
    drawn = made.propose()
    assert drawn is not None and drawn.token == -1 and drawn.memory is not None
    assert drawn.memory["params"].keys() == made.space.parameters.keys()
    made.told(drawn, (0.5, 1.0))
    again = made.propose()
    assert again is not None and again.token > 0


def test_a_row_of_another_strategy_is_remembered_with_what_it_left_open_drawn() -> None:
    made = shadow(Tpe(trials=9))
    chosen = made.space.draw(random.Random(0), {"stages.2.attention": "none", "stages.3.attention": "none"})
    for memory in (None, {}, {"params": {"another": 1}}):
        made.remember(Proposal(chosen, 0, memory), (1.0, 1.0))
    assert all(params.keys() == made.space.parameters.keys() for params, _ in made._past)
    assert all(made.space.active(params) == chosen for params, _ in made._past) and len(made._past) == 3


def ranks(points: list[list[float]]) -> list[int]:
    """Non-dominated sorting by its definition."""

    def beats(one: list[float], other: list[float]) -> bool:
        return all(a <= b for a, b in zip(one, other, strict=True)) and one != other

    found, left, rank = [0] * len(points), set(range(len(points))), 0
    while left:
        front = {i for i in left if not any(beats(points[j], points[i]) for j in left)}
        for index in front:
            found[index] = rank
        left, rank = left - front, rank + 1
    return found


@settings(max_examples=80, deadline=None, derandomize=True)
@given(st.lists(st.lists(st.integers(0, 5), min_size=2, max_size=2), min_size=1, max_size=12))
def test_the_fittest_come_front_by_front(points: list[list[float]]) -> None:
    order, rank = fittest(points), ranks(points)
    assert sorted(order) == list(range(len(points)))
    assert [rank[place] for place in order] == sorted(rank)


def test_within_a_front_the_lonely_come_first() -> None:
    points = [[0.0, 10.0], [10.0, 0.0], [4.9, 5.1], [5.0, 5.0], [9.0, 2.0]]
    order = fittest(points)
    assert set(order[:2]) == {0, 1} and order[-1] == 3
    assert fittest([]) == []


@pytest.mark.parametrize(
    ("domain", "found"),
    [
        (("none", "se", 3, None), CategoricalDistribution(("none", "se", 3, None))),
        (Span(1, 9, step=2), IntDistribution(1, 9, step=2)),
        (Span(1, 64, log=True, step=1), IntDistribution(1, 64, log=True)),
        (Span(0.5, 8.0, log=True), FloatDistribution(0.5, 8.0, log=True)),
        (Span(0.0, 1.0, step=0.25), FloatDistribution(0.0, 1.0, step=0.25)),
    ],
)
def test_domains_as_optuna_knows_them(domain: tuple[object, ...] | Span, found: object) -> None:
    assert distribution(domain) == found  # type: ignore[arg-type]


def cells(space: object) -> Callable[[], Cells]:
    study = Study(name="s", space=space, strategy=Exhaustive())  # type: ignore[arg-type]
    return lambda: Cells(study, study.open_space())


def test_designs_that_cannot_be_listed_are_refused() -> None:
    with pytest.raises(SpaceError, match="is continuous and cannot be enumerated"):
        cells(SPACE)()
    large = vary(ResNet, width=span(0.5, 4.0, step=0.00001))
    with pytest.raises(StudyError, match=r"Exhaustive\(\) over 3\.5e\+05 configs: more than 100,000; use Random"):
        cells(large)()
