"""Pre-activation and wide networks: published counts, their blocks against a plain calculation, places of attention."""

import itertools

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from harness.config import Custom, ExpAtt, Network, PreActResNet, SqueezeExcite, WideResNet
from harness.cost import Shape, network_cost
from harness.networks.build import build
from harness.networks.trunk import TrunkNetwork

CIFAR = Shape(3, 32, 32, 10)


class Seen(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.seen = torch.empty(0)

    def forward(self, x: Tensor) -> Tensor:
        self.seen = x
        return x


@pytest.mark.parametrize(
    ("network", "classes", "params"),
    [(PreActResNet(), 10, 1_703_258), (WideResNet(), 10, 36_479_194), (WideResNet(), 100, 36_536_884)],
)
def test_published_parameters(network: Network, classes: int, params: int) -> None:
    shape = CIFAR._replace(classes=classes)
    assert sum(parameter.numel() for parameter in build(network, shape, device="meta").parameters()) == params
    assert network_cost(network, shape).params == params


def test_the_wide_network_costs_what_is_published() -> None:
    cost = network_cost(WideResNet(), CIFAR._replace(classes=100))
    assert abs(cost.params / 36.5e6 - 1) < 0.002
    assert abs(2 * cost.macs / 10.4e9 - 1) < 0.02


def norm(x: Tensor, weights: dict[str, Tensor], path: str) -> Tensor:
    scale, shift, mean, variance = (weights[f"{path}.{name}"] for name in ("weight", "bias", "running_mean", "running_var"))
    columns = (slice(None), None, None)
    return (x - mean[columns]) / (variance[columns] + 1e-5).sqrt() * scale[columns] + shift[columns]


def by_hand(weights: dict[str, Tensor], x: Tensor, blocks: int, sizes: list[int]) -> Tensor:
    """He et al., arXiv 1603.05027, figure 4e: norm, ReLU, convolution; the stride on the first 3x3."""
    x = F.conv2d(x, weights["stem.conv.weight"], padding=1)
    for stage, number in itertools.product((1, 2, 3), range(blocks)):
        path, stride = f"stages.{stage}.{number}", 2 if stage > 1 and number == 0 else 1
        active = norm(x, weights, f"{path}.enter.norm").relu()
        residual = active
        for place, size in enumerate(sizes, start=1):
            if place > 1:
                residual = norm(residual, weights, f"{path}.branch.norm{place}").relu()
            step = stride if place == sizes.index(3) + 1 else 1
            residual = F.conv2d(residual, weights[f"{path}.branch.conv{place}.weight"], stride=step, padding=size // 2)
        shortcut = weights.get(f"{path}.shortcut.weight")
        x = residual + (x if shortcut is None else F.conv2d(active, shortcut, stride=stride))
    pooled = norm(x, weights, "end.norm").relu().mean((2, 3))
    return pooled @ weights["head.weight"].T + weights["head.bias"]


@pytest.mark.parametrize(
    ("network", "blocks", "sizes", "shortcuts"),
    [
        (PreActResNet(depth=20, width=0.25), 2, [1, 3, 1], 3),
        (WideResNet(depth=16, factor=0.5), 2, [3, 3], 3),
        (WideResNet(depth=16, factor=1, dropout=0.4), 2, [3, 3], 2),  # stage 1 keeps the stem's 16 channels
    ],
)
def test_blocks_are_norm_relu_convolution(network: Network, blocks: int, sizes: list[int], shortcuts: int) -> None:
    model = build(network, Shape(3, 13, 10, 5)).double().eval()
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for tensor in model.state_dict().values():
            if tensor.dim() == 1:  # norms and their statistics, which start alike
                tensor.copy_(0.5 + torch.rand(tensor.shape, generator=generator))
    weights, x = model.state_dict(), torch.randn(2, 3, 13, 10, generator=generator, dtype=torch.float64)
    assert sum(path.endswith("shortcut.weight") for path in weights) == shortcuts
    torch.testing.assert_close(model(x), by_hand(weights, x, blocks, sizes))


def test_dropout_stands_between_the_convolutions_of_wide_blocks() -> None:
    names = list(
        dict(build(WideResNet(depth=10, factor=1, dropout=0.3), CIFAR).get_submodule("stages.2.0.branch").named_children())
    )
    assert names == ["conv1", "norm2", "relu2", "drop", "conv2"]
    drops = [
        module.p
        for module in build(WideResNet(depth=10, dropout=0.3), CIFAR, device="meta").modules()
        if isinstance(module, nn.Dropout)
    ]
    assert drops == [0.3] * 3
    assert not any(isinstance(module, nn.Dropout) for module in build(WideResNet(depth=10), CIFAR, device="meta").modules())


@pytest.mark.parametrize("place", ["branch", "block", "stage"])
def test_attention_stands_in_its_place(place: str) -> None:
    slot = Custom(f"{__name__}:Seen", place=place)  # type: ignore[arg-type]
    network = PreActResNet(depth=20, width=0.5, stages=(slot, None, slot))
    model = build(network, CIFAR).eval()
    assert isinstance(model, TrunkNetwork)
    found = {path: module for path, module in model.named_modules() if isinstance(module, Seen)}
    blocks = {f"stages.{path}.attention" for path in ("1.0", "1.1", "3.0", "3.1")}
    assert set(found) == (blocks if place != "stage" else {"stages.1.attention", "stages.3.attention"})
    last = model.outputs(torch.randn(1, 3, 32, 32))[-1]
    seen = found["stages.3.attention" if place == "stage" else "stages.3.1.attention"].seen
    assert torch.equal(seen, last) == (place != "branch")


@pytest.mark.parametrize(
    ("network", "path"),
    [
        (PreActResNet(depth=11, stages=(None, None, ExpAtt())), "stages.3.0.branch.conv2.kept"),
        (WideResNet(depth=10, factor=2, stages=(None, None, ExpAtt())), "stages.3.0.branch.conv1.kept"),
    ],
)
def test_attention_takes_the_place_of_the_first_3x3(network: Network, path: str) -> None:
    kept = build(network, CIFAR).get_submodule(path)
    assert isinstance(kept, nn.Conv2d) and kept.kernel_size == (3, 3) and kept.stride == (2, 2)


def test_attention_on_the_branch_changes_the_branch_alone() -> None:
    plain, gated = (
        build(WideResNet(depth=10, factor=1, stages=(slot, None, None)), CIFAR).double().eval()
        for slot in (None, SqueezeExcite())
    )
    x = torch.randn(2, 16, 6, 5, dtype=torch.float64)
    block, with_gate = plain.get_submodule("stages.1.0"), gated.get_submodule("stages.1.0")
    residual = with_gate.get_submodule("attention")(block(x) - x)
    torch.testing.assert_close(with_gate(x), x + residual)
