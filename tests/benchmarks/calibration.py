"""How often the verdicts of `harness.analysis` are wrong, and how often they find what is there: `make calibration`.

Simulated studies: every arm's value is its effect plus a part that all arms of a seed share plus noise of its own. The
noise is normal, heavy-tailed (Student's t, 3 degrees of freedom) or skewed (exponential), of unit deviation in a paired
difference. Effects and margins are in deviations of a paired difference. Values of a fixed number of seeds are also counted,
as accuracies are: rounded to steps of half a deviation or a whole one, where differences are often equal by chance.
"""

import json
import math
import platform
from collections.abc import Callable, Iterator
from itertools import product
from pathlib import Path

import numpy as np
import scipy
from numpy.typing import NDArray
from rich.console import Console
from rich.progress import track
from rich.table import Table

from harness.analysis.effects import LEVEL, effects, power
from harness.analysis.sequential import CLOSE, DIFFERS, Bench, Rule, simulated

STUDIES = 2_000
Noise = Callable[[np.random.Generator, tuple[int, int]], NDArray[np.float64]]
NOISES: dict[str, Noise] = {
    "normal": lambda rng, size: rng.standard_normal(size),
    "heavy-tailed": lambda rng, size: rng.standard_t(3, size) / math.sqrt(3),
    "skewed": lambda rng, size: rng.exponential(1, size) - 1,
}
"""Of unit variance."""
RESULTS = Path(__file__).parent / "results" / "calibration.json"


def studies(
    noise: Noise,
    arms: int,
    seeds: int,
    effect: float = 0.0,
    *,
    shared: float = 0.5,
    count: int = STUDIES,
    step: float | None = None,
) -> Iterator[dict[str, dict[int, float]]]:
    """Simulated values of a baseline and so many arms, the first of which has the effect; `shared` is the correlation;
    with a `step` they are rounded to it."""
    rng = np.random.default_rng(arms * 1_000 + seeds)
    for _ in range(count):
        own = noise(rng, (arms + 1, seeds)) * math.sqrt(1 / 2)  # a difference of two has unit variance
        common = rng.standard_normal(seeds) * math.sqrt(shared / (1 - shared) / 2)
        values = own + common
        values[1] += effect
        if step is not None:
            values = np.round(values / step) * step
        yield {
            ("base", *(f"arm {arm}" for arm in range(1, arms + 1)))[row]: dict(enumerate(values[row]))
            for row in range(arms + 1)
        }


def share(hits: Iterator[bool], count: int = STUDIES) -> float:
    return sum(hits) / count


def false_claims(noise: Noise, arms: int, seeds: int, step: float | None = None) -> float:
    """Studies without any difference in which an arm is said to help or to hurt."""
    found = (effects(values, "base") for values in studies(noise, arms, seeds, step=step))
    return share(any(effect.verdict in ("helps", "hurts") for effect in each) for each in found)


def in_sequence(
    noise: Noise, arms: int, most: int, *, margin: float | None = None, effect: float = 0.0, shared: float = 0.5
) -> Bench:
    """Studies whose seeds are added from 3 up to `most`, with a look after each, judged as every study with `Sequential` is:
    the first arm has the effect."""
    every = studies(noise, arms, most, effect, shared=shared)
    values = np.array([[[*cells.values()] for cells in study.values()] for study in every])
    return simulated(values, Rule(3, most, margin))


def false_claims_in_sequence(noise: Noise, arms: int, most: int, margin: float | None) -> tuple[float, float]:
    """Studies without any difference in which one is claimed, and their seeds an arm in the mean."""
    bench = in_sequence(noise, arms, most, margin=margin)
    return float((bench.kind == DIFFERS).any(axis=1).mean()), float(bench.seeds.mean())


def false_calm_in_sequence(noise: Noise, arms: int, most: int, margin: float = 2.0) -> float:
    """Studies whose first arm differs by just the margin, of which it is said that it differs by less."""
    return float((in_sequence(noise, arms, most, margin=margin, effect=margin).kind[:, 0] == CLOSE).mean())


def found_in_sequence(effect: float, most: int) -> tuple[float, float]:
    """Studies of one arm with this effect in which it is found, and its seeds in the mean."""
    bench = in_sequence(NOISES["normal"], 1, most, effect=effect)
    return float((bench.kind == DIFFERS).mean()), float(bench.seeds.mean())


