"""What a plan tells before anything runs: trials that are finished elsewhere, and the time of steps taken here."""

import math
from collections.abc import Callable
from pathlib import Path

import pytest

from harness.config import Config, ResNet, SqueezeExcite, Training
from harness.cost import Shape, network_cost
from harness.forecast import Clock
from harness.outlook import Timer
from harness.plan import make_plan
from harness.run import Options, run_study
from harness.space import choose, vary
from harness.study import Evolution, Exhaustive, Random, Study, minimize

SHAPE = Shape(1, 8, 8, 10)
SETTLED = Training(epochs=1, limit=10, batch_size=32, precision="fp32", compile=False)


class Steps:
    """A stopwatch that knows the answers: a millisecond a picture, and one more for each 1,000 MACs."""

    problem = ""

    def __init__(self) -> None:
        self.asked: list[int] = []

    def __call__(self, config: Config, macs: int) -> float | None:
        self.asked.append(macs)
        return 0.001 * (1 + macs / 1000)


def test_time_without_past_trials_is_that_of_the_steps_timed() -> None:
    clock, steps = Clock([]), Steps()
    config = Config(network=ResNet(depth=8), training=Training(epochs=10, validation=0.1))
    clock.ask(steps, [(config, 2000), (config, 1000), (config, 4000)], 1000)
    assert steps.asked == [1000, 4000], "the cheapest and the dearest alone"
    # a picture of 2,000 MACs takes 3 ms; of 1,000 pictures 900 are trained on and 100 passed forward, for a third
    assert clock.seconds(config, 2000) == pytest.approx(10 * 0.003 * (900 + 100 / 3))
    assert (
        clock.words([config])
        == "an estimate: steps of the cheapest and of the dearest network timed here, the others by MACs"
    )
    same = Clock([])
    same.ask(Steps(), [(config, 1000)], 1000)
    assert same.seconds(config, 1000) == pytest.approx(10 * 0.002 * (900 + 100 / 3))


def test_a_step_of_the_engines_own_loop_is_timed() -> None:
    config = Config(network=ResNet(depth=8, width=0.5), training=SETTLED)
    timer = Timer(SHAPE, 1)
    found = timer(config, network_cost(config.network, SHAPE).macs)
    assert found is not None and math.isfinite(found) and 0 < found < 1 and timer.problem == ""
    broken = Config(network=ResNet(depth=8, width=0.5), training=SETTLED.model_copy(update={"precision": "tf32"}))
    if timer(broken, 1000) is None:  # what no processor multiplies in: told, and the plan goes on without a time
        clock = Clock([])
        clock.ask(timer, [(broken, 1000)], 10)
        assert "a step could not be timed: Training.precision = 'tf32'" in clock.words([broken])
        assert clock.seconds(broken, 1000) is None


def test_a_plan_counts_what_would_be_taken_over(make_study: Callable[..., Study], storage: str, tmp_path: Path) -> None:
    attention = choose(None, SqueezeExcite(ratio=4))
    space = vary(ResNet, depth=8, width=0.5, stages=(None, None, attention))
    wider = vary(ResNet, depth=8, width=0.5, stages=(None, attention, attention))
    first = make_study(name="first", space=space, training=SETTLED, strategy=Exhaustive())
    assert make_plan(first, tmp_path, storage).reused == {}
    run_study(first, Options(storage=storage, backend="local"))

    def reused(**fields: object) -> dict[str, int]:
        return make_plan(
            make_study(**{"name": "more", "space": wider, "training": SETTLED, **fields}), tmp_path, storage
        ).reused

    assert reused(strategy=Exhaustive()) == {"first": 2}
    assert reused(strategy=Exhaustive(), seeds=(0, 1)) == {"first": 2}, "the other seed is trained"
    assert reused(strategy=Random(trials=4)) == {"first": 2}
    assert reused(strategy=Evolution(trials=4)) == {}, "what it will propose is not known yet"
    assert reused(strategy=Exhaustive(), objectives=(minimize("seconds"),)) == {}, "time tells of another hour"
    assert reused(strategy=Exhaustive(), training=SETTLED.model_copy(update={"lr": 0.3})) == {}
    assert make_plan(first, tmp_path, storage).reused == {}, "its own trials are its own"
    plan = make_plan(make_study(name="more", space=wider, training=SETTLED, strategy=Exhaustive()), tmp_path, storage)
    lines = list(plan.lines())
    assert "  2 trials would be taken over, not trained: 2 of first (--no-reuse trains all)" in lines
    assert any(line.startswith("time: ") and "by 2 past trials on these pictures" in line for line in lines)
