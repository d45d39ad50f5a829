"""Distance kernels: how much one position of a grid listens to another, from their distance alone.

A kernel takes the offsets of rows and of columns (positions, not negative) and a radius (positions, positive); they
broadcast. It is 1 at offset zero, so the sum of a row is at least 1 at any radius, however small.
"""

from collections.abc import Callable

import torch
from torch import Tensor

from harness.config import Kernel

KernelFunction = Callable[[Tensor, Tensor, Tensor], Tensor]


def gaussian(rows: Tensor, columns: Tensor, radius: Tensor) -> Tensor:
    """exp(-d^2 / 2r^2) of the Euclidean distance, the example of ExpAtt (arXiv 2006.07872)."""
    return torch.exp(-((rows / radius).square() + (columns / radius).square()) / 2)


def laplacian(rows: Tensor, columns: Tensor, radius: Tensor) -> Tensor:
    """exp(-d / r) of the city-block distance."""
    return torch.exp(-(rows + columns) / radius)


def laplacian_l2(rows: Tensor, columns: Tensor, radius: Tensor) -> Tensor:
    """exp(-d / r) of the Euclidean distance."""
    return torch.exp(-torch.hypot(rows, columns) / radius)


def cauchy(rows: Tensor, columns: Tensor, radius: Tensor) -> Tensor:
    """1 / (1 + d^2 / r^2) of the Euclidean distance."""
    return 1 / (1 + (rows / radius).square() + (columns / radius).square())


def linear(rows: Tensor, columns: Tensor, radius: Tensor) -> Tensor:
    """The cone max(0, 1 - d / r) of the Euclidean distance; the identity, without a gradient, up to a radius of 1."""
    return torch.clamp(1 - torch.hypot(rows, columns) / radius, min=0)


def uniform(rows: Tensor, columns: Tensor, radius: Tensor) -> Tensor:
    """The same for all: the control that knows no distance."""
    return torch.ones_like(rows + columns + radius)


KERNELS: dict[Kernel, KernelFunction] = {
    "gaussian": gaussian,
    "laplacian": laplacian,
    "laplacian_l2": laplacian_l2,
    "cauchy": cauchy,
    "linear": linear,
    "uniform": uniform,
}


def dense_map(kernel: KernelFunction, height: int, width: int, radius: Tensor) -> Tensor:
    """The map of each radius, (radii, height * width, height * width), rows normalised to one."""
    rows, columns = _offsets(height, radius), _offsets(width, radius)
    weights = kernel(rows[:, None, :, None], columns[None, :, None, :], radius.view(-1, 1, 1, 1, 1))
    return _normalised(weights.flatten(3, 4).flatten(1, 2))


def axis_maps(kernel: KernelFunction, height: int, width: int, radius: Tensor) -> tuple[Tensor, Tensor]:
    """The maps over rows, (radii, height, height), and over columns, (radii, width, width): their product is the dense
    map of a kernel that factorises, exactly, because the sum of a product over a grid is the product of the sums."""
    rows, columns, each = _offsets(height, radius), _offsets(width, radius), radius.view(-1, 1, 1)
    nowhere = torch.zeros_like(each)
    return _normalised(kernel(rows, nowhere, each)), _normalised(kernel(nowhere, columns, each))


def _offsets(side: int, like: Tensor) -> Tensor:
    places = torch.arange(side, dtype=like.dtype, device=like.device)
    return (places[:, None] - places).abs()


def _normalised(weights: Tensor) -> Tensor:
    return weights / weights.sum(-1, keepdim=True)
