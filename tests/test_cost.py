"""Costs one can trust: closed forms against built networks, three counts for every kind, the papers' modules by hand.

The configs are drawn over every kind, every knob, every trunk and shape. A few are looked at here; `make counts` looks at
a thousand.
"""

import random
from typing import Any

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
    LTPA,
    NETWORKS,
    VGG,
    Attention,
    Backbone,
    BottleneckAttention,
    CoordinateAttention,
    Custom,
    EffectiveSE,
    ExpAtt,
    GatherExcite,
    GlobalContext,
    Halo,
    LambdaLayer,
    Network,
    NonLocal,
    Part,
    PreActResNet,
    ResNet,
    SimAM,
    Site,
    SqueezeExcite,
    StandAlone,
    TripletAttention,
    WideResNet,
)
from harness.cost import Cost, Shape, network_cost
from harness.errors import ConfigError
from harness.measure.complexity import count_custom, count_dispatch, count_ptflops
from harness.networks.build import build, seeded_attention

LOOKED_AT, THOUSAND = 30, 1000


class Gate(nn.Module):
    """A user's module, with products outside of layers."""

    def __init__(self, channels: int, ratio: int = 2) -> None:
        super().__init__()
        self.down = nn.Conv2d(channels, max(1, channels // ratio), 1)

    def forward(self, x: Tensor) -> Tensor:
        small = self.down(x).flatten(2)
        mixed: Tensor = (small.mT @ small).softmax(-1) @ x.flatten(2).mT
        return x + mixed.mT.view_as(x)


# -- random configs


KNOBS: dict[type[Part], dict[str, list[Any]]] = {
    SqueezeExcite: {"ratio": [1, 3, 16]},
    EffectiveSE: {},
    ECA: {"size": [None, 1, 7]},
    CBAM: {"ratio": [1, 16], "size": [3, 5, 7]},
    BAM: {"ratio": [1, 16], "dilation": [1, 4]},
    GlobalContext: {"ratio": [1, 16], "fuse": ["add", "scale"]},
    GatherExcite: {"gather": ["pool", "conv"], "extent": [None, 2, 4, 8], "ratio": [None, 1, 16]},
    CoordinateAttention: {"ratio": [1, 32]},
    SimAM: {"damping": [1e-4, 1e-2]},
    TripletAttention: {"size": [3, 5, 7]},
    NonLocal: {"ratio": [1, 2, 5]},
    BottleneckAttention: {"heads": [1, 4]},
    Halo: {"heads": [1, 4, 8], "block": [2, 8], "halo": [1, 3]},
    StandAlone: {"heads": [1, 4, 8], "size": [3, 7]},
    LambdaLayer: {"heads": [1, 4], "keys": [4, 16], "reach": [3, 23]},
    ExpAtt: {
        "kernel": ["gaussian", "laplacian", "laplacian_l2", "cauchy", "linear", "uniform"],
        "radius": [1.5, 2.0],
        "radius_per": ["layer", "head"],
        "unit": ["positions", "share"],
        "parametrisation": ["exp", "softplus"],
        "learned": [True, False],
        "heads": [1, 2, 8],
        "share": [0.1, 0.3, 0.5],
        "multiple": [1, 8],
        "projection": [True, False],
        "largest": [None, 7, 14],
    },
    AA: {
        "kappa": [0.1, 0.25, 0.5],
        "upsilon": [0.1, 0.5, 1.0],
        "heads": [1, 4, 8],
        "min_keys": [1, 20],
        "position": ["relative", "none"],
        "largest": [None, 4, 16],
        "pooled": ["input", "qkv"],
    },
    GSA: {
        "heads": [1, 4, 8],
        "content": [True, False],
        "position": [True, False],
        "softmax_query": [True, False],
        "norm": [True, False],
    },
    Custom: {"target": [f"{__name__}:Gate"], "knobs": [{}, {"ratio": 1}], "place": ["branch", "block", "stage"]},
    LTPA: {
        "taps": [(1,), (3,), (1, 3), (1, 2, 3)],
        "score": ["pc", "dp"],
        "combine": ["concat", "indep"],
        "average": ["log", "probability"],
        "projection": ["g", "l"],
        "dropout": [0.0, 0.5],
    },
    ResNet: {"depth": [8, 14, 18, 34, 38, 50, 101], "stem": [None, "cifar", "imagenet"], "width": [0.25, 0.7, 1.0, 1.5]},
    PreActResNet: {"depth": [11, 20, 29], "width": [0.5, 1.0, 1.3]},
    WideResNet: {"depth": [10, 16], "factor": [1.0, 2.5, 4.0], "dropout": [0.0, 0.3]},
    VGG: {"dropout": [1.0, 0.5], "trunk": ["plain", "attention"], "width": [0.125, 0.5, 1.0]},
}
"""Values of every knob of every part."""
TRUNKS = [network for network in NETWORKS if network is not Backbone]  # tests/networks/test_backbone.py has that


def test_no_part_and_no_knob_is_missing() -> None:
    assert set(KNOBS) == {*ATTENTIONS, LTPA, *TRUNKS}
    for part, knobs in KNOBS.items():
        assert knobs.keys() == part.model_fields.keys() - {"kind", "label", "stages", "head"}, part


def drawn(part: type[Part], rng: random.Random, **more: Any) -> Any:
    """A part with random knobs, drawn again until they go together."""
    while True:
        try:
            return part(**{name: rng.choice(values) for name, values in KNOBS[part].items()}, **more)
        except ConfigError:
            continue


def config(index: int) -> tuple[Network, Shape]:
    """A random network, every second stage with attention, every fifth network with a head of its own; and its shape."""
    rng = random.Random(index)
    while True:
        plain = drawn(rng.choice(TRUNKS), rng)
        kinds = [rng.choice(ATTENTIONS) if rng.random() < 0.5 else None for _ in plain.stages]
        stages = tuple(kind and drawn(kind, rng) for kind in kinds)
        head = drawn(LTPA, rng) if rng.random() < 0.2 else None
        try:
            found: Network = type(plain)(**plain.model_dump() | {"stages": stages, "head": head})
        except ConfigError:  # attention too wide for a stage
            continue
        return found, Shape(rng.choice((1, 3)), rng.randint(1, 40), rng.randint(1, 40), rng.randint(1, 30))


def assert_counted(indices: range) -> None:
    """The closed form of each config is what its built network has and dispatches."""
    for index in indices:
        network, shape = config(index)
        claimed, model = network_cost(network, shape, count_custom), build(network, shape, device="meta")
        found = count_dispatch(model, shape)
        assert found == claimed, f"config {index}: {network!r} at {shape}: {claimed} claimed, {found} built"


def test_closed_forms_are_the_built_networks() -> None:
    assert_counted(range(LOOKED_AT))


@pytest.mark.counts_long
@pytest.mark.parametrize("start", range(0, THOUSAND, 50))
def test_closed_forms_are_the_built_networks_a_thousand_times(start: int) -> None:
    assert_counted(range(start, start + 50))


def test_the_thousand_meet_every_kind_and_every_trunk() -> None:
    met = [config(index)[0] for index in range(THOUSAND)]
    parts = {type(part) for network in met for part in (network, network.head, *network.stages)} - {type(None)}
    assert parts == {*ATTENTIONS, LTPA, *TRUNKS}


# -- three counts for every kind

SHAPES = [Shape(3, 32, 32, 10), Shape(1, 13, 22, 7)]


@pytest.mark.parametrize("kind", [*ATTENTIONS, LTPA], ids=lambda kind: kind.__name__)
def test_three_independent_counts_agree(kind: type[Part]) -> None:
    for index, shape in enumerate(SHAPES):
        network = holding(kind, random.Random(index))
        claimed, model = network_cost(network, shape, count_custom), build(network, shape, device="meta")
        assert claimed.params == sum(parameter.numel() for parameter in model.parameters())
        assert count_dispatch(model, shape) == claimed
        hooked = count_ptflops(model, shape)
        assert hooked.params == claimed.params and abs(hooked.macs - claimed.macs) <= 0.01 * claimed.macs


def holding(kind: type[Part], rng: random.Random) -> ResNet:
    """A small network with a random member of a kind."""
    while True:
        member = drawn(kind, rng)
        try:
            return ResNet(depth=8, head=member) if kind is LTPA else ResNet(depth=8, stages=(None, None, member))
        except ConfigError:  # not at this width
            continue


# -- the four papers' modules, by hand

SITES = [Site(64, 64, 14, 14), Site(48, 96, 9, 6), Site(128, 128, 14, 12, 2)]


def counted(attention: Attention, site: Site) -> Cost:
    """What the built module has, and what it dispatches for one picture of the site."""
    module = seeded_attention(attention, site, 0, "here")
    found = count_dispatch(module, Shape(site.inputs, site.height, site.width, 0))
    assert found == attention.cost(site)
    return found


def after(site: Site) -> tuple[int, int]:
    """Height and width behind a stride."""
    return -(-site.height // site.stride), -(-site.width // site.stride)


@pytest.mark.parametrize("site", SITES, ids=str)
def test_aa_by_hand(site: Site) -> None:
    """Section 3: one 1x1 for q, k, v; logits q.k + q.rW + q.rH; 2H-1 and 2W-1 embeddings; a 1x1 mixes the heads."""
    (height, width), heads, dk, dv = after(site), 8, 160, max(8, site.channels // 10 // 8 * 8)
    grid = height * width
    projections = site.inputs * (2 * dk + dv) + dv * dv
    convolution = 9 * site.inputs * (site.channels - dv)
    embeddings = (2 * height - 1 + 2 * width - 1) * dk // heads
    attention = grid * grid * dk + grid * grid * dv + grid * (height + width) * dk
    expected = Cost(projections + convolution + embeddings, grid * (projections + convolution) + attention)
    assert counted(AA(kappa=0.2, upsilon=0.1), site) == expected


@pytest.mark.parametrize("site", SITES, ids=str)
def test_aa_on_pooled_maps_by_hand(site: Site) -> None:
    """A 3x3 average pooling of stride 2 before attention: only the convolution works on the whole grid."""
    (height, width), dk, dv = after(site), 160, max(8, site.channels // 10 // 8 * 8)
    small = (-(-height // 2), -(-width // 2))
    grid, pooled = height * width, small[0] * small[1]
    projections, convolution = site.inputs * (2 * dk + dv) + dv * dv, 9 * site.inputs * (site.channels - dv)
    attention = pooled * pooled * (dk + dv) + pooled * sum(small) * dk
    macs = grid * convolution + pooled * projections + attention
    assert counted(AA(largest=4), site).macs == macs
    later = AA(largest=4, pooled="qkv")  # q, k and v are projected on the whole grid, and pooled then
    assert counted(later, site).macs == macs + (grid - pooled) * site.inputs * (2 * dk + dv)


@pytest.mark.parametrize("site", SITES, ids=str)
@pytest.mark.parametrize("kernel", ["gaussian", "cauchy", "uniform"])
def test_expatt_by_hand(site: Site, kernel: str) -> None:
    """V and the output are 1x1 without bias; one radius a layer; A V, or rows and then columns where that is exact and the
    grid is large; the uniform map is a mean."""
    (height, width), dv = after(site), max(8, site.channels // 10 // 8 * 8)
    grid = height * width
    weights = 9 * site.inputs * (site.channels - dv) + site.inputs * dv + dv * dv
    products = {"gaussian": (height + width) if grid > 100 else grid, "cauchy": grid, "uniform": 0}[kernel]
    expected = Cost(weights + (kernel != "uniform"), grid * weights + grid * products * dv)
    assert counted(ExpAtt(kernel=kernel), site) == expected


@pytest.mark.parametrize("site", SITES, ids=str)
def test_gsa_by_hand(site: Site) -> None:
    """Section 3: 1x1 queries, keys, values; content softmax(K)^T V, then Q times it, C/8 x C/8 a head; positions along a
    column and then a row: q.r, then times v; 2L-1 embeddings an axis, a batch norm between. Pooling comes behind."""
    height, width, channels = site.height, site.width, site.channels
    grid, a_head = height * width, channels // 8
    content = 2 * grid * channels * a_head
    columns, rows = 2 * grid * height * channels, 2 * grid * width * channels
    embeddings = 2 * (2 * max(height, width) - 1) * a_head
    projections = 3 * site.inputs * channels
    expected = Cost(projections + embeddings + 2 * channels, grid * projections + content + columns + rows)
    assert counted(GSA(), site) == expected


@pytest.mark.parametrize("score", ["pc", "dp"])
@pytest.mark.parametrize("taps", [(5,), (4, 5), (3, 4, 5)])
def test_ltpa_by_hand(taps: tuple[int, ...], score: str) -> None:
    """Section 3 on VGG at 32x32: local features of 256 channels on 32x32, and of 512 on 16x16 and on 8x8; g of 512.

    A level has its compatibility (u, with a bias, for pc: <u, l> at every position and <u, g> once; <l, g> for dp), its
    weighted sum, and a batch norm; where the level is narrower g is normed and mapped down. One linear map classifies.
    """
    shape, classes, g = Shape(3, 32, 32, 100), 100, 512
    network = VGG(trunk="attention", head=LTPA(taps=taps, score=score))  # type: ignore[arg-type]
    sides, channels = {3: 32, 4: 16, 5: 8}, {3: 256, 4: 512, 5: 512}
    params, macs = g * g + g, g * g
    for tap in taps:
        width, grid = channels[tap], sides[tap] ** 2
        if width != g:
            params, macs = params + 2 * g + g * width + width, macs + g * width
        if score == "pc":
            params, macs = params + width + 1, macs + width
        params, macs = params + 2 * width, macs + 2 * grid * width
    joined = sum(channels[tap] for tap in taps)
    params, macs = params + joined * classes + classes, macs + joined * classes
    assert dict(network.parts(shape))["head"] == Cost(params, macs)
    without = VGG(trunk="attention")
    plain, whole = (count_dispatch(build(one, shape, device="meta"), shape) for one in (without, network))
    own = without.classifier(classes)
    assert Cost(whole.params - plain.params, whole.macs - plain.macs) == Cost(params - own.params, macs - own.macs)


def test_aa_under_a_head_scored_by_dp_is_counted_without_weights() -> None:
    """Where a forward pass fails on the meta device, AA as a CPU does it is counted, which multiplies ones and zeros."""
    head, shape = LTPA(taps=(3,), score="dp"), Shape(3, 21, 11, 4)
    network = ResNet(depth=8, stages=(None, None, AA(largest=None)), head=head)
    assert count_dispatch(build(network, shape, device="meta"), shape) == network_cost(network, shape)


def test_counting_needs_no_weights() -> None:
    torch.manual_seed(0)
    expected = torch.rand(1)
    torch.manual_seed(0)
    assert_counted(range(2))
    assert torch.equal(torch.rand(1), expected)
