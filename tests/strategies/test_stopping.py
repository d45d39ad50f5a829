"""Who goes on from a rung: fronts first, extremes always, equal points alike; and what a ladder remembers."""

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from harness.config import Config, ResNet, Training
from harness.record import Epoch, Record
from harness.strategies.stopping import Ladder, Point, ordered, ordinal, place, recalled, so_far
from harness.study import LATE, METRICS, TESTED, Asha, Objective, Random, Study, SuccessiveHalving, maximize, minimize
from tests.strategies.test_proposers import ranks

THREE = (maximize("accuracy"), minimize("params"), minimize("macs"))
CONFIG = Config(network=ResNet(depth=8), training=Training(epochs=10)).model_dump(mode="json")


def curve(*accuracies: float) -> tuple[Epoch, ...]:
    return tuple(Epoch(epoch, accuracy, 1 - accuracy, 1.0, 2.0) for epoch, accuracy in enumerate(accuracies, start=1))


def costs(size: float) -> dict[str, int]:
    return {"params": int(size), "macs": int(10 * size)}


def record(number: int, accuracies: Sequence[float], size: float = 100, state: Any = "complete", **more: Any) -> Record:
    return Record(number, state, {}, f"k{number}", 0, CONFIG, costs(size), curve=curve(*accuracies), **more)


def filled(rule: Any, trials: Sequence[tuple[float, float]], objectives: Sequence[Objective] = THREE) -> Ladder:
    """Trials of an accuracy and a size, at the first rung."""
    ladder = Ladder(rule, objectives)
    for index, (accuracy, size) in enumerate(trials):
        ladder.reached(f"k{index}", 10, curve(accuracy), costs(size))
    return ladder


# -- ranks


points = st.integers(1, 3).flatmap(
    lambda width: st.lists(st.tuples(*[st.integers(0, 4).map(float)] * width), min_size=1, max_size=14)
)


@settings(max_examples=150, deadline=None, derandomize=True)
@given(points)
def test_the_order_is_front_by_front_and_places_agree_with_it(found: list[Point]) -> None:
    order = list(ordered(found))
    assert sorted(order) == list(range(len(found)))
    fronts = ranks([list(point) for point in found])
    assert [fronts[index] for index in order] == sorted(fronts)
    first = {point: at for at, point in reversed([*enumerate((found[index] for index in order), start=1)])}
    assert [place(found, index) for index in range(len(found))] == [first[point] for point in found]


@settings(max_examples=100, deadline=None, derandomize=True)
@given(st.lists(st.integers(0, 9), min_size=1, max_size=20))
def test_one_objective_is_ranked_by_its_value(found: list[int]) -> None:
    alone = [(float(value),) for value in found]
    assert [place(alone, index) for index in range(len(alone))] == [
        1 + sum(other < value for other in found) for value in found
    ]


@settings(max_examples=100, deadline=None, derandomize=True)
@given(points)
def test_no_scale_changes_a_place(found: list[Point]) -> None:
    stretched = [tuple(math.exp(value) * 10**column for column, value in enumerate(point)) for point in found]
    assert list(ordered(found)) == list(ordered(stretched))


def test_a_front_is_told_by_its_extremes_and_then_by_who_is_farthest() -> None:
    front = [(float(x), float(10 - x)) for x in (3, 0, 1, 10, 5, 9)]
    assert list(ordered(front)) == [1, 3, 0, 2, 4, 5]  # x = 0 and 10, then 3, which is in the middle by rank
    assert list(ordered([])) == []


# -- verdicts


def test_nobody_is_stopped_before_the_quorum() -> None:
    rule = Asha(quorum=5)
    falling = [(0.9 - 0.1 * index, 100.0) for index in range(5)]
    assert filled(rule, falling[:4]).verdict("k3", 1) == ""
    assert filled(rule, falling).verdict("k4", 1) == "stopped early at epoch 1: 5th of 5 at this rung, room for 1"


def test_a_small_network_is_not_stopped_for_being_less_accurate() -> None:
    large = [(0.8 + 0.01 * index, 1000.0) for index in range(8)]
    trials = [*large, (0.3, 10.0)]
    assert filled(SuccessiveHalving(), trials).verdict("k8", 1) == ""
    assert "9th of 9" in filled(Asha(), trials).verdict("k8", 1)
    beaten = [*trials, (0.2, 11.0)]
    assert filled(SuccessiveHalving(), beaten).verdict("k9", 1) != ""


def test_asha_ranks_by_the_first_learned_objective() -> None:
    objectives = (minimize("params"), minimize("loss"), maximize("accuracy"))
    falling = [(0.9 - 0.1 * index, 100.0 - index) for index in range(6)]
    assert [filled(Asha(), falling, objectives).verdict(f"k{index}", 1) == "" for index in range(6)] == [True, True] + [
        False
    ] * 4


sizes = st.lists(st.tuples(st.integers(0, 6).map(lambda tenths: tenths / 10), st.integers(1, 5)), min_size=2, max_size=20)


