"""What the tests of strategies search over and price."""

from typing import Any

from harness.config import Config, ExpAtt, SqueezeExcite
from harness.cost import Cost, Shape, network_cost
from harness.space import choose, span, vary

SLOT: Any = choose(
    None,
    SqueezeExcite(ratio=4),
    vary(
        ExpAtt,
        kernel=choose("gaussian", "cauchy"),
        radius=span(0.5, 8.0, log=True),
        radius_per="head",
        heads=choose(1, 2, 4),
    ),
)
"""A slot that may stay empty, and whose choices have choices of their own."""


def price(config: Config) -> Cost:
    return network_cost(config.network, Shape(3, 16, 16, 10), lambda *_: Cost(0, 0))
