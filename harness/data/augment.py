"""Augmentation of a batch, on its device: uint8 in, normalised floats and targets out, each picture with its own draws.

All draws of an epoch are made on the CPU before it begins, each kind from a stream named by seed, epoch and kind: device,
interruption and what else is switched on change none of them. Pictures are handled as rows of bytes, (height, width *
channels), so that the innermost loop is a long one.
"""

import zlib

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from harness.config import Training
from harness.cost import Shape
from harness.data.policies import Policy

Batch = tuple[Tensor, Tensor]
"""Images as normalised floats (batch, channels, height, width), channels last in memory; targets as classes (batch,) or as
probabilities (batch, classes)."""
GREY = (0.299, 0.587, 0.114)
"""Shares of red, green and blue in brightness (ITU-R BT.601)."""


def stream(seed: int, epoch: int, kind: str) -> np.random.Generator:
    """The random numbers of one kind of augmentation in one epoch."""
    return np.random.Generator(np.random.PCG64([seed, epoch, zlib.crc32(kind.encode())]))


class Normalise:
    """uint8 (batch, height, width, channels) to floats (batch, channels, height, width), channels last in memory."""

    def __init__(self, mean: Tensor, deviation: Tensor, shape: Shape, device: torch.device) -> None:
        self.shape, self.device = shape, device
        self._mean, self._deviation = (part.repeat(shape.height * shape.width).to(device) for part in (mean, deviation))

    def __call__(self, images: Tensor) -> Tensor:
        return self.shaped(self.flat(images.flatten(1).float()))

    def flat(self, values: Tensor) -> Tensor:
        """(batch, height * width * channels), in place."""
        return values.sub_(self._mean).div_(self._deviation)

    def shaped(self, values: Tensor) -> Tensor:
        """Flat values as the network wants them."""
        channels, height, width, _ = self.shape
        return values.view(-1, height, width, channels).permute(0, 3, 1, 2)


class Augmentation:
    """What a recipe does to a batch after crop and mirror: policy, jitter, normalisation, cutout, mixture, in this order."""

    def __init__(self, training: Training, normalise: Normalise, seed: int) -> None:
        self._training, self._normalise, self._seed = training, normalise, seed

    def epoch(self, epoch: int, count: int) -> "Epoch":
        """The augmentation of one epoch (from 1) of `count` pictures, with all its draws."""
        training, shape, device = self._training, self._normalise.shape, self._normalise.device
        draws = {kind: stream(self._seed, epoch, kind) for kind in ("policy", "jitter", "cutout", "mix")}
        return Epoch(
            self._normalise,
            policy=Policy(training.policy, training.magnitude, shape, draws["policy"], count) if training.policy else None,
            jitter=Jitter(training.jitter, shape, draws["jitter"], count, device) if training.jitter else None,
            cutout=Cutout(training.cutout, shape, draws["cutout"], count, device) if training.cutout else None,
            mix=Mix(training, shape, draws["mix"], count, device) if training.mixup or training.cutmix else None,
        )


class Epoch:
    """One epoch's augmentation; `at` is where in the epoch's order the pictures of a batch are."""

    def __init__(
        self,
        normalise: Normalise,
        *,
        policy: Policy | None,
        jitter: "Jitter | None",
        cutout: "Cutout | None",
        mix: "Mix | None",
    ) -> None:
        self._normalise, self._policy, self._jitter, self._cutout, self._mix = normalise, policy, jitter, cutout, mix

    def __call__(self, images: Tensor, labels: Tensor, at: slice) -> Batch:
        """A batch of uint8 (batch, height, width, channels) and classes, augmented."""
        if self._policy is not None:
            images = self._policy(images, at)
        values = images.flatten(1).float()
        if self._jitter is not None:
            values = self._jitter(values, at)
        values = self._normalise.flat(values)
        if self._cutout is not None:
            values = self._cutout(values, at)
        targets = labels
        if self._mix is not None:
            values, targets = self._mix(values, labels, at)
        return self._normalise.shaped(values), targets


