"""Weighted sums over the positions of a map: the same numbers, in the order and memory layout that is fastest for a shape.

Values are (batch, channels, height, width), channels last in memory, and so is what comes out. Maps are of the values'
type: one for all channels (`one`), or one for each of as many equal groups of channels (`each`). Separable maps are products
of a map over rows and a map over columns, (maps, height, height) and (maps, width, width). What is fastest was measured.
"""

from typing import Any

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
        along = turning_product(pictures, over_rows).view(batch, width, channels * height)
        mixed = turning_product(along, over_columns).view(batch, channels, height * width)
        mixed = turning_product(mixed, _identity(channels, mixed)) if _copies_slowly(mixed) else mixed.mT.contiguous()
    return mixed.view(batch, height, width, channels).permute(0, 3, 1, 2)


def separable_each(values: Tensor, over_rows: Tensor, over_columns: Tensor) -> Tensor:
    """As `separable_one` with one pair of maps a group."""
    (height, width), maps = values.shape[2:], len(over_rows)
    along = torch.bmm(_planes(values).view(maps, -1, width), over_columns.mT).view(-1, height, width)
    rows = over_rows[:, None].expand(-1, len(along) // maps, -1, -1).reshape(-1, height, height)
    return _pictures(torch.bmm(rows, along), values)


def turning_product(matrices: Tensor, weights: Tensor) -> Tensor:
    """weights @ matrix of every matrix, turned: (batch, n, m) by (1, n, n) to (batch, m, n), contiguous."""
    if torch.compiler.is_compiling():
        return torch.bmm(matrices.mT, weights.mT.expand(len(matrices), -1, -1))
    turned: Tensor = _TurningProduct.apply(matrices, weights)
    return turned


class _TurningProduct(torch.autograd.Function):
    """Its gradients have the layout of what they are the gradients of; autograd's own would have to be copied for it."""

    generate_vmap_rule = True

    @staticmethod
    def forward(matrices: Tensor, weights: Tensor) -> Tensor:
        return torch.bmm(matrices.mT, weights.mT.expand(len(matrices), -1, -1))

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, Tensor], output: Tensor) -> None:
        ctx.save_for_backward(*inputs)

    @staticmethod
    def backward(ctx: Any, slope: Tensor) -> tuple[Tensor | None, Tensor | None]:
        matrices, weights = ctx.saved_tensors
        first = torch.bmm(weights.mT.expand(len(matrices), -1, -1), slope.mT) if ctx.needs_input_grad[0] else None
        return first, torch.bmm(slope.mT, matrices.mT).sum(0, keepdim=True) if ctx.needs_input_grad[1] else None


def _planes(values: Tensor) -> Tensor:
    """(batch, channels, height, width) with channels outermost, (channels, batch * height * width), contiguous."""
    positions = values.permute(0, 2, 3, 1).reshape(-1, values.shape[1])
    if _copies_slowly(positions):
        return torch.mm(_identity(values.shape[1], positions)[0], positions.mT)
    return positions.mT.contiguous()


def _pictures(planes: Tensor, like: Tensor) -> Tensor:
    """What `_planes` did, undone."""
    batch, channels, height, width = like.shape
    planes = planes.view(channels, -1)
    positions = planes.mT @ _identity(channels, planes)[0] if _copies_slowly(planes) else planes.mT.contiguous()
    return positions.view(batch, height, width, channels).permute(0, 3, 1, 2)


def _copies_slowly(matrices: Tensor) -> bool:
    """Whether a product with the identity turns matrices in a third of a copy's time, as in bf16 on a CPU.

    It calculates nothing: each number is itself times one plus zeros, exact, and no MAC of the map.
    """
    large = matrices.numel() >= 2**16 and min(matrices.shape[-2:]) <= 64
    return large and matrices.dtype == torch.bfloat16 and matrices.device.type == "cpu" and not torch.compiler.is_compiling()


def _identity(side: int, like: Tensor) -> Tensor:
    return torch.eye(side, dtype=like.dtype, device=like.device)[None]
