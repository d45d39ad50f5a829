"""What is trained: a network with its optimiser, the moving average of its weights, and the best epoch's so far."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from harness.config import Training
from harness.data.cache import COMPILED, hold
from harness.errors import HarnessError
from harness.record import Epoch
from harness.training.device import compiler
from harness.training.ranks import ONE, Ranks
from harness.training.recipe import learning_rate, optimiser


class Learner:
    """A network in training; all that its next epoch depends on is in `state`, so that a trial goes on bit for bit."""

    def __init__(self, network: nn.Module, training: Training, ranks: Ranks = ONE) -> None:
        self.network, self.training, self.ranks = network, training, ranks
        self.optimiser = optimiser(network, training)
        self.forward: nn.Module = ranks.wrapped(compiled(network) if training.compile is True else network)
        """The network as it is called in training."""
        self._average: AveragedModel | None = None
        if training.ema:
            mean = get_ema_multi_avg_fn(training.ema)  # type: ignore[no-untyped-call]
            self._average = AveragedModel(network, multi_avg_fn=mean, use_buffers=True)
        self._best: dict[str, Tensor] | None = None
        self._best_epoch: Epoch | None = None

    @property
    def judged(self) -> nn.Module:
        """The network that is evaluated: the averaged one, where there is an average."""
        if self._average is None:
            return self.network
        averaged: nn.Module = self._average.module
        return averaged

    def step(self, number: int, steps: int) -> None:
        """Applies the gradients, at the rate of step `number` (from 0) of so many."""
        rate = learning_rate(number, steps, self.training)
        for group in self.optimiser.param_groups:
            group["lr"] = rate * group.get("times", 1.0)
        if self.training.clip is not None:
            nn.utils.clip_grad_norm_(self.network.parameters(), self.training.clip)
        self.optimiser.step()
        self.optimiser.zero_grad(set_to_none=True)
        if self._average is not None:
            self._average.update_parameters(self.network)

    def note(self, epoch: Epoch) -> None:
        """Takes down an evaluated epoch, and its weights where they are the best so far and wanted."""
        known = self._best_epoch
        if self.training.select == "best" and (known is None or better(epoch, known)):
            self._best_epoch = epoch
            self._best = {name: weight.detach().clone() for name, weight in self.judged.state_dict().items()}

    def chosen(self, last: Epoch) -> tuple[Epoch, Mapping[str, Tensor]]:
        """The epoch that stands for the trial, and its weights."""
        if self._best is None or self._best_epoch is None:
            return last, self.judged.state_dict()
        return self._best_epoch, self._best

    def state(self) -> dict[str, Any]:
        """Everything to go on from, as tensors and plain values."""
        found: dict[str, Any] = {"network": self.network.state_dict(), "optimiser": self.optimiser.state_dict()}
        if self._average is not None:
            found["average"] = self._average.state_dict()
        if self._best is not None and self._best_epoch is not None:
            found |= {"best": self._best, "best_epoch": self._best_epoch.row()}
        return found

    def restore(self, saved: Mapping[str, Any]) -> None:
        """Goes on from what `state` gave."""
        self.network.load_state_dict(saved["network"])
        self.optimiser.load_state_dict(saved["optimiser"])
        if self._average is not None:
            self._average.load_state_dict(saved["average"])
        if "best" in saved:
            self._best, self._best_epoch = saved["best"], Epoch.from_row(saved["best_epoch"])


def better(one: Epoch, other: Epoch) -> bool:
    """More accurate, or as accurate with a smaller loss."""
    return (one.accuracy, -one.loss) > (other.accuracy, -other.loss)


def compiled(network: nn.Module) -> nn.Module:
    """The network compiled for training; what was compiled for earlier trials is forgotten but for the cache on disk.

    Raises HarnessError where there is no compiler."""
    if compiler() is None:
        raise HarnessError("Training.compile = True: there is no C++ compiler here; install g++, or use compile=False")
    hold(COMPILED)
    torch.compiler.reset()  # else the ninth network of a process is silently not compiled, and memory grows
    module = torch.compile(network)
    assert isinstance(module, nn.Module)
    return module
