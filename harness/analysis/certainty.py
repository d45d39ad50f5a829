"""How sure a front is: the chance of each config to be on it, its hypervolume with an interval, and its knee.

Configs trained with several seeds are resampled by seed, all configs together, so that what seeds share stays shared.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from harness.analysis.effects import EffectError
from harness.analysis.front import knee

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Points = NDArray[np.float64]

RESAMPLES = 1_000
Cells = Mapping[str, Mapping[int, tuple[float, ...]]]
"""Config to seed to objectives, smaller is better in each."""


@dataclass(frozen=True)
class Certainty:
    """A front over configs as means of their seeds, and how it moves when other seeds are drawn."""

    front: tuple[str, ...]
    """The configs on the front of the means, by the first objective."""
    chance: Mapping[str, float]
    """Of each config to be on the front."""
    hypervolume: float
    low: float
    high: float
    """95 % interval of the hypervolume, by the percentiles of the resamples."""
    reference: tuple[float, ...]
    """The corner that the hypervolume is measured to: the worst seen in each objective and a tenth of the range more."""
    knee: str
    """The config on the front that is farthest from the line (or plane) through its ends."""
    stability: float
    """The share of resamples with the same knee."""
    seeds: tuple[int, ...]


def certainty(cells: Cells, *, resamples: int = RESAMPLES, seed: int = 0) -> Certainty:
    """The certainty of the front of `cells`, over the seeds that all configs have.

    Raises EffectError where they share none. With one seed every chance is 0 or 1: it tells nothing, and says so by
    an interval of no width."""
    import numpy as np

    if not cells:
        raise EffectError("there is no config to draw a front of")
    names = list(cells)
    shared = sorted(set.intersection(*(set(values) for values in cells.values())))
    if not shared:
        raise EffectError("the configs share no seed: a front with uncertainty needs every config at the same seeds")
    values = np.array([[cells[name][one] for one in shared] for name in names])  # configs, seeds, objectives
    means = values.mean(axis=1)
    flat = values.reshape(-1, values.shape[2])
    reach = np.ptp(flat, axis=0)
    reference = flat.max(axis=0) + 0.1 * np.where(reach > 0, reach, 1.0)
    rng = np.random.default_rng(seed)
    hits, volumes, knees = np.zeros(len(names)), [], []
    whole = _front(means)
    best = _knee(means, whole)
    for _ in range(resamples if len(shared) > 1 else 1):
        drawn = rng.integers(len(shared), size=len(shared)) if len(shared) > 1 else np.zeros(1, int)
        resampled = values[:, drawn].mean(axis=1)
        on = _front(resampled)
        hits[on] += 1
        volumes.append(_volume(resampled[on], reference))
        knees.append(_knee(resampled, on))
    low, high = np.percentile(volumes, [2.5, 97.5])
    order = sorted(whole, key=lambda index: tuple(means[index]))
    return Certainty(
        front=tuple(names[index] for index in order),
        chance={name: float(count) / len(volumes) for name, count in zip(names, hits)},
        hypervolume=_volume(means[whole], reference),
        low=float(low),
        high=float(high),
        reference=tuple(map(float, reference)),
        knee=names[best],
        stability=knees.count(best) / len(knees),
        seeds=tuple(shared),
    )


def _front(points: "Points") -> list[int]:
    import moocore
    import numpy as np

    return [int(index) for index in np.flatnonzero(moocore.is_nondominated(np.ascontiguousarray(points), keep_weakly=True))]


def _volume(points: "Points", reference: "Points") -> float:
    import moocore
    import numpy as np

    return float(moocore.hypervolume(np.ascontiguousarray(points), ref=reference))


def _knee(points: "Points", on: Sequence[int]) -> int:
    return on[knee(points[list(on)].tolist())]


def attainment(cells: Cells, percentiles: Sequence[int] = (25, 50, 75)) -> dict[int, list[tuple[float, ...]]]:
    """The surfaces that a front of one seed reaches in so many percent of the seeds (empirical attainment, moocore);
    of two or three objectives."""
    import moocore
    import numpy as np

    shared = sorted(set.intersection(*(set(values) for values in cells.values())))
    points = np.array([values[one] for one in shared for values in cells.values()], dtype=float)
    sets = np.repeat(np.arange(1, len(shared) + 1), len(cells))
    surfaces = moocore.eaf(points, sets, percentiles=list(percentiles))
    return {wanted: [tuple(map(float, row[:-1])) for row in surfaces if round(row[-1]) == wanted] for wanted in percentiles}
