"""TrivialAugment (wide; Müller and Hutter, arXiv 2103.10158) and RandAugment (Cubuk et al., arXiv 1909.13719) on a batch.

Each picture draws its own operations, strengths and signs; those that drew the same operation go through it together. Values
are those of torchvision's kernels for uint8 tensors, which work on one picture at a time.
"""

import math
from collections.abc import Callable
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from harness.cost import Shape

BINS = 31
"""Strengths that are told apart, from 0 to 30."""
GREY = (0.2989, 0.587, 0.114)
"""As torchvision rounds them."""
SIGNED = ("shear_x", "shear_y", "translate_x", "translate_y", "rotate", "brightness", "color", "contrast", "sharpness")
"""Operations that go either way."""


class Policy:
    """The operations of one epoch: one of any strength (trivial), or two of one strength (rand)."""

    def __init__(
        self, name: Literal["trivial", "rand"], magnitude: int, shape: Shape, rng: np.random.Generator, count: int
    ) -> None:
        rounds = 1 if name == "trivial" else 2
        most = strongest(name, shape)
        self._names = list(most)
        self._drawn = rng.integers(0, len(self._names), (rounds, count))
        bins = rng.integers(0, BINS, (rounds, count)) if name == "trivial" else np.full((rounds, count), magnitude)
        signs = np.where(rng.random((rounds, count)) < 0.5, -1.0, 1.0)
        signed = np.array([operation in SIGNED for operation in self._names])
        scale = np.array(list(most.values()))
        self._strengths = bins / (BINS - 1) * scale[self._drawn] * np.where(signed[self._drawn], signs, 1.0)

    def __call__(self, images: Tensor, at: slice) -> Tensor:
        """uint8 (batch, height, width, channels), of the pictures `at` these places of the epoch."""
        images = images.clone(memory_format=torch.contiguous_format)
        for drawn, strengths in zip(self._drawn[:, at], self._strengths[:, at]):
            for index in range(len(self._names)):
                if len(places := np.flatnonzero(drawn == index)):
                    self._apply(self._names[index], images, places, strengths[places])
        return images

    @staticmethod
    def _apply(name: str, images: Tensor, places: NDArray[np.int64], strengths: NDArray[np.float64]) -> None:
        if name == "identity":
            return
        chosen = torch.from_numpy(places).to(images.device)
        values = torch.from_numpy(strengths).float().to(images.device)[:, None, None, None]
        images[chosen] = OPERATIONS[name](images[chosen], values)


def strongest(name: Literal["trivial", "rand"], shape: Shape) -> dict[str, float]:
    """Each operation with its strength at the last bin. Translations of the wide space are 32 pixels, at most the side."""
    wide = name == "trivial"
    share, turn, blend = (0.99, 135.0, 0.99) if wide else (0.3, 30.0, 0.9)
    across, down = (min(32, side) if wide else 150 / 331 * side for side in (shape.width, shape.height))
    return {
        "identity": 0.0,
        "shear_x": share,
        "shear_y": share,
        "translate_x": across,
        "translate_y": down,
        "rotate": turn,
        "brightness": blend,
        "color": blend,
        "contrast": blend,
        "sharpness": blend,
        "posterize": 6.0 if wide else 4.0,
        "solarize": 255.0,
        "autocontrast": 0.0,
        "equalize": 0.0,
    }


# -- where pixels come from -------------------------------------------------------------------------------------------


def _warped(images: Tensor, rows: Callable[[Tensor, Tensor], Tensor], columns: Callable[[Tensor, Tensor], Tensor]) -> Tensor:
    """Each pixel from the nearest one to the place that `rows` and `columns` give it, black from outside; places are of
    (row, column), from the centre of the picture's first pixel."""
    count, height, width, channels = images.shape
    row = torch.arange(height, device=images.device, dtype=torch.float32)[None, :, None]
    column = torch.arange(width, device=images.device, dtype=torch.float32)[None, None, :]
    shape = (count, height, width)
    down, across = (place(row, column).expand(shape).round().long() for place in (rows, columns))
    outside = (down < 0) | (down >= height) | (across < 0) | (across >= width)
    pixels = down.clamp_(0, height - 1) * width + across.clamp_(0, width - 1)
    bytes_ = pixels.flatten(1)[..., None] * channels + torch.arange(channels, device=images.device)
    found = images.reshape(count, -1).gather(1, bytes_.flatten(1)).view(images.shape)
    return found.mul_(outside.logical_not_().byte()[..., None])


def shear_x(images: Tensor, share: Tensor) -> Tensor:
    """Rows slide by a share of their distance from the top."""
    share = share[..., 0]
    return _warped(images, lambda row, column: row, lambda row, column: column + share * (row + 0.5))


def shear_y(images: Tensor, share: Tensor) -> Tensor:
    """Columns slide by a share of their distance from the left."""
    share = share[..., 0]
    return _warped(images, lambda row, column: row + share * (column + 0.5), lambda row, column: column)


def translate_x(images: Tensor, pixels: Tensor) -> Tensor:
    """Everything moves to the right by whole pixels."""
    pixels = pixels[..., 0].trunc()
    return _warped(images, lambda row, column: row, lambda row, column: column - pixels)


