"""What every attention module keeps, whoever wrote it: our kinds and the user's, by the promises of `measure/contract`."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from harness.config import (
    AA,
    ATTENTIONS,
    BAM,
    CBAM,
    ECA,
    GSA,
    Attention,
    BottleneckAttention,
    CoordinateAttention,
    Custom,
    EffectiveSE,
    ExpAtt,
    GatherExcite,
    GlobalContext,
    Halo,
    LambdaLayer,
    NonLocal,
    SimAM,
    Site,
    SqueezeExcite,
    StandAlone,
    TripletAttention,
)
from harness.cost import Cost
from harness.measure.complexity import count_custom
from harness.measure.contract import CONTRACT, Promise, Subject
from harness.networks.build import seeded_attention


class Gate(nn.Module):
    """A user's module: matrix products that no hook of a layer sees."""

    def __init__(self, channels: int, reduction: int = 4) -> None:
        super().__init__()
        self.query = nn.Conv2d(channels, channels // reduction, 1)
        self.key = nn.Conv2d(channels, channels // reduction, 1)

    def forward(self, x: Tensor) -> Tensor:
        scores: Tensor = self.query(x).flatten(2).mT @ self.key(x).flatten(2)
        return (x.flatten(2) @ scores.softmax(-1).mT).view_as(x) + x


class Mix(nn.Module):
    """A user's module that states its own MACs."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.mixes = nn.Parameter(torch.randn(channels, channels) / channels)

    def forward(self, x: Tensor) -> Tensor:
        return x + torch.einsum("bchw,cd->bdhw", x, self.mixes)

    def macs(self, height: int, width: int) -> int:
        return height * width * len(self.mixes) ** 2


SLOTS: list[Attention] = [
    SqueezeExcite(ratio=4),
    ECA(),
    ECA(size=1),
    CBAM(ratio=4, size=3),
    Custom(f"{__name__}:Gate", reduction=2),
    Custom(f"{__name__}:Mix", place="block"),
    EffectiveSE(),
    BAM(ratio=4),
    BAM(ratio=2, dilation=1),
    GlobalContext(ratio=4),
    GlobalContext(ratio=4, fuse="scale"),
    GatherExcite(),
    GatherExcite(extent=2),
    GatherExcite(extent=8, ratio=None),
    GatherExcite(gather="pool", extent=4),
    GatherExcite(gather="pool", ratio=None),
    CoordinateAttention(),
    SimAM(),
    TripletAttention(),
    NonLocal(),
    BottleneckAttention(),
    Halo(),
    Halo(heads=4, block=4, halo=1),
    StandAlone(),
    StandAlone(heads=2, size=3),
    LambdaLayer(),
    LambdaLayer(heads=2, keys=3, reach=5),
    ExpAtt(),
    ExpAtt(kernel="laplacian", radius_per="head", heads=4),
    ExpAtt(kernel="laplacian_l2", radius=1.5),
    ExpAtt(kernel="cauchy", radius_per="head", heads=2, share=0.5),
    ExpAtt(kernel="linear", radius=3.0),
    ExpAtt(kernel="uniform"),
    ExpAtt(unit="share", radius=0.3, parametrisation="softplus", projection=False, share=0.5),
    ExpAtt(heads=1, multiple=1, share=0.2, largest=4),
    ExpAtt(learned=False, radius=1.5),
    AA(),
    AA(heads=4, min_keys=5, upsilon=0.5, largest=4),
    AA(position="none", upsilon=1.0, min_keys=2),
    GSA(),
    GSA(heads=4, position=False, softmax_query=True),
    GSA(content=False, norm=False),
]


@pytest.mark.parametrize("promise", CONTRACT, ids=lambda promise: promise.__name__)
@pytest.mark.parametrize("slot", SLOTS, ids=lambda slot: f"{type(slot).__name__}-{slot.effective(16)}")
def test_every_kind_keeps_the_contract(slot: Attention, promise: Promise) -> None:
    assert promise(Subject(slot))


def test_no_kind_is_left_out() -> None:
    assert {type(slot) for slot in SLOTS} == set(ATTENTIONS)


FORMULA: list[tuple[Attention, Callable[[int], int]]] = [
    (SqueezeExcite(ratio=4), lambda c: c * (c // 4) * 2 + c // 4 + c),
    (ECA(), lambda c: 3),  # up to 128 channels
    (CBAM(ratio=8, size=5), lambda c: c * (c // 8) * 2 + c // 8 + c + 2 * 25 + 2),
    (Custom(f"{__name__}:Gate", reduction=2), lambda c: 2 * (c * (c // 2) + c // 2)),
    (Custom(f"{__name__}:Mix"), lambda c: c * c),
]


@pytest.mark.parametrize(("slot", "params"), FORMULA, ids=repr)
@pytest.mark.parametrize("channels", [16, 40, 64])
def test_parameters_by_hand(slot: Attention, params: Callable[[int], int], channels: int) -> None:
    module = seeded_attention(slot, Site(channels, channels, 7, 5), seed=0, path="here")
    assert sum(parameter.numel() for parameter in module.parameters()) == params(channels)


def test_a_gate_costs_its_projections_and_its_two_products() -> None:
    positions, channels, inner = 9 * 12, 16, 8
    macs = positions * 2 * channels * inner + positions**2 * (inner + channels)
    assert count_custom(Custom(f"{__name__}:Gate", reduction=2), channels, 9, 12) == Cost(2 * (128 + 8), macs)
    assert count_custom(Custom(f"{__name__}:Mix"), channels, 9, 12) == Cost(256, 9 * 12 * 256)
