"""Batches from tensors that stay on the device: shuffled, cropped and flipped there, reproducible from (seed, epoch)."""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from harness.data.sources import Pictures, split


@dataclass(frozen=True)
class Resident:
    """The pictures of one trial on its device: uint8 (count, height, width, channels), padded by `pad` for crops."""

    images: Tensor
    labels: Tensor
    held_images: Tensor
    held_labels: Tensor
    mean: Tensor
    deviation: Tensor
    pad: int
    flip: bool

    def __len__(self) -> int:
        return len(self.labels)


def resident(pictures: Pictures, *, share: float, seed: int, augment: str, device: str) -> Resident:
    """Splits by the seed and moves both parts to the device; means and deviations are the training part's own."""
    kept, held = split(pictures.labels, share, seed)
    images, held_images = torch.from_numpy(pictures.images[kept]), torch.from_numpy(pictures.images[held])
    pad = max(1, images.shape[1] // 8) if "crop" in augment else 0
    mean, deviation = _statistics(images)
    if pad:
        channels_first = torch.nn.functional.pad(images.permute(0, 3, 1, 2), (pad,) * 4, mode="reflect")
        images = channels_first.permute(0, 2, 3, 1).contiguous()
    return Resident(
        images=images.to(device),
        labels=torch.from_numpy(pictures.labels[kept]).to(device),
        held_images=held_images.to(device),
        held_labels=torch.from_numpy(pictures.labels[held]).to(device),
        mean=mean.to(device),
        deviation=deviation.to(device),
        pad=pad,
        flip="flip" in augment,
    )


def _statistics(images: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and deviation of each channel, exactly, from counts of the 256 levels."""
    counts = torch.stack([torch.bincount(images[..., c].flatten(), minlength=256) for c in range(images.shape[3])]).double()
    level, total = torch.arange(256, dtype=torch.float64), counts.sum(1)
    mean = (counts * level).sum(1) / total
    variance = (counts * level**2).sum(1) / total - mean**2
    return mean.float(), variance.clamp(min=1.0).sqrt().float()


def steps_per_epoch(count: int, batch_size: int) -> int:
    """Full batches of an epoch; a set smaller than a batch is one batch."""
    return max(count // batch_size, 1)


def train_batches(data: Resident, batch_size: int, seed: int, epoch: int) -> Iterator[tuple[Tensor, Tensor]]:
    """Normalised float batches (batch, channels, height, width) in channels-last order; a broken last batch is left out."""
    rng = torch.Generator().manual_seed(seed * 1_000_003 + epoch)
    count, device = len(data), data.images.device
    order = torch.randperm(count, generator=rng)
    size = min(batch_size, count)
    high, wide = data.held_images.shape[1:3]
    down, right = torch.randint(0, 2 * data.pad + 1, (2, count), generator=rng)
    mirrored = torch.rand(count, generator=rng) < 0.5 if data.flip else torch.zeros(count, dtype=torch.bool)
    for step in range(steps_per_epoch(count, batch_size)):
        chosen = order[step * size : (step + 1) * size]
        rows = down[chosen, None] + torch.arange(high)
        columns = right[chosen, None] + torch.where(mirrored[chosen, None], torch.arange(wide).flip(0), torch.arange(wide))
        places = [place.to(device) for place in (chosen[:, None, None], rows[:, :, None], columns[:, None, :])]
        yield normalised(data, data.images[places[0], places[1], places[2]]), data.labels[places[0].flatten()]


def held_batches(data: Resident, batch_size: int) -> Iterator[tuple[Tensor, Tensor]]:
    """The validation pictures in order, all of them."""
    for images, labels in zip(
        torch.split(data.held_images, batch_size), torch.split(data.held_labels, batch_size), strict=True
    ):
        yield normalised(data, images), labels


def normalised(data: Resident, images: Tensor) -> Tensor:
    """uint8 (batch, height, width, channels) as float (batch, channels, height, width)."""
    return ((images.float() - data.mean) / data.deviation).permute(0, 3, 1, 2)
