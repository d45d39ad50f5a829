"""What is left of a search's findings when they are trained again: the winner's curse.

The best of many are partly the luckiest, so that a front promises more than its configs reach with other seeds. The loss is
the mean over the configs of what the search said less what fresh seeds find; its interval is Student's t over the seeds,
of which each gives one mean over all configs, so that what configs share in a seed is not counted twice.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from harness.analysis.effects import half_width


@dataclass(frozen=True)
class Loss:
    """How much worse fresh seeds are than promised, in the metric's own unit; negative where they are better."""

    mean: float
    low: float
    high: float
    """95 % confidence interval; everything with a single seed."""
    configs: int
    seeds: tuple[int, ...]


def loss(
    promised: Mapping[str, float], again: Mapping[str, Mapping[int, float]], *, larger_is_better: bool = True
) -> Loss | None:
    """The winner's curse: `promised` by config, and what was found `again` by config and fresh seed.

    It rests on the configs that have both and on the seeds that they share; None where there is none."""
    import numpy as np

    configs = [name for name in promised if again.get(name)]
    seeds = sorted(set.intersection(*(set(again[name]) for name in configs))) if configs else []
    if not seeds:
        return None
    table = np.array([[promised[name] - again[name][seed] for seed in seeds] for name in configs])
    by_seed = table.mean(axis=0) * (1 if larger_is_better else -1)
    mean, half = float(by_seed.mean()), half_width(list(map(float, by_seed)))
    return Loss(mean, mean - half, mean + half, len(configs), tuple(seeds))
