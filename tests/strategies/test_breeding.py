"""Children: always in the space, never taken, never over a constraint; and the one that is chosen adds most to the front."""

import math
import random
from collections import Counter
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from optuna.samplers import GPSampler, NSGAIIISampler, NSGAIISampler

from harness.config import Config, ResNet, SqueezeExcite
from harness.cost import Cost
from harness.errors import ConfigError
from harness.space import Domain, Span, choose, vary
from harness.strategies.auto import picked, words
from harness.strategies.breeding import Child, Forest, Guess, Nursery, Process, farthest, moved, promising
from harness.strategies.proposers import Bred, Draws, Proposal, Shadow, proposer, whole
from harness.study import Auto, Bayesian, Evolution, Objective, Random, Study, maximize, minimize
from tests.strategies.slots import SLOT, price

SPACE = vary(ResNet, depth=8, width=choose(1.0, 2.0), stages=(None, SLOT, SLOT))
GOALS = (maximize("accuracy"), minimize("params"), minimize("macs"))


def study(strategy: Any = Evolution(trials=99), goals: tuple[Objective, ...] = GOALS, space: Any = SPACE) -> Study:  # noqa: B008
    return Study(name="s", space=space, strategy=strategy, objectives=goals)


domains = st.sampled_from(
    [
        ("none", "se", 3),
        (True, 1.0),
        Span(1, 9, step=2),
        Span(1, 64, log=True, step=1),
        Span(0.5, 8.0, log=True),
        Span(0.0, 1.0, step=0.25),
        Span(-1.0, 2.5),
    ]
)


@settings(max_examples=200, deadline=None, derandomize=True)
@given(domain=domains, seed=st.integers(0, 10**6))
def test_a_mutation_stays_in_its_domain(domain: Domain, seed: int) -> None:
    rng = random.Random(seed)
    value = domain.draw(rng) if isinstance(domain, Span) else rng.choice(domain)
    found = moved(domain, value, rng)
    if isinstance(domain, Span):
        assert domain.holds(found)
    else:
        assert found in domain and (type(found), found) != (type(value), value)


def test_children_differ_are_not_taken_and_cost_what_they_may() -> None:
    def bounded(config: Config) -> Cost:
        if price(config).params > 200_000:
            raise ConfigError("too large")
        return price(config)

    space, rng = study().open_space(), random.Random(0)
    nursery = Nursery(space, bounded)
    first = nursery.children([], rng, 30, set())
    taken = {child.name for child in first}
    bred = nursery.children([child.params for child in first[:3]], rng, 30, taken)
    for child in (*first, *bred):
        config = space.config(child.params)
        assert child.costs == price(config)._asdict() and child.costs["params"] <= 200_000
        assert child.params.keys() == space.parameters.keys()
    assert len({child.name for child in (*first, *bred)}) == len(first) + len(bred) > 40


def child(params: float, name: str = "c", mark: float = 0.0) -> Child:
    return Child(f"{name}{params}", {}, (math.log(params), mark), {"params": int(params), "macs": int(10 * params)})


@pytest.mark.parametrize("model", [Process, Forest])
def test_the_child_that_adds_most_is_chosen_by_what_is_expected_and_exact_costs(model: type[Guess]) -> None:
    trials = [
        (child(10.0**size, mark=mark), (0.5 + 0.3 * mark, 10.0**size, 10.0 ** (size + 1)))
        for size in (2, 3, 4)
        for mark in (0, 1)
    ] * 3
    guess = model(study(), trials, seed=0)
    better, cheap, beaten = child(1000.0, "better", 1.0), child(5.0, "cheap", 0.0), child(10_000.0, "beaten", 0.0)
    expected, _ = guess.expected([better, beaten], [cheap])
    assert expected[0][0] == pytest.approx(-0.8, abs=0.05) and expected[1][0] == pytest.approx(-0.5, abs=0.05)
    assert expected[0][1] == pytest.approx(math.log(1001)), "costs are exact"
    assert promising(guess, [beaten, better, cheap], []) is cheap
    waiting = [child(4.0, "waiting", 0.0)]
    assert promising(guess, [cheap, child(9.0, "other", 1.0)], waiting).name == "other9.0", (
        "what is being trained counts already"
    )


def test_where_nothing_adds_anything_the_nearest_to_the_front_is_chosen() -> None:
    trials = [(child(10.0, mark=mark), (0.5 + 0.3 * mark, 10.0, 100.0)) for mark in (0, 1)] * 6
    better, beaten = child(1000.0, "better", 1.0), child(10_000.0, "beaten", 0.0)
    assert promising(Forest(study(), trials, seed=0), [beaten, better], []) is better


def test_before_the_first_trial_a_search_goes_by_costs_alone() -> None:
    children = [child(10.0**size, str(size)) for size in (2, 3, 4)]
    chosen = Counter(promising(Process(study(), [], seed), children, []).name for seed in range(60))
    assert chosen["2100.0"] >= 30 > max(chosen["31000.0"], chosen["410000.0"]), "the cheapest of those that look alike"


