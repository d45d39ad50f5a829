"""GSA (arXiv 2010.03019): global self-attention in place of a convolution, without a map of all pairs of positions."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from harness.config import GSA, Site
from harness.networks.attention.relative import axis_products, check_grid, in_cache, pairs
from harness.networks.layout import ordered


class Content(nn.Module):
    """Q times (softmax over positions of K)^T V, head by head (section 3): linear in the positions, blind to them.

    Queries, keys and values of (batch, channels, height, width) to the same.
    """

    def __init__(self, slot: GSA) -> None:
        super().__init__()
        self.heads, self.softmax_query = slot.heads, slot.softmax_query

    def products(self, height: int, width: int, channels: int) -> int:
        """MACs of the two products, each of a head's channels with themselves at every position."""
        return 2 * height * width * channels * (channels // self.heads)

    def forward(self, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        query, key, value = map(ordered, (query, key, value))
        batch, _, height, width = query.shape
        weights = key.flatten(2).softmax(-1).view(batch * self.heads, -1, height * width)
        query, value = self._positions(query), self._positions(value)
        if self.softmax_query:
            query = query.softmax(-1)
        out = (query @ (weights @ value)).view(batch, self.heads, height, width, -1)
        return out.permute(0, 2, 3, 1, 4).flatten(3).permute(0, 3, 1, 2)

    def _positions(self, grid: Tensor) -> Tensor:
        """(batch * heads, positions, channels of a head)."""
        batch, _, height, width = grid.shape
        return grid.reshape(batch * self.heads, -1, height * width).mT


class Axis(nn.Module):
    """Attention along one axis of the grid (section 3): position i hears position j of its column (or row) with the weight
    <q_i, r_(j - i)>, r learned and shared by the heads, without softmax.

    Queries and values of (batch, channels, height, width) to the same.
    """

    def __init__(self, slot: GSA, site: Site, axis: int) -> None:
        super().__init__()
        self.heads, self.grid, self.axis = slot.heads, (site.height, site.width), axis
        self.table = nn.Parameter(torch.empty(2 * max(self.grid) - 1, site.channels // slot.heads))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        nn.init.normal_(self.table, std=self.table.shape[1] ** -0.5)

    def products(self, height: int, width: int, channels: int) -> int:
        """MACs of the weights and of the weights times the values; of one channel a head the former are no product."""
        return min(channels // self.heads, 2) * height * width * (height, width)[self.axis - 2] * channels

    def forward(self, query: Tensor, value: Tensor) -> Tensor:
        check_grid("GSA", self.grid, query.shape[2:], "position=False")
        query, value = map(ordered, (query, value))
        if self.axis == 3:
            query, value = query.mT, value.mT  # from here on the attended axis comes first
        if self.table.shape[1] <= 2:
            out = self._values_first(query, value)
        else:
            out = in_cache(self._weights_first, query[0, 0].numel() * query.shape[2] * self.heads, query, value)
        return out.contiguous().permute(0, 3, 1, 2)

    def _weights_first(self, query: Tensor, value: Tensor) -> Tensor:
        """The weights of each column and head, then their product with the values; (batch, H, W, channels)."""
        batch, _, side, other = query.shape
        query, value = (torch.unflatten(part, 1, (self.heads, -1)) for part in (query, value))
        weights = axis_products(query.permute(3, 0, 4, 1, 2).flatten(1, 3), self.table)
        weights = weights.transpose(0, 1).contiguous()  # the copy makes the next product fast
        out = (weights @ value.permute(0, 4, 1, 3, 2).flatten(0, 2)).view(batch, other, self.heads, side, -1)
        return out.permute((0, 3, 1, 2, 4) if self.axis == 2 else (0, 1, 3, 2, 4)).flatten(3)

    def _values_first(self, query: Tensor, value: Tensor) -> Tensor:
        """The table's product with the values, one for all, then with the queries: as many MACs where heads have two
        channels, more where they have more; (batch, H, W, channels)."""
        batch, _, side, other = query.shape
        seen = pairs(self.table, side).flatten(0, 1) @ value.permute(2, 1, 0, 3).flatten(1)
        seen = seen.view(side, -1, self.heads, self.table.shape[1], batch * other)  # side, features, heads, channels, rest
        query = query.permute(2, 1, 0, 3).reshape(side, self.heads, -1, 1, batch * other).transpose(1, 2)
        out = (query * seen).sum(1).view(side, -1, batch, other)
        return out.permute((2, 0, 3, 1) if self.axis == 2 else (2, 3, 0, 1))


class GSA2d(nn.Module):
    """The sum of both branches from one 1x1 projection (section 3), then a 2x2 average pooling where the stride is two.

    (batch, inputs, H, W) to (batch, outputs, ceil(H / stride), ceil(W / stride)). Raises ConfigError on another grid than it
    was built for, unless it has no positional branch.
    """

    def __init__(self, slot: GSA, site: Site) -> None:
        super().__init__()
        self.stride, self.outputs = site.stride, site.channels
        self.qkv = nn.Conv2d(site.inputs, slot.projections() * site.channels, 1, bias=False)
        self.content = Content(slot) if slot.content else None
        self.columns = Axis(slot, site, 2) if slot.position else None
        self.norm: nn.Module = nn.BatchNorm2d(site.channels) if slot.position and slot.norm else nn.Identity()
        self.rows = Axis(slot, site, 3) if slot.position else None

    def forward(self, x: Tensor) -> Tensor:
        query, *keys, value = torch.split(self.qkv(x), self.outputs, 1)
        branches = [self.content(query, *keys, value)] if self.content is not None else []
        if self.columns is not None and self.rows is not None:
            branches.append(self.rows(query, self.norm(self.columns(query, value))))
        out = sum(branches[1:], branches[0])
        return F.avg_pool2d(out, 2, ceil_mode=True, count_include_pad=False) if self.stride == 2 else out