def translate_y(images: Tensor, pixels: Tensor) -> Tensor:
    """Everything moves down by whole pixels."""
    pixels = pixels[..., 0].trunc()
    return _warped(images, lambda row, column: row - pixels, lambda row, column: column)


def rotate(images: Tensor, degrees: Tensor) -> Tensor:
    """Against the clock, around the centre."""
    angle = degrees[..., 0] * (math.pi / 180)
    sine, cosine = angle.sin(), angle.cos()
    middle, centre = (images.shape[1] - 1) / 2, (images.shape[2] - 1) / 2
    return _warped(
        images,
        lambda row, column: middle + sine * (column - centre) + cosine * (row - middle),
        lambda row, column: centre + cosine * (column - centre) - sine * (row - middle),
    )


# -- what becomes of colours ------------------------------------------------------------------------------------------


def _blend(images: Tensor, others: Tensor, change: Tensor) -> Tensor:
    """The others plus 1 + change times the difference to them."""
    return (images * (1 + change) + others * -change).clamp_(0, 255).byte()


def _grey(images: Tensor) -> Tensor:
    """Brightness in whole levels, (batch, height, width, 1)."""
    if images.shape[-1] == 1:
        return images.float()
    red, green, blue = images.float().unbind(-1)
    grey: Tensor = GREY[0] * red + GREY[1] * green + GREY[2] * blue
    return grey.floor_()[..., None]


def brightness(images: Tensor, change: Tensor) -> Tensor:
    """Towards black, or beyond."""
    return (images * (1 + change)).clamp_(0, 255).byte()


def color(images: Tensor, change: Tensor) -> Tensor:
    """Towards grey, or beyond."""
    if images.shape[-1] == 1:
        return images
    return _blend(images, _grey(images), change)


def contrast(images: Tensor, change: Tensor) -> Tensor:
    """Towards the mean brightness, or beyond."""
    return _blend(images, _grey(images).mean((1, 2, 3), keepdim=True), change)


def sharpness(images: Tensor, change: Tensor) -> Tensor:
    """Towards a blurred picture, or beyond; the border stays."""
    channels = images.shape[-1]
    values = images.float()
    lines = values.flatten(2)  # in which a pixel's neighbours are `channels` further
    three = lines[:, :-2] + lines[:, 1:-1] + lines[:, 2:]
    nine = three[..., : -2 * channels] + three[..., channels:-channels] + three[..., 2 * channels :]
    inner = lines[:, 1:-1, channels:-channels]
    blurred = ((nine + 4 * inner) / 13).round_()
    inner.add_((blurred - inner) * -change[..., 0])
    return values.clamp_(0, 255).byte()


def posterize(images: Tensor, bits: Tensor) -> Tensor:
    """Without the lowest bits."""
    return images & (256 - 2 ** bits.round().int()).byte()


def solarize(images: Tensor, depth: Tensor) -> Tensor:
    """Inverted from 255 less the depth upwards."""
    return torch.where(images >= 255 - depth, 255 - images, images)


def autocontrast(images: Tensor, _: Tensor) -> Tensor:
    """The range of each channel stretched over all levels."""
    least, most = images.amin((1, 2), keepdim=True).float(), images.amax((1, 2), keepdim=True).float()
    flat = least == most
    scale = torch.where(flat, 1.0, (most - least) * (1 / 255))
    return ((images - torch.where(flat, 0.0, least)) / scale).clamp_(0, 255).byte()


def equalize(images: Tensor, _: Tensor) -> Tensor:
    """Levels of each channel spread so that all are equally frequent, by Pillow's rule."""
    count, height, width, channels = images.shape
    levels = images.permute(0, 3, 1, 2).reshape(count, channels, -1).long()
    bins = levels + 256 * torch.arange(count * channels, device=images.device).view(count, channels, 1)
    ones = torch.ones_like(levels).flatten()
    counts = torch.zeros(count * channels * 256, dtype=torch.int64, device=images.device)
    counts = counts.scatter_add_(0, bins.flatten(), ones).view(
        count, channels, 256
    )  # which repeats on a GPU in one dimension
    below = counts.cumsum(2)
    last = counts.gather(2, levels.amax(2, keepdim=True))
    step = (height * width - last) // 255
    table = ((below[..., :-1] + step // 2) // step.clamp(min=1)).clamp_(0, 255)
    table = torch.cat([torch.zeros_like(table[..., :1]), table], 2)
    spread = torch.where(step > 0, table.gather(2, levels), levels).byte()
    return spread.view(count, channels, height, width).permute(0, 2, 3, 1).contiguous()


_moving = (shear_x, shear_y, translate_x, translate_y, rotate)
_colouring = (brightness, color, contrast, sharpness, posterize, solarize, autocontrast, equalize)
OPERATIONS: dict[str, Callable[[Tensor, Tensor], Tensor]] = {each.__name__: each for each in (*_moving, *_colouring)}
"""uint8 (count, height, width, channels) and a strength for each picture (count, 1, 1, 1) to uint8 of the same shape."""
