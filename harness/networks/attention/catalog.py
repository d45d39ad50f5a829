"""From an attention slot to its module: every kind, in one place."""

from collections.abc import Callable
from typing import Any
from weakref import WeakKeyDictionary

from torch import nn

from harness import config as kinds
from harness.config import Attention, Site
from harness.networks.attention import adopted
from harness.networks.attention.augmented import AAConv2d
from harness.networks.attention.bam import BottleneckGate
from harness.networks.attention.expatt import ExpAttConv2d
from harness.networks.attention.gather import NeighbourhoodGate
from harness.networks.attention.gsa import GSA2d
from harness.networks.attention.lambdas import LambdaConv2d
from harness.networks.attention.simam import EnergyGate
from harness.networks.attention.standalone import StandAloneConv2d
from harness.networks.attention.triplet import TripletGate
from harness.networks.custom import custom

BUILDERS: dict[type[Attention], Callable[[Any, Site], nn.Module]] = {
    kinds.SqueezeExcite: adopted.squeeze_excite,
    kinds.EffectiveSE: adopted.effective_se,
    kinds.ECA: adopted.eca,
    kinds.CBAM: adopted.cbam,
    kinds.BAM: BottleneckGate,
    kinds.GlobalContext: adopted.global_context,
    kinds.GatherExcite: NeighbourhoodGate,
    kinds.CoordinateAttention: adopted.coordinate,
    kinds.SimAM: EnergyGate,
    kinds.TripletAttention: TripletGate,
    kinds.NonLocal: adopted.non_local,
    kinds.BottleneckAttention: adopted.bottleneck,
    kinds.Halo: adopted.HaloConv2d,
    kinds.StandAlone: StandAloneConv2d,
    kinds.LambdaLayer: LambdaConv2d,
    kinds.ExpAtt: ExpAttConv2d,
    kinds.AA: AAConv2d,
    kinds.GSA: GSA2d,
    kinds.Custom: custom,
}
MADE: WeakKeyDictionary[nn.Module, tuple[Attention, Site]] = WeakKeyDictionary()
"""What each attention module was made from, so that it can be made again with random numbers of its own."""


def attention(slot: Attention, site: Site) -> nn.Module:
    """The module of a slot, (batch, inputs, height, width) of its site to (batch, channels, *grid)."""
    module = BUILDERS[type(slot)](slot, site)
    MADE[module] = slot, site
    return module
