"""ExpAtt against a naive reference, its symmetries, its precision."""

import itertools
import math
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from test_kernels import reference_map
from torch import Tensor

from harness.config import ExpAtt, Kernel, Site
from harness.networks.attention.expatt import DistanceMap, ExpAttConv2d
from harness.networks.attention.kernels import KERNELS

GRIDS = [(3, 5), (9, 8), (8, 8), (1, 1), (13, 7)]


def distance_map(**knobs: Any) -> DistanceMap:
    return DistanceMap(ExpAtt(**knobs)).double()


def values(height: int, width: int, channels: int = 8, batch: int = 2) -> Tensor:
    generator = torch.Generator().manual_seed(1)
    return torch.randn(batch, channels, height, width, dtype=torch.float64, generator=generator)


@pytest.mark.parametrize(("kernel", "grid", "per"), list(itertools.product(KERNELS, GRIDS, ["layer", "head"])))
def test_the_map_is_the_naive_double_loop(kernel: Kernel, grid: tuple[int, int], per: Any) -> None:
    module = distance_map(kernel=kernel, radius=1.7, radius_per=per, heads=4)
    if module.log_radius is not None and len(module.log_radius) > 1:
        with torch.no_grad():
            module.log_radius.copy_(torch.tensor([0.5, 1.0, 2.0, 4.0]).log())
    radii = [1.0] if module.radius is None else module.radius.tolist()
    x = values(*grid)
    heads = x.chunk(len(radii), dim=1)
    maps = [reference_map(kernel, *grid, r) for r in radii]
    naive = [torch.einsum("ij,bcj->bci", A, head.flatten(2)).view_as(head) for A, head in zip(maps, heads)]
    torch.testing.assert_close(module(x), torch.cat(naive, 1), rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("kernel", ["gaussian", "laplacian", "uniform"])
def test_the_factorised_path_is_the_dense_path(kernel: Kernel) -> None:
    class Dense(ExpAtt):
        def factorises(self, height: int, width: int) -> bool:
            return False

    knobs: dict[str, Any] = {"kernel": kernel, "radius": 2.5, "radius_per": "head", "heads": 2}
    assert ExpAtt(**knobs).factorises(11, 9)
    torch.testing.assert_close(
        DistanceMap(ExpAtt(**knobs)).double()(values(11, 9)), DistanceMap(Dense(**knobs)).double()(values(11, 9))
    )


@pytest.mark.parametrize("kernel", KERNELS)
def test_a_constant_stays_and_flips_commute(kernel: Kernel) -> None:
    for height, width in GRIDS:
        module, x = distance_map(kernel=kernel, radius=3.0), values(height, width)
        torch.testing.assert_close(module(torch.ones_like(x)), torch.ones_like(x))
        for axes in [(2,), (3,), (2, 3)]:
            torch.testing.assert_close(module(x.flip(axes)), module(x).flip(axes))
        torch.testing.assert_close(distance_map(kernel=kernel, radius=3.0)(x.mT), module(x).mT)


@pytest.mark.parametrize("kernel", KERNELS)
def test_a_huge_radius_averages_and_a_tiny_one_changes_nothing(kernel: Kernel) -> None:
    for height, width in [(3, 4), (10, 9)]:
        x = values(height, width)
        mean = x.mean((2, 3), keepdim=True).expand_as(x)
        torch.testing.assert_close(distance_map(kernel=kernel, radius=1e8)(x), mean, rtol=1e-5, atol=1e-6)
        if kernel != "uniform":
            torch.testing.assert_close(distance_map(kernel=kernel, radius=1e-8)(x), x)


@pytest.mark.parametrize("log_radius", [-200.0, -30.0, 30.0, 200.0])
@pytest.mark.parametrize("kernel", ["gaussian", "laplacian", "laplacian_l2", "cauchy", "linear"])
def test_a_radius_out_of_bounds_stays_finite(kernel: Kernel, log_radius: float) -> None:
    for height, width in [(3, 4), (10, 9)]:
        module, x = DistanceMap(ExpAtt(kernel=kernel)), values(height, width).float().requires_grad_()
        assert module.log_radius is not None
        torch.nn.init.constant_(module.log_radius, log_radius)
        module(x).square().sum().backward()
        assert x.grad is not None and module.log_radius.grad is not None
        assert x.grad.isfinite().all() and module.log_radius.grad.isfinite().all()


@pytest.mark.parametrize("grid", [(3, 4), (9, 8)])
@pytest.mark.parametrize("kernel", ["gaussian", "laplacian", "laplacian_l2", "cauchy", "linear"])
def test_gradients(kernel: Kernel, grid: tuple[int, int]) -> None:
    # pi / 2: no distance of the grid lies on the edge of the cone, where its slope jumps
    module = distance_map(kernel=kernel, radius=math.pi / 2, radius_per="head", heads=2)

    def run(x: Tensor, log_radius: Tensor) -> Tensor:
        out = torch.func.functional_call(module, {"log_radius": log_radius}, (x,))
        assert isinstance(out, Tensor)
        return out

    assert module.log_radius is not None
    x, log_radius = values(*grid, channels=2, batch=1).requires_grad_(), module.log_radius.detach().requires_grad_()
    assert torch.autograd.gradcheck(run, (x, log_radius))


@pytest.mark.parametrize("grid", [(7, 7), (12, 9)])
@pytest.mark.parametrize("kernel", KERNELS)
def test_bf16_is_close_to_fp32(kernel: Kernel, grid: tuple[int, int]) -> None:
    module, x = DistanceMap(ExpAtt(kernel=kernel, radius=2.0)), values(*grid).float()
    exact = module(x)
    assert (module(x.bfloat16()).float() - exact).abs().max() < 0.03
    assert (module.bfloat16()(x.bfloat16()).float() - exact).abs().max() < 0.03


def test_the_convolution_is_its_two_parts_in_order() -> None:
    slot = ExpAtt(radius=1.5)
    module = ExpAttConv2d(slot, Site(6, 32, 9, 8, 2)).double()
    x = values(9, 12, channels=6)
    out = module(x)
    assert out.shape == (2, 32, 5, 6)
    torch.testing.assert_close(out[:, :24], F.conv2d(x, module.kept.weight, stride=2, padding=1))
    V = F.conv2d(x[:, :, ::2, ::2], module.values.weight)
    AV = torch.einsum("ij,bcj->bci", reference_map("gaussian", 5, 6, 1.5), V.flatten(2)).view_as(V)
    torch.testing.assert_close(out[:, 24:], F.conv2d(AV, module.project.weight), rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize(
    ("kernel", "per", "count"), [("uniform", "head", 0), ("gaussian", "layer", 1), ("cauchy", "head", 4)]
)
def test_radii_are_counted_per_layer_or_head(kernel: Kernel, per: Any, count: int) -> None:
    module = DistanceMap(ExpAtt(kernel=kernel, radius_per=per, heads=4, radius=3.0))
    assert sum(parameter.numel() for parameter in module.parameters()) == count
    if module.radius is not None:
        torch.testing.assert_close(module.radius, torch.full((count,), 3.0))


def test_heads_that_share_a_radius_share_their_map() -> None:
    x = values(9, 9)
    torch.testing.assert_close(distance_map(heads=1)(x), distance_map(heads=8)(x))


@pytest.mark.parametrize("per", ["layer", "head"])
def test_it_compiles_whole(per: Any) -> None:
    module = ExpAttConv2d(ExpAtt(radius_per=per, heads=4), Site(8, 24, 9, 9))
    compiled = torch.compile(module, fullgraph=True, backend="aot_eager")
    for side in (5, 12):
        x = torch.randn(2, 8, side, side)
        torch.testing.assert_close(compiled(x), module(x))
