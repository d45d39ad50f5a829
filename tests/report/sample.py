"""A study as a user would have it, with made-up results: what the report's tests and screenshots look at."""

import math
import random
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

from harness.config import ExpAtt, ResNet, SqueezeExcite, Training
from harness.cost import Shape, network_cost
from harness.errors import HarnessError
from harness.key import trial_key
from harness.record import Epoch, Record, State
from harness.space import choose, span, vary
from harness.study import Evolution, Study, SuccessiveHalving, at_most

attention = choose(
    None,
    vary(SqueezeExcite, ratio=choose(4, 8, 16)),
    vary(
        ExpAtt,
        kernel=choose("gaussian", "laplacian", "cauchy"),
        radius=span(0.5, 8.0, log=True),
        radius_per="head",
        heads=choose(1, 2, 4, 8),
    ),
)
STUDY = Study(
    name="expatt-kernels-cifar10",
    question="Does the kernel function matter once its radius is learned?",
    space=vary(ResNet, depth=choose(14, 20, 26, 32), stages=(None, attention, attention)),
    training=Training(dataset="cifar10", epochs=20, precision="bf16"),
    strategy=Evolution(trials=60),
    stopping=SuccessiveHalving(first_rung=2),
    constraints=(at_most("macs", 80e6),),
)
ATTRIBUTES: dict[str, Any] = {
    "created": "2025-06-03T09:12:44+00:00",
    "data": {
        "dataset": "cifar10",
        "fingerprint": "9f2c41d07ab3",
        "classes": 10,
        "shape": [3, 32, 32],
        "train": 50000,
        "test": 10000,
    },
    "provenance": {"commit": "f4ed666", "versions": {"python": "3.11.9", "torch": "2.15.0", "ray": "2.60.0"}},
}
START = datetime(2025, 6, 3, 9, 13, tzinfo=UTC)


def records(total: int = 60, seed: int = 3) -> list[Record]:
    """So many trials: most complete, some failed, stopped and running."""
    made = draws(seed)
    return [record(number, *next(made), random.Random(seed + number)) for number in range(total)]


def draws(seed: int) -> Iterator[tuple[dict[str, Any], Any]]:
    """Parameters and config of valid draws."""
    space, rng = STUDY.open_space(), random.Random(seed)
    while True:
        params = space.draw(rng)
        try:
            yield params, space.config(params)
        except HarnessError:
            continue


def record(number: int, params: dict[str, Any], config: Any, rng: random.Random) -> Record:
    """A made-up trial: deeper is better, attention helps a little, the last one in particular, and some luck."""
    cost = network_cost(config.network, Shape(3, 32, 32, 10))
    gains = {"none": 0.0, "se": 0.004, "expatt": 0.009}
    gain = gains[params["stages.2.attention"]] + 1.6 * gains[params["stages.3.attention"]]
    final = 0.9 + 0.012 * math.log2(config.network.depth / 14) + gain + rng.gauss(0, 0.003)
    state: State = "failed" if number % 29 == 11 else "stopped" if number % 17 == 8 else "complete"
    state = "running" if number == 59 else state
    epochs = {"failed": 0, "stopped": 6, "running": 3, "complete": 20}[state]
    seconds = cost.macs / 5e6 * rng.uniform(0.95, 1.1)
    curve = tuple(point(epoch, final, seconds, rng, starts(params)) for epoch in range(1, epochs + 1))
    started = START + timedelta(minutes=4 * number)
    return Record(
        number=number,
        state=state,
        params=params,
        key=trial_key(config, 0, "9f2c41d07ab3"),
        seed=0,
        config_json=config.model_dump(mode="json"),
        costs={"params": cost.params, "macs": cost.macs},
        metrics={}
        if state != "complete"
        else {"accuracy": curve[-1].accuracy, "loss": curve[-1].loss, "seconds": seconds * 20 + 2},
        curve=curve,
        epochs=epochs,
        device="NVIDIA H200",
        provenance={
            "commit": "f4ed666",
            "host": f"node{number % 2 + 1}",
            "threads": 1,
            "precision": "bf16",
            "versions": {"python": "3.11.9", "torch": "2.15.0", "ray": "2.60.0", "optuna": "5.0.0"},
        },
        reason={
            "failed": "OutOfMemoryError: CUDA out of memory",
            "stopped": "stopped early at epoch 6: 9th of 14 at this rung, room for 4",
        }.get(state, ""),
        traceback="Traceback (most recent call last):\n  ...\nOutOfMemoryError: CUDA out of memory"
        if state == "failed"
        else "",
        started=started,
        ended=None if state == "running" else started + timedelta(seconds=seconds * 20),
    )


def starts(params: dict[str, Any]) -> dict[str, tuple[float, int]]:
    """Radius and heads of each place with ExpAtt, as the first block of its stage."""
    stages = [stage for stage in (2, 3) if params[f"stages.{stage}.attention"] == "expatt"]
    found = {stage: (params[f"stages.{stage}.expatt.radius"], params[f"stages.{stage}.expatt.heads"]) for stage in stages}
    return {f"{stage}.1": start for stage, start in found.items()}


def learned(start: float, head: int, epoch: int) -> float:
    """A radius on its way from its start to the root of twice the start, a little apart for each head."""
    end = math.sqrt(2 * start) * (1 + 0.1 * head)
    return round(end + (start - end) * math.exp(-epoch / 5), 5)


def point(
    epoch: int, final: float, seconds: float, rng: random.Random, places: dict[str, tuple[float, int]] | None = None
) -> Epoch:
    share = 1 - math.exp(-epoch / 4.5)
    accuracy = min(
        0.35 + (final - 0.35) * share / (1 - math.exp(-20 / 4.5)) + rng.gauss(0, 0.004 * (1.2 - epoch / 20)), 0.99
    )
    loss = 2.6 * (1 - accuracy) + 0.08
    radii = {
        place: tuple(learned(start, head, epoch) for head in range(heads))
        for place, (start, heads) in (places or {}).items()
    }
    return Epoch(epoch, round(accuracy, 4), round(loss, 4), round(loss * 1.15, 4), seconds, radii=radii)
