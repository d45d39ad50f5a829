"""From an attention slot to its module: every kind, in one place."""

from collections.abc import Callable
from typing import Any
from weakref import WeakKeyDictionary

from torch import nn

from harness.config import CBAM, ECA, Attention, Custom, ExpAtt, Site, SqueezeExcite
from harness.networks.attention.adopted import cbam, eca, squeeze_excite
from harness.networks.attention.expatt import ExpAttConv2d
from harness.networks.custom import custom

BUILDERS: dict[type[Attention], Callable[[Any, Site], nn.Module]] = {
    SqueezeExcite: squeeze_excite,
    ECA: eca,
    CBAM: cbam,
    ExpAtt: ExpAttConv2d,
    Custom: custom,
}
MADE: WeakKeyDictionary[nn.Module, tuple[Attention, Site]] = WeakKeyDictionary()
"""What each attention module was made from, so that it can be made again with random numbers of its own."""


def attention(slot: Attention, site: Site) -> nn.Module:
    """The module of a slot, (batch, inputs, height, width) of its site to (batch, channels, *grid)."""
    module = BUILDERS[type(slot)](slot, site)
    MADE[module] = slot, site
    return module
