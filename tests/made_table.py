"""A finished study whose trials were never trained: what they measured is a formula of their choices."""

import math
import random
from collections.abc import Callable
from typing import Any

from harness.config import Config, Training
from harness.cost import Cost, Shape, network_cost
from harness.data.pictures import DataInfo
from harness.errors import ConfigError
from harness.key import trial_key
from harness.record import Epoch, Record
from harness.simulate import Table
from harness.space import Params
from harness.study import Exhaustive, Study, maximize, minimize

INFO = DataInfo("digits", "f1", Shape(3, 16, 16, 10), 100, 10)
TRAINING = Training(epochs=9, precision="fp32", augment="none", loading="resident", compile=False)
GOALS = (maximize("accuracy"), minimize("params"), minimize("macs"))
Formula = Callable[[Params], float]


def price(config: Config) -> Cost:
    return network_cost(config.network, INFO.shape, lambda *_: Cost(0, 0))


def study_of(space: Any, **fields: Any) -> Study:
    given: dict[str, Any] = {"name": "made", "training": TRAINING, "strategy": Exhaustive(), "objectives": GOALS}
    return Study(space=space, **given | fields)


def curve(final: float, epochs: int = 9) -> tuple[Epoch, ...]:
    """Rises to its final accuracy, a second an epoch."""
    rising = [0.1 + (final - 0.1) * math.sqrt(epoch / epochs) for epoch in range(1, epochs + 1)]
    return tuple(Epoch(epoch, value, 1 - value, 1.0, 1.0) for epoch, value in enumerate(rising, start=1))


def records(study: Study, formula: Formula, noise: float = 0.0) -> list[Record]:
    """Every config of the study with every seed."""
    space, found, seen = study.open_space(check=False), list[Record](), set[str]()
    for params in space.enumerate():
        try:
            config = space.config(params)
        except ConfigError:
            continue
        for seed in study.seeds:
            key = trial_key(config, seed, "f1")
            if key not in seen:
                seen.add(key)
                final = formula(params) + noise * random.Random(key).gauss(0, 1)
                measured = {"accuracy": final, "loss": 1 - final, "seconds": 9.0}
                plain, costs = config.model_dump(mode="json"), price(config)._asdict()
                record = Record(
                    len(found), "complete", params, key, seed, plain, costs, measured, curve=curve(final), epochs=9
                )
                found.append(record)
    return found


def made(space: Any, formula: Formula, noise: float = 0.0, seeds: tuple[int, ...] = (0, 1)) -> Table:
    study = study_of(space, seeds=seeds)
    return Table("made", study, INFO, records(study, formula, noise))
