"""What every attention module keeps, whoever wrote it."""

import copy
from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from harness.config import CBAM, ECA, Attention, Custom, ExpAtt, ResNet, Site, SqueezeExcite
from harness.cost import Cost, Shape, network_cost
from harness.measure.complexity import check, count_custom, count_dispatch, count_ptflops
from harness.networks.build import build, seeded_attention


class Gate(nn.Module):
    """A user's module: matrix products that no hook of a layer sees."""

    def __init__(self, channels: int, reduction: int = 4) -> None:
        super().__init__()
        self.query = nn.Conv2d(channels, channels // reduction, 1)
        self.key = nn.Conv2d(channels, channels // reduction, 1)

    def forward(self, x: Tensor) -> Tensor:
        scores: Tensor = self.query(x).flatten(2).mT @ self.key(x).flatten(2)
        return (x.flatten(2) @ scores.softmax(-1).mT).view_as(x) + x


class Scale(nn.Module):
    """A user's module that states its own MACs."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.randn(channels, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        return x * (1 + self.scale.tanh())

    def macs(self, height: int, width: int) -> int:
        return height * width * len(self.scale)


CHANNELS = 16
SLOTS: list[Attention] = [
    SqueezeExcite(ratio=4),
    ECA(),
    ECA(size=1),
    CBAM(ratio=4, size=3),
    Custom(f"{__name__}:Gate", reduction=2),
    Custom(f"{__name__}:Scale", place="block"),
    ExpAtt(),
    ExpAtt(kernel="laplacian", radius_per="head", heads=4),
    ExpAtt(kernel="laplacian_l2", radius=1.5),
    ExpAtt(kernel="cauchy", radius_per="head", heads=2, share=0.5),
    ExpAtt(kernel="linear", radius=3.0),
    ExpAtt(kernel="uniform"),
]
SIZES = [(7, 5), (9, 12), (1, 1)]


def make(slot: Attention, size: tuple[int, int] = (7, 5), stride: int = 1) -> nn.Module:
    """The module of a slot with the initial weights it has in a network, nothing at zero."""
    return seeded_attention(slot, Site(CHANNELS, CHANNELS, *size, stride), seed=0, path="here")


def pictures(height: int, width: int, batch: int = 4) -> Tensor:
    return torch.randn(batch, CHANNELS, height, width, generator=torch.Generator().manual_seed(3))


@pytest.mark.parametrize("slot", SLOTS, ids=lambda slot: f"{type(slot).__name__}-{slot.effective(16)}")
class TestAttention:
    @pytest.mark.parametrize("size", SIZES)
    def test_it_keeps_the_shape_at_any_size(self, slot: Attention, size: tuple[int, int]) -> None:
        module, x = make(slot, size), pictures(*size)
        assert module(x).shape == x.shape and module(x).isfinite().all()
        assert module.eval()(x[:1]).shape == x[:1].shape

    def test_a_stride_halves_what_stands_for_a_convolution(self, slot: Attention) -> None:
        if slot.where == "conv":
            for height, width in SIZES:
                out = make(slot, (height, width), 2)(pictures(height, width))
                assert out.shape == (4, CHANNELS, (height + 1) // 2, (width + 1) // 2)

    @pytest.mark.parametrize("size", [(7, 5), (9, 12)])
    def test_the_memory_format_changes_nothing(self, slot: Attention, size: tuple[int, int]) -> None:
        module, x = make(slot, size).eval(), pictures(*size)
        torch.testing.assert_close(module(x.to(memory_format=torch.channels_last)), module(x), rtol=1e-4, atol=1e-5)

    @pytest.mark.parametrize("size", [(7, 5), (9, 12)])
    def test_bf16_autocast_is_close(self, slot: Attention, size: tuple[int, int]) -> None:
        module, x = make(slot, size).eval(), pictures(*size)
        with torch.autocast("cpu", torch.bfloat16):
            found = module(x)
        assert (found - module(x)).abs().max() < 0.05 * module(x).abs().max()

    def test_pictures_of_a_batch_do_not_mix(self, slot: Attention) -> None:
        module, x = make(slot, (9, 12)).eval(), pictures(9, 12)
        torch.testing.assert_close(module(x)[2:3], module(x[2:3]), rtol=1e-4, atol=1e-5)

    def test_the_seed_and_the_path_say_the_weights(self, slot: Attention) -> None:
        first, again = make(slot), make(slot)
        assert all(torch.equal(a, b) for a, b in zip(first.parameters(), again.parameters(), strict=True))
        x = pictures(7, 5)
        assert torch.equal(first.eval()(x), first(x)) and torch.equal(first(x), again.eval()(x))

    def test_a_state_dict_carries_all(self, slot: Attention) -> None:
        module, x = make(slot), pictures(7, 5)
        module(x)  # moves the statistics of norms
        twin = make(slot)
        with torch.no_grad():
            for parameter in twin.parameters():
                parameter.add_(1)
        twin.load_state_dict(module.state_dict())
        assert torch.equal(twin.eval()(x), module.eval()(x))

    def test_a_gradient_reaches_every_parameter_and_the_input(self, slot: Attention) -> None:
        module, x = make(slot, (9, 12)), pictures(9, 12).requires_grad_()
        torch.autograd.backward((module(x) * pictures(9, 12).flip(0)).sum())
        assert x.grad is not None and x.grad.any()
        for name, parameter in module.named_parameters():
            assert parameter.grad is not None and parameter.grad.isfinite().all() and parameter.grad.any(), name

    def test_one_step_lowers_the_loss(self, slot: Attention) -> None:
        network = in_network(slot)
        model, x = build(network, SHAPE), torch.randn(32, 3, 12, 12, generator=torch.Generator().manual_seed(1))
        y = torch.arange(32) % 10
        optimiser = torch.optim.SGD(model.parameters(), lr=0.02)
        losses = []
        for _ in range(2):
            loss = F.cross_entropy(model(x), y)
            losses.append(loss.item())
            optimiser.zero_grad()
            torch.autograd.backward(loss)
            optimiser.step()
        assert losses[1] < losses[0]

    def test_beside_it_a_network_starts_as_without_it(self, slot: Attention) -> None:
        plain, with_it = build(ResNet(depth=8), SHAPE).state_dict(), build(in_network(slot), SHAPE).state_dict()
        replaced = {"stages.2.0.branch.conv1.weight"} if slot.where == "conv" else set()
        assert {path for path in plain if path not in with_it} == replaced
        assert all(torch.equal(plain[path], with_it[path]) for path in plain if path in with_it)

    def test_three_counts_agree(self, slot: Attention) -> None:
        network = in_network(slot)
        claimed, model = network_cost(network, SHAPE, count_custom), build(network, SHAPE, device="meta")
        check(network, model, SHAPE, claimed)
        assert count_ptflops(model, SHAPE) == claimed
        elementwise = claimed.macs - network_cost(ResNet(depth=8), SHAPE).macs if type(self).scales(slot) else 0
        assert count_dispatch(model, SHAPE) == Cost(claimed.params, claimed.macs - elementwise)

    @staticmethod
    def scales(slot: Attention) -> bool:
        """Whether the module claims MACs that are no matrix product."""
        return isinstance(slot, Custom) and slot.class_name == "Scale"

    def test_its_own_cost_is_what_it_holds(self, slot: Attention) -> None:
        for stride in (1, 2) if slot.where == "conv" else (1,):
            found = slot.cost(Site(CHANNELS, CHANNELS, 9, 12, stride), count_custom)
            assert found.params == sum(parameter.numel() for parameter in make(slot, (9, 12), stride).parameters())

    def test_it_can_be_copied(self, slot: Attention) -> None:
        module, x = make(slot).eval(), pictures(7, 5)
        assert torch.equal(copy.deepcopy(module)(x), module(x))

    def test_it_runs_on_the_meta_device(self, slot: Attention) -> None:
        out = make(slot, (9, 12)).to("meta")(torch.empty(2, CHANNELS, 9, 12, device="meta"))
        assert out.is_meta and out.shape == (2, CHANNELS, 9, 12)


SHAPE = Shape(3, 12, 12, 10)


def in_network(slot: Attention) -> ResNet:
    """A small network with the slot in its middle stage."""
    return ResNet(depth=8, stages=(None, slot, None))  # type: ignore[arg-type]


FORMULA: list[tuple[Attention, Callable[[int], int]]] = [
    (SqueezeExcite(ratio=4), lambda c: c * (c // 4) * 2 + c // 4 + c),
    (ECA(), lambda c: 3),  # up to 128 channels
    (CBAM(ratio=8, size=5), lambda c: c * (c // 8) * 2 + c // 8 + c + 2 * 25 + 2),
    (Custom(f"{__name__}:Gate", reduction=2), lambda c: 2 * (c * (c // 2) + c // 2)),
    (Custom(f"{__name__}:Scale"), lambda c: c),
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
    assert count_custom(Custom(f"{__name__}:Scale"), channels, 9, 12) == Cost(16, 9 * 12 * 16)
