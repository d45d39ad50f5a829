"""Augmentations of a batch against naive ones of a picture at a time, written from the same draws."""

import numpy as np
import pytest
import torch
from torchvision.transforms.v2 import functional as reference

from harness.config import Training
from harness.cost import Shape
from harness.data.augment import Augmentation, Boxes, Cutout, Jitter, Mix, Normalise, stream
from harness.errors import ConfigError

SHAPE = Shape(3, 9, 12, 5)
CPU = torch.device("cpu")
COUNT = 64
EVERY = slice(0, COUNT)
IDENTITY = Normalise(torch.zeros(3), torch.ones(3), SHAPE, CPU)


def noise(low: int = 0, high: int = 256, channels: int = 3) -> torch.Tensor:
    rng = np.random.default_rng(1)
    return torch.from_numpy(rng.integers(low, high, (COUNT, SHAPE.height, SHAPE.width, channels), np.uint8))


def labels() -> torch.Tensor:
    return torch.arange(COUNT) % SHAPE.classes


# -- normalisation and jitter


def test_normalised_is_each_channel_less_its_mean_by_its_deviation() -> None:
    mean, deviation = torch.tensor([1.0, 20.0, 300.0]), torch.tensor([2.0, 3.0, 50.0])
    found = Normalise(mean, deviation, SHAPE, CPU)(noise())
    assert torch.equal(found, ((noise().float() - mean) / deviation).permute(0, 3, 1, 2))


def test_jitter_is_brightness_contrast_and_saturation_in_turn() -> None:
    """Against torchvision's functions on floats, on levels where nothing is cut off on the way."""
    rng = np.random.default_rng(3)
    jitter = Jitter(0.2, SHAPE, rng, COUNT, CPU)
    images = noise(80, 130)
    found = jitter(images.flatten(1).float(), EVERY).view(images.shape)
    for image, result, factors in zip(images, found, jitter._factors.tolist(), strict=True):
        expected = image.permute(2, 0, 1) / 255
        for change, factor in zip(
            (reference.adjust_brightness, reference.adjust_contrast, reference.adjust_saturation), factors, strict=True
        ):
            expected = change(expected, factor)
        assert torch.allclose(result.permute(2, 0, 1) / 255, expected, atol=2e-4)
    assert jitter._factors.min() >= 0.8 and jitter._factors.max() <= 1.2 and len(jitter._factors.unique()) == 3 * COUNT


def test_jitter_of_grey_pictures_knows_no_saturation() -> None:
    shape = Shape(1, 9, 12, 5)
    images = noise(80, 130, channels=1)
    jitter = Jitter(0.2, shape, np.random.default_rng(3), COUNT, CPU)
    bright, contrast, _ = jitter._factors.T[:, :, None]
    values = images.flatten(1).float() * bright
    expected = values * contrast + (1 - contrast) * values.mean(1, keepdim=True)
    assert torch.allclose(jitter(images.flatten(1).float(), EVERY), expected, atol=1e-3)


def test_jitter_stays_within_the_range_of_colours() -> None:
    found = Jitter(1.0, SHAPE, np.random.default_rng(3), COUNT, CPU)(noise().flatten(1).float(), EVERY)
    assert found.min() == 0 and found.max() == 255


# -- boxes


def naive_boxes(boxes: Boxes) -> torch.Tensor:
    masks = torch.zeros(COUNT, SHAPE.height, SHAPE.width, SHAPE.channels, dtype=torch.bool)
    for mask, (top, bottom, left, right) in zip(masks, boxes.edges.tolist(), strict=True):
        mask[top:bottom, left:right] = True
    return masks


def test_boxes_are_centred_anywhere_and_cut_off_at_the_border() -> None:
    boxes = Boxes(SHAPE, np.random.default_rng(0), np.full(COUNT, 4), np.full(COUNT, 6))
    masks = naive_boxes(boxes)
    assert torch.equal(boxes.outside(EVERY), 1 - masks.flatten(1).float())
    assert torch.equal(boxes.outside(slice(5, 9)), 1 - masks[5:9].flatten(1).float())
    assert torch.allclose(boxes.shares, masks.float().mean((1, 2, 3)))
    assert boxes.shares.max() == 4 * 6 / 108 and boxes.shares.min() >= 2 * 3 / 108
    assert len(boxes.edges.unique(dim=0)) > COUNT / 2


def test_cutout_blanks_one_box_of_each_picture() -> None:
    cutout = Cutout(0.5, SHAPE, np.random.default_rng(0), COUNT, CPU)
    found = cutout(noise(1).flatten(1).float(), EVERY).view(noise().shape)
    for image, result, (top, bottom, left, right) in zip(noise(1), found, cutout._boxes.edges.tolist(), strict=True):
        expected = image.float()
        expected[top:bottom, left:right] = 0
        assert torch.equal(result, expected)
        assert (bottom - top, right - left) <= (4, 6)


# -- mixtures


def mixed(**fields: float) -> tuple[Mix, torch.Tensor, torch.Tensor]:
    mix = Mix(Training(**fields), SHAPE, np.random.default_rng(4), COUNT, CPU)
    values, targets = mix(noise().flatten(1).float(), labels(), EVERY)
    return mix, values.view(noise().shape), targets


