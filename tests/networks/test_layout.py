"""Gradients lie in memory as the maps do, so that no operation of a training step reads two orders at once."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from harness.config import ATTENTIONS, LTPA, VGG, Attention, Custom, PreActResNet, ResNet, Trunk, WideResNet
from harness.cost import Shape
from harness.networks.build import build
from harness.networks.layout import ordered

ORDERS = [torch.channels_last, torch.contiguous_format]
KINDS: list[Attention] = [kind() for kind in ATTENTIONS if kind is not Custom]
TRUNKS: list[Trunk] = [
    ResNet(depth=14),
    ResNet(depth=18, width=0.25),
    PreActResNet(depth=11, head=LTPA(taps=(2, 3))),
    WideResNet(depth=10, factor=1, head=LTPA(taps=(1, 3), score="dp")),
    VGG(trunk="attention", width=0.05, head=LTPA(taps=(3, 5), projection="l")),
    *(ResNet(depth=8, width=2, stages=(kind, None, kind)) for kind in KINDS),
]


@pytest.mark.parametrize("order", ORDERS, ids=str)
def test_the_gradient_of_an_ordered_map_has_its_order(order: torch.memory_format) -> None:
    x = torch.randn(2, 3, 4, 5).to(memory_format=order).requires_grad_()
    for axis in (1, 3):
        given = x * 1
        found = torch.autograd.grad(ordered(given).transpose(1, axis).flatten(1).cumsum(1).sum(), given)[0]
        assert found.is_contiguous(memory_format=order)
        torch.testing.assert_close(found, torch.autograd.grad(x.transpose(1, axis).flatten(1).cumsum(1).sum(), x)[0])
    with torch.no_grad():
        assert ordered(x) is x


@pytest.mark.parametrize("network", TRUNKS, ids=lambda network: f"{network.kind}-{network.stages[0]!r}")
def test_what_reaches_a_norm_of_the_trunk_has_the_order_of_what_left_it(network: Trunk) -> None:
    model, orders = build(network, Shape(3, 16, 16, 5)).to(memory_format=torch.channels_last), list[bool]()

    def watch(module: nn.Module, _: Any, out: Tensor) -> None:
        order = torch.channels_last if out.stride(1) == 1 else torch.contiguous_format

        def note(slope: Tensor) -> None:
            orders.append(slope.is_contiguous(memory_format=order))

        out.register_hook(note)

    for name, module in model.named_modules():
        if isinstance(module, nn.BatchNorm2d) and "attention" not in name and ".conv" not in name:
            module.register_forward_hook(watch)
    model(torch.randn(4, 3, 16, 16).to(memory_format=torch.channels_last)).sum().backward()
    assert orders and all(orders)
