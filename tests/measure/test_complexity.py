"""The counters: right for what torch can be asked, equal to the closed form for any config, harmless to the module."""

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from harness.config import (
    AA,
    ATTENTIONS,
    BAM,
    CBAM,
    ECA,
    GSA,
    LTPA,
    VGG,
    Attention,
    BottleneckAttention,
    CoordinateAttention,
    Custom,
    EffectiveSE,
    ExpAtt,
    GatherExcite,
    GlobalContext,
    Halo,
    Kernel,
    LambdaLayer,
    NonLocal,
    PreActResNet,
    ResNet,
    SimAM,
    SqueezeExcite,
    StandAlone,
    TripletAttention,
    WideResNet,
)
from harness.cost import Cost, Shape, network_cost
from harness.errors import CodeError, ConfigError
from harness.measure.complexity import CountError, check, count_custom, count_dispatch, count_ptflops
from harness.networks.build import build

KERNELS: list[Kernel] = ["gaussian", "laplacian", "laplacian_l2", "cauchy", "linear", "uniform"]
SLOTS = st.one_of(
    st.none(),
    st.builds(SqueezeExcite, ratio=st.sampled_from([1, 2, 8, 16])),
    st.builds(ECA, size=st.sampled_from([None, 1, 3, 9])),
    st.builds(CBAM, ratio=st.sampled_from([1, 8, 16]), size=st.sampled_from([3, 5, 7])),
    st.sampled_from([EffectiveSE(), SimAM(), CoordinateAttention(), CoordinateAttention(ratio=2)]),
    st.builds(BAM, ratio=st.sampled_from([1, 16]), dilation=st.sampled_from([1, 4])),
    st.builds(GlobalContext, ratio=st.sampled_from([2, 16]), fuse=st.sampled_from(["add", "scale"])),
    st.builds(GatherExcite, extent=st.sampled_from([None, 2, 4, 8]), ratio=st.sampled_from([None, 4])),
    st.builds(GatherExcite, gather=st.just("pool"), extent=st.sampled_from([2, 8]), ratio=st.sampled_from([None, 4])),
    st.builds(TripletAttention, size=st.sampled_from([3, 7])),
    st.builds(NonLocal, ratio=st.sampled_from([1, 8])),
    st.builds(BottleneckAttention, heads=st.sampled_from([1, 4])),
    st.builds(Halo, heads=st.sampled_from([1, 8]), block=st.sampled_from([1, 4, 7]), halo=st.sampled_from([1, 3])),
    st.builds(StandAlone, heads=st.sampled_from([1, 8]), size=st.sampled_from([3, 7])),
    st.builds(LambdaLayer, heads=st.sampled_from([1, 4]), keys=st.sampled_from([1, 16]), reach=st.sampled_from([1, 7, 23])),
    st.builds(
        ExpAtt,
        kernel=st.sampled_from(KERNELS),
        radius_per=st.sampled_from(["layer", "head"]),
        heads=st.sampled_from([1, 2, 8]),
        share=st.sampled_from([0.1, 0.25, 0.5]),
        multiple=st.sampled_from([2, 8]),
        projection=st.booleans(),
        largest=st.sampled_from([None, 1, 7, 14]),
    ),
    st.builds(
        AA,
        upsilon=st.sampled_from([0.1, 0.5, 1.0]),
        heads=st.sampled_from([1, 4, 8]),
        min_keys=st.sampled_from([1, 20]),
        position=st.sampled_from(["relative", "none"]),
        largest=st.sampled_from([None, 8, 16]),
    ),
    st.builds(GSA, heads=st.sampled_from([1, 8]), content=st.just(True), position=st.booleans(), norm=st.booleans()),
    st.builds(GSA, heads=st.sampled_from([1, 8]), content=st.just(False)),
)
SHAPES = st.builds(Shape, st.sampled_from([1, 3]), st.integers(1, 40), st.integers(1, 40), st.integers(1, 30))


HEADS = st.none() | st.builds(
    LTPA,
    taps=st.sampled_from([(3,), (2, 3), (3, 1, 2)]),
    score=st.sampled_from(["pc", "dp"]),
    combine=st.sampled_from(["concat", "indep"]),
    projection=st.sampled_from(["g", "l"]),
)
WIDTHS = st.sampled_from([0.25, 0.7, 1.0, 1.5])


