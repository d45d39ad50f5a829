"""Controls: uniform attention, and plain networks matched in params or in MACs."""

import time
from itertools import pairwise

import pytest

from harness.config import VGG, Config, ExpAtt, PreActResNet, ResNet, SqueezeExcite, WideResNet
from harness.controls import matched, uniform
from harness.cost import Shape, network_cost
from harness.errors import ConfigError
from harness.key import network_identity
from harness.presets import preset

IMAGENET, CIFAR = Shape(3, 224, 224, 1000), Shape(3, 32, 32, 10)
OURS = ResNet(depth=20, stages=(None, ExpAtt(share=0.5), SqueezeExcite()))


def test_uniform_has_the_layers_and_knows_no_distance():
    explicit = ExpAtt(kernel="cauchy", share=0.25, radius_per="head", heads=4, radius=3.0)
    control = uniform(like=explicit)
    assert (control.kernel, control.share, control.label) == ("uniform", 0.25, "uniform")
    assert control.effective(64) == {"kernel": "uniform", "values": 16}
    radii = 3 * 4  # a block of three, four heads each
    with_it, without = (network_cost(ResNet(stages=(None, None, slot)), CIFAR) for slot in (explicit, control))
    assert with_it.params - without.params == radii


@pytest.mark.parametrize("by", ["params", "macs"])
@pytest.mark.parametrize(
    ("plain", "to", "shape"),
    [
        (ResNet(depth=20), OURS, CIFAR),
        (ResNet(depth=50), preset("expatt-resnet-50"), IMAGENET),
        (PreActResNet(depth=29), OURS, CIFAR),
        (WideResNet(depth=16), ResNet(depth=18, stem="cifar"), CIFAR),
        (VGG(), Config(network=ResNet(depth=18, stem="cifar", stages=(None, None, None, SqueezeExcite()))), CIFAR),
    ],
    ids=lambda value: getattr(value, "kind", None),
)
def test_no_width_comes_nearer(plain, to, shape, by):
    """Against every width that gives another network: those at which some stage rounds to the next channel."""
    found = matched(plain, to, shape, by=by, within=1.0)
    field = "factor" if isinstance(plain, WideResNet) else "width"
    base = (64, 128, 256, 512) if len(plain.stages) > 3 else (16, 32, 64)
    limit = 3.0 * getattr(plain, field)
    edges = sorted({(half + 0.5) / channels for channels in base for half in range(int(limit * channels))})
    middles = [(low + high) / 2 for low, high in pairwise(edges)]
    target = getattr(network_cost(to.network if isinstance(to, Config) else to, shape), by)
    costs = (getattr(network_cost(plain.model_copy(update={field: width}), shape), by) for width in middles)
    assert abs(getattr(found.cost, by) - target) == min(abs(cost - target) for cost in costs)
    assert found.error == getattr(found.cost, by) / target - 1
    assert found.cost == network_cost(found.network, shape)


def test_a_network_is_matched_to_itself_at_a_round_width():
    for width in (1.0, 0.75, 1.3):
        found = matched(ResNet(depth=20), ResNet(depth=20, width=width), CIFAR)
        assert (found.error, found.network.width) == (0, width)
        assert network_identity(found.network) == network_identity(ResNet(depth=20, width=width))
        assert found.network.label == "plain, as many params"


def test_it_takes_milliseconds():
    began = time.perf_counter()
    matched(ResNet(depth=152), preset("se-resnet-50"), IMAGENET, by="macs")
    assert time.perf_counter() - began < 1


@pytest.mark.parametrize(
    ("plain", "to", "words"),
    [
        (
            ResNet(depth=8),
            ResNet(depth=152),
            r"no width of resnet comes within 1 % of 58,164,298 params at 32x32; the nearest",
        ),
        (ResNet(depth=56), ResNet(depth=8, width=0.02), r"the nearest, 0\.\d+, gives"),
        (OURS, OURS, "holds attention; give its plain trunk"),
    ],
)
def test_what_cannot_be_matched_is_one_line(plain, to, words):
    with pytest.raises(ConfigError, match=words) as caught:
        matched(plain, to, CIFAR)
    assert "\n" not in str(caught.value)
