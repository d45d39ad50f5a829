"""ExpAtt (arXiv 2006.07872): a convolution of which a share of the channels attends by distance alone."""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from harness.config import ExpAtt, Site
from harness.networks.attention.kernels import axis_maps, dense_map, kernel_named
from harness.networks.attention.mixing import dense_each, dense_one, separable_each, separable_one
from harness.parts.expatt import DENSE

LEAST, MOST = math.exp(-20), math.exp(20)
"""Radii are kept between these: there maps are the identity and uniform to the last bit, beyond, gradients 0 x infinity."""


class DistanceMap(nn.Module):
    """Applies the attention map of a grid to values, (batch, channels, height, width) to the same.

    Row i of a head's map is k(|p_i - p_j| / radius) normalised to one; it is built once a forward pass, in fp32. The path
    taken depends on the kernel and on the grid alone, and never changes more than the rounding.
    """

    def __init__(self, slot: ExpAtt) -> None:
        super().__init__()
        self.slot = slot
        self.kernel = kernel_named(slot.kernel) if slot.radii() else None
        self.log_radius: Tensor | None
        if slot.radii() and slot.learned:
            self.log_radius = nn.Parameter(torch.empty(slot.radii()))
        else:
            self.register_buffer("log_radius", torch.empty(slot.radii()) if slot.radii() else None)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        if self.log_radius is not None:
            nn.init.constant_(self.log_radius, self._inverse(self.slot.radius))

    def _inverse(self, radius: float) -> float:
        """What the parameter is at a radius; log_radius is its name under either parametrisation."""
        return math.log(radius) if self.slot.parametrisation == "exp" else radius + math.log(-math.expm1(-radius))

    @property
    def radius(self) -> Tensor | None:
        """Radii in the slot's unit, one for all heads or one a head, None for the uniform map."""
        if self.log_radius is None:
            return None
        free = self.log_radius.to(torch.promote_types(self.log_radius.dtype, torch.float32))
        if self.slot.parametrisation == "exp":
            return free.clamp(math.log(LEAST), math.log(MOST)).exp()
        return F.softplus(free.clamp(math.log(LEAST), MOST))

    def products(self, height: int, width: int, channels: int) -> int:
        """MACs of the map times the values."""
        return self.slot.products(height, width) * channels

    def forward(self, values: Tensor) -> Tensor:
        height, width = values.shape[2:]
        radius = self.radius
        if self.kernel is None or radius is None:
            return values.mean((2, 3), keepdim=True).expand_as(values)
        if self.slot.unit == "share":
            radius = radius * max(height, width)
        alone = len(radius) == 1  # heads that share a radius share a map, so they are one head here
        if height * width <= DENSE or not self.kernel.factorises:
            weights = dense_map(self.kernel, height, width, radius, transposed=not alone).to(values.dtype)
            return dense_one(values, weights) if alone else dense_each(values, weights)
        over_rows, over_columns = axis_maps(self.kernel, height, width, radius)
        rows = over_rows.to(values.dtype)
        columns = rows if over_columns is over_rows else over_columns.to(values.dtype)
        return separable_one(values, rows, columns) if alone else separable_each(values, rows, columns)


class ExpAttConv2d(nn.Module):
    """A 3x3 convolution with `slot.values(outputs)` of its channels given to attention, no biases.

    (batch, inputs, H, W) to (batch, outputs, ceil(H / stride), ceil(W / stride)): the filters that are kept, then
    the attended values (1x1 projection, map, 1x1 projection). Attention on a large map is pooled as AA does it
    (arXiv 1904.09925): on a 3x3 average-pooled input of half the side, and brought back by bilinear interpolation.
    """

    def __init__(self, slot: ExpAtt, site: Site) -> None:
        super().__init__()
        values = slot.values(site.channels)
        self.slot = slot
        self.kept = nn.Conv2d(site.inputs, site.channels - values, 3, site.stride, padding=1, bias=False)
        self.values = nn.Conv2d(site.inputs, values, 1, site.stride, bias=False)
        self.map = DistanceMap(slot)
        self.project = nn.Conv2d(values, values, 1, bias=False) if slot.projection else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        kept = self.kept(x)
        height, width = kept.shape[2:]
        pooled = self.slot.pools(height, width)
        if pooled:
            x = F.avg_pool2d(x, 3, 2, padding=1, count_include_pad=False)
        attended = self.project(self.map(self.values(x)))
        if pooled:
            attended = F.interpolate(attended, (height, width), mode="bilinear", align_corners=False)
        return torch.cat((kept, attended), dim=1)
