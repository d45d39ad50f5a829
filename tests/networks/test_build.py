"""Initial weights: reproducible, paired across arms, drawn by our rules."""

import itertools
import math

import pytest
import torch
from torch import Tensor, nn

from harness.config import CBAM, ECA, ExpAtt, ResNet, SqueezeExcite
from harness.cost import Shape
from harness.networks.build import build

SHAPE = Shape(3, 16, 16, 10)
ARMS = [
    ResNet(depth=14),
    ResNet(depth=14, stages=(SqueezeExcite(), None, CBAM())),
    ResNet(depth=14, stages=(None, ECA(), ExpAtt())),
    ResNet(depth=14, stages=(ExpAtt(), SqueezeExcite(), ExpAtt(share=0.4))),
]


def weights(network: ResNet, seed: int | None = 0) -> dict[str, Tensor]:
    return build(network, SHAPE, seed).state_dict()


@pytest.mark.parametrize("network", ARMS)
def test_the_seed_says_all(network: ResNet) -> None:
    first, again, other = weights(network), weights(network), weights(network, 1)
    assert all(torch.equal(first[path], again[path]) for path in first)
    random = [path for path in first if path.endswith(("conv1.weight", "kept.weight", "head.bias", "fc1.weight"))]
    assert random and not any(torch.equal(first[path], other[path]) for path in random)
    assert not torch.equal(weights(network, None)["head.weight"], weights(network, None)["head.weight"])


@pytest.mark.parametrize(("a", "b"), list(itertools.combinations(ARMS, 2)))
def test_what_two_arms_share_starts_equal(a: ResNet, b: ResNet) -> None:
    first, second = weights(a, 3), weights(b, 3)
    shared = [path for path in first if path in second and first[path].shape == second[path].shape]
    assert len(shared) > 50
    assert all(torch.equal(first[path], second[path]) for path in shared)


@pytest.mark.parametrize("share", [0.1, 0.3, 0.77])
def test_the_filters_kept_beside_attention_are_those_of_the_convolution(share: float) -> None:
    whole, kept = (
        build(ResNet(width=1.3), SHAPE),
        build(ResNet(width=1.3, stages=(None, None, ExpAtt(share=share, heads=1))), SHAPE),
    )
    path = "stages.3.1.branch.conv1"
    first, part = whole.get_parameter(f"{path}.weight"), kept.get_parameter(f"{path}.kept.weight")
    assert len(part) < len(first) and torch.equal(first[: len(part)], part)


def test_the_callers_random_numbers_are_left_alone() -> None:
    torch.manual_seed(5)
    expected = torch.randn(3)
    torch.manual_seed(5)
    build(ARMS[1], SHAPE, seed=None)
    assert torch.equal(torch.randn(3), expected)


def test_every_layer_follows_its_rule() -> None:
    model = build(ResNet(depth=50, stages=(None, None, None, ExpAtt(radius=3.5))), SHAPE)
    for path, module in model.named_modules():
        if isinstance(module, nn.Conv2d) and module.weight.numel() > 20_000:
            fan_in = module.weight[0].numel()
            assert math.isclose(module.weight.std().item(), math.sqrt(2 / fan_in), rel_tol=0.03), path
            assert abs(module.weight.mean().item()) < 0.03 * math.sqrt(2 / fan_in), path
        elif isinstance(module, nn.BatchNorm2d):
            # the last of a branch too: blocks that start as their shortcut learn much less in a few epochs
            assert (module.weight == 1).all() and not module.bias.any(), path
            assert not module.running_mean.any() and (module.running_var == 1).all()  # type: ignore[union-attr]
    head = model.get_submodule("head")
    assert isinstance(head, nn.Linear)
    assert 0.95 < head.weight.abs().max().item() * math.sqrt(2048) <= 1
    torch.testing.assert_close(model.get_parameter("stages.4.0.branch.conv2.map.log_radius").exp(), torch.tensor([3.5]))


def test_the_meta_device_has_shapes_alone() -> None:
    model = build(ARMS[3], SHAPE, device="meta")
    assert all(tensor.is_meta for tensor in model.state_dict().values())
    assert [(k, v.shape) for k, v in model.state_dict().items()] == [(k, v.shape) for k, v in weights(ARMS[3]).items()]