class Boxes:
    """A box for each picture of an epoch, cut off at the picture's borders."""

    def __init__(
        self, shape: Shape, rng: np.random.Generator, heights: NDArray[np.int64], widths: NDArray[np.int64]
    ) -> None:
        self._channels, self._height, self._width, _ = shape
        count = len(heights)
        top = rng.integers(0, self._height, count) - heights // 2
        left = rng.integers(0, self._width, count) - widths // 2
        edges = np.stack([top, top + heights, left, left + widths], axis=1)
        limits = np.array([self._height, self._height, self._width, self._width])
        self.edges = torch.from_numpy(edges.clip(0, limits))
        """(count, 4): top, bottom, left, right; bottom and right are not in the box."""

    @property
    def shares(self) -> Tensor:
        """The part of the picture that each box covers (count,)."""
        top, bottom, left, right = self.edges.unbind(1)
        return torch.div((bottom - top) * (right - left), self._height * self._width)

    def to(self, device: torch.device) -> "Boxes":
        self.edges = self.edges.to(device)
        return self

    def outside(self, at: slice) -> Tensor:
        """1 where a value of a flat picture is outside of its box, else 0: (batch, height * width * channels)."""
        top, bottom, left, right = self.edges[at].T[:, :, None]
        rows = torch.arange(self._height, device=self.edges.device)
        cells = torch.arange(self._width, device=self.edges.device).repeat_interleave(self._channels)
        down, across = ((rows >= top) & (rows < bottom)).float(), ((cells >= left) & (cells < right)).float()
        one = torch.ones((), device=down.device)
        return torch.addcmul(one, down[:, :, None], across[:, None, :], value=-1).flatten(1)


class Jitter:
    """Brightness, contrast and saturation, each times its own factor of 1 - strength to 1 + strength, in this order and with
    one cut to the range of colours at the end: an affine map of colours for each picture."""

    def __init__(self, strength: float, shape: Shape, rng: np.random.Generator, count: int, device: torch.device) -> None:
        self._channels = shape.channels
        self._factors = torch.from_numpy(rng.uniform(1 - strength, 1 + strength, (count, 3))).float().to(device)
        grey = GREY if shape.channels == 3 else (1.0,)
        self._grey = torch.tensor(grey, device=device)
        self._mean = (self._grey / (shape.height * shape.width)).repeat(shape.height * shape.width)

    def __call__(self, values: Tensor, at: slice) -> Tensor:
        """Flat values from 0 to 255."""
        bright, contrast, saturation = self._factors[at].T[:, :, None]
        level = bright * (values @ self._mean)[:, None]
        grey = values.view(len(values), -1, self._channels) @ self._grey
        grey = grey * (bright * contrast * (1 - saturation)) + (1 - contrast) * level
        own: Tensor = values * (bright * contrast * saturation)
        return own.add_(grey.repeat_interleave(self._channels, 1)).clamp_(0, 255)


class Cutout:
    """A box of the mean colour, of a share of the sides, centred anywhere (DeVries and Taylor, arXiv 1708.04552)."""

    def __init__(self, share: float, shape: Shape, rng: np.random.Generator, count: int, device: torch.device) -> None:
        sides = (np.full(count, max(round(share * side), 1)) for side in (shape.height, shape.width))
        self._boxes = Boxes(shape, rng, *sides).to(device)

    def __call__(self, values: Tensor, at: slice) -> Tensor:
        """Normalised flat values."""
        return values.mul_(self._boxes.outside(at))


class Mix:
    """Mixup (arXiv 1710.09412) and CutMix (arXiv 1905.04899) with the next picture of the batch, whose order is random
    already; each picture has its own share from a Beta distribution, and with both, its own toss between them."""

    def __init__(self, training: Training, shape: Shape, rng: np.random.Generator, count: int, device: torch.device) -> None:
        self._classes = shape.classes
        whole, cut = (rng.beta(alpha, alpha, count) if alpha else None for alpha in (training.mixup, training.cutmix))
        tossed = rng.random(count) < 0.5
        by_box = tossed if whole is not None and cut is not None else np.full(count, cut is not None)
        self._boxes: Boxes | None = None
        shares = torch.ones(count) if whole is None else torch.from_numpy(np.where(by_box, 1.0, whole)).float()
        self._shares = None if whole is None else shares.to(device)
        if cut is not None:
            sides = np.where(by_box, np.sqrt(1 - cut), 0.0)
            self._boxes = Boxes(shape, rng, *((side * sides).astype(np.int64) for side in (shape.height, shape.width)))
            shares = torch.where(torch.from_numpy(by_box), 1 - self._boxes.shares, shares)
            self._boxes.to(device)
        self._weights = shares.to(device)

    def __call__(self, values: Tensor, labels: Tensor, at: slice) -> Batch:
        """Normalised flat values and classes (batch,); the targets are probabilities (batch, classes)."""
        share = 1.0 if self._shares is None else self._shares[at, None]
        share = share if self._boxes is None else share * self._boxes.outside(at)
        values = torch.lerp(values.roll(-1, 0), values, share)
        own = F.one_hot(labels, self._classes).float()
        return values, torch.lerp(own.roll(-1, 0), own, self._weights[at, None])
