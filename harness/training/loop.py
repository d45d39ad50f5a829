"""One epoch of training, one evaluation."""

import hashlib
import random
from collections.abc import Callable, Iterator
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from harness.config import Training
from harness.data.batches import Batches, Held
from harness.errors import Interrupted
from harness.training.learner import Learner


def autocast(training: Training, device: str) -> torch.autocast:
    """bf16 for convolutions and matrix products where the config says so."""
    return torch.autocast(device, dtype=torch.bfloat16, enabled=training.precision == "bf16")


def train_epoch(
    learner: Learner, data: Batches, *, seed: int, epoch: int, stop: Callable[[], bool] = lambda: False
) -> float:
    """One pass over the training part (epoch counts from 1); returns the mean loss. Raises Interrupted when `stop` says."""
    training, device, steps = learner.training, data.device.type, data.steps
    ranks = learner.ranks
    learner.network.train()
    seed_everything(seed, epoch)
    total = torch.zeros((), device=device)
    for number, (images, targets) in enumerate(data.epoch(epoch), start=(epoch - 1) * steps):
        if stop():
            raise Interrupted
        for piece in pieces(images, targets, training.accumulate):
            some, theirs = ranks.piece(*piece)
            with ranks.drawing_nothing(), autocast(training, device):
                scores = learner.forward(some)
            loss = F.cross_entropy(scores.float(), theirs, label_smoothing=training.label_smoothing)
            if len(some) < len(images):
                loss = loss * (len(some) / len(images))
            torch.autograd.backward(loss if ranks.world == 1 else loss * ranks.world)  # a mean is taken over the processes
            total += loss.detach()
        learner.step(number, steps * training.epochs)
    return float(ranks.summed(total)) / steps


def pieces(images: Tensor, targets: Tensor, count: int) -> Iterator[tuple[Tensor, Tensor]]:
    """A batch in so many pieces, equal but for one picture; as many as keep two pictures each where it is small."""
    count = max(min(count, len(images) // 2), 1)
    yield from zip(images.tensor_split(count), targets.tensor_split(count))


def seed_everything(seed: int, epoch: int) -> None:
    """Names the random numbers of an epoch, which dropout and a user's own modules may draw, by seed and epoch."""
    named = int.from_bytes(hashlib.sha256(f"epoch {seed} {epoch}".encode()).digest()[:4])
    torch.manual_seed(named)
    np.random.seed(named)
    random.seed(named)


class Measured(NamedTuple):
    """What an evaluation finds."""

    accuracy: float
    loss: float
    """Mean cross-entropy."""
    top5: float | None
    """Share of pictures with the right class among the first five; None where there are five classes or fewer."""


@torch.inference_mode()
def evaluate(network: nn.Module, data: Held, training: Training) -> Measured:
    """Accuracy, mean cross-entropy and top-5 on the pictures that are held out."""
    network.eval()
    right = first_five = torch.zeros((), dtype=torch.int64, device=data.device)
    loss, classes = torch.zeros((), dtype=torch.float64, device=data.device), 0
    for images, labels in data.held_out():
        with autocast(training, data.device.type):
            scores = network(images)
        scores, classes = scores.float(), scores.shape[1]
        right = right + (scores.argmax(1) == labels).sum()
        loss += F.cross_entropy(scores, labels, reduction="sum")
        if classes > 5:
            first_five = first_five + (scores.topk(5).indices == labels[:, None]).sum()
    top5 = int(first_five) / data.held if classes > 5 else None
    return Measured(int(right) / data.held, float(loss) / data.held, top5)


def radii(network: nn.Module) -> dict[str, tuple[float, ...]]:
    """The radii that are learned, by stage and block: `2.1` is stage 2, first block; one a head, or one for all heads. In
    the unit of the module that has them.

    A module with a `radius` outside of stages is named by its path. Five digits: a curve has one of these an epoch."""
    found: dict[str, tuple[float, ...]] = {}
    for path, module in network.named_modules():
        radius = getattr(module, "radius", None)
        if isinstance(radius, Tensor) and any(True for _ in module.parameters()):
            place, others = _place(path), 1
            while (name := place if others == 1 else f"{place}/{others}") in found:
                others += 1
            found[name] = tuple(float(f"{value:.5g}") for value in radius.detach().flatten().tolist())
    return found


def _place(path: str) -> str:
    words = path.split(".")
    if words[0] == "stages" and len(words) > 2:
        return f"{words[1]}.{int(words[2]) + 1}" if words[2].isdigit() else words[1]
    return path
