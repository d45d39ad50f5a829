"""The recipe: SGD with Nesterov, linear warm-up and cosine; one epoch of training, one evaluation."""

import hashlib
import math
import random
from collections.abc import Callable, Iterator

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from harness.config import Training
from harness.data.batches import Batches
from harness.errors import Interrupted


def optimiser(network: nn.Module, training: Training) -> torch.optim.SGD:
    """SGD without weight decay on norms, biases and radii: on parameters of fewer than two dimensions."""
    weights = [weight for weight in network.parameters() if weight.requires_grad]
    groups = [
        {"params": [weight for weight in weights if weight.ndim >= 2], "weight_decay": training.weight_decay},
        {"params": [weight for weight in weights if weight.ndim < 2], "weight_decay": 0.0},
    ]
    return torch.optim.SGD(groups, lr=training.lr, momentum=training.momentum, nesterov=training.momentum > 0)


def learning_rate(step: int, steps: int, training: Training) -> float:
    """The rate at a step (from 0) of so many: a linear rise, then half a cosine down to zero."""
    rise = round(training.warmup * steps)
    if step < rise:
        return training.lr * (step + 1) / rise
    return training.lr * 0.5 * (1 + math.cos(math.pi * (step - rise) / max(steps - rise, 1)))


def autocast(training: Training, device: str) -> torch.autocast:
    """bf16 for convolutions and matrix products where the config says so."""
    return torch.autocast(device, dtype=torch.bfloat16, enabled=training.precision == "bf16")


def train_epoch(
    network: nn.Module,
    optim: torch.optim.SGD,
    data: Batches,
    training: Training,
    *,
    seed: int,
    epoch: int,
    stop: Callable[[], bool] = lambda: False,
) -> float:
    """One pass over the training part (epoch counts from 1); returns the mean loss. Raises Interrupted when `stop` says."""
    network.train()
    seed_everything(seed, epoch)
    device, steps = data.device.type, data.steps
    total = torch.zeros((), device=device)
    for step, (images, targets) in enumerate(data.epoch(epoch), (epoch - 1) * steps):
        if stop():
            raise Interrupted
        for group in optim.param_groups:
            group["lr"] = learning_rate(step, steps * training.epochs, training)
        with autocast(training, device):
            scores = network(images)
        loss = F.cross_entropy(scores.float(), targets, label_smoothing=training.label_smoothing)
        optim.zero_grad(set_to_none=True)
        torch.autograd.backward(loss)
        optim.step()
        total += loss.detach()
    return float(total) / steps


def seed_everything(seed: int, epoch: int) -> None:
    """Names the random numbers of an epoch, which dropout and a user's own modules may draw, by seed and epoch."""
    named = int.from_bytes(hashlib.sha256(f"epoch {seed} {epoch}".encode()).digest()[:4])
    torch.manual_seed(named)
    np.random.seed(named)
    random.seed(named)


@torch.inference_mode()
def evaluate(network: nn.Module, data: Batches, training: Training) -> tuple[float, float]:
    """Accuracy and mean cross-entropy on the validation part."""
    network.eval()
    right, loss = 0.0, 0.0
    for scores, labels in _scores(network, data, training):
        right += float((scores.argmax(1) == labels).sum())
        loss += float(F.cross_entropy(scores, labels, reduction="sum"))
    return right / data.held, loss / data.held


def _scores(network: nn.Module, data: Batches, training: Training) -> Iterator[tuple[Tensor, Tensor]]:
    for images, labels in data.held_out():
        with autocast(training, data.device.type):
            scores = network(images)
        yield scores.float(), labels