def test_draws_of_what_was_never_tried_differ_more() -> None:
    trials = [(child(100.0, mark=mark), (0.5 + 0.1 * mark, 100.0, 1000.0)) for mark in (0, 1)] * 4
    near, far = child(100.0, "near", 1.0), child(10.0**6, "far", 5.0)
    drawn = np.array([Process(study(), trials, seed).expected([], [near, far])[1][:, 0] for seed in range(100)])
    assert drawn[:, 1].std() > 2 * drawn[:, 0].std()


def test_a_search_begins_with_configs_that_are_far_apart() -> None:
    sizes = [child(size) for size in (10.0, 90.0, 100.0, 1000.0)]
    assert farthest(sizes, []) is sizes[0]
    assert farthest(sizes[1:], sizes[:1]) is sizes[3]
    assert farthest(sizes[1:3], [sizes[0], sizes[3]]) in sizes[1:3]


def test_proposals_made_side_by_side_differ_and_failed_ones_do_not_come_again() -> None:
    made = proposer(study(Evolution(trials=99, population=4, children=16)), study().open_space(), 0, price)
    assert isinstance(made, Bred)
    seen = []
    for turn in range(5):
        together = [made.propose() for _ in range(4)]
        for number, proposal in enumerate(together):
            assert proposal is not None
            seen.append(made.nursery.child(proposal.memory["params"]))  # type: ignore[index]
            costs = seen[-1].costs  # type: ignore[union-attr]
            made.told(proposal, None if number == 3 else (0.5 + turn / 10, costs["params"], costs["macs"]))
    assert len({one.name for one in seen if one}) == 20


def test_an_exhausted_space_ends() -> None:
    small = vary(ResNet, depth=8, stages=(None, choose(None, SqueezeExcite(ratio=4)), choose(None, SqueezeExcite(ratio=2))))
    made = proposer(study(space=small), study(space=small).open_space(), 0, price)
    seen = set()
    proposals = 0
    while (proposal := made.propose()) is not None:
        proposals += 1
        known = repr(proposal.params) in seen
        seen.add(repr(proposal.params))
        made.told(proposal, None if known else (0.5, 1.0, 1.0))
    assert len(seen) == 4 and proposals < 200


def test_who_proposes_by_strategy_and_objectives() -> None:
    four = (*GOALS, minimize("seconds"))

    def sampler(strategy: Any, goals: tuple[Objective, ...]) -> Any:
        one = study(strategy, goals)
        made = proposer(one, one.open_space(), 0, price)
        return type(made.sampler(0)) if isinstance(made, Shadow) else type(made)

    assert sampler(Evolution(trials=9), GOALS) is Bred
    assert sampler(Evolution(trials=9, children=1), GOALS) is NSGAIISampler
    assert sampler(Evolution(trials=9), four) is NSGAIIISampler
    assert sampler(Bayesian(trials=9), GOALS) is GPSampler
    assert sampler(Auto(trials=99), GOALS) is Bred and sampler(Auto(trials=99), four) is NSGAIIISampler
    assert sampler(Auto(trials=3), GOALS) is Draws


def test_nsga3_and_the_gaussian_process_are_asked_and_told() -> None:
    for strategy, goals in (
        (Evolution(trials=9, population=4), (*GOALS, minimize("seconds"))),
        (Bayesian(trials=9), GOALS[:2]),
    ):
        one = study(strategy, goals)
        made = proposer(one, one.open_space(), 0, price)
        for turn in range(12):
            proposal = made.propose()
            assert proposal is not None
            made.told(proposal, (turn / 20, 1.0 + turn % 3, 2.0, 3.0)[: len(goals)])


@pytest.mark.parametrize(
    ("trials", "space", "kind", "why"),
    [
        (8, vary(ResNet, depth=8, width=choose(1.0, 2.0)), Random, "8 trials are enough for all 2 configs"),
        (5, SPACE, Random, "5 trials are too few to learn from"),
        (60, SPACE, Evolution, "60 trials among endlessly many configs, each the most promising"),
    ],
)
def test_auto_says_why(trials: int, space: Any, kind: type, why: str) -> None:
    asked = Auto(trials=trials)
    one = study(asked, space=space)
    strategy, reason = picked(asked, one, one.open_space())
    assert type(strategy) is kind and strategy.trials == trials and why in reason
    assert words(one, one.open_space()) == (f"Auto picked {reason}",)
    assert words(study(), study().open_space()) == ()


def test_what_another_search_left_is_learned_from() -> None:
    made = proposer(study(Evolution(trials=99, population=3, children=8)), study().open_space(), 0, price)
    assert isinstance(made, Bred)
    rng = random.Random(0)
    for index in range(4):
        made.remember(Proposal(made.space.active(made.space.draw(rng)), 0), (0.1 * index, 1e5, 1e6))
    assert len(made._trials) == 4 and made._parents()[0] == whole(made.space, made._trials[3][0])
    proposal = made.propose()
    assert proposal is not None and proposal.params not in [one.params for one, _ in made._trials]