@st.composite
def resnets(draw: st.DrawFn) -> dict[str, Any]:
    depth = draw(st.sampled_from([8, 14, 18, 34, 50]))
    slots = draw(st.tuples(*[SLOTS] * (3 if depth < 18 else 4)))
    return {"depth": depth, "width": draw(WIDTHS), "stem": draw(st.sampled_from([None, "cifar"])), "stages": slots}


THREE, FIVE = st.tuples(*[SLOTS] * 3), st.tuples(*[SLOTS] * 5)
TRUNKS: dict[type[Any], st.SearchStrategy[dict[str, Any]]] = {
    ResNet: resnets(),
    PreActResNet: st.fixed_dictionaries({"depth": st.sampled_from([11, 20]), "width": WIDTHS, "stages": THREE}),
    WideResNet: st.fixed_dictionaries({"depth": st.sampled_from([10, 16]), "factor": WIDTHS, "stages": THREE}),
    VGG: st.fixed_dictionaries(
        {"trunk": st.sampled_from(["plain", "attention"]), "width": st.sampled_from([0.05, 0.25]), "stages": FIVE}
    ),
}


@st.composite
def networks(draw: st.DrawFn, kind: type[Any]) -> Any:
    fields, head = draw(TRUNKS[kind]), draw(HEADS)
    try:
        return kind(**fields, head=head)
    except ConfigError:  # a slot that does not fit so narrow a stage
        fitting = tuple(s if isinstance(s, SqueezeExcite | ECA | CBAM | SimAM) else None for s in fields.pop("stages"))
        return kind(**fields, stages=fitting, head=head)


@pytest.mark.parametrize(("kind", "examples"), [(ResNet, 20), (PreActResNet, 8), (WideResNet, 8), (VGG, 8)])
def test_three_counts_are_one(kind: type[Any], examples: int) -> None:
    @given(network=networks(kind), shape=SHAPES)
    @settings(deadline=None, max_examples=examples)
    def agree(network: Any, shape: Shape) -> None:
        model = build(network, shape, device="meta")
        claimed = network_cost(network, shape)
        assert claimed.params == sum(parameter.numel() for parameter in model.parameters())
        assert count_dispatch(model, shape) == claimed
        assert count_ptflops(model, shape) == claimed

    agree()


class Functional(nn.Module):
    """An operation on (batch, 6, height, width) as a module."""

    def __init__(self, operation: Any, *weights: tuple[int, ...]) -> None:
        super().__init__()
        self.operation, self.weights = operation, nn.ParameterList(torch.randn(shape) for shape in weights)

    def forward(self, x: Tensor) -> Any:
        return self.operation(x, *self.weights)


S = Shape(6, 4, 5, 0)  # 20 positions


@pytest.mark.parametrize(
    ("module", "macs"),
    [
        (nn.Conv2d(6, 9, 3, padding=1), 20 * 6 * 9 * 9),
        (nn.Conv2d(6, 9, 3, padding=1, groups=3), 20 * 2 * 9 * 9),
        (nn.Conv2d(6, 9, 3, stride=2, dilation=2, padding=2), 2 * 3 * 6 * 9 * 9),
        (nn.ConvTranspose2d(6, 9, 2, stride=2), 20 * 6 * 9 * 4),
        (nn.Sequential(nn.Flatten(), nn.Linear(120, 7)), 120 * 7),
        (Functional(lambda x, w: x.flatten(2).mT @ w, (6, 7)), 20 * 6 * 7),
        (Functional(lambda x, w: torch.einsum("bchw,cd->bdhw", x, w), (6, 7)), 20 * 6 * 7),
        (Functional(lambda x, w: x.flatten() @ w, (120,)), 120),
        (Functional(lambda x, w: w @ x.flatten(), (7, 120)), 7 * 120),
        (Functional(lambda x: torch.baddbmm(x[:, 0], x[:, 0], x[:, 0].mT @ x[:, 0])), 5 * 4 * 5 + 4 * 5 * 5),
        (Functional(lambda x: torch.cdist(x.flatten(2).mT, x.flatten(2).mT)), 20 * 20 * 6),
        (Functional(lambda x: F.scaled_dot_product_attention(*[x.flatten(2).mT[:, None]] * 3)), 2 * 20 * 20 * 6),
        (Functional(lambda x: x.relu().mean((2, 3)).softmax(1) * 2 + 1), 0),
    ],
)
@pytest.mark.parametrize("device", ["meta", "cpu"])
def test_operations_by_hand(module: nn.Module, macs: int, device: str) -> None:
    slot = OnCpu(module) if device == "cpu" else module
    expected = Cost(sum(parameter.numel() for parameter in module.parameters()), macs)
    assert count_dispatch(slot, S) == expected
    with torch.inference_mode():
        assert count_dispatch(slot, S) == expected