@pytest.mark.parametrize("fields", [{"mixup": 0.3}, {"cutmix": 1.0}, {"mixup": 0.3, "cutmix": 1.0}], ids=str)
def test_mixtures_are_of_each_picture_and_the_next(fields: dict[str, float]) -> None:
    mix, values, targets = mixed(**fields)
    images = noise().float()
    whole, cut = 0, 0
    for place in range(COUNT):
        other = (place + 1) % COUNT
        expected, share = images[place].clone(), 1.0
        if mix._shares is not None and (share := float(mix._shares[place])) < 1:
            expected = share * images[place] + (1 - share) * images[other]
            whole += 1
        elif mix._boxes is not None:
            top, bottom, left, right = mix._boxes.edges[place].tolist()
            expected[top:bottom, left:right] = images[other][top:bottom, left:right]
            share = 1 - (bottom - top) * (right - left) / (SHAPE.height * SHAPE.width)
            cut += 1
        target = torch.zeros(SHAPE.classes)
        target[labels()[place]] += share
        target[labels()[other]] += 1 - share
        assert torch.allclose(values[place], expected, atol=1e-3)
        assert torch.allclose(targets[place], target, atol=1e-6)
    assert (whole > COUNT / 4) == ("mixup" in fields) and (cut > COUNT / 4) == ("cutmix" in fields)


def test_shares_follow_the_beta_distribution() -> None:
    many = 20_000
    shares = Mix(Training(mixup=0.4), SHAPE, np.random.default_rng(0), many, CPU)._weights
    assert abs(float(shares.mean()) - 0.5) < 0.01
    assert float(shares.var()) == pytest.approx(0.25 / (2 * 0.4 + 1), rel=0.03)  # of Beta(a, a)


# -- all together


EVERYTHING = Training(policy="trivial", jitter=0.4, cutout=0.5, mixup=0.2, cutmix=1.0)


def test_pieces_of_a_batch_draw_what_the_whole_draws() -> None:
    """Draws belong to places in the epoch, not to calls."""
    alone = EVERYTHING.model_copy(update={"mixup": 0.0, "cutmix": 0.0})  # which take the next of the batch
    epoch = Augmentation(alone, IDENTITY, seed=3).epoch(2, COUNT)
    whole, _ = epoch(noise(), labels(), EVERY)
    late, _ = epoch(noise()[40:], labels()[40:], slice(40, COUNT))
    assert torch.equal(whole[40:], late)


def test_what_is_switched_on_beside_changes_no_draw() -> None:
    both, one = (Augmentation(Training(cutout=0.5, mixup=mixup), IDENTITY, seed=3).epoch(2, COUNT) for mixup in (0.2, 0.0))
    assert both._cutout is not None and one._cutout is not None
    assert torch.equal(both._cutout._boxes.edges, one._cutout._boxes.edges)


def test_streams_of_numbers_are_named() -> None:
    drawn = [stream(*name).random() for name in ((0, 1, "mix"), (0, 2, "mix"), (1, 1, "mix"), (0, 1, "jitter"))]
    assert len(set(drawn)) == 4 and stream(0, 1, "mix").random() == drawn[0]


def test_without_augmentation_a_batch_is_only_normalised() -> None:
    values, targets = Augmentation(Training(), IDENTITY, seed=0).epoch(1, COUNT)(noise(), labels(), EVERY)
    assert torch.equal(values, noise().permute(0, 3, 1, 2).float()) and torch.equal(targets, labels())


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"padding": "zero", "augment": "none"}, "padding = 'zero': augment = 'none' pads nothing; leave padding out"),
        ({"magnitude": 5}, "magnitude = 5: only policy='rand' has one; leave magnitude out"),
        ({"magnitude": 31, "policy": "rand"}, "magnitude = 31: input should be less than or equal to 30"),
        ({"cutout": 1.5}, "cutout = 1.5: input should be less than or equal to 1"),
        ({"policy": "auto"}, "policy = 'auto': input should be 'trivial' or 'rand'"),
        ({"mixup": -1.0}, "mixup = -1.0: input should be greater than or equal to 0"),
    ],
)
def test_what_has_no_effect_or_no_sense_is_refused(fields: dict[str, object], words: str) -> None:
    with pytest.raises(ConfigError) as raised:
        Training(**fields)
    assert words in str(raised.value)


@pytest.mark.gpu
def test_a_device_changes_no_draw_and_no_picture() -> None:
    found = []
    for device in (CPU, torch.device("cuda")):
        normalise = Normalise(torch.full((3,), 120.0), torch.full((3,), 60.0), SHAPE, device)
        epoch = Augmentation(EVERYTHING, normalise, seed=3).epoch(2, COUNT)
        found.append([part.cpu() for part in epoch(noise().to(device), labels().to(device), EVERY)])
    (images, targets), (theirs, their_targets) = found
    assert torch.allclose(targets, their_targets, atol=1e-6)
    assert ((images - theirs).abs() > 0.02).float().mean() < 1e-3  # places halfway between two pixels
