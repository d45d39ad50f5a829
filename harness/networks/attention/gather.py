"""Gather-excite (Hu et al., arXiv 1810.12348): channel weights from a neighbourhood. timm 1.0's own fails on its options."""

from collections import OrderedDict

import torch.nn.functional as F
from torch import Tensor, nn

from harness.config import GatherExcite, Site


class NeighbourhoodGate(nn.Module):
    """Gathers each channel over its neighbourhood, excites, scales: (batch, channels, height, width) to the same.

    A gather by convolution of the whole map is made for the grid of its site and takes no other.
    """

    def __init__(self, slot: GatherExcite, site: Site) -> None:
        super().__init__()
        channels, squeezed = site.channels, slot.squeezed(site.channels)
        self.gather = _convolutions(slot, site) if slot.gather == "conv" else _pooling(slot)
        self.excite: nn.Module = nn.Identity()
        if squeezed is not None:
            layers = OrderedDict[str, nn.Module](squeeze=nn.Conv2d(channels, squeezed, 1), relu=nn.ReLU(inplace=True))
            self.excite = nn.Sequential(layers | {"widen": nn.Conv2d(squeezed, channels, 1)})

    def forward(self, x: Tensor) -> Tensor:
        weights = self.excite(self.gather(x))
        return x * F.interpolate(weights, x.shape[2:]).sigmoid()


def _pooling(slot: GatherExcite) -> nn.Module:
    """The mean of the positions nearer than `extent`, at every extent-th position; no padding counts."""
    if slot.extent is None:
        return nn.AdaptiveAvgPool2d(1)
    return nn.AvgPool2d(2 * slot.extent - 1, slot.extent, padding=slot.extent - 1, count_include_pad=False)


def _convolutions(slot: GatherExcite, site: Site) -> nn.Sequential:
    """One convolution of the whole map, or 3x3 ones that halve it until each position stands for `extent` (section 3.2)."""
    channels, layers = site.channels, OrderedDict[str, nn.Module]()
    count = 1 if slot.extent is None else slot.extent.bit_length() - 1
    for step in range(1, count + 1):
        size, stride, padding = ((site.height, site.width), 1, 0) if slot.extent is None else ((3, 3), 2, 1)
        layers[f"conv{step}"] = nn.Conv2d(channels, channels, size, stride, padding, groups=channels, bias=False)
        layers[f"norm{step}"] = nn.BatchNorm2d(channels)
        if step < count:
            layers[f"relu{step}"] = nn.ReLU(inplace=True)
    return nn.Sequential(layers)
