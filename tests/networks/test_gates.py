"""Gates of our own against the papers' formulas, written naively; and the published counts of all that gate."""

import math
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from harness.config import (
    BAM,
    CBAM,
    ECA,
    Attention,
    CoordinateAttention,
    EffectiveSE,
    GatherExcite,
    GlobalContext,
    ResNet,
    SimAM,
    Site,
    SqueezeExcite,
    TripletAttention,
)
from harness.cost import Shape, network_cost
from harness.errors import ConfigError
from harness.networks.attention.catalog import attention

IMAGENET = Shape(3, 224, 224, 1000)


def made(slot: Attention, channels: int = 6, height: int = 5, width: int = 4) -> nn.Module:
    torch.manual_seed(1)
    return attention(slot, Site(channels, channels, height, width)).eval()


def pictures(channels: int = 6, height: int = 5, width: int = 4) -> Tensor:
    return torch.randn(2, channels, height, width, generator=torch.Generator().manual_seed(2))


@pytest.mark.parametrize("damping", [1e-4, 0.5])
def test_simam_is_equation_5(damping: float) -> None:
    x = pictures()
    found = made(SimAM(damping=damping))(x)
    for b, c, i, j in torch.cartesian_prod(*map(torch.arange, x.shape)).tolist():
        plane = x[b, c]
        variance = sum((value - plane.mean()) ** 2 for value in plane.flatten()) / (plane.numel() - 1)
        energy = (plane[i, j] - plane.mean()) ** 2 / (4 * (variance + damping)) + 0.5
        assert found[b, c, i, j] == pytest.approx(float(plane[i, j] / (1 + math.exp(-energy))), rel=1e-4)


def test_triplet_pools_each_of_three_axes() -> None:
    module, x = made(TripletAttention(size=3)), pictures()
    total = torch.zeros_like(x)
    for axis, gate in zip((1, 2, 3), module.get_submodule("gates").children(), strict=True):
        plane = torch.stack([x.max(axis).values, x.mean(axis)], 1)
        total += x * gate(plane).squeeze(1).unsqueeze(axis)
    torch.testing.assert_close(module(x), total / 3)


def test_bam_adds_its_gates_before_the_sigmoid() -> None:
    module, x = made(BAM(ratio=2)), pictures()
    channel, spatial = module.get_submodule("channel")(x), module.get_submodule("spatial")(x)
    assert channel.shape == (2, 6, 1, 1) and spatial.shape == (2, 1, 5, 4)
    torch.testing.assert_close(module(x), x * (1 + 1 / (1 + torch.exp(-channel - spatial))))


def test_bams_dilation_reaches_so_far() -> None:
    x = pictures(height=19, width=19).requires_grad_()
    torch.autograd.backward(made(BAM(ratio=2, dilation=4)).get_submodule("spatial")(x)[0, 0, 9, 9])
    assert x.grad is not None
    rows, columns = x.grad[0].abs().sum(0).nonzero(as_tuple=True)
    assert set(rows.tolist()) <= {1, 5, 9, 13, 17} and set(columns.tolist()) <= {1, 5, 9, 13, 17} and len(rows) > 9


@pytest.mark.parametrize("extent", [None, 2, 4])
def test_a_pooled_gather_is_the_mean_of_what_is_near(extent: Any) -> None:
    x = pictures(height=7, width=5)
    found = made(GatherExcite(gather="pool", extent=extent, ratio=None), height=7, width=5)(x)
    for i, j in torch.cartesian_prod(torch.arange(7), torch.arange(5)).tolist():
        near = x
        if extent is not None:  # the nearest of the gathered places, of those that the map of places is read at
            rows, columns = -(-7 // extent), -(-5 // extent)
            top, left = i * rows // 7 * extent, j * columns // 5 * extent
            near = x[:, :, max(0, top - extent + 1) : top + extent, max(0, left - extent + 1) : left + extent]
        expected = x[:, :, i, j] * near.mean((2, 3)).sigmoid()
        torch.testing.assert_close(found[:, :, i, j], expected)


def test_a_gather_by_convolution_takes_one_per_halving_or_the_whole_map() -> None:
    layers = [type(layer).__name__ for layer in made(GatherExcite(extent=8, ratio=None)).get_submodule("gather")]
    assert layers == ["Conv2d", "BatchNorm2d", "ReLU"] * 2 + ["Conv2d", "BatchNorm2d"]
    whole = made(GatherExcite(ratio=None)).get_submodule("gather")
    assert whole(pictures()).shape == (2, 6, 1, 1)


def test_global_context_starts_as_nothing_when_it_adds() -> None:
    x = pictures()
    assert torch.equal(made(GlobalContext(ratio=2))(x), x)
    assert not torch.allclose(made(GlobalContext(ratio=2, fuse="scale"))(x), x)


PUBLISHED: list[tuple[tuple[Attention | None, ...], float]] = [
    ((SqueezeExcite(),) * 4, 28.088),
    ((CBAM(),) * 4, 28.090),
    ((BAM(), BAM(), BAM(), None), 25.915),
    ((None, *(GlobalContext(),) * 3), 28.079),
    ((CoordinateAttention(),) * 4, 27.475),
    ((TripletAttention(),) * 4, 25.562),
]


@pytest.mark.parametrize(("stages", "millions"), PUBLISHED, ids=str)
def test_published_parameters_on_resnet_50(stages: Any, millions: float) -> None:
    found = network_cost(ResNet(depth=50, stages=stages), IMAGENET).params
    assert found / 1e6 == pytest.approx(millions, abs=0.0005)


@pytest.mark.parametrize(("slot", "more"), [(ECA(), 86), (SimAM(), 0)], ids=repr)
def test_published_additions_to_resnet_50(slot: Any, more: int) -> None:
    assert network_cost(ResNet(depth=50, stages=(slot,) * 4), IMAGENET).params == 25_557_032 + more


def test_parameters_by_hand_at_40_channels() -> None:
    def params(slot: Attention, height: int = 7, width: int = 5) -> int:
        return sum(parameter.numel() for parameter in made(slot, 40, height, width).parameters())

    assert params(EffectiveSE()) == 40 * 40 + 40
    assert params(GlobalContext(ratio=4)) == (40 + 1) + (40 * 10 + 10) + 2 * 10 + (10 * 40 + 40)
    assert params(CoordinateAttention()) == (40 * 8 + 8) + 2 * 8 + 2 * (8 * 40 + 40)
    assert params(GatherExcite()) == 40 * 7 * 5 + 80 + (40 * 2 + 2) + (2 * 40 + 40)
    assert params(GatherExcite(extent=4, ratio=None)) == 2 * (9 * 40 + 80)
    assert params(GatherExcite(gather="pool", ratio=None)) == params(SimAM()) == 0
    assert params(TripletAttention(size=5)) == 3 * (2 * 25 + 2)


@pytest.mark.parametrize(
    ("slot", "words"),
    [
        (GlobalContext(ratio=16), "leaves 1 of 16 channels, of which a layer norm keeps nothing; use 8 or less"),
        (GatherExcite(gather="pool"), "is squeeze-and-excitation: use SqueezeExcite"),
    ],
    ids=repr,
)
def test_what_would_be_nothing_or_another_is_refused_in_one_line(slot: Any, words: str) -> None:
    with pytest.raises(ConfigError) as error:
        ResNet(depth=8, stages=(slot, None, None))
    assert words in str(error.value) and str(error.value).startswith("stage 1: ") and "\n" not in str(error.value)