@settings(max_examples=150, deadline=None, derandomize=True)
@given(trials=sizes, factor=st.integers(2, 4), quorum=st.integers(2, 8))
def test_who_goes_on(trials: list[tuple[float, float]], factor: int, quorum: int) -> None:
    rule = SuccessiveHalving(reduction_factor=factor, quorum=quorum)
    ladder = filled(rule, trials)
    on = [not ladder.verdict(f"k{index}", 1) for index in range(len(trials))]
    assert all(on) or len(trials) >= quorum
    best = {max(trials, key=lambda trial: (trial[0], -trial[1])), min(trials, key=lambda trial: (trial[1], -trial[0]))}
    assert all(on[trials.index(trial)] for trial in best), "the best on each objective goes on"
    room = max(len(trials) // factor, len(THREE))
    assert len(trials) < quorum or len({trials[index] for index in range(len(trials)) if on[index]}) <= room
    equal = {trial: going for trial, going in zip(trials, on)}
    assert [equal[trial] for trial in trials] == on, "equal trials are treated alike"


def test_a_trial_is_ranked_by_what_it_had_measured_at_the_rung() -> None:
    one, other = (Ladder(Asha(quorum=2), THREE) for _ in range(2))
    for ladder in (one, other):
        ladder.reached("a", 10, curve(0.5), costs(1))
    one.reached("b", 10, curve(0.4), costs(1))
    other.reached("b", 10, curve(0.4, 0.9, 0.9, 0.9), costs(1))  # its message came late, with more epochs
    assert one.verdict("b", 1) == other.verdict("b", 1) != ""
    assert other.verdict("b", 3) == ""


def test_without_a_rule_everybody_goes_on() -> None:
    ladder = Ladder(None, THREE)
    assert ladder.rungs(100) == ()
    ladder.recall(record(0, [0.1] * 3))
    assert list(ladder.best()) == [] and ladder.saved == 0


def test_a_stopped_trial_is_expected_to_grow_as_others_did() -> None:
    ladder = Ladder(SuccessiveHalving(), THREE)
    stopped = curve(0.2)
    assert ladder.expected(THREE[0], stopped, costs(7), 4) == 0.2, "nobody has ended yet: as it is"
    for key, final in (("a", 0.4), ("b", 0.9), ("c", 0.6)):
        ladder.reached(key, 4, curve(0.2, 0.3, 0.3, final), costs(1))
    assert ladder.expected(THREE[0], stopped, costs(7), 4) == pytest.approx(0.6), "three times: the median"
    assert ladder.expected(minimize("loss"), stopped, costs(7), 4) == pytest.approx(0.8 * 0.4 / 0.8)
    assert [ladder.expected(o, stopped, costs(7), 4) for o in THREE[1:]] == [7, 70], "costs are exact"


# -- what is remembered


def study(rule: Any = Asha(quorum=2)) -> Study:  # noqa: B008
    return Study(name="s", space=ResNet(depth=8), strategy=Random(trials=9), stopping=rule)


def test_all_that_reached_a_rung_count_whatever_became_of_them() -> None:
    rows = [
        record(index, [0.9] * 3, state=state) for index, state in enumerate(("complete", "failed", "running", "stopped"))
    ]
    ladder = recalled(study(), [*rows, record(4, [])])
    ladder.reached("new", 10, curve(0.1), costs(1))
    assert "5th of 5" in ladder.verdict("new", 1)
    again = replace(record(5, [0.9] * 3), key="k1", replaces=1)
    ladder.recall(again)
    assert "5th of 5" in ladder.verdict("new", 1), "a trial that was run twice counts once"


def test_the_best_to_promote_have_come_farthest_and_then_rank_best() -> None:
    rows = [
        record(0, [0.5], state="stopped"),
        record(1, [0.6], state="stopped"),
        record(2, [0.1, 0.2, 0.3], state="stopped"),
        record(3, [0.9] * 10),
        record(4, [0.1, 0.2, 0.4], state="stopped"),
    ]
    ladder = recalled(study(), rows)
    assert list(ladder.best()) == [4, 2, 1, 0]
    assert ladder.saved == 9 + 9 + 7 + 7
    ladder.recall(record(5, [0.1, 0.2, 0.4], state="running", promotes=4))
    assert list(ladder.best()) == [2, 1, 0] and ladder.saved == 9 + 9 + 7 and ladder.promoted == {4}


def test_the_best_to_promote_cover_the_front_of_those_stopped() -> None:
    found = [(0.5, 50), (0.9, 90), (0.1, 10), (0.4, 60)]
    rows = [record(index, [accuracy], size, "stopped") for index, (accuracy, size) in enumerate(found)]
    assert list(recalled(study(SuccessiveHalving()), rows).best()) == [1, 2, 0, 3]


def test_metrics_are_known_before_the_end_but_for_those_that_are_refused() -> None:
    early = [metric for metric in METRICS if metric not in (*LATE, *TESTED)]
    points = [replace(point, top5=0.9) for point in curve(0.1, 0.2)]
    found = {metric: so_far(metric, points, costs(5), epochs=10) for metric in early}
    assert found == {"accuracy": 0.2, "top5": 0.9, "loss": 0.8, "params": 5.0, "macs": 50.0, "seconds": 20.0}


@pytest.mark.parametrize(
    ("number", "words"), [(1, "1st"), (2, "2nd"), (3, "3rd"), (11, "11th"), (22, "22nd"), (113, "113th")]
)
def test_ordinals(number: int, words: str) -> None:
    assert ordinal(number) == words
