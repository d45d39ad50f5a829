"""The batches of a trial, wherever its pictures are: one small protocol for those held whole and those read as they pass."""

from collections.abc import Iterator
from typing import Protocol

import torch

from harness.config import Training
from harness.data.augment import Batch
from harness.data.pictures import DataInfo, Files, Pictures
from harness.data.resident import Resident
from harness.data.stream import Streamed


class Held(Protocol):
    """Pictures to evaluate a network on."""

    @property
    def device(self) -> torch.device:
        """Where batches come out."""

    @property
    def held(self) -> int:
        """How many they are."""

    def held_out(self) -> Iterator[Batch]:
        """All of them in order, as they are."""


class Batches(Held, Protocol):
    """One trial's share of the pictures: split by its seed, augmented as its recipe says; held out to validate on is a
    share of the training part."""

    @property
    def mean(self) -> torch.Tensor:
        """Of each channel, as a level from 0 to 255: what is taken from a picture."""

    @property
    def deviation(self) -> torch.Tensor:
        """Of each channel: what the rest is divided by."""

    @property
    def steps(self) -> int:
        """Batches of an epoch, all of one size; a set smaller than a batch is one batch."""

    @property
    def size(self) -> int:
        """Pictures of a training batch."""

    def epoch(self, epoch: int) -> Iterator[Batch]:
        """The training batches of an epoch (from 1), the same for one seed whatever happened before."""

    def test(self, pictures: Pictures | Files) -> Held:
        """The test part, normalised as the training pictures of this trial are."""


def open_batches(
    pictures: Pictures | Files, info: DataInfo, training: Training, *, seed: int, device: str, cores: int = 1
) -> Batches:
    """Splits by the seed; `cores` are the trial's own, for processes that read pictures."""
    if isinstance(pictures, Pictures):
        return Resident(pictures, info, training, seed, torch.device(device))
    return Streamed(pictures, info, training, seed, torch.device(device), cores)
