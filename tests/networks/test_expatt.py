"""ExpAtt against a naive reference, its symmetries, its precision."""

import itertools
import math
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from test_kernels import reference_map
from torch import Tensor

from harness.config import ExpAtt, Kernel, ResNet, Site
from harness.cost import Shape, network_cost
from harness.networks.attention.expatt import DistanceMap, ExpAttConv2d
from harness.networks.attention.mixing import _pictures, _planes, dense_each, dense_one, separable_each, separable_one
from harness.parts.expatt import DENSE

KERNELS: tuple[Kernel, ...] = ("gaussian", "laplacian", "laplacian_l2", "cauchy", "linear", "uniform")
RADIAL = KERNELS[:-1]
GRIDS = [(3, 5), (8, 8), (1, 1), (13, 9), (11, 11)]


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


def test_every_path_is_the_same_sum() -> None:
    """Four paths, few and many channels, against the sum written out; the factorised ones where the dense one would do."""
    generator = torch.Generator().manual_seed(2)
    for height, width, channels in [(4, 3, 4), (5, 5, 24), (3, 7, 26)]:
        x = values(height, width, channels)
        rows = torch.rand(2, height, height, dtype=torch.float64, generator=generator)
        columns = torch.rand(2, width, width, dtype=torch.float64, generator=generator)
        maps = torch.stack([torch.kron(r, c) for r, c in zip(rows, columns)])
        one = torch.einsum("ij,bcj->bci", maps[0], x.flatten(2)).view_as(x)
        other = torch.einsum("ij,bcj->bci", maps[1], x.flatten(2)).view_as(x)
        each = torch.cat((one[:, : channels // 2], other[:, channels // 2 :]), 1)
        torch.testing.assert_close(dense_one(x, maps[:1]), one)
        torch.testing.assert_close(dense_each(x, maps.mT.contiguous()), each)
        torch.testing.assert_close(separable_one(x, rows[:1], columns[:1]), one)
        torch.testing.assert_close(separable_each(x, rows, columns), each)


@pytest.mark.parametrize(("batch", "channels", "side"), [(16, 8, 28), (2, 70, 24), (1, 8, 6)])
def test_turning_in_bf16_moves_numbers_and_nothing_else(batch: int, channels: int, side: int) -> None:
    x = values(side, side, channels, batch).bfloat16().to(memory_format=torch.channels_last).requires_grad_()
    planes = _planes(x)
    assert torch.equal(planes, x.transpose(0, 1).flatten(1)) and torch.equal(_pictures(planes, x), x)
    (slope,) = torch.autograd.grad(_pictures(2 * planes, x), x, x.detach())
    assert torch.equal(slope, 2 * x) and slope.is_contiguous(memory_format=torch.channels_last)
    one = torch.eye(side, dtype=x.dtype)[None]
    assert torch.equal(separable_one(x, one, one), x)


def test_what_leaves_is_channels_last_as_what_comes() -> None:
    for per, height, channels in itertools.product(["layer", "head"], [7, 12], [8, 24]):
        module = distance_map(radius_per=per)
        out = module(values(height, 10, channels).to(memory_format=torch.channels_last))
        assert out.is_contiguous(memory_format=torch.channels_last)


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
    for height, width in [(3, 4), (12, 9)]:
        x = values(height, width)
        mean = x.mean((2, 3), keepdim=True).expand_as(x)
        torch.testing.assert_close(distance_map(kernel=kernel, radius=1e8)(x), mean, rtol=1e-5, atol=1e-6)
        if kernel != "uniform":
            torch.testing.assert_close(distance_map(kernel=kernel, radius=1e-8)(x), x)


@pytest.mark.parametrize("log_radius", [-200.0, -30.0, 30.0, 200.0, 1e30])
@pytest.mark.parametrize(("kernel", "parametrisation"), list(itertools.product(RADIAL, ["exp", "softplus"])))
def test_a_radius_out_of_bounds_stays_finite(kernel: Kernel, parametrisation: Any, log_radius: float) -> None:
    for height, width in [(3, 4), (12, 9)]:
        module = DistanceMap(ExpAtt(kernel=kernel, parametrisation=parametrisation))
        x = values(height, width).float().requires_grad_()
        assert module.log_radius is not None
        torch.nn.init.constant_(module.log_radius, log_radius)
        module(x).square().sum().backward()
        assert x.grad is not None and module.log_radius.grad is not None
        assert x.grad.isfinite().all() and module.log_radius.grad.isfinite().all()


@pytest.mark.parametrize("per", ["layer", "head"])
@pytest.mark.parametrize("grid", [(3, 4), (11, 10)])
@pytest.mark.parametrize(("kernel", "parametrisation"), [*((kernel, "exp") for kernel in RADIAL), ("gaussian", "softplus")])
def test_gradients(kernel: Kernel, parametrisation: Any, grid: tuple[int, int], per: Any) -> None:
    # pi / 2: no distance of the grid lies on the edge of the cone, where its slope jumps
    module = distance_map(kernel=kernel, radius=math.pi / 2, radius_per=per, heads=2, parametrisation=parametrisation)

    def run(x: Tensor, log_radius: Tensor) -> Tensor:
        out = torch.func.functional_call(module, {"log_radius": log_radius}, (x,))
        assert isinstance(out, Tensor)
        return out

    assert module.log_radius is not None
    x, log_radius = values(*grid, channels=2, batch=1).requires_grad_(), module.log_radius.detach().requires_grad_()
    assert torch.autograd.gradcheck(run, (x, log_radius), fast_mode=True)


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


@pytest.mark.parametrize(("unit", "side", "radius"), [("positions", 12, 1.5), ("share", 12, 0.125)])
@pytest.mark.parametrize("parametrisation", ["exp", "softplus"])
def test_a_radius_is_the_same_however_it_is_written(unit: Any, side: int, radius: float, parametrisation: Any) -> None:
    """A share is one of the longer side."""
    x = values(9, side)
    module = distance_map(unit=unit, radius=radius, parametrisation=parametrisation)
    assert module.radius is not None
    torch.testing.assert_close(module.radius, torch.tensor([radius], dtype=torch.float64))
    naive = torch.einsum("ij,bcj->bci", reference_map("gaussian", 9, side, 1.5), x.flatten(2)).view_as(x)
    torch.testing.assert_close(module(x), naive, rtol=1e-6, atol=1e-7)


def test_a_small_initial_radius_survives_softplus() -> None:
    module = DistanceMap(ExpAtt(radius=1e-4, parametrisation="softplus"))
    assert module.radius is not None
    torch.testing.assert_close(module.radius, torch.tensor([1e-4]))


@pytest.mark.parametrize(("side", "stride"), [(9, 1), (17, 2)])
def test_a_large_map_is_pooled_and_brought_back(side: int, stride: int) -> None:
    module = ExpAttConv2d(ExpAtt(largest=8, radius=1.5, projection=False), Site(6, 32, side, side, stride)).double()
    x = values(side, side, channels=6)
    out = module(x)
    assert out.shape == (2, 32, 9, 9)
    weights = F.conv2d(torch.ones(1, 1, side, side, dtype=x.dtype), torch.ones(1, 1, 3, 3, dtype=x.dtype), None, 2, 1)
    sums = F.conv2d(x, torch.ones(6, 1, 3, 3, dtype=x.dtype), None, 2, 1, groups=6)  # the mean of what is on the map
    V = F.conv2d((sums / weights)[:, :, ::stride, ::stride], module.values.weight)
    AV = torch.einsum("ij,bcj->bci", reference_map("gaussian", 5, 5, 1.5), V.flatten(2)).view_as(V)
    back = F.interpolate(AV, (9, 9), mode="bilinear")
    torch.testing.assert_close(out[:, 24:], back, rtol=1e-6, atol=1e-7)


def test_a_small_map_is_not_pooled() -> None:
    site, x = Site(6, 32, 8, 8), values(8, 8, channels=6).float()
    plain, pooled = ExpAttConv2d(ExpAtt(), site), ExpAttConv2d(ExpAtt(largest=8), site)
    pooled.load_state_dict(plain.state_dict())
    torch.testing.assert_close(plain(x), pooled(x))


LATER: dict[str, Any] = {"unit": "share", "parametrisation": "softplus", "projection": False, "largest": 7, "learned": False}


def test_later_fields_are_in_the_key_where_they_matter() -> None:
    first = ExpAtt().effective(64)
    assert first == {"kernel": "gaussian", "values": 8, "radius": 2.0, "radii": 1}
    assert ExpAtt(multiple=4, heads=4).effective(64) == first | {"values": 4}
    for name, value in LATER.items():
        assert ExpAtt(**{name: value}).effective(64) == first | {name: value}
    idle = ExpAtt(kernel="uniform", unit="share", parametrisation="softplus")
    assert idle.effective(64) == ExpAtt(kernel="uniform").effective(64)
    fixed = ExpAtt(learned=False, radius_per="head", parametrisation="softplus")  # heads that stay alike are one
    assert fixed.effective(64) == first | {"learned": False}


@pytest.mark.parametrize("parametrisation", ["exp", "softplus"])
def test_a_radius_that_is_not_learned_stays_and_costs_nothing(parametrisation: Any) -> None:
    knobs: dict[str, Any] = {"radius": 1.7, "parametrisation": parametrisation}
    site = Site(6, 32, 8, 8)
    fixed, learned = ExpAttConv2d(ExpAtt(learned=False, **knobs), site), ExpAttConv2d(ExpAtt(**knobs), site)
    counts = [sum(weight.numel() for weight in module.parameters()) for module in (fixed, learned)]
    assert counts[1] - counts[0] == 1
    fixed.load_state_dict(learned.state_dict())
    x = values(8, 8, channels=6).float()
    assert torch.equal(fixed(x), learned(x))
    assert fixed.map.radius is not None
    assert float(fixed.map.radius) == pytest.approx(1.7)
    assert not fixed.map.radius.requires_grad


@pytest.mark.parametrize(
    ("depth", "knobs", "params", "gflops"),
    [
        (50, {}, 24_650_165, 8.01),
        (50, {"radius_per": "head"}, 24_650_165 + 91, 8.01),
        (152, {}, 57_796_183, 22.33),
        (152, {"heads": 1, "multiple": 1, "largest": 14}, 57_660_000, 22.16),
    ],
)
def test_published_counts(depth: int, knobs: dict[str, Any], params: int, gflops: float) -> None:
    """A kernel that does not factorise costs what was published; the gaussian computes less."""
    for kernel, least in (("cauchy", 0.9995), ("gaussian", 0.98)):
        slot = ExpAtt(kernel=kernel, **knobs)
        found = network_cost(ResNet(depth=depth, stages=(None, slot, slot, slot)), Shape(3, 224, 224, 1000))
        assert found.params == (params if params % 10_000 else pytest.approx(params, rel=1e-4))
        assert least < 2 * found.macs / 1e9 / gflops < 1.0005


def test_the_other_reading_takes_a_tenth_of_the_filters() -> None:
    assert [ExpAtt(heads=1, multiple=1).values(width) for width in (128, 256, 512)] == [12, 25, 51]


SEEN = [
    {"radius_per": "head", "heads": 4},
    {"kernel": "cauchy", "largest": 5},
    {"unit": "share", "radius": 0.2, "parametrisation": "softplus", "projection": False, "share": 0.5},
]


@pytest.mark.parametrize("knobs", SEEN, ids=str)
def test_it_compiles_whole(knobs: Any) -> None:
    module = ExpAttConv2d(ExpAtt(**knobs), Site(8, 48, 9, 9))
    compiled = torch.compile(module, fullgraph=True, backend="aot_eager")
    for side in (5, 12):
        x = torch.randn(2, 8, side, side)
        torch.testing.assert_close(compiled(x), module(x))


@pytest.mark.parametrize("side", [5, 12])
@pytest.mark.parametrize("knobs", SEEN, ids=str)
def test_it_can_be_exported(knobs: Any, side: int) -> None:
    module, x = ExpAttConv2d(ExpAtt(**knobs), Site(8, 48, side, side)).eval(), torch.randn(2, 8, side, side)
    torch.testing.assert_close(torch.export.export(module, (x,)).module()(x), module(x))


def test_the_dense_path_is_for_small_grids() -> None:
    assert DENSE == 100 and not ExpAtt().factorises(10, 10) and ExpAtt().factorises(10, 11)
    assert not ExpAtt(kernel="cauchy").factorises(56, 56)
