"""Pictures that are read as they pass: torchvision's transforms in the processes of a DataLoader, the rest on the device.

To train: a random resized crop (Szegedy et al., arXiv 1409.4842) and a mirror; to evaluate: the shorter side to 8/7 of the
network's, and the centre. Each picture is transformed from a number named by (seed, epoch, place), whoever reads it.
"""

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from harness.config import Training
from harness.data.augment import Augmentation, Batch, Normalise, stream
from harness.data.folders import load
from harness.data.pictures import Counts, DataInfo, Files, Pictures
from harness.data.resident import Whole
from harness.data.sources import split
from harness.errors import DataError

MEAN, DEVIATION = (123.675, 116.28, 103.53), (58.395, 57.12, 57.375)
"""Of ImageNet: of streamed sets no mean of their own is taken."""
Item = tuple[int, int | None]
"""A picture's place, and the number its transform is drawn from; None: as in evaluation."""


class Streamed:
    """The batches of one trial; `Batches` says what its methods do."""

    def __init__(
        self, files: Files, info: DataInfo, training: Training, seed: int, device: torch.device, cores: int
    ) -> None:
        kept, held = split(files.labels, training.validation, seed)
        self._training, self._seed, self.device = training, seed, device
        self._kept, self._held_places = kept, held
        self._labels = torch.from_numpy(files.labels)
        self.mean, self.deviation = torch.tensor(MEAN), torch.tensor(DEVIATION)
        self._normalise = Normalise(self.mean, self.deviation, info.shape, device)
        self._augmentation = Augmentation(training, self._normalise, seed)
        self.held = len(held)
        self.size = min(training.batch_size, len(kept))
        self.steps = len(kept) // self.size
        self._cores, self._side = cores, info.shape.height
        self._reader = Reader(files, self._side, training.augment, device, cores)

    def epoch(self, epoch: int) -> Iterator[Batch]:
        rng = stream(self._seed, epoch, "order")
        order = rng.permutation(self._kept)
        draws = stream(self._seed, epoch, "crop").integers(0, 2**63, len(order))
        plain = self._training.augment == "none"
        items: list[Item] = [
            (place, None if plain else draw) for place, draw in zip(order.tolist(), draws.tolist(), strict=True)
        ]
        augmentation = self._augmentation.epoch(epoch, len(order))
        spans = [slice(step * self.size, (step + 1) * self.size) for step in range(self.steps)]
        for at, images in zip(spans, self._reader.read([items[span] for span in spans]), strict=True):
            labels = self._labels[torch.from_numpy(order[at])].to(self.device, non_blocking=True)
            yield augmentation(images, labels, at)

    def held_out(self) -> Iterator[Batch]:
        return self._plain(self._reader, self._labels, self._held_places)

    def test(self, pictures: Pictures | Files) -> Whole:
        assert isinstance(pictures, Files)
        reader = Reader(pictures, self._side, "none", self.device, self._cores)
        labels, places = torch.from_numpy(pictures.labels), np.arange(len(pictures.labels))
        return Whole(self.device, len(places), lambda: self._plain(reader, labels, places))

    def _plain(self, reader: "Reader", labels: Tensor, which: Counts) -> Iterator[Batch]:
        """Pictures by their places, as they are."""
        size = 4 * self._training.batch_size
        batches = [which[start : start + size] for start in range(0, len(which), size)]
        read = reader.read([[(place, None) for place in places.tolist()] for places in batches])
        for places, images in zip(batches, read, strict=True):
            yield self._normalise(images), labels[torch.from_numpy(places)].to(self.device)


class Reader:
    """Files as batches of pictures on a device, read by processes of its own that stay."""

    def __init__(self, files: Files, side: int, augment: str, device: torch.device, cores: int) -> None:
        self._plan: list[list[Item]] = []
        self._device, workers = device, processes(cores, device)
        self._loader = DataLoader(
            Opened(files, side, augment),
            batch_sampler=_Plan(self._plan),
            num_workers=workers,
            collate_fn=stacked,
            pin_memory=device.type == "cuda",
            persistent_workers=workers > 0,
            generator=torch.Generator(),  # what it draws is not taken from the trial's own numbers
        )

    def read(self, batches: list[list[Item]]) -> Iterator[Tensor]:
        """The pictures of each batch, uint8 (count, height, width, channels); raises DataError for one that has broken."""
        self._plan[:] = batches
        for images in self._loader:
            if isinstance(images, DataError):
                raise images
            yield images.to(self._device, non_blocking=True)


def processes(cores: int, device: torch.device) -> int:
    """How many read beside the trial's own process, which trains: the other cores of the trial, on a GPU at least one."""
    return max(cores - 1, 1 if device.type == "cuda" else 0)


class _Plan:
    """The batches to read next, as the loader wants them."""

    def __init__(self, batches: list[list[Item]]) -> None:
        self._batches = batches

    def __iter__(self) -> Iterator[list[Item]]:
        return iter(list(self._batches))

    def __len__(self) -> int:
        return len(self._batches)


class Opened(Dataset[Tensor | DataError]):
    """Files as uint8 (height, width, channels); a file that has broken since it was looked through comes as its error."""

    def __init__(self, files: Files, side: int, augment: str) -> None:
        from torchvision.transforms import v2  # met only by who streams: it takes seconds to import

        flips = [v2.RandomHorizontalFlip()] if "flip" in augment else []
        centre = [v2.Resize(round(side * 8 / 7)), v2.CenterCrop(side)]
        self._files = files
        self._train = v2.Compose([*([v2.RandomResizedCrop(side)] if "crop" in augment else centre), *flips])
        self._evaluate = v2.Compose(centre)

    def __len__(self) -> int:
        return len(self._files.labels)

    def __getitem__(self, item: Item) -> Tensor | DataError:
        place, draw = item
        try:
            picture = load(self._files.root / self._files.names[place])
        except DataError as error:
            return error
        if draw is None:
            return pixels(self._evaluate(picture))
        before = torch.get_rng_state()
        torch.default_generator.manual_seed(draw)  # of the CPU alone: what seeds every device takes longer than the picture
        try:
            return pixels(self._train(picture))
        finally:
            torch.set_rng_state(before)


def pixels(picture: Any) -> Tensor:
    """uint8 (height, width, channels)."""
    return torch.from_numpy(np.array(picture))


def stacked(items: Sequence[Tensor | DataError]) -> Tensor | DataError:
    """A batch, or the first error in it."""
    broken = next((item for item in items if isinstance(item, DataError)), None)
    return broken or torch.stack([item for item in items if isinstance(item, Tensor)])