class OnCpu(nn.Module):
    """Looks at its numbers, so that it cannot run on the meta device."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, x: Tensor) -> Any:
        x.sum().item()
        return self.inner(x)


class SelfAttention(nn.Module):
    def __init__(self, channels: int, frozen: bool = False) -> None:
        super().__init__()
        self.attention = nn.MultiheadAttention(channels, 2, batch_first=True)
        self.requires_grad_(not frozen)

    def forward(self, x: Tensor) -> Tensor:
        places = x.flatten(2).mT
        out: Tensor
        out, _ = self.attention(places, places, places, need_weights=False)
        return x + out.mT.view_as(x)


def test_torchs_own_attention_is_counted_whole() -> None:
    positions, channels = 20, 6
    macs = 4 * positions * channels**2 + 2 * positions**2 * channels
    assert count_custom(Custom(f"{__name__}:SelfAttention"), channels, 4, 5) == Cost(4 * 36 + 24, macs)
    slot = Custom(f"{__name__}:SelfAttention")
    network, shape = ResNet(depth=8, stages=(None, slot, slot)), Shape(3, 9, 8, 10)
    claimed, model = network_cost(network, shape, count_custom), build(network, shape)
    assert count_ptflops(model, shape) == count_dispatch(model, shape) == claimed


class WrongFormula(SelfAttention):
    def macs(self, height: int) -> int:
        return height


def test_a_formula_that_raises_is_the_users_error() -> None:
    with pytest.raises(CodeError, match=r"WrongFormula.macs\(4, 5\) raised TypeError"):
        count_custom(Custom(f"{__name__}:WrongFormula"), 6, 4, 5)


def test_a_fused_operation_of_unknown_cost_is_refused() -> None:
    with pytest.raises(CountError, match="trilinear"):
        count_dispatch(Functional(lambda x: nn.functional.bilinear(x, x, torch.zeros(2, 5, 5, device=x.device))), S)


def test_counting_leaves_the_module_as_it_was() -> None:
    shape = Shape(3, 9, 9, 4)
    model = build(ResNet(depth=8, stages=(ExpAtt(), SqueezeExcite(), Custom(f"{__name__}:SelfAttention"))), shape)
    before, names = {path: tensor.clone() for path, tensor in model.state_dict().items()}, set(vars(model))
    torch.manual_seed(3)
    expected = torch.randn(2)
    torch.manual_seed(3)
    count_ptflops(model, shape), count_dispatch(model, shape)
    assert torch.equal(torch.randn(2), expected)
    assert set(vars(model)) == names and all(module.training for module in model.modules())
    assert not any(module._forward_hooks for module in model.modules())
    assert all(torch.equal(tensor, before[path]) for path, tensor in model.state_dict().items())


def test_nothing_is_printed(capfd: pytest.CaptureFixture[str]) -> None:
    shape = Shape(3, 9, 9, 4)
    count_ptflops(build(ResNet(depth=8), shape), shape)
    with pytest.raises(CountError, match=r"ptflops failed: .*channels"):
        count_ptflops(build(ResNet(depth=8), shape), shape._replace(channels=2))
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("wrong", [Cost(1, 0), Cost(0, 30_000)])
def test_a_wrong_claim_is_told_with_both_numbers(wrong: Cost) -> None:
    network, shape = ResNet(depth=8, stages=(None, ECA(), None)), Shape(3, 9, 9, 4)
    model, right = build(network, shape, device="meta"), network_cost(network, shape)
    claimed = right + wrong
    with pytest.raises(CountError) as error:
        check(network, model, shape, claimed)
    assert "\n" not in str(error.value) and "none+eca+none" in str(error.value)
    assert all(f"{number:,}" in str(error.value) for number in (*claimed, *right))
    check(network, model, shape, right + Cost(0, right.macs // 200))


def test_a_kind_of_attention_is_missing_from_no_list() -> None:
    def leaves(kind: type[Attention]) -> set[type[Attention]]:
        below = kind.__subclasses__()
        return set().union(*map(leaves, below)) if below else {kind}

    assert leaves(Attention) == set(ATTENTIONS)