def false_calm(noise: Noise, arms: int, seeds: int, margin: float = 2.0) -> float:
    """Studies whose first arm differs by just the margin, in which the test of equivalence says that it differs by less."""
    found = (effects(values, "base", margin=margin) for values in studies(noise, arms, seeds, margin))
    return share(each[0].equivalent <= LEVEL for each in found)


def found(effect: float, seeds: int, shared: float = 0.5) -> float:
    """Studies of one arm with this effect in which it is said to help."""
    return share(
        effects(values, "base")[0].verdict == "helps"
        for values in studies(NOISES["normal"], 1, seeds, effect, shared=shared)
    )


def gain(shared: float, seeds: int = 60) -> float:
    """Seeds that pairing is worth, as the effects say it, in the median study."""
    every = (effects(values, "base")[0].gain for values in studies(NOISES["normal"], 1, seeds, shared=shared, count=500))
    return float(np.median(list(every)))


def main() -> None:
    """Runs all, prints the tables and writes the results file."""
    console, limit = Console(), 0.05 + 2 * math.sqrt(0.05 * 0.95 / STUDIES)
    null = [
        {"noise": name, "seeds": seeds, "arms": arms, "claims": false_claims(noise, arms, seeds)}
        for name, noise in track(NOISES.items(), "fixed seeds, no effect", console=console)
        for seeds in (3, 5, 10)
        for arms in (1, 2, 4, 8)
    ]
    counted = [
        {"step": step, "seeds": seeds, "arms": arms, "claims": false_claims(NOISES["normal"], arms, seeds, step)}
        for step in track((0.5, 1.0), "fixed seeds, no effect, values counted", console=console)
        for seeds in (2, 3, 5, 10)
        for arms in (1, 4)
    ]
    looks = []
    for name, noise in track(NOISES.items(), "seeds in sequence, no effect", console=console):
        for most, arms, margin in product((5, 10), (1, 2, 4, 8), (None, 1.0)):
            claims, mean = false_claims_in_sequence(noise, arms, most, margin)
            looks.append({"noise": name, "most": most, "arms": arms, "margin": margin, "claims": claims, "seeds": mean})
    calm_looks = [
        {"noise": name, "most": most, "arms": arms, "claims": false_calm_in_sequence(noise, arms, most)}
        for name, noise in track(NOISES.items(), "seeds in sequence, an effect of just the margin", console=console)
        for most in (5, 10)
        for arms in (1, 4)
    ]
    sight_looks = []
    for effect, most in product((0.5, 1.0, 2.0), (5, 10)):
        seen, mean = found_in_sequence(effect, most)
        fixed = power(effect, 1.0, most)
        sight_looks.append({"effect": effect, "most": most, "found": seen, "seeds": mean, "fixed": fixed})
    calm = [
        {"noise": name, "seeds": seeds, "arms": arms, "claims": false_calm(noise, arms, seeds)}
        for name, noise in track(NOISES.items(), "an effect of just the margin", console=console)
        for seeds in (5, 10)
        for arms in (1, 4)
    ]
    sight = [
        {"effect": effect, "seeds": seeds, "found": found(effect, seeds), "theory": power(effect, 1.0, seeds)}
        for effect in track((0.5, 1.0, 2.0), "power", console=console)
        for seeds in (3, 5, 10)
    ]
    worth = [{"correlation": shared, "gain": gain(shared), "theory": 1 / (1 - shared)} for shared in (0.0, 0.5, 0.8)]
    results = {
        "studies": STUDIES,
        "limit": limit,
        "null": null,
        "null, values counted": counted,
        "sequential": looks,
        "equivalence": calm,
        "sequential equivalence": calm_looks,
        "sequential power": sight_looks,
        "power": sight,
        "pairing": worth,
    }
    versions = {"python": platform.python_version(), "numpy": np.__version__, "scipy": scipy.__version__}
    RESULTS.write_text(json.dumps(results | {"versions": versions}, indent=1) + "\n")
    for title, rows in results.items():
        if isinstance(rows, list):
            drawn = Table(*rows[0], title=title)
            for row in rows:
                drawn.add_row(*(f"{value:.3f}" if isinstance(value, float) else str(value) for value in row.values()))
            console.print(drawn)
    worst = max(row["claims"] for row in (*null, *counted, *looks, *calm, *calm_looks))
    console.print(f"worst share of false claims {worst:.3f}; 0.05 and its sampling error allow {limit:.3f}")


if __name__ == "__main__":
    main()
