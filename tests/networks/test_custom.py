"""A user's module: what is said when it does not fit, and that it is tried before it is trusted."""

import pytest
import torch
from torch import Tensor, nn

from harness.config import Custom, ResNet, Site
from harness.cost import Shape
from harness.errors import CodeError
from harness.networks.build import build
from harness.networks.custom import custom, rehearse


class Gate(nn.Module):
    def __init__(self, channels: int, reduction: int = 4) -> None:
        super().__init__()
        self.weights = nn.Linear(channels, channels // reduction)

    def forward(self, x: Tensor) -> Tensor:
        return x


class NeedsKnob(Gate):
    def __init__(self, channels: int, *, size: int) -> None:
        super().__init__(channels, size)


class Broken(nn.Module):
    def __init__(self, channels: int) -> None:
        raise RuntimeError("no\nway")


class Halves(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()

    def forward(self, x: Tensor) -> Tensor:
        return x[:, :, ::2]


class Fails(Halves):
    def forward(self, x: Tensor) -> Tensor:
        raise ValueError("cannot do this")


class Pair(Halves):
    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:  # type: ignore[override]
        return x, x


class OnlyCpu(nn.Module):
    """Its constructor and its forward look at numbers, which the meta device has not."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.full((channels,), torch.rand(4).sum().item()))

    def forward(self, x: Tensor) -> Tensor:
        return x * self.scale[:, None, None] if x.sum().item() >= 0 else x


def function(channels: int) -> nn.Module:
    return nn.Identity()


HERE = __name__


@pytest.mark.parametrize(
    ("slot", "words"),
    [
        (Custom(f"{HERE}:Gate", reducton=2), ":Gate has no knob 'reducton' (it has reduction); did you mean 'reduction'?"),
        (Custom(f"{HERE}:Halves", size=2), ":Halves has no knob 'size' (it has none)"),
        (Custom(f"{HERE}:Gate", channels=2), ":Gate has no knob 'channels' (it has reduction)"),
        (Custom(f"{HERE}:NeedsKnob"), "NeedsKnob(16) does not fit NeedsKnob(channels: int, *, size: int)"),
        (Custom(f"{HERE}:Broken"), ":Broken: Broken(16) raised RuntimeError: no way"),
        (Custom(f"{HERE}:Gate", reduction=0), ":Gate: Gate(16, reduction=0) raised ZeroDivisionError"),
        (Custom(f"{HERE}:function"), ":function is no nn.Module class"),
        (Custom(f"{HERE}:HERE"), ":HERE is no nn.Module class"),
        (Custom(f"{HERE}:Missing"), "has no Missing"),
        (Custom("no.such.place:Gate"), "no.such.place:Gate"),
    ],
)
def test_what_cannot_be_built_says_why_in_one_line(slot: Custom, words: str) -> None:
    with pytest.raises(CodeError) as error:
        custom(slot, Site(16, 16, 4, 4))
    assert words in str(error.value) and "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("Halves", "must keep the shape (2, 16, 16, 12), it returned (2, 16, 8, 12)"),
        ("Fails", "its forward raised ValueError: cannot do this at (2, 16, 16, 12)"),
        ("Pair", "it returned tuple"),
    ],
)
def test_what_does_not_keep_the_shape_is_refused_before_training(name: str, words: str) -> None:
    with pytest.raises(CodeError) as error:
        build(ResNet(stages=(Custom(f"{HERE}:{name}"), None, None)), Shape(3, 16, 12, 10), device="meta")
    assert words in str(error.value) and "\n" not in str(error.value)


def test_a_module_that_cannot_run_on_meta_runs_on_the_cpu() -> None:
    slot = Custom(f"{HERE}:OnlyCpu", place="block")
    assert next(rehearse(slot, 8, 4, 4).parameters()).device.type == "cpu"
    model = build(ResNet(depth=8, stages=(None, None, slot)), Shape(3, 8, 8, 10))
    assert model(torch.zeros(1, 3, 8, 8)).shape == (1, 10)


def test_rehearsing_leaves_the_callers_random_numbers_alone() -> None:
    torch.manual_seed(5)
    expected = torch.randn(3)
    torch.manual_seed(5)
    build(ResNet(depth=8, stages=(Custom(f"{HERE}:OnlyCpu"), None, None)), Shape(3, 4, 4, 10))
    rehearse(Custom(f"{HERE}:Gate"), 12, 4, 4)
    assert torch.equal(torch.randn(3), expected)


def test_a_rehearsed_module_is_made_once() -> None:
    assert rehearse(Custom(f"{HERE}:Gate", reduction=2), 8, 4, 4) is rehearse(
        Custom(f"{HERE}:Gate", label="x", reduction=2), 8, 4, 4
    )
