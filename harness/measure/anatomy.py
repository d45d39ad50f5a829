"""The cost of a network of others: the model counted once by dispatch, what attention adds in closed form.

So a space over a backbone is priced as fast as one over a network of ours, after the first count.
"""

from functools import lru_cache
from typing import Any

import torch

from harness.cost import Cost, Shape
from harness.measure.complexity import count_custom, count_dispatch
from harness.networks.backbone import places, plain, standing
from harness.parts.backbone import Classifier


def count(what: Any, channels: int, height: int, width: int) -> Cost:
    """A `cost.Counter` for everything that has no closed form: a user's module, or a backbone at a picture's shape."""
    if not isinstance(what, Classifier):
        return count_custom(what, channels, height, width)
    network, shape = what.backbone, Shape(channels, height, width, what.classes)
    places(network, shape)  # what cannot be a network is told before it is counted
    total = _plain(network.target, shape)
    for name, attention in network.filled.items():
        for place, site in standing(network, name, shape):
            gone = place.replaced if attention.where == "conv" else Cost(0, 0)
            total += attention.cost(site, count_custom) + gone.times(-1)
    return total


@lru_cache(maxsize=256)
def _plain(target: str, shape: Shape) -> Cost:
    with torch.random.fork_rng(devices=[]), torch.device("meta"):
        model = plain(target, shape)
    return count_dispatch(model, shape)
