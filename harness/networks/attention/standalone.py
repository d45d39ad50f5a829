"""Stand-alone self-attention (Ramachandran et al., arXiv 1906.05909): each position attends to those around it."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from harness.config import Site, StandAlone
from harness.networks.attention.augmented import coordinates, softmax_attention
from harness.networks.attention.pooling import strided
from harness.networks.attention.relative import in_cache

BLOCK = 8
"""Longest side of the blocks of positions whose windows are attended to as one."""
NEVER = -1e4
"""A logit whose weight is zero in every precision."""


class WindowAttention(nn.Module):
    """Softmax attention of each position to the size x size around it, queries, keys and values (batch, channels, H, W).

    Half of a head's key channels carry the learned offset of rows, half that of columns (section 3.2); logits are divided
    by the root of a head's channels. Beyond the edge keys and values are zero.

    Positions attend in blocks to all that one of them sees: a few large products in place of many small ones, several times
    faster for more MACs. Logits of rows and columns are appended to the queries and coordinates to the keys, as AA has it;
    what is too far away has a logit of NEVER.
    """

    def __init__(self, slot: StandAlone, channels: int) -> None:
        super().__init__()
        self.heads, self.size = slot.heads, slot.size
        half = channels // slot.heads // 2
        self.rows = nn.Parameter(torch.empty(slot.heads, half, slot.size, 1))
        self.columns = nn.Parameter(torch.empty(slot.heads, half, 1, slot.size))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        for offsets in (self.rows, self.columns):
            nn.init.normal_(offsets, std=(2 * offsets.shape[1]) ** -0.5)

    def products(self, height: int, width: int, channels: int) -> int:
        """MACs of queries with the keys around them, and of the weights with the values."""
        return 2 * height * width * channels * self.size**2

    def forward(self, queries: Tensor, keys: Tensor, values: Tensor) -> Tensor:
        form = self._written_out if queries.is_meta else self._in_blocks
        return form(queries * (queries.shape[1] // self.heads) ** -0.5, keys, values)

    def _in_blocks(self, queries: Tensor, keys: Tensor, values: Tensor) -> Tensor:
        batch, channels, height, width = queries.shape
        tall, wide = block_side(height), block_side(width)
        down, right = -(-height // tall), -(-width // wide)
        rest = (down * tall - height, right * wide - width)
        query = F.pad(queries.permute(0, 2, 3, 1), (0, 0, 0, rest[1], 0, rest[0]))
        query = query.view(batch, down, tall, right, wide, self.heads, -1).permute(0, 1, 3, 5, 2, 4, 6)
        halves = zip(query.chunk(2, -1), (self.rows, self.columns), (4, 5))
        near = [spread(part @ table.flatten(2).unsqueeze(1).to(part.dtype), axis) for part, table, axis in halves]
        key, value = (self._windows(part, (tall, wide), rest) for part in (keys, values))
        query = torch.cat((query, *near), -1).flatten(4, 5).flatten(0, 3)
        key = torch.cat((key, coordinates(key.unsqueeze(1)).squeeze(1)), -1).flatten(1, 2)
        out = in_cache(softmax_attention, query.shape[1] * key.shape[1], query, key, value.flatten(1, 2))
        out = out.view(batch, down, right, self.heads, tall, wide, -1).permute(0, 1, 4, 2, 5, 3, 6)
        return out.reshape(batch, down * tall, right * wide, channels)[:, :height, :width].permute(0, 3, 1, 2)

    def _windows(self, x: Tensor, block: tuple[int, int], rest: tuple[int, int]) -> Tensor:
        """All that a block sees, (maps, rows, columns, channels of a head), a map for each picture, block and head."""
        reach = self.size // 2
        x = F.pad(x.permute(0, 2, 3, 1), (0, 0, reach, reach + rest[1], reach, reach + rest[0]))
        for axis, side in enumerate(block, start=1):
            x = x.unfold(axis, side + self.size - 1, side)
        return torch.unflatten(x, 3, (self.heads, -1)).permute(0, 1, 2, 3, 5, 6, 4).flatten(0, 3)

    def _written_out(self, queries: Tensor, keys: Tensor, values: Tensor) -> Tensor:
        """The same as the paper writes it, for the meta device, where operations are counted."""
        batch, channels, height, width = queries.shape
        side = (-1, -1, self.size, self.size)
        offsets = torch.cat((self.rows.expand(side), self.columns.expand(side)), dim=1).flatten(2)
        own = queries.reshape(batch, self.heads, -1, height * width)
        around = self._around(keys) + offsets.to(keys.dtype)[None, :, :, :, None]
        weights = torch.einsum("bhdn,bhdkn->bhkn", own, around).softmax(2)
        return torch.einsum("bhkn,bhdkn->bhdn", weights, self._around(values)).reshape(batch, channels, height, width)

    def _around(self, x: Tensor) -> Tensor:
        """(batch, heads, channels of a head, size * size, positions)"""
        unfolded = F.unfold(x, self.size, padding=self.size // 2)
        return unfolded.view(len(x), self.heads, -1, self.size**2, x.shape[2] * x.shape[3])


def block_side(side: int) -> int:
    """The side of blocks, at most BLOCK and as even as can be, that cover a side."""
    return -(-side // -(-side // BLOCK))


def spread(logits: Tensor, axis: int) -> Tensor:
    """The logits of those around each place of a block, at their places in what the block sees: place i along the axis has
    its own from i on, and NEVER elsewhere."""
    side = logits.shape[axis]
    places = [F.pad(logits.select(axis, i), (i, side - 1 - i), value=NEVER) for i in range(side)]
    return torch.stack(places, axis)


class StandAloneConv2d(nn.Module):
    """(batch, inputs, H, W) to (batch, channels, ceil(H / stride), ceil(W / stride)) in place of a 3x3 convolution."""

    def __init__(self, slot: StandAlone, site: Site) -> None:
        super().__init__()
        self.project = nn.Conv2d(site.inputs, 3 * site.channels, 1, bias=False)
        self.attend = WindowAttention(slot, site.channels)
        self.pool = strided(site.stride)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.pool(self.attend(*self.project(x).chunk(3, dim=1)))
        return out
