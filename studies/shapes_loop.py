"""Segmentation with a training loop of one's own: circles, squares and triangles on noise, a small U-Net, mean IoU.

Everything a user writes is here: the data, the network (attention goes into the slots that the study names), and `run`, the
loop. `studies/segmentation_shapes.py` is the study. What `run` keeps, an interrupted trial goes on from, bit for bit.
"""

from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from harness.own_loop import Context

SIDE, TRAIN, HELD = 48, 512, 128
"""Pixels of a side, and pictures to train and to validate on."""
CLASSES = ("background", "circle", "square", "triangle")


def shapes(count: int, rng: np.random.Generator) -> tuple[Tensor, Tensor]:
    """Grey pictures (count, 1, side, side) with one to three shapes on noise, and their masks (count, side, side)."""
    rows, columns = np.mgrid[:SIDE, :SIDE]
    pictures, masks = rng.normal(0, 0.7, (count, 1, SIDE, SIDE)), np.zeros((count, SIDE, SIDE), np.int64)
    for picture, mask in zip(pictures, masks):
        for _ in range(rng.integers(1, 4)):
            kind, size = rng.integers(1, len(CLASSES)), rng.uniform(5, 10)
            y, x = rows - rng.uniform(size, SIDE - size), columns - rng.uniform(size, SIDE - size)
            inside = {
                1: y**2 + x**2 < size**2,
                2: np.maximum(abs(y), abs(x)) < 0.85 * size,
                3: (y < 0.7 * size) & (y > 2 * abs(x) - 1.1 * size),
            }[int(kind)]
            picture[0][inside] += rng.uniform(0.7, 1.5)
            mask[inside] = kind
    return torch.from_numpy(pictures).float(), torch.from_numpy(masks)


def block(inputs: int, outputs: int) -> nn.Sequential:
    norm = nn.BatchNorm2d(outputs)
    return nn.Sequential(nn.Conv2d(inputs, outputs, 3, padding=1, bias=False), norm, nn.ReLU())


class UNet(nn.Module):
    """(batch, channels, side, side) to scores (batch, classes, side, side): an encoder, a bottom, a decoder, and skips."""

    def __init__(self, channels: int, classes: int, width: int = 12) -> None:
        super().__init__()
        self.first, self.second = block(channels, width), block(width, 2 * width)
        self.bottom = block(2 * width, 4 * width)
        self.third, self.fourth = block(6 * width, 2 * width), block(3 * width, width)
        self.classify = nn.Conv2d(width, classes, 1)

    def forward(self, x: Tensor) -> Tensor:
        fine = self.first(x)
        middle = self.second(F.max_pool2d(fine, 2))
        coarse = self.bottom(F.max_pool2d(middle, 2))
        middle = self.third(torch.cat([F.interpolate(coarse, scale_factor=2.0), middle], 1))
        scores: Tensor = self.classify(self.fourth(torch.cat([F.interpolate(middle, scale_factor=2.0), fine], 1)))
        return scores


def run(context: Context) -> Iterator[dict[str, float]]:
    """The loop: AdamW, one cosine, flips; after each epoch the mean IoU."""
    network, training = context.network, context.training
    pictures, masks = (part.to(context.device) for part in shapes(TRAIN, context.rng("train")))
    held = [part.to(context.device) for part in shapes(HELD, context.rng("held"))]
    optimizer = torch.optim.AdamW(network.parameters(), lr=training.lr, weight_decay=training.weight_decay)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, training.epochs)
    context.keep(optimizer=optimizer, schedule=schedule)
    for _ in context.epochs():
        network.train()
        losses = []
        order = torch.randperm(TRAIN, generator=context.generator("order"))
        for start in context.watch(range(0, TRAIN, training.batch_size)):
            places = order[start : start + training.batch_size]
            flip = torch.rand(()) < 0.5
            x, y = (part[places].flip(-1) if flip else part[places] for part in (pictures, masks))
            with context.autocast():
                loss = F.cross_entropy(network(x).float(), y)
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            losses.append(loss.detach())
        schedule.step()
        yield {"mIoU": miou(context, *held), "train_loss": float(torch.stack(losses).mean())}


@torch.inference_mode()
def miou(context: Context, pictures: Tensor, masks: Tensor) -> float:
    """Intersection over union of each class over all pictures, their mean."""
    context.network.eval()
    with context.autocast():
        found = context.network(pictures).float().argmax(1)
    pairs = torch.bincount((masks * len(CLASSES) + found).flatten(), minlength=len(CLASSES) ** 2)
    confusion = pairs.reshape(len(CLASSES), -1).double()
    both = confusion.diag()
    return float((both / (confusion.sum(0) + confusion.sum(1) - both)).mean())
