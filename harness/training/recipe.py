"""A recipe's optimiser, its learning rate at a step, and which parameters it spares."""

import math
from collections.abc import Iterator
from typing import Any

import torch
from torch import nn

from harness.config import Training

NORMS: tuple[type[nn.Module], ...] = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d, nn.SyncBatchNorm, nn.GroupNorm)
NORMS += (nn.LayerNorm, nn.RMSNorm, nn.InstanceNorm1d, nn.InstanceNorm2d, nn.InstanceNorm3d)
BETA2 = 0.999
"""AdamW's second beta (Loshchilov and Hutter, arXiv 1711.05101)."""
START, END = 1 / 25, 1 / 250_000
"""First and last rate of one-cycle, as shares of its peak: PyTorch's own (after Smith and Topin, arXiv 1708.07120)."""


def optimiser(network: nn.Module, training: Training) -> torch.optim.Optimizer:
    """SGD or AdamW; no weight decay on what `spared` names, and a rate of their own for radii.

    `times` of a group multiplies the learning rate."""
    decayed: dict[str, Any] = {"params": [], "weight_decay": training.weight_decay, "times": 1.0}
    free: dict[str, Any] = {"params": [], "weight_decay": 0.0, "times": 1.0}
    radii = free if training.radius_lr == 1 else free | {"params": [], "times": training.radius_lr}
    for module, name, weight in parameters(network):
        group = radii if is_radius(name) else free if spared(module, name, weight) else decayed
        group["params"].append(weight)
    groups = [decayed, free] if radii is free else [decayed, free, radii]
    if training.optimizer == "adamw":
        return torch.optim.AdamW(groups, lr=training.lr, betas=(training.momentum, BETA2))
    nesterov = training.nesterov and training.momentum > 0
    return torch.optim.SGD(groups, lr=training.lr, momentum=training.momentum, nesterov=nesterov)


def parameters(network: nn.Module) -> Iterator[tuple[nn.Module, str, nn.Parameter]]:
    """Each trainable parameter once, with the module that owns it and its name there."""
    seen: set[int] = set()
    for module in network.modules():
        for name, weight in module.named_parameters(recurse=False):
            if weight.requires_grad and id(weight) not in seen:
                seen.add(id(weight))
                yield module, name, weight


def is_radius(name: str) -> bool:
    """Whether a parameter of a module is a radius of a distance kernel, by its name."""
    return "radius" in name


def spared(module: nn.Module, name: str, weight: nn.Parameter) -> bool:
    """Whether a parameter never decays: it belongs to a norm, is a bias, a radius, or one gain a channel (a vector).

    By what it is: weights of convolutions, also 1-D ones as ECA's, and tables of positions (AA, GSA) decay."""
    return isinstance(module, NORMS) or name.endswith("bias") or is_radius(name) or weight.ndim < 2


def learning_rate(step: int, steps: int, training: Training) -> float:
    """The rate at a step (from 0) of so many: a rise over the warm-up, then what the schedule says."""
    rise = round(training.warmup * steps)
    if training.schedule == "onecycle":
        return training.lr * _one_cycle(step, steps, rise)
    if step < rise:
        return training.lr * (step + 1) / rise
    if training.schedule == "cosine":
        return training.lr * _half_cosine((step - rise) / max(steps - rise, 1))
    epoch = steps / training.epochs
    if training.schedule == "step":
        return training.lr * training.drop ** sum(step >= round(passed * epoch) for passed in training.milestones)
    return training.lr * _restarted(step - rise, round(training.cycle * epoch))


def _half_cosine(share: float) -> float:
    """From 1 at 0 down to 0 at 1."""
    return 0.5 * (1 + math.cos(math.pi * share))


def _one_cycle(step: int, steps: int, rise: int) -> float:
    peak = max(rise - 1, 0)
    if step < peak:
        return 1 - (1 - START) * _half_cosine(step / peak)
    return END + (1 - END) * _half_cosine((step - peak) / max(steps - 1 - peak, 1))


def _restarted(step: int, length: int) -> float:
    """Within cycles of `length` steps, the next always twice as long."""
    while step >= length:
        step, length = step - length, 2 * length
    return _half_cosine(step / length)
