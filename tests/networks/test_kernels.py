"""Maps of distance kernels against a double loop written from the papers' formulas."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from harness.config import Kernel
from harness.networks.attention.kernels import KERNELS, axis_maps, dense_map

FACTORISE: list[Kernel] = ["gaussian", "laplacian", "uniform"]
sides, radii = st.integers(1, 6), st.floats(0.05, 50)


def reference(kernel: str, dy: int, dx: int, r: float) -> float:
    d = math.sqrt(dy * dy + dx * dx)
    return {
        "gaussian": math.exp(-d * d / (2 * r * r)),
        "laplacian": math.exp(-(abs(dy) + abs(dx)) / r),
        "laplacian_l2": math.exp(-d / r),
        "cauchy": 1 / (1 + d * d / (r * r)),
        "linear": max(0.0, 1 - d / r),
        "uniform": 1.0,
    }[kernel]


def reference_map(kernel: str, height: int, width: int, r: float) -> Tensor:
    places = [(y, x) for y in range(height) for x in range(width)]
    rows = [[reference(kernel, y - v, x - u, r) for v, u in places] for y, x in places]
    return torch.tensor([[weight / sum(row) for weight in row] for row in rows], dtype=torch.float64)


def radius(*values: float) -> Tensor:
    return torch.tensor(values, dtype=torch.float64)


@given(kernel=st.sampled_from(list(KERNELS)), height=sides, width=sides, r=radii)
@settings(deadline=None, max_examples=60)
def test_the_dense_map_is_the_formula(kernel: Kernel, height: int, width: int, r: float) -> None:
    found = dense_map(KERNELS[kernel], height, width, radius(r))
    torch.testing.assert_close(found[0], reference_map(kernel, height, width, r), rtol=1e-9, atol=1e-12)


@given(kernel=st.sampled_from(FACTORISE), height=sides, width=sides, r=radii)
@settings(deadline=None, max_examples=60)
def test_a_factorised_map_is_the_dense_one(kernel: Kernel, height: int, width: int, r: float) -> None:
    rows, columns = axis_maps(KERNELS[kernel], height, width, radius(r, 2 * r))
    for head in range(2):
        product = torch.kron(rows[head], columns[head])
        torch.testing.assert_close(product, dense_map(KERNELS[kernel], height, width, radius(r, 2 * r))[head])


@pytest.mark.parametrize("kernel", ["laplacian_l2", "cauchy", "linear"])
def test_the_other_kernels_do_not_factorise(kernel: Kernel) -> None:
    rows, columns = axis_maps(KERNELS[kernel], 4, 4, radius(3.0))
    assert (torch.kron(rows[0], columns[0]) - dense_map(KERNELS[kernel], 4, 4, radius(3.0))[0]).abs().max() > 1e-3


@pytest.mark.parametrize("kernel", KERNELS)
def test_rows_sum_to_one_and_limits_are_uniform_and_identity(kernel: Kernel) -> None:
    maps = dense_map(KERNELS[kernel], 3, 5, torch.tensor([1e-6, 1.0, 1e6]))
    torch.testing.assert_close(maps.sum(-1), torch.ones(3, 15))
    torch.testing.assert_close(maps[2], torch.full((15, 15), 1 / 15), rtol=1e-4, atol=0)
    if kernel != "uniform":
        torch.testing.assert_close(maps[0], torch.eye(15))
