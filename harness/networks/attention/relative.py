"""Relative positions along one axis: a table with a row for every offset, read at every pair of positions."""

from collections.abc import Callable

import torch
from torch import Tensor

from harness.errors import ConfigError

CACHED = 2**21
"""Bytes of maps that a CPU works on at a time, so that they stay in its cache."""


def chunk(like: Tensor, elements: int) -> int:
    """How many maps of so many elements, of a tensor's type, are made at a time."""
    return max(1, CACHED // (elements * like.element_size()))


def in_cache(form: Callable[..., Tensor], elements: int, *batch: Tensor) -> Tensor:
    """form(*batch), on a CPU for a few entries of the batch at a time, each of which makes a map of so many elements."""
    count = chunk(batch[0], elements)
    if batch[0].device.type != "cpu" or torch.compiler.is_compiling() or count >= len(batch[0]):
        return form(*batch)
    return torch.cat([form(*few) for few in zip(*(torch.split(part, count) for part in batch))])


def pairs(table: Tensor, side: int) -> Tensor:
    """(side, features, side) with [i, :, j] = the row for offset j - i, of a table whose middle row is for offset 0."""
    middle = len(table) // 2
    return table[middle + 1 - side : middle + side].unfold(0, side, 1).flip(0)


def axis_products(query: Tensor, table: Tensor) -> Tensor:
    """<q_i, r_(j - i)> for each position i of an axis, which leads, and each j: (side, rest, features) to
    (side, rest, side)."""
    return query @ pairs(table, len(query))


def check_grid(kind: str, built: tuple[int, int], given: torch.Size, remedy: str) -> None:
    """Raise ConfigError when a map of (height, width) is not what the tables were made for."""
    if tuple(given) != built:
        (height, width), (rows, columns) = built, given
        raise ConfigError(
            f"{kind}: a map of {rows}x{columns} positions, built for {height}x{width}: relative positions are a table of one"
            f" grid; build the network for this size of picture, or use {remedy}"
        )
