"""What every network keeps, with its own head and with one that attends."""

import copy
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from harness.config import (
    AA,
    GSA,
    LTPA,
    VGG,
    ExpAtt,
    Network,
    PreActResNet,
    ResNet,
    SqueezeExcite,
    WideResNet,
    part_from_json,
)
from harness.cost import Shape, network_cost
from harness.measure.complexity import check, count_dispatch, count_ptflops
from harness.networks.build import build

NETWORKS: list[Network] = [
    ResNet(depth=8),
    ResNet(depth=8, head=LTPA(taps=(2, 3), score="dp", combine="indep", average="probability", projection="l")),
    PreActResNet(depth=11, width=0.5),
    PreActResNet(depth=11, width=0.5, stages=(None, GSA(heads=4), SqueezeExcite()), head=LTPA(taps=(1, 3), combine="indep")),
    WideResNet(depth=10, factor=1.5, dropout=0.3),
    WideResNet(depth=10, factor=1.5, stages=(None, ExpAtt(), AA(upsilon=0.25)), head=LTPA(taps=(2,), score="dp")),
    VGG(width=0.1),
    VGG(trunk="attention", width=0.1),
    VGG(trunk="attention", width=0.1, stages=(None, None, GSA(heads=1), None, None), head=LTPA(taps=(3, 4, 5))),
]
SHAPE = Shape(3, 12, 10, 6)


def pictures(batch: int = 4, height: int = 12, width: int = 10) -> Tensor:
    return torch.randn(batch, 3, height, width, generator=torch.Generator().manual_seed(3))


def unsettled(network: Network, shape: Shape = SHAPE) -> nn.Module:
    """Built, with norms that do something."""
    model, generator = build(network, shape), torch.Generator().manual_seed(0)
    for tensor in [*model.parameters(), *model.buffers()]:
        if tensor.dim() == 1:
            tensor.data += 0.2 * torch.rand(tensor.shape, generator=generator)
    return model


@pytest.mark.parametrize("network", NETWORKS, ids=lambda network: f"{network.kind}-{network.head and network.head.score}")
class TestNetwork:
    @pytest.mark.parametrize("size", [(1, 1), (7, 5), (9, 12)])
    def test_any_picture_gives_logits(self, network: Network, size: tuple[int, int]) -> None:
        model = build(network, Shape(1, *size, 3))
        assert model.eval()(torch.randn(2, 1, *size)).shape == (2, 3)
        if size != (1, 1):
            assert model.train()(torch.randn(4, 1, *size)).isfinite().all()

    def test_the_memory_format_changes_nothing(self, network: Network) -> None:
        model, x = unsettled(network).eval(), pictures()
        expected = model(x)
        model = model.to(memory_format=torch.channels_last)
        torch.testing.assert_close(model(x.to(memory_format=torch.channels_last)), expected, rtol=1e-4, atol=1e-4)

    def test_bf16_autocast_is_close(self, network: Network) -> None:
        model, x = unsettled(network).eval(), pictures()
        with torch.autocast("cpu", torch.bfloat16):
            found = model(x)
        exact = model(x)
        assert (found - exact).abs().max() < 0.1 * (exact - exact.mean()).abs().max()

    def test_pictures_of_a_batch_do_not_mix(self, network: Network) -> None:
        model, x = unsettled(network).eval(), pictures()
        torch.testing.assert_close(model(x)[2:3], model(x[2:3]), rtol=1e-4, atol=1e-4)

    def test_the_seed_says_the_weights(self, network: Network) -> None:
        first, again, other = (build(network, SHAPE, seed).state_dict() for seed in (1, 1, 2))
        assert all(torch.equal(first[path], again[path]) for path in first)
        assert not torch.equal(*(next(iter(weights.values())) for weights in (first, other)))

    def test_a_state_dict_carries_all(self, network: Network) -> None:
        model, twin, x = build(network, SHAPE), build(network, SHAPE, 7), pictures()
        model(x)  # moves the statistics of norms
        twin.load_state_dict(model.state_dict())
        assert torch.equal(twin.eval()(x), model.eval()(x))
        assert torch.equal(copy.deepcopy(model)(x), model(x))

    def test_one_step_lowers_the_loss(self, network: Network) -> None:
        model, x, y = build(network, SHAPE), pictures(32), torch.arange(32) % 6
        optimiser = torch.optim.SGD(model.parameters(), lr=0.02)
        losses = []
        for _ in range(2):
            torch.manual_seed(0)  # the same units are dropped
            loss = F.cross_entropy(model(x), y)
            losses.append(loss.item())
            optimiser.zero_grad()
            torch.autograd.backward(loss)
            optimiser.step()
        assert losses[1] < losses[0]

    def test_three_counts_agree(self, network: Network) -> None:
        claimed, model = network_cost(network, SHAPE), build(network, SHAPE, device="meta")
        check(network, model, SHAPE, claimed)
        assert count_ptflops(model, SHAPE) == count_dispatch(model, SHAPE) == claimed

    def test_it_is_exported_for_any_batch(self, network: Network) -> None:
        model, x = unsettled(network).eval(), pictures()
        shapes = ({0: torch.export.Dim("batch", min=2)},)
        exported = torch.export.export(model, (x,), dynamic_shapes=shapes).module()
        torch.testing.assert_close(exported(x[:3]), model(x[:3]), rtol=1e-4, atol=1e-4)

    def test_it_is_one_graph(self, network: Network) -> None:
        torch.compiler.reset()
        model, x = unsettled(network).eval(), pictures()
        torch.testing.assert_close(torch.compile(model, fullgraph=True, backend="eager")(x), model(x))

    def test_json_gives_the_same_network(self, network: Network) -> None:
        plain: dict[str, Any] = network.model_dump(mode="json")
        assert part_from_json(plain) == network
