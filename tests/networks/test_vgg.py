"""VGG: both trunks layer by layer, counts, the control, places of attention."""

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from harness.config import LTPA, VGG, Config, Custom, ExpAtt, SqueezeExcite
from harness.cost import Shape, network_cost
from harness.key import canonical, identity, network_identity
from harness.networks.build import build
from harness.networks.trunk import TrunkNetwork

CIFAR = Shape(3, 32, 32, 100)
PLAIN = "64 .3 64 P 128 .4 128 P 256 .4 256 .4 256 P 512 .4 512 .4 512 P 512 .4 512 .4 512 P"
ATTENTION = "64 .3 64 128 .4 128 256 .4 256 .4 256 P 512 .4 512 .4 512 P 512 .4 512 .4 512 P 512 .4 P 512 .4 P"
"""The official code's layers (LTPA, arXiv 1804.02391): a convolution with norm and ReLU, a dropout, or a pooling."""


@pytest.mark.parametrize(
    ("network", "params", "giga"),
    [
        (VGG(), 15_038_116, 0.31),
        (VGG(trunk="attention"), 19_444_800 + 512 * 513 + 1_024 + 513 * 100, 3.79),  # 15 convolutions, two linear maps
        (VGG(trunk="attention", head=LTPA(taps=(4, 5))), 19_813_030, 3.79),
        (VGG(trunk="attention", head=LTPA(taps=(3, 4, 5))), 19_971_751, 3.79),
    ],
)
def test_published_counts(network: VGG, params: int, giga: float) -> None:
    assert sum(parameter.numel() for parameter in build(network, CIFAR, device="meta").parameters()) == params
    cost = network_cost(network, CIFAR)
    assert cost.params == params and round(cost.macs / 1e9, 2) == giga


def layers(trunk: str) -> list[str]:
    """The trunk of a built network in the words above."""
    model = build(VGG(trunk=trunk), CIFAR, device="meta")  # type: ignore[arg-type]
    assert isinstance(model, TrunkNetwork)
    words = []
    for module in [*model.stages.modules(), *model.end.modules()]:
        if isinstance(module, nn.Conv2d):
            assert module.kernel_size == (3, 3) and module.bias is not None
            words.append(str(module.out_channels))
        elif isinstance(module, nn.MaxPool2d):
            words.append("P")
        elif isinstance(module, nn.Dropout):
            words.append(f"{module.p:g}"[1:])
    return words


def test_the_trunks_are_those_of_the_official_code() -> None:
    assert layers("plain") == PLAIN.split()
    assert layers("attention") == ATTENTION.split()


@pytest.mark.parametrize(("trunk", "words"), [("plain", PLAIN), ("attention", ATTENTION)])
@pytest.mark.parametrize("size", [(32, 32), (11, 5), (1, 1)])
def test_the_trunk_computes_what_its_layers_say(trunk: str, words: str, size: tuple[int, int]) -> None:
    model = build(VGG(trunk=trunk, width=1 / 16), Shape(3, *size, 7)).double().eval()  # type: ignore[arg-type]
    assert isinstance(model, TrunkNetwork)
    modules = [module for part in (model.stages, model.end) for module in part.modules()]
    convolutions = iter([module for module in modules if isinstance(module, nn.Conv2d)])
    norms = iter([module for module in modules if isinstance(module, nn.BatchNorm2d)])
    x = picture = torch.randn(2, 3, *size, dtype=torch.float64)
    for word in words.split():
        if word == "P":
            x = F.max_pool2d(x, 2, ceil_mode=True)
        elif not word.startswith("."):
            x = next(norms)(F.conv2d(x, (layer := next(convolutions)).weight, layer.bias, padding=1)).relu()
    torch.testing.assert_close(model.features(picture), x)
    assert next(norms, None) is None and model(picture).shape == (2, 7)


def test_dropout_is_a_share_of_the_published_rates() -> None:
    def rates(dropout: float) -> list[float]:
        model = build(VGG(trunk="attention", dropout=dropout), CIFAR, device="meta")
        return [module.p for module in model.modules() if isinstance(module, nn.Dropout)]

    assert rates(1.0) == [0.3, *[0.4] * 9, 0.5, 0.5]
    assert rates(0.5) == [0.15, *[0.2] * 9, 0.25, 0.25]
    assert set(rates(0)) == {0}


def test_the_control_is_the_trunk_alone() -> None:
    control, attending = VGG(trunk="attention", width=0.1), VGG(trunk="attention", width=0.1, head=LTPA(taps=(4, 5)))
    first, second = build(control, CIFAR, 3).state_dict(), build(attending, CIFAR, 3).state_dict()
    trunk = [path for path in first if not path.startswith("head")]
    assert len(trunk) == 15 * 7 and trunk == [path for path in second if not path.startswith("head")]
    assert all(torch.equal(first[path], second[path]) for path in trunk)
    assert network_identity(attending).items() > network_identity(control).items()


@pytest.mark.parametrize("stage", [1, 3, 5])
def test_attention_takes_the_last_3x3_of_its_stage_or_stands_behind_it(stage: int) -> None:
    def built(slot: ExpAtt | SqueezeExcite) -> TrunkNetwork:
        stages = [slot if number == stage else None for number in range(1, 6)]
        model = build(VGG(width=0.5, stages=tuple(stages)), CIFAR)
        assert isinstance(model, TrunkNetwork)
        return model

    layers = dict(built(ExpAtt()).stages[str(stage)].named_children())
    units = [name for name in layers if name.isdigit()]
    kinds = [type(layers[name].get_submodule("conv")).__name__ for name in units]
    assert kinds == ["Conv2d"] * (len(units) - 1) + ["ExpAttConv2d"]
    assert list(dict(built(SqueezeExcite()).stages[str(stage)].named_children()))[-1] == "attention"


class Half(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()

    def forward(self, x: Tensor) -> Tensor:
        return x / 2


def test_places_behind_convolutions_are_one_place() -> None:
    """A stage of VGG has no branch: equal networks have equal keys."""
    found = set()
    x = torch.randn(2, 3, 9, 9)
    outputs = []
    for place in ("branch", "block", "stage"):
        slot = Custom(f"{__name__}:Half", place=place)
        network = VGG(width=0.1, stages=(None, None, None, None, slot))
        found.add(canonical(identity(Config(network=network))))
        outputs.append(build(network, Shape(3, 9, 9, 5)).eval()(x))
    assert len(found) == 1
    assert torch.equal(outputs[0], outputs[1]) and torch.equal(outputs[1], outputs[2])
