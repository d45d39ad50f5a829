"""Pictures that are held whole: cropped and mirrored out of one array that all trials of a process share.

On a CPU the array is the cache's own, mapped; on a GPU there is one copy a process, kept from trial to trial. What is
trained on and what is held out are lists of places: a seed moves no picture.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from harness.config import Training
from harness.data.augment import Augmentation, Batch, Normalise
from harness.data.pictures import Counts, DataInfo, Files, Pictures
from harness.data.sources import split
from harness.gpus import holds_pictures
from harness.training.device import memory_allowed

_placed: dict[torch.device, tuple[str, Tensor]] = {}
"""The one set that each device of this process holds, by its fingerprint."""


class Resident:
    """The batches of one trial; `Batches` says what its methods do."""

    def __init__(self, pictures: Pictures, info: DataInfo, training: Training, seed: int, device: torch.device) -> None:
        kept, held = split(pictures.labels, training.validation, seed)
        self._training, self._seed, self.device = training, seed, device
        self._images = placed(pictures, info.fingerprint, device)
        self._kept, self._held_places = (torch.from_numpy(places) for places in (kept, held))
        self._labels = torch.from_numpy(pictures.labels)
        self.mean, self.deviation = statistics(pictures.moments[kept], pictures.images.shape[1] * pictures.images.shape[2])
        self._normalise = Normalise(self.mean, self.deviation, info.shape, device)
        self._augmentation = Augmentation(training, self._normalise, seed)
        self._pad = max(1, info.shape.height // 8) if "crop" in training.augment else 0
        self.held = len(held)
        self.size = min(training.batch_size, len(kept))
        self.steps = len(kept) // self.size

    def epoch(self, epoch: int) -> Iterator[Batch]:
        rng = torch.Generator().manual_seed(self._seed * 1_000_003 + epoch)
        count, where = len(self._kept), self._images.device
        order = torch.randperm(count, generator=rng)
        down, right = torch.randint(0, 2 * self._pad + 1, (2, count), generator=rng)
        flip = "flip" in self._training.augment
        mirrored = torch.rand(count, generator=rng) < 0.5 if flip else torch.zeros(count, dtype=torch.bool)
        places = self._kept[order]
        labels = self._labels[places].to(self.device)
        places, down, right, mirrored = (drawn.to(where) for drawn in (places, down[order], right[order], mirrored[order]))
        augmentation = self._augmentation.epoch(epoch, count)
        for step in range(self.steps):
            at = slice(step * self.size, (step + 1) * self.size)
            if self._pad or flip:
                zero = self._training.padding == "zero"
                images = windows(self._images, places[at], down[at], right[at], mirrored[at], self._pad, zero=zero)
            else:
                images = self._images.index_select(0, places[at])
            yield augmentation(images.to(self.device, non_blocking=True), labels[at], at)

    def held_out(self) -> Iterator[Batch]:
        return self._plain(self._images, self._labels, self._held_places)

    def test(self, pictures: Pictures | Files) -> "Whole":
        assert isinstance(pictures, Pictures)
        images, labels = torch.from_numpy(pictures.images), torch.from_numpy(pictures.labels)
        return Whole(self.device, len(labels), lambda: self._plain(images, labels, torch.arange(len(labels))))

    def _plain(self, images: Tensor, labels: Tensor, which: Tensor) -> Iterator[Batch]:
        """Pictures by their places, as they are."""
        for places in torch.split(which, 4 * self._training.batch_size):
            found = images.index_select(0, places.to(images.device))
            yield self._normalise(found.to(self.device)), labels[places].to(self.device)


@dataclass(frozen=True)
class Whole:
    """A set of pictures to evaluate on; `Held` says what its fields are."""

    device: torch.device
    held: int
    batches: Callable[[], Iterator[Batch]]

    def held_out(self) -> Iterator[Batch]:
        return self.batches()


def placed(pictures: Pictures, fingerprint: str, device: torch.device) -> Tensor:
    """All pictures as one tensor, where batches are cut from them: on the device, if there is room for them."""
    images = torch.from_numpy(pictures.images)
    if device.type != "cuda" or not holds_pictures(images.nbytes, memory_allowed(device)):
        _placed.pop(device, None)
        return images
    if _placed.get(device, ("", None))[0] != fingerprint:
        _placed.pop(device, None)  # the old set goes before the new one comes
        _placed[device] = (fingerprint, images.to(device))
    return _placed[device][1]


def statistics(moments: Counts, pixels: int) -> tuple[Tensor, Tensor]:
    """Mean and deviation of each channel, exactly, from the sums of pictures of so many pixels."""
    total = torch.from_numpy(moments.sum(0)).double() / (len(moments) * pixels)
    mean, squares = total.T
    return mean.float(), (squares - mean**2).clamp(min=1.0).sqrt().float()


def windows(
    images: Tensor, places: Tensor, down: Tensor, right: Tensor, mirrored: Tensor, pad: int, *, zero: bool
) -> Tensor:
    """Windows of the size of a picture, each `down` and `right` (batch,) from the corner of its padded picture, mirrored
    where asked; (batch, height, width, channels). Padding reflects, or is black; it is never made, only looked up."""
    _, height, width, channels = images.shape
    across = torch.arange(width, device=images.device)
    rows = (down - pad)[:, None] + torch.arange(height, device=images.device)
    columns = (right - pad)[:, None] + torch.where(mirrored[:, None], across.flip(0), across)
    lines = places[:, None] * height + reflected(rows, height)
    found = images.view(-1, width * channels).index_select(0, lines.flatten()).view(len(places), height, -1)
    cells = reflected(columns, width)[:, :, None] * channels + torch.arange(channels, device=images.device)
    found = found.gather(2, cells.view(len(places), 1, -1).expand(found.shape))
    if zero:
        found.mul_(((rows >= 0) & (rows < height)).byte()[:, :, None])
        found.mul_(((columns >= 0) & (columns < width)).byte().repeat_interleave(channels, 1)[:, None, :])
    return found.view(-1, height, width, channels)


def reflected(places: Tensor, side: int) -> Tensor:
    """Places outside of 0 to side - 1 as in a mirror at the border, which is not repeated."""
    places = places.abs()
    return torch.where(places >= side, 2 * (side - 1) - places, places)
