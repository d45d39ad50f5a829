"""AA's core on a CPU: softmax attention with relative positions, its backward pass written by hand.

What autograd would make of the same operations takes a third longer: it joins three gradients of the queries in different
orders, has one of the keys' ones and zeros, and multiplies tall matrices by narrow ones.
"""

from typing import Any, NamedTuple

import torch
from torch import Tensor

from harness.networks.attention.relative import chunk


class Sizes(NamedTuple):
    """Of a batch of grids and of the heads that attend on them; `keys` and `values` are the features of one head."""

    batch: int
    height: int
    width: int
    heads: int
    keys: int
    values: int

    @property
    def positions(self) -> int:
        return self.height * self.width

    @property
    def maps(self) -> int:
        return self.batch * self.heads

    def parts(self, grid: Tensor) -> list[Tensor]:
        """Queries, keys and values, views of (batch, heads, positions, features), of (batch, channels, height, width)."""
        flat = grid.permute(0, 2, 3, 1).reshape(self.batch, self.positions, -1)
        features = (self.keys, self.keys, self.values)
        parts = torch.split(flat, [self.heads * count for count in features], -1)
        return [torch.unflatten(part, -1, (self.heads, count)).transpose(1, 2) for part, count in zip(parts, features)]

    def appendix(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Of queries or keys with what is appended, (maps, positions, features): views of what stands for the rows and for
        the columns of the grid, (maps, height, width, side)."""
        rest = x.view(self.maps, self.height, self.width, -1)[..., self.keys :]
        return rest[..., : self.height], rest[..., self.height :]

    def of_pairs(self, offsets: Tensor) -> tuple[Tensor, Tensor]:
        """Views of what is at each position for each offset, (maps, positions, 2 height - 1 + 2 width - 1): what it is for
        each row and for each column of the grid, (maps, height, width, side)."""
        right = offsets.shape[-1]
        over, down, grid = self.positions * right, self.width * right, (self.maps, self.height, self.width)
        rows = offsets.as_strided((*grid, self.height), (over, down - 1, right, 1), self.height - 1)
        columns = offsets.as_strided((*grid, self.width), (over, down, right - 1, 1), 2 * self.height - 2 + self.width)
        return rows, columns


class Core(torch.autograd.Function):
    """softmax(q k^T / sqrt(keys) + relative logits) v: of (batch, heads * (2 keys + values), height, width) to (batch, heads
    * values, height, width).

    `table` has an embedding for each offset between rows, then for each between columns, (2 height - 1 + 2 width - 1,
    keys); None for attention without positions. The logits of the offsets are appended to the queries and the coordinates,
    ones among zeros, to the keys, so that one product adds them up. Maps are made a few at a time, so that they stay in the
    cache; `keep` them for a backward pass.
    """

    @staticmethod
    def forward(ctx: Any, qkv: Tensor, table: Tensor | None, heads: int, keys: int, keep: bool) -> Tensor:
        channels, height, width = qkv.shape[1:]
        size = Sizes(len(qkv), height, width, heads, keys, channels // heads - 2 * keys)
        given, many = size.parts(qkv), (size.maps, size.positions)
        query, key = (qkv.new_empty(*many, keys + (0 if table is None else height + width)) for _ in range(2))
        torch.mul(given[0], keys**-0.5, out=query[..., :keys].view_as(given[0]))
        key[..., :keys].view_as(given[1]).copy_(given[1])
        if table is not None:
            logits = (query[..., :keys].reshape(-1, keys) @ table.mT).view(*many, -1)
            ones = (torch.eye(side, dtype=qkv.dtype) for side in (height, width))
            for place, offset in zip(size.appendix(query), size.of_pairs(logits)):
                place.copy_(offset)
            for place, one, axis in zip(size.appendix(key), ones, (1, 0)):
                place.copy_(one.unsqueeze(axis))
        value = given[2].mT.reshape(size.maps, size.values, size.positions)
        out, few = torch.empty_like(value), chunk(qkv, size.positions**2)
        weights = qkv.new_empty(size.maps if keep else min(few, size.maps), size.positions, size.positions)
        logits = qkv.new_empty(min(few, size.maps), size.positions, size.positions)
        for start in range(0, size.maps, few):
            some = slice(start, start + few)
            these = logits[: len(out[some])]
            made = weights[some] if keep else weights[: len(these)]
            torch.bmm(query[some], key[some].mT, out=these)
            torch.softmax(these, -1, out=made)
            torch.bmm(value[some], made.mT, out=out[some])
        ctx.size = size
        ctx.save_for_backward(query, key, value, weights, out, table)
        return out.view(size.batch, -1, height, width)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, slope: Tensor) -> tuple[Tensor | None, ...]:
        query, key, value, weights, out, table = ctx.saved_tensors
        size: Sizes = ctx.size
        own, slope = query[..., : size.keys], slope.reshape(value.shape)
        by_query, by_value = torch.empty_like(query), torch.empty_like(value)
        by_key = query.new_empty(size.maps, size.keys, size.positions)
        # The slope of a logit is its weight times (slope of the weight - mean of those of its row): one product, with the
        # mean appended in two parts, which keep its digits in bf16.
        wide = torch.promote_types(slope.dtype, torch.float32)
        mean = (slope.to(wide) * out.to(wide)).sum(1, keepdim=True)
        large = mean.to(slope.dtype)
        slopes = torch.cat((slope, large, (mean - large).to(slope.dtype)), 1)
        values = torch.cat((value, value.new_full((1, 1, 1), -1).expand(size.maps, 2, size.positions)), 1)
        few = chunk(query, size.positions**2)
        logits = query.new_empty(min(few, size.maps), size.positions, size.positions)
        for start in range(0, size.maps, few):
            some = slice(start, start + few)
            these = logits[: len(query[some])]
            torch.bmm(slope[some], weights[some], out=by_value[some])
            torch.bmm(slopes[some].mT, values[some], out=these)
            these.mul_(weights[some])
            torch.bmm(these, key[some], out=by_query[some])
            torch.bmm(own[some].mT, these, out=by_key[some])
        own_slope, by_table = by_query[..., : size.keys], None
        if table is not None:
            offsets = query.new_zeros(size.maps, size.positions, len(table))
            for place, found in zip(size.of_pairs(offsets), size.appendix(by_query)):
                place.copy_(found)
            offsets = offsets.flatten(0, 1)
            own_slope = own_slope.reshape(-1, size.keys).addmm(offsets, table)
            by_table = offsets.mT @ own.reshape(-1, size.keys)
        channels = size.heads * (2 * size.keys + size.values)
        by_all = query.new_empty(size.batch, size.height, size.width, channels).permute(0, 3, 1, 2)
        places = size.parts(by_all)
        torch.mul(own_slope.reshape(places[0].shape), size.keys**-0.5, out=places[0])
        places[1].copy_(by_key.mT.reshape(places[1].shape))
        places[2].copy_(by_value.mT.reshape(places[2].shape))
        return by_all, by_table, None, None, None
