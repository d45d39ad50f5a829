"""How long a step of training takes on this machine: a few steps of the engine's own loop on pictures made up."""

import math
import time
from collections.abc import Iterator
from dataclasses import dataclass

import torch

from harness.config import Config
from harness.cost import Shape
from harness.data.augment import Batch
from harness.networks.build import build
from harness.training import device as devices
from harness.training import loop
from harness.training.learner import Learner

PATIENCE = 1.0
"""Seconds after which no further step is timed."""
MOST = 5
"""Steps timed."""
SLOW = 3e10
"""Operations a second that a core of a CPU gives at least: what keeps the first step short."""


@dataclass(frozen=True)
class MadeUp:
    """Batches of noise, normal as normalised pictures are; `Batches` says what its methods do."""

    device: torch.device
    steps: int
    size: int
    shape: Shape
    held: int = 0

    def epoch(self, epoch: int) -> Iterator[Batch]:
        batch = self._batch(self.size)
        for _ in range(self.steps):
            yield batch

    def held_out(self) -> Iterator[Batch]:
        if self.held:
            yield self._batch(self.held)

    def _batch(self, size: int) -> Batch:
        images = torch.randn(size, *self.shape[:3], device=self.device).contiguous(memory_format=torch.channels_last)
        return images, torch.arange(size, device=self.device) % max(self.shape.classes, 1)


def rehearsed(config: Config, shape: Shape, where: str, threads: int) -> Learner:
    """A fresh network of the config in training on a device, eagerly, in the precision that it would have there."""
    precision = devices.best_precision() if config.training.precision == "auto" else config.training.precision
    training = config.training.model_copy(update={"compile": False, "precision": precision, "init": None})
    devices.claim(threads, precision=precision)
    network = build(config.network, shape, 0, where).to(memory_format=torch.channels_last)
    return Learner(network, training)


def seconds_per_picture(config: Config, shape: Shape, macs: int, threads: int = 1) -> float:
    """Of training the config's network here, eagerly: the quickest of a few steps, of batches small enough to end soon."""
    where = devices.best_device()
    learner = rehearsed(config, shape, where, threads)
    training = learner.training
    affordable = training.batch_size if where == "cuda" else max(int(PATIENCE * SLOW / (6 * max(macs, 1))), 2)
    batches = MadeUp(torch.device(where), 1, min(training.batch_size, affordable), shape)
    best, began = math.inf, time.perf_counter()
    for _ in range(1 + MOST):
        started = time.perf_counter()
        loop.train_epoch(learner, batches, seed=0, epoch=1)  # type: ignore[arg-type]
        best = min(best, time.perf_counter() - started)
        if time.perf_counter() - began > PATIENCE:
            break
    return best / batches.size
