"""Batches: crops and flips against a naive loop, reproducible from (seed, epoch), pictures seen once an epoch."""

import numpy as np
import pytest
import torch

from harness.data.batches import Resident, held_batches, resident, train_batches
from harness.data.sources import Pictures


def pictures(count: int = 40, side: int = 8) -> Pictures:
    rng = np.random.default_rng(0)
    return Pictures(rng.integers(0, 256, (count, side, side, 3), np.uint8), np.arange(count) % 2)


def opened(augment: str, seed: int = 0) -> Resident:
    return resident(pictures(), share=0.25, seed=seed, augment=augment, device="cpu")


def raw(data: Resident, batch: torch.Tensor) -> torch.Tensor:
    """A normalised batch as the uint8 pictures (count, height, width, channels) it came from."""
    return (batch.permute(0, 2, 3, 1) * data.deviation + data.mean).round().to(torch.uint8)


def test_without_augmentation_every_picture_is_seen_once() -> None:
    data = opened("none")
    seen = torch.cat([raw(data, images) for images, _ in train_batches(data, 10, seed=0, epoch=1)])
    assert sorted(map(bytes, seen.numpy().reshape(30, -1))) == sorted(map(bytes, data.images.numpy().reshape(30, -1)))


@pytest.mark.parametrize("augment", ["crop", "crop+flip"])
def test_crops_are_windows_of_the_reflected_picture(augment: str) -> None:
    data, plain = opened(augment), opened("none")
    windows: dict[bytes, tuple[int, bool]] = {}
    for index, image in enumerate(plain.images.numpy()):
        padded = np.pad(image, ((1, 1), (1, 1), (0, 0)), mode="reflect")
        for down in range(3):
            for right in range(3):
                window = padded[down : down + 8, right : right + 8]
                windows[window.tobytes()] = (index, False)
                windows.setdefault(np.ascontiguousarray(window[:, ::-1]).tobytes(), (index, True))
    found = []
    for images, labels in train_batches(data, 10, seed=3, epoch=2):
        for image, label in zip(raw(data, images).numpy(), labels, strict=True):
            index, mirrored = windows[image.tobytes()]
            assert label == plain.labels[index]
            found.append((index, mirrored))
    assert sorted(index for index, _ in found) == list(range(30))
    assert any(mirrored for _, mirrored in found) == ("flip" in augment)


def test_an_epoch_is_reproducible_and_unlike_the_next() -> None:
    data = opened("crop+flip")
    first = torch.cat([images for images, _ in train_batches(data, 10, seed=5, epoch=1)])
    again = torch.cat([images for images, _ in train_batches(data, 10, seed=5, epoch=1)])
    after = torch.cat([images for images, _ in train_batches(data, 10, seed=5, epoch=2)])
    other = torch.cat([images for images, _ in train_batches(data, 10, seed=6, epoch=1)])
    assert torch.equal(first, again) and not torch.equal(first, after) and not torch.equal(first, other)


def test_training_pictures_have_mean_zero_and_deviation_one() -> None:
    data = opened("none")
    seen = torch.cat([images for images, _ in train_batches(data, 30, seed=0, epoch=1)])
    assert seen.mean((0, 2, 3)).abs().max() < 1e-5
    assert (seen.std((0, 2, 3), correction=0) - 1).abs().max() < 1e-4


def test_validation_pictures_are_whole_and_in_order() -> None:
    data = opened("crop")
    seen = torch.cat([raw(data, images) for images, _ in held_batches(data, 4)])
    assert torch.equal(seen, data.held_images) and len(seen) == 10


def test_batches_are_channels_last_and_equal_in_size() -> None:
    sizes = set()
    for images, _ in train_batches(opened("crop"), 8, seed=0, epoch=1):
        sizes.add(len(images))
        assert images.is_contiguous(memory_format=torch.channels_last)
    assert sizes == {8}


def test_a_set_smaller_than_a_batch_is_one_batch() -> None:
    assert [len(labels) for _, labels in train_batches(opened("none"), 128, seed=0, epoch=1)] == [30]
