"""How many random configs a second are drawn, made and priced in closed form, in the project's spaces and in a large one.

What a long search does for every proposal that it screens. One thread, the median of some rounds.

    python tests/benchmarks/pricing.py [--draws 2000] [--rounds 5]
"""

import argparse
import importlib
import random
import statistics
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from harness.config import AA, CBAM, ECA, GSA, Config, ExpAtt, ResNet, SqueezeExcite  # noqa: E402
from harness.cost import Shape, network_cost  # noqa: E402
from harness.errors import ConfigError  # noqa: E402
from harness.space import Space, choose, span, vary  # noqa: E402

CIFAR, IMAGENET = Shape(3, 32, 32, 10), Shape(3, 224, 224, 1000)


def spaces() -> dict[str, tuple[Space, Shape]]:
    """The project's own, and ResNets up to depth 152 with any of seven kinds in each stage."""
    own = {
        path.stem: importlib.import_module(f"search_spaces.{path.stem}").SPACE
        for path in sorted(ROOT.glob("search_spaces/*.py"))
    }
    explicit = vary(ExpAtt, kernel=choose("gaussian", "cauchy"), radius=span(0.5, 8.0, log=True), share=choose(0.1, 0.25))
    slot = choose(None, vary(SqueezeExcite, ratio=choose(4, 8, 16)), ECA(), CBAM(), explicit, AA(), GSA())
    large = vary(ResNet, depth=choose(50, 101, 152), width=span(0.5, 1.5), stages=(slot,) * 4)
    return {name: (Space(space), CIFAR) for name, space in own.items()} | {"resnets to 152": (Space(large), IMAGENET)}


def measured(space: Space, shape: Shape, draws: int, seed: int) -> dict[str, float]:
    """Configs a second: drawn and made; priced; both."""
    rng, configs = random.Random(seed), list[Config]()
    began = time.perf_counter()
    while len(configs) < draws:
        try:
            configs.append(space.config(space.draw(rng)))
        except ConfigError:  # a combination that is no network
            continue
    made = time.perf_counter()
    for config in configs:
        network_cost(config.network, shape)
    priced = time.perf_counter()
    return {"made": draws / (made - began), "priced": draws / (priced - made), "both": draws / (priced - began)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--draws", type=int, default=2000)
    parser.add_argument("--rounds", type=int, default=5)
    given = parser.parse_args()
    rounds: dict[str, list[dict[str, float]]] = {}
    for seed in range(given.rounds):  # rounds alternate, so that what else the machine does meets all spaces
        for name, (space, shape) in spaces().items():
            rounds.setdefault(name, []).append(measured(space, shape, given.draws, seed))
    print(f"{'configs a second':<20}{'drawn, made':>14}{'priced':>10}{'both':>10}")
    for name, results in rounds.items():
        made, priced, both = (statistics.median(one[what] for one in results) for what in ("made", "priced", "both"))
        print(f"{name:<20}{made:>14,.0f}{priced:>10,.0f}{both:>10,.0f}")


if __name__ == "__main__":
    main()
