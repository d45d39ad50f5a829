"""ExpAtt (arXiv 2006.07872): a convolution of which a share of the channels attends by distance alone."""

import math

import torch
from torch import Tensor, nn

from harness.config import ExpAtt, Site
from harness.networks.attention.kernels import KERNELS, axis_maps, dense_map


class DistanceMap(nn.Module):
    """Applies the attention map of a grid to values, (batch, channels, height, width) to the same.

    Row i of a head's map is k(|p_i - p_j| / radius) normalised to one; it is built once a forward pass, in fp32.
    """

    def __init__(self, slot: ExpAtt) -> None:
        super().__init__()
        self.slot = slot
        self.log_radius = nn.Parameter(torch.empty(slot.radii())) if slot.radii() else None
        self.reset_parameters()

    def reset_parameters(self) -> None:
        if self.log_radius is not None:
            nn.init.constant_(self.log_radius, math.log(self.slot.radius))

    @property
    def radius(self) -> Tensor | None:
        """Radii in positions, one for all heads or one a head, None for the uniform map; kept within e^-20 and e^20, where
        maps are the identity and uniform to the last bit and gradients would be 0 times infinity."""
        if self.log_radius is None:
            return None
        precise = torch.promote_types(self.log_radius.dtype, torch.float32)
        return self.log_radius.to(precise).clamp(-20, 20).exp()

    def products(self, height: int, width: int, channels: int) -> int:
        """MACs of the map times the values: each is a sum over all positions, or over its column and then its row."""
        reach = height + width if self.slot.factorises(height, width) else height * width
        return channels * height * width * reach

    def forward(self, values: Tensor) -> Tensor:
        batch, channels, height, width = values.shape
        kernel, radius = KERNELS[self.slot.kernel], self.radius
        if radius is None:
            radius = torch.ones(1, device=values.device)
        maps = len(radius)  # heads that share a radius share a map, so they are one head here
        # One layout for all pictures and channels of a head lets one matrix product a head do an axis.
        grid = values.view(batch, maps, -1, height, width).permute(1, 3, 4, 0, 2)
        if self.slot.factorises(height, width):
            over_rows, over_columns = axis_maps(kernel, height, width, radius)
            rows = grid.reshape(maps, height, -1).mT @ over_rows.to(values.dtype).mT  # maps, width * rest, height
            both = over_columns.to(values.dtype) @ rows.reshape(maps, width, -1)
            grid = both.view(maps, width, batch, -1, height).permute(2, 4, 1, 0, 3)
        else:
            weights = dense_map(kernel, height, width, radius).to(values.dtype)
            both = weights @ grid.reshape(maps, height * width, -1)
            grid = both.view(maps, height, width, batch, -1).permute(3, 1, 2, 0, 4)
        return grid.reshape(batch, height, width, channels).permute(0, 3, 1, 2)


class ExpAttConv2d(nn.Module):
    """A 3x3 convolution with `slot.values(outputs)` of its channels given to attention, no biases.

    (batch, inputs, H, W) to (batch, outputs, ceil(H / stride), ceil(W / stride)): the filters that are kept, then
    the attended values (1x1 projection, map, 1x1 projection).
    """

    def __init__(self, slot: ExpAtt, site: Site) -> None:
        super().__init__()
        values = slot.values(site.channels)
        self.kept = nn.Conv2d(site.inputs, site.channels - values, 3, site.stride, padding=1, bias=False)
        self.values = nn.Conv2d(site.inputs, values, 1, site.stride, bias=False)
        self.map = DistanceMap(slot)
        self.project = nn.Conv2d(values, values, 1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat((self.kept(x), self.project(self.map(self.values(x)))), dim=1)
