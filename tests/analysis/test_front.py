import random
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.analysis.front import front, measured
from harness.record import Record
from harness.study import Objective, maximize, minimize

AIMS = (maximize("accuracy"), minimize("params"), minimize("loss"))


def record(number: int, state: str = "complete", **metrics: float) -> Record:
    costs = {"params": int(metrics.pop("params"))} if "params" in metrics else {}
    return Record(number, state, {}, f"k{number}", 0, {}, costs, metrics)  # type: ignore[arg-type]


def naive(records: list[Record], objectives: tuple[Objective, ...]) -> list[Record]:
    """The definition, word by word."""
    complete = [one for one in records if one.state == "complete"]
    losses = {one.number: [aim.sign * measured(one, aim.metric) for aim in objectives] for one in complete}

    def beats(one: Record, other: Record) -> bool:
        pairs = list(zip(losses[one.number], losses[other.number]))
        return all(a <= b for a, b in pairs) and any(a < b for a, b in pairs)

    return [one for one in complete if not any(beats(other, one) for other in complete)]


points = st.tuples(st.sampled_from([0.5, 0.9, 0.91]), st.integers(1, 4), st.sampled_from([0.1, 0.2, 3.0]))
states = st.sampled_from(["complete", "complete", "complete", "stopped", "failed", "running"])


@given(st.lists(st.tuples(points, states), max_size=25), st.permutations(AIMS), st.integers(1, 3))
def test_is_what_the_definition_says(drawn, order, count):
    records = [
        record(number, state, accuracy=accuracy, params=params, loss=loss)
        for number, ((accuracy, params, loss), state) in enumerate(drawn)
    ]
    assert front(records, order[:count]) == naive(records, tuple(order[:count]))


@given(st.lists(st.tuples(*[st.floats(0, 1)] * 3), max_size=40))
def test_is_what_the_definition_says_of_any_numbers(drawn):
    aims = (maximize("accuracy"), minimize("loss"), minimize("seconds"))
    records = [record(n, accuracy=a, loss=b, seconds=c) for n, (a, b, c) in enumerate(drawn)]
    assert front(records, aims) == naive(records, aims)


def test_keeps_ties_and_the_order():
    records = [record(2, accuracy=0.9, params=5), record(0, accuracy=0.9, params=5), record(1, accuracy=0.8, params=5)]
    assert [one.number for one in front(records, AIMS[:2])] == [2, 0]


@pytest.mark.parametrize("state", ["running", "stopped", "failed"])
def test_holds_complete_trials_alone(state):
    records = [record(0, state, accuracy=0.99, params=1), record(1, accuracy=0.5, params=9)]
    assert [one.number for one in front(records, AIMS[:2])] == [1]


def test_leaves_out_what_lacks_an_objective():
    records = [record(0, params=1), record(1, accuracy=float("nan"), params=1), record(2, accuracy=0.1, params=9)]
    assert [one.number for one in front(records, AIMS[:2])] == [2]


@pytest.mark.parametrize("aims", [AIMS, AIMS[:1]])
def test_of_nothing_is_empty(aims):
    assert front([], aims) == []
    assert front([record(0, "failed")], aims) == []


def test_takes_a_hundred_thousand(capsys):
    rng = random.Random(0)
    records = [record(n, accuracy=rng.random(), params=rng.randrange(10**6), loss=rng.random()) for n in range(100_000)]
    started = time.perf_counter()
    found = front(records, AIMS)
    with capsys.disabled():
        print(f"\nfront of 100,000 x 3: {time.perf_counter() - started:.2f} s, {len(found)} on it")
    assert 0 < len(found) < 1000
