"""Distance kernels: how much one position of a grid listens to another, from their distance alone.

A kernel takes the offsets of rows and of columns (positions, not negative) and a radius (positions, positive), which
broadcast, and gives weights of their common shape. It is largest at offset zero. A kernel factorises when it is a function
of the rows times one of the columns.
"""

from collections.abc import Callable
from functools import lru_cache
from typing import NamedTuple

import torch
from torch import Tensor

from harness.code import load
from harness.config import Kernel
from harness.errors import CodeError, one_line

KernelFunction = Callable[[Tensor, Tensor, Tensor], Tensor]


def gaussian(rows: Tensor, columns: Tensor, radius: Tensor) -> Tensor:
    """log of exp(-d^2 / 2r^2) of the Euclidean distance, the example of ExpAtt (arXiv 2006.07872)."""
    return (rows.square() + columns.square()) * (-0.5 / radius.square())


def laplacian(rows: Tensor, columns: Tensor, radius: Tensor) -> Tensor:
    """log of exp(-d / r) of the city-block distance."""
    return (rows + columns) * (-1 / radius)


def laplacian_l2(rows: Tensor, columns: Tensor, radius: Tensor) -> Tensor:
    """log of exp(-d / r) of the Euclidean distance."""
    return (rows.square() + columns.square()).sqrt() * (-1 / radius)


def cauchy(rows: Tensor, columns: Tensor, radius: Tensor) -> Tensor:
    """log of 1 / (1 + d^2 / r^2) of the Euclidean distance, but for a term that all positions share."""
    return -torch.log(rows.square() + columns.square() + radius.square())


def linear(rows: Tensor, columns: Tensor, radius: Tensor) -> Tensor:
    """The cone max(0, 1 - d / r) of the Euclidean distance; the identity, without a gradient, up to a radius of 1."""
    return torch.clamp(1 - (rows.square() + columns.square()).sqrt() * (1 / radius), min=0)


class DistanceKernel(NamedTuple):
    """A kernel's function and what may be done with it."""

    function: KernelFunction
    factorises: bool = False
    logarithmic: bool = False
    """The function gives logarithms, up to a term that all positions share: one softmax normalises them, the fastest way."""
    isotropic: bool = False
    """Rows and columns count alike."""


KERNELS: dict[Kernel, DistanceKernel] = {
    "gaussian": DistanceKernel(gaussian, factorises=True, logarithmic=True, isotropic=True),
    "laplacian": DistanceKernel(laplacian, factorises=True, logarithmic=True, isotropic=True),
    "laplacian_l2": DistanceKernel(laplacian_l2, logarithmic=True, isotropic=True),
    "cauchy": DistanceKernel(cauchy, logarithmic=True, isotropic=True),
    "linear": DistanceKernel(linear, isotropic=True),
}
"""Every kernel with a radius; the uniform map needs none."""


def kernel_named(name: str) -> DistanceKernel:
    """A kernel of ours by its name, or the user's own by `package.module:function`; raises CodeError for one that fails."""
    return KERNELS[name] if name in KERNELS else user_kernel(name)


@lru_cache(maxsize=256)
def user_kernel(target: str) -> DistanceKernel:
    """The user's function (rows, columns, radius) to weights, tried on a small grid; it is dense unless it has an attribute
    `factorises = True`."""
    with torch.device("cpu"):
        function = load(target)
    if not callable(function):
        raise CodeError(f"{target} is no function; write def {target.partition(':')[2]}(rows, columns, radius)")
    kernel = DistanceKernel(function, factorises=getattr(function, "factorises", False) is True)
    with torch.enable_grad(), torch.inference_mode(False), torch.device("cpu"):
        _try(target, kernel)
    return kernel


def _try(target: str, kernel: DistanceKernel) -> None:
    """Raises CodeError unless a user's kernel gives weights that can be normalised, wherever a radius may go."""
    height, width, radius = 4, 5, torch.tensor([1e-6, 0.5, 2.0, 1e6], requires_grad=True)
    rows, columns = _offsets(height, radius), _offsets(width, radius)
    try:
        weights = kernel.function(rows[:, None, :, None], columns[None, :, None, :], radius.view(-1, 1, 1, 1, 1))
    except (Exception, SystemExit) as error:
        raise CodeError(f"{target}: (rows, columns, radius) raised {one_line(error)}") from error
    shape, rule = (len(radius), height, width, height, width), "the weights of all that its arguments broadcast to"
    if not isinstance(weights, Tensor) or weights.shape != shape:
        found = tuple(weights.shape) if isinstance(weights, Tensor) else type(weights).__name__
        raise CodeError(f"{target}: it must return {rule}, here of shape {shape}; it returned {found}")
    if not weights.isfinite().all():
        raise CodeError(f"{target}: its weights must be finite at every radius; they are not at one of {_shown(radius)}")
    if weights.min() < 0:
        raise CodeError(f"{target}: weights must not be negative; the least is {weights.min().item():.4g}")
    if weights.sum((3, 4)).min() <= 0:
        raise CodeError(f"{target}: a position must listen to something; its weights add up to 0 at one of {_shown(radius)}")
    if weights.requires_grad:
        (slope,) = torch.autograd.grad(weights.sum(), radius)
        if not slope.isfinite().all():
            raise CodeError(f"{target}: its gradient in the radius must be finite; it is not at one of {_shown(radius)}")
    if kernel.factorises:
        over_rows, over_columns = axis_maps(kernel, height, width, radius)
        product = over_rows[:, :, None, :, None] * over_columns[:, None, :, None, :]
        if not torch.allclose(product.reshape(len(radius), height * width, -1), dense_map(kernel, height, width, radius)):
            raise CodeError(f"{target}: it says `factorises`, but is no function of rows times one of columns; remove it")


def _shown(radius: Tensor) -> str:
    return "the radii " + ", ".join(f"{value:g}" for value in radius.tolist())


def dense_map(kernel: DistanceKernel, height: int, width: int, radius: Tensor, *, transposed: bool = False) -> Tensor:
    """The map of each radius, (radii, height * width, height * width), rows normalised to one; transposed: columns."""
    rows, columns = _offsets(height, radius), _offsets(width, radius)
    weights = kernel.function(rows[:, None, :, None], columns[None, :, None, :], radius.view(-1, 1, 1, 1, 1))
    return _normalised(kernel, weights.reshape(-1, height * width, height * width), -2 if transposed else -1)


def axis_maps(kernel: DistanceKernel, height: int, width: int, radius: Tensor) -> tuple[Tensor, Tensor]:
    """The maps over rows, (radii, height, height), and over columns, (radii, width, width): their product is the dense
    map of a kernel that factorises, exactly, because the sum of a product over a grid is the product of the sums."""
    each, nowhere = radius.view(-1, 1, 1), radius.new_zeros(())
    over_rows = _normalised(kernel, kernel.function(_offsets(height, radius), nowhere, each))
    if kernel.isotropic and height == width:
        return over_rows, over_rows
    return over_rows, _normalised(kernel, kernel.function(nowhere, _offsets(width, radius), each))


def _offsets(side: int, like: Tensor) -> Tensor:
    places = torch.arange(side, dtype=like.dtype, device=like.device)
    return (places[:, None] - places).abs()


def _normalised(kernel: DistanceKernel, weights: Tensor, dim: int = -1) -> Tensor:
    return weights.softmax(dim) if kernel.logarithmic else weights * weights.sum(dim, keepdim=True).reciprocal()
