"""The built networks: published parameter counts, sizes, places of attention."""

import pytest
import torch
from torch import nn

from harness.config import CBAM, ECA, Custom, ExpAtt, ResNet, SqueezeExcite
from harness.cost import Shape
from harness.networks.build import build
from harness.networks.resnet import PaddedShortcut, ResidualNetwork

IMAGENET, CIFAR = Shape(3, 224, 224, 1000), Shape(3, 32, 32, 10)
LATER = (None, ExpAtt(), ExpAtt(), ExpAtt())
PER_HEAD = (None, *(ExpAtt(radius_per="head") for _ in range(3)))


class Pass(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.channels, self.seen = channels, torch.empty(0)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        assert x.shape[1] == self.channels
        self.seen = x
        return x


def params(network: ResNet, shape: Shape) -> int:
    return sum(parameter.numel() for parameter in build(network, shape, device="meta").parameters())


@pytest.mark.parametrize(
    ("network", "shape", "count"),
    [
        (ResNet(depth=18), IMAGENET, 11_689_512),  # torchvision
        (ResNet(depth=34), IMAGENET, 21_797_672),
        (ResNet(depth=50), IMAGENET, 25_557_032),
        (ResNet(depth=101), IMAGENET, 44_549_160),
        (ResNet(depth=152), IMAGENET, 60_192_808),
        (ResNet(depth=20), CIFAR, 269_722),
        (ResNet(depth=50, stages=LATER), IMAGENET, 24_650_165),
        (ResNet(depth=152, stages=LATER), IMAGENET, 57_796_183),
        (ResNet(depth=50, stages=PER_HEAD), IMAGENET, 24_650_165 + 91),
        (ResNet(depth=50, stages=(SqueezeExcite(),) * 4), IMAGENET, 28_088_024),
        (ResNet(depth=50, stages=(ECA(),) * 4), IMAGENET, 25_557_032 + 86),
        (ResNet(depth=50, stages=(CBAM(),) * 4), IMAGENET, 28_089_624),
        # by hand: 7x7x3x64 -> 3x3x3x64 in the stem
        (ResNet(depth=18, stem="cifar"), IMAGENET, 11_689_512 - 49 * 3 * 64 + 9 * 3 * 64),
        # by hand: one input channel instead of three, and a head of 64 to 7 instead of 10
        (ResNet(depth=20), Shape(1, 8, 8, 7), 269_722 - 9 * 2 * 16 - 65 * 3),
    ],
)
def test_published_parameters(network: ResNet, shape: Shape, count: int) -> None:
    assert params(network, shape) == count


@pytest.mark.parametrize("depth", [18, 50])
def test_layers_are_those_of_torchvision(depth: int) -> None:
    """Each of torchvision's weights copied in order gives the same logits."""
    import torchvision

    theirs = getattr(torchvision.models, f"resnet{depth}")(num_classes=7).eval()
    ours = build(ResNet(depth=depth), Shape(3, 64, 64, 7)).eval()
    generator = torch.Generator().manual_seed(0)

    pairs = list(zip(ours.state_dict().items(), theirs.state_dict().items(), strict=True))
    assert all(a.shape == b.shape for (_, a), (_, b) in pairs)
    with torch.no_grad():
        for (_, a), (_, b) in pairs:
            if b.dim() == 1:  # norms and their statistics, which start alike
                b.add_(0.1 * torch.rand(b.shape, generator=generator))
            a.copy_(b)
    x = torch.randn(2, 3, 64, 64, generator=generator)
    torch.testing.assert_close(ours(x), theirs(x), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("height", [1, 5, 8, 33])
@pytest.mark.parametrize(
    "network",
    [
        ResNet(depth=8, stages=(ExpAtt(), SqueezeExcite(), CBAM())),
        ResNet(depth=18, width=0.25, stages=(ECA(), ExpAtt(kernel="linear"), CBAM(), SqueezeExcite())),
        ResNet(depth=50, width=0.25, stem="cifar", stages=(None, ExpAtt(kernel="cauchy"), None, ExpAtt())),
    ],
)
def test_any_size_of_picture_gives_logits(network: ResNet, height: int) -> None:
    shape = Shape(1, height, 7, 3)
    model = build(network, shape).eval()
    assert model(torch.randn(2, 1, height, 7)).shape == (2, 3)


@pytest.mark.parametrize("place", ["branch", "block", "stage"])
def test_attention_stands_in_its_place(place: str) -> None:
    slot = Custom(f"{__name__}:Pass", place=place)  # type: ignore[arg-type]
    model = build(ResNet(depth=14, stages=(slot, None, slot)), CIFAR).eval()
    assert isinstance(model, ResidualNetwork)
    blocks = [("1.0", 16), ("1.1", 16), ("3.0", 64), ("3.1", 64)]
    expected = (
        {f"stages.{path}.attention" for path, _ in blocks}
        if place != "stage"
        else {"stages.1.attention", "stages.3.attention"}
    )
    found = {path: module for path, module in model.named_modules() if type(module).__name__ == "Pass"}
    assert set(found) == expected
    features = model.features(torch.randn(1, 3, 32, 32))
    last = found["stages.3.attention" if place == "stage" else "stages.3.1.attention"].seen
    assert isinstance(last, torch.Tensor)
    assert torch.equal(last, features) == (place != "branch")
    if place == "branch":
        assert last.min() < 0  # not yet added to the shortcut and cut at zero
    plain = build(ResNet(depth=14), CIFAR).eval()
    x = torch.randn(1, 3, 32, 32)
    torch.testing.assert_close(model(x), plain(x))


def test_the_padded_shortcut_subsamples_and_pads_zeros_behind() -> None:
    x = torch.randn(2, 3, 5, 4)
    out = PaddedShortcut(7, 2)(x)
    assert out.shape == (2, 7, 3, 2)
    assert torch.equal(out[:, :3], x[:, :, ::2, ::2]) and not out[:, 3:].any()


def test_networks_without_timm_never_import_it() -> None:
    import subprocess
    import sys

    code = (
        "import sys; from harness.config import *; from harness.cost import Shape; from harness.networks.build import build;"
        "import harness.measure.complexity; build(ResNet(stages=(None, ExpAtt(), ExpAtt())), Shape(3, 32, 32, 10));"
        "sys.exit(any(m in sys.modules for m in ('timm', 'torchvision', 'ptflops', 'ray', 'optuna', 'plotly')))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
