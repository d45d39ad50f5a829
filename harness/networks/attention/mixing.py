"""Weighted sums over the positions of a map: the same numbers, in the order and memory layout that is fastest for a shape.

Values are (batch, channels, height, width), channels last in memory, and so is what comes out. Maps are of the values'
type: one for all channels (`one`), or one for each of as many equal groups of channels (`each`). Separable maps are products
of a map over rows and a map over columns, (maps, height, height) and (maps, width, width). What is fastest was measured.
"""

import torch
from torch import Tensor

WIDE = 24
"""Channels from which small products within the memory layout of pictures are faster than large ones across it."""


def dense_one(values: Tensor, weights: Tensor) -> Tensor:
    """Position i of the result is the sum over positions j of weights[0, i, j] times j: height * width products a value."""
    batch, channels, height, width = values.shape
    positions = values.permute(2, 3, 0, 1).reshape(height * width, batch * channels)
    mixed = torch.mm(weights[0], positions)
    return mixed.view(height, width, batch, channels).permute(2, 3, 0, 1).contiguous(memory_format=torch.channels_last)


def dense_each(values: Tensor, transposed: Tensor) -> Tensor:
    """As `dense_one` with one map a group, given transposed, so that gradients need no turning."""
    positions = values.shape[2] * values.shape[3]
    mixed = torch.bmm(_planes(values).view(len(transposed), -1, positions), transposed)
    return _pictures(mixed, values)


def separable_one(values: Tensor, over_rows: Tensor, over_columns: Tensor) -> Tensor:
    """Each position becomes a sum over its column of sums over rows: height + width products a value."""
    batch, channels, height, width = values.shape
    pictures = values.permute(0, 2, 3, 1).reshape(batch, height, width * channels)
    if channels >= WIDE:
        along = torch.bmm(over_rows.expand(batch, -1, -1), pictures).view(batch * height, width, channels)
        mixed = torch.bmm(over_columns.expand(batch * height, -1, -1), along)
    else:
        along = torch.bmm(pictures.mT, over_rows.mT.expand(batch, -1, -1)).view(batch, width, channels * height)
        mixed = torch.bmm(along.mT, over_columns.mT.expand(batch, -1, -1)).view(batch, channels, height * width)
        mixed = _turned(mixed)
    return mixed.view(batch, height, width, channels).permute(0, 3, 1, 2)


def separable_each(values: Tensor, over_rows: Tensor, over_columns: Tensor) -> Tensor:
    """As `separable_one` with one pair of maps a group."""
    (height, width), maps = values.shape[2:], len(over_rows)
    along = torch.bmm(_planes(values).view(maps, -1, width), over_columns.mT).view(-1, height, width)
    rows = over_rows[:, None].expand(-1, len(along) // maps, -1, -1).reshape(-1, height, height)
    return _pictures(torch.bmm(rows, along), values)


def _planes(values: Tensor) -> Tensor:
    """(batch, channels, height, width) with channels outermost, contiguous."""
    return _turned(values.permute(0, 2, 3, 1).reshape(1, -1, values.shape[1]))


def _pictures(planes: Tensor, like: Tensor) -> Tensor:
    """What `_planes` did, undone."""
    batch, channels, height, width = like.shape
    return _turned(planes.view(1, channels, -1)).view(batch, height, width, channels).permute(0, 3, 1, 2)


def _turned(matrices: Tensor) -> Tensor:
    """(batch, rows, columns) to (batch, columns, rows), contiguous.

    On a CPU in bf16 a product with the identity moves large matrices in a third of a copy's time. It calculates nothing:
    each number is itself times one plus zeros, exact, and no MAC of the map.
    """
    rows, columns = matrices.shape[1:]
    slow_copy = matrices.device.type == "cpu" and matrices.dtype == torch.bfloat16 and not torch.compiler.is_compiling()
    if not slow_copy or min(rows, columns) > 64 or matrices.numel() < 2**16:
        return matrices.mT.contiguous()
    identity = torch.eye(min(rows, columns), dtype=matrices.dtype).expand(len(matrices), -1, -1)
    return torch.bmm(identity, matrices.mT) if columns < rows else torch.bmm(matrices.mT, identity)
