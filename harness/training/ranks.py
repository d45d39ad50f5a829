"""A trial on several devices: a process for each, all of one machine; every batch is cut into equal pieces, one a process.

Gradients are averaged by torch's DistributedDataParallel, and batch norms take mean and variance over the whole batch
(SyncBatchNorm; where there is no GPU, which it asks for, the same formula here). So the numbers are those of one process but
for rounding, and the number of devices is no part of a trial's key. A network that draws random numbers while it trains
would draw others in pieces, and is refused. Each process augments the whole batch and takes its piece, so that all draws are
those of one process; the price is that files which are streamed are read by each.
"""

import contextlib
import json
import os
import shutil
import subprocess
import tempfile
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from types import TracebackType
from typing import Any

import torch
from torch import Tensor, distributed, nn
from torch.nn import functional as F
from torch.nn.parallel import DistributedDataParallel

from harness.child import begun
from harness.errors import HarnessError, RankFailed, RankLost
from harness.gpus import VISIBLE

JOINING = 300.0
"""Seconds in which every process has to be there."""
GRACE = 30.0
"""Seconds in which the first process has to notice that another has died; then it ends itself, a worker that is lost."""
PARTING = 10.0
"""Seconds in which the others end by themselves, once all is trained."""
PLAIN = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)


@dataclass(frozen=True)
class Ranks:
    """Which of the processes of a trial this is; the first alone evaluates, reports and writes."""

    rank: int = 0
    world: int = 1

    def piece(self, images: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
        """This process's part of a batch. Raises HarnessError where there is not a picture for each."""
        if self.world == 1:
            return images, targets
        if len(images) < self.world:
            raise HarnessError(f"a batch of {len(images)} has not a picture for each of {self.world} devices; use fewer")
        return images.tensor_split(self.world)[self.rank], targets.tensor_split(self.world)[self.rank]

    def synchronised(self, network: nn.Module, device: str) -> nn.Module:
        """The network with norms over the whole batch, of the same parameters by the same names. Raises HarnessError for a
        kind of batch norm that is not torch's own."""
        if self.world == 1:
            return network
        norms = [module for module in network.modules() if isinstance(module, PLAIN)]
        if odd := next((norm for norm in norms if type(norm) not in PLAIN), None):
            raise HarnessError(
                f"{type(odd).__name__} is no batch norm of torch's own, which alone are known to agree on several devices;"
                " give its trials one GPU, --gpus-per-trial 1"
            )
        if device == "cuda":
            found: nn.Module = nn.SyncBatchNorm.convert_sync_batchnorm(network)  # type: ignore[no-untyped-call]
            return found
        for norm in norms:
            norm.__class__ = Synced
        return network

    def wrapped(self, network: nn.Module) -> nn.Module:
        """The network as it is called in training: its gradients are averaged over all processes."""
        if self.world == 1:
            return network
        return DistributedDataParallel(network, find_unused_parameters=True)

    def summed(self, value: Tensor) -> Tensor:
        """Over all processes."""
        if self.world > 1:
            distributed.all_reduce(value)
        return value

    def agree(self, done: int, device: str) -> None:
        """Raises RankLost where not all go on from one epoch, so many being done: a worker that was left behind may write a
        checkpoint between two looks."""
        if self.world == 1:
            return
        span = torch.tensor([done, -done], device=device)
        distributed.all_reduce(span, distributed.ReduceOp.MAX)
        most, least = span.tolist()
        if most != -least:
            raise RankLost(f"the processes of the trial found checkpoints of epochs {-least} and {most}")

    @contextlib.contextmanager
    def drawing_nothing(self) -> Iterator[None]:
        """Raises HarnessError where a network draws random numbers."""
        if self.world == 1:
            yield
            return
        before = drawn()
        yield
        if any(not torch.equal(one, other) for one, other in zip(before, drawn(), strict=True)):
            raise HarnessError(
                "the network draws random numbers while it trains (dropout?), which several devices do not draw as one does;"
                " give its trials one GPU, --gpus-per-trial 1"
            )


ONE = Ranks()
"""A trial on one device."""


def drawn() -> list[Tensor]:
    """The states of torch's own random numbers."""
    return [torch.get_rng_state(), *([torch.cuda.get_rng_state()] if torch.cuda.is_initialized() else [])]  # type: ignore[no-untyped-call]


# -- norms over the whole batch ---------------------------------------------------------------------------------------


class Summed(torch.autograd.Function):
    """The sum over all processes, whose gradient is the sum of theirs."""

    @staticmethod
    def forward(context: Any, value: Tensor) -> Tensor:
        found = value.clone()
        distributed.all_reduce(found)
        return found

    @staticmethod
    def backward(context: Any, *gradients: Tensor) -> Tensor:
        return Summed.forward(context, gradients[0].contiguous())


class Synced(nn.BatchNorm2d):
    """Batch normalisation (Ioffe and Szegedy 2015, arXiv 1502.03167) over the pieces of all processes, on a CPU; of any
    shape (batch, channels, ...)."""

    def forward(self, input: Tensor) -> Tensor:
        if not self.training:
            return F.batch_norm(input, self.running_mean, self.running_var, self.weight, self.bias, eps=self.eps)
        values = input.float()
        over, shape = [0, *range(2, input.dim())], [1, -1, *[1] * (input.dim() - 2)]
        here = values.new_tensor([values.numel() // values.shape[1]])
        sums: Tensor = Summed.apply(torch.cat([values.sum(over), here]))
        count = float(sums[-1].detach())
        mean = sums[:-1] / count
        centred = values - mean.view(shape)
        variance: Tensor = Summed.apply(centred.square().sum(over)) / count
        self._follow(mean.detach(), variance.detach() * count / max(count - 1, 1))
        found = centred * torch.rsqrt(variance + self.eps).view(shape)
        if self.affine:
            found = found * self.weight.view(shape) + self.bias.view(shape)
        return found.to(input.dtype)

    def _follow(self, mean: Tensor, variance: Tensor) -> None:
        if self.running_mean is None or self.running_var is None or self.num_batches_tracked is None:
            return
        self.num_batches_tracked.add_(1)
        share = 1 / float(self.num_batches_tracked) if self.momentum is None else self.momentum
        self.running_mean.lerp_(mean, share)
        self.running_var.lerp_(variance, share)


# -- processes --------------------------------------------------------------------------------------------------------


def join(rank: int, world: int, folder: Path, device: str) -> Ranks:
    """Waits for the other processes of the trial, which meet in a folder of their own."""
    os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")  # all are on one machine
    distributed.init_process_group(
        "nccl" if device == "cuda" else "gloo",
        init_method=f"file://{folder}/meeting",
        rank=rank,
        world_size=world,
        timeout=timedelta(days=7),  # others wait while the first one evaluates, or for the driver's word
    )
    return Ranks(rank, world)


class Group:
    """The other processes of a trial, seen from the first one; nothing of them is left when it is closed."""

    def __init__(self, assignment: dict[str, Any], world: int, device: str) -> None:
        """`assignment` is the trial's, as plain values."""
        self._folder = Path(tempfile.mkdtemp(prefix="harness-ranks-"))
        self._closed, self._children = False, contextlib.ExitStack()
        visible = [one for one in os.environ.get(VISIBLE, "").split(",") if one] or [str(one) for one in range(world)]
        self._others: list[subprocess.Popen[str]] = []
        for rank in range(1, world):
            seen = {VISIBLE: visible[rank]} if device == "cuda" else {}
            asked = {"assignment": assignment, "rank": rank, "world": world, "folder": str(self._folder)}
            self._others.append(self._children.enter_context(begun("harness.follow", asked, environment=seen)))
        self._world, self._device = world, device

    def __enter__(self) -> Ranks:
        threading.Thread(target=self._watch, daemon=True).start()  # one may die as they meet, which nobody else notices
        try:
            self._wait_for_all()
            return join(0, self._world, self._folder, self._device)
        except BaseException:
            self._close(at_once=True)
            raise

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        trouble = self._trouble(GRACE / 6) if isinstance(error, RuntimeError) else None
        self._close(at_once=kind is not None)
        if trouble is not None:
            raise trouble from None

    def _wait_for_all(self) -> None:
        end = time.monotonic() + JOINING
        while len(list(self._folder.glob("ready-*"))) < len(self._others):
            if (trouble := self._trouble(0.0)) is not None:
                raise trouble
            if time.monotonic() > end:
                raise RankLost(f"a process of the trial was not there after {JOINING:.0f} s")
            time.sleep(0.02)

    def _trouble(self, patience: float) -> Exception | None:
        """What another process died of, if it does within so many seconds."""
        end = time.monotonic() + patience
        while True:
            for rank, other in enumerate(self._others, start=1):
                if other.poll():
                    return self._death(rank, other.returncode)
            if time.monotonic() >= end:
                return None
            time.sleep(0.02)

    def _death(self, rank: int, code: int) -> Exception:
        told = self._folder / f"error-{rank}"
        if told.exists():
            return RankFailed(**json.loads(told.read_text()))
        return RankLost(f"process {rank} of the trial died (exit code {code})")

    def _watch(self) -> None:
        """Ends this process where it waits for one that is dead and does not notice: its worker is then lost."""
        while not self._closed:
            if any(other.poll() for other in self._others):
                time.sleep(GRACE)
                if not self._closed:
                    shutil.rmtree(self._folder, ignore_errors=True)
                    os._exit(1)
            time.sleep(1)

    def _close(self, *, at_once: bool) -> None:
        """Parts with the others, or ends them: they hold nothing that this process does not."""
        if not at_once:
            distributed.destroy_process_group()
        for other in self._others:
            with contextlib.suppress(subprocess.TimeoutExpired):
                other.wait(0 if at_once else PARTING)
        self._children.close()
        if distributed.is_initialized():
            distributed.destroy_process_group()
        self._closed = True
        shutil.rmtree(self._folder, ignore_errors=True)
