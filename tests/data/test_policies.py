"""Operations on groups of pictures against torchvision's, one picture at a time."""

import numpy as np
import pytest
import torch
from torchvision.transforms.v2 import RandAugment, TrivialAugmentWide

from harness.cost import Shape
from harness.data.policies import OPERATIONS, SIGNED, Policy, strongest

SHAPE = Shape(3, 32, 32, 10)
COUNT = 42
THEIRS = {name.replace("_", ""): name for name in strongest("trivial", SHAPE)}
NAMED = {THEIRS[name.lower()]: name for name in TrivialAugmentWide._AUGMENTATION_SPACE}


def noise(channels: int = 3) -> torch.Tensor:
    rng = np.random.default_rng(2)
    images = rng.integers(0, 256, (COUNT, 32, 32, channels), np.uint8)
    images[:14] = images[:14] // 4 + 90  # of little contrast
    images[3] = 7
    return torch.from_numpy(images)


def theirs(name: str, image: torch.Tensor, strength: float) -> torch.Tensor:
    """One picture (height, width, channels) through torchvision's operation."""
    strength = {"posterize": 8 - round(strength), "solarize": 1 - strength / 255}.get(name, strength)
    apply = RandAugment()._apply_image_or_video_transform
    channels_first = image.permute(2, 0, 1).contiguous()
    found = apply(channels_first, NAMED[name], strength, interpolation="nearest", fill={torch.Tensor: None})
    return found.permute(1, 2, 0)


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("name", OPERATIONS)
def test_operations_are_torchvisions(name: str, channels: int) -> None:
    rng = np.random.default_rng(5)
    strengths = rng.integers(0, 31, COUNT) / 30 * strongest("trivial", SHAPE)[name]
    if name in SIGNED:
        strengths *= rng.choice([-1.0, 1.0], COUNT)
    images = noise(channels)
    found = OPERATIONS[name](images, torch.from_numpy(strengths).float()[:, None, None, None])
    expected = torch.stack([theirs(name, *each) for each in zip(images, strengths.tolist(), strict=True)])
    apart = (found.int() - expected.int()).abs()
    assert found.dtype == torch.uint8
    if name in ("brightness", "color", "sharpness"):
        assert apart.max() <= 1  # where a product is a hair below a whole level
    elif name != "rotate":  # which has places halfway between two pixels
        assert apart.max() == 0
    assert (apart > 0).float().mean() < 5e-3


def test_spaces_are_torchvisions() -> None:
    for name, space in (("trivial", TrivialAugmentWide), ("rand", RandAugment)):
        for kind, (strengths, signed) in space._AUGMENTATION_SPACE.items():
            ours, most = THEIRS[kind.lower()], strongest(name, SHAPE)
            found = strengths(31, 32, 32)
            assert signed == (ours in SIGNED)
            if found is not None:
                last = {"posterize": 8 - float(found[-1]), "solarize": 255 * (1 - float(found[-1]))}.get(
                    ours, float(found[-1])
                )
                assert most[ours] == pytest.approx(last)


@pytest.mark.parametrize("name", ["trivial", "rand"])
def test_each_picture_goes_through_what_it_drew(name: str) -> None:
    policy = Policy(name, 9, SHAPE, np.random.default_rng(0), COUNT)
    images, before = noise(), noise()
    found = policy(images, slice(0, COUNT))
    assert torch.equal(images, before), "what was given is not written to"
    for place in range(COUNT):
        expected = images[place : place + 1]
        for drawn, strengths in zip(policy._drawn, policy._strengths, strict=True):
            if (operation := policy._names[drawn[place]]) != "identity":
                expected = OPERATIONS[operation](expected, torch.full((1, 1, 1, 1), strengths[place], dtype=torch.float32))
        assert torch.equal(found[place], expected[0])
    assert torch.equal(policy(images[20:], slice(20, COUNT)), found[20:])


def test_trivial_draws_strengths_and_rand_has_one() -> None:
    trivial, rand = (Policy(name, 9, SHAPE, np.random.default_rng(0), 5_000) for name in ("trivial", "rand"))
    assert trivial._drawn.shape == (1, 5_000) and rand._drawn.shape == (2, 5_000)
    counts = np.bincount(trivial._drawn[0])
    assert len(counts) == 14 and abs(counts - 5_000 / 14).max() < 100
    turn = trivial._names.index("rotate")
    assert len(np.unique(trivial._strengths[trivial._drawn == turn])) == 61
    assert np.unique(rand._strengths[rand._drawn == turn]) == pytest.approx([-9, 9])


def test_small_pictures_move_by_their_side_at_most() -> None:
    assert strongest("trivial", Shape(1, 8, 10, 2))["translate_x"] == 10
    assert strongest("trivial", Shape(1, 8, 10, 2))["translate_y"] == 8
