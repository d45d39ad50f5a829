"""Latency and memory of a network on this machine: how long a pass of a batch takes, and what it holds meanwhile.

In inference mode, norms in evaluation, channels last, in the precision of its training, not compiled. A pass is timed from
the batch on the device to the scores on it, synchronised before and after. Passes are timed in blocks: the median of each
block's passes, then the median of the blocks, so that neither a rare long pass nor a disturbed moment counts; the quartiles
of the blocks tell how far it can be trusted. Weights do not change latency: a fresh network tells as much as a trained one.
"""

import gc
import os
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from weakref import WeakValueDictionary

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from harness.config import Training
from harness.cost import Shape
from harness.latency import HERE, Latency
from harness.record import Measurement
from harness.training.device import claim, device_name
from harness.training.loop import autocast

WARM_UP = 0.2
"""Seconds of passes before the first that counts, and two passes at least."""
BLOCKS = 9
BLOCK = 0.05
"""Seconds of a block, and one pass at least."""


def measure(
    network: nn.Module, shape: Shape, training: Training, *, batch: int, device: str, threads: int, source: str
) -> Measurement:
    """A network (left as it was, on its own device) passed batches of random pictures on `cpu` or `cuda`.

    Raises HarnessError for a precision that the device has not."""
    home, trained, before = next(network.parameters()).device, network.training, torch.get_num_threads()
    claim(threads, precision=training.precision)
    torch.backends.cudnn.benchmark = True  # latency is that of the fastest kernels, as one would deploy
    network.to(torch.device(device)).to(memory_format=torch.channels_last).eval()
    try:
        drawn = torch.Generator().manual_seed(0)
        images = torch.randn(batch, *shape[:3], generator=drawn).to(device, memory_format=torch.channels_last)

        def once() -> None:
            with torch.inference_mode(), autocast(training, device):
                network(images)

        with _others() as busy:
            blocks, repeats = timed(once, _waiting(device))
        first, middle, third = np.quantile(blocks, [0.25, 0.5, 0.75])
        return Measurement(
            device=device_name(device),
            where="cuda" if device == "cuda" else "cpu",
            batch=batch,
            latency=float(middle),
            spread=float(third - first),
            memory=float(held_at_once(once, network, images, device)),
            precision=training.precision,
            threads=threads,
            blocks=len(blocks),
            repeats=repeats,
            busy=busy(),
            source=source,
            measured=datetime.now(UTC).isoformat(timespec="seconds"),
        )
    finally:
        network.to(home).train(trained)
        claim(before, precision=training.precision, deterministic=training.deterministic)


def measure_all(
    network: nn.Module, shape: Shape, training: Training, asked: Sequence[Latency], *, threads: int
) -> tuple[Measurement, ...]:
    """What a trial measures of its fresh network: at each device asked for that there is here."""
    return tuple(
        measure(
            network,
            shape,
            training,
            batch=latency.batch,
            device=latency.device,
            threads=latency.threads or threads,
            source="trial",
        )
        for latency in asked
        if latency.device in HERE and (latency.device == "cpu" or torch.cuda.is_available())
    )


# -- time -------------------------------------------------------------------------------------------------------------


def timed(once: Callable[[], None], wait: Callable[[], None]) -> tuple[list[float], int]:
    """The median seconds of each block's passes, and the number of passes over all blocks; `wait` ends what a pass began."""

    def passed() -> float:
        wait()
        began = time.perf_counter()
        once()
        wait()
        return time.perf_counter() - began

    warm: list[float] = []
    while len(warm) < 2 or sum(warm) < WARM_UP:
        warm.append(passed())
    size = max(1, round(BLOCK / max(float(np.median(warm[len(warm) // 2 :])), 1e-6)))
    collecting = gc.isenabled()
    gc.disable()
    try:
        blocks = [float(np.median([passed() for _ in range(size)])) for _ in range(BLOCKS)]
    finally:
        if collecting:
            gc.enable()
    return blocks, size * BLOCKS


def _waiting(device: str) -> Callable[[], None]:
    return torch.cuda.synchronize if device == "cuda" else lambda: None


@contextmanager
def _others() -> Iterator[Callable[[], float | None]]:
    """Counts the cores that others keep busy from here to the end of the block."""
    before = _ticks()
    found: list[float | None] = [None]
    yield lambda: found[0]
    after = _ticks()
    if before is not None and after is not None and after[2] > before[2]:
        seconds = after[2] - before[2]
        found[0] = round(max(after[0] - before[0] - (after[1] - before[1]), 0.0) / seconds, 2)


def _ticks() -> tuple[float, float, float] | None:
    """Seconds of cores spent by everybody (Linux) and by this process with what it started, and the time now."""
    try:
        spent = Path("/proc/stat").read_text().splitlines()[0].split()[1:9]
    except OSError:
        return None
    own = os.times()
    user, nice, system, _, _, *interrupts, _ = map(float, spent)  # not idle, not waiting for a disk, not stolen
    busy = (user + nice + system + sum(interrupts)) / os.sysconf("SC_CLK_TCK")
    return busy, own.user + own.system + own.children_user + own.children_system, time.monotonic()


# -- memory -----------------------------------------------------------------------------------------------------------


def held_at_once(once: Callable[[], None], network: nn.Module, images: torch.Tensor, device: str) -> int:
    """Bytes of tensors that a pass holds at once at most: weights, batch and what lies between. On a GPU the allocator's
    own count, scratch of its kernels included; on a CPU the storages that operations make, seen as they are dispatched: its
    process's resident memory would tell of caches of kernels, and of every trial before this one."""
    if device == "cuda":
        torch.cuda.synchronize()
        others: int = torch.cuda.memory_allocated() - Storages([*network.parameters(), *network.buffers(), images]).most
        torch.cuda.reset_peak_memory_stats()
        once()
        torch.cuda.synchronize()
        return int(torch.cuda.max_memory_allocated() - others)
    seen = Storages([*network.parameters(), *network.buffers(), images])
    with seen:
        once()
    return seen.most


class Storages(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """The most bytes that live at one moment, of tensors given and of those that operations inside it make."""

    def __init__(self, given: Iterable[Tensor]) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._living: WeakValueDictionary[int, torch.UntypedStorage] = WeakValueDictionary()
        self.most = 0
        self._see(given)

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        made = func(*args, **(kwargs or {}))
        self._see(tree_leaves(made))
        return made

    def _see(self, leaves: Iterable[Any]) -> None:
        for leaf in leaves:
            if isinstance(leaf, Tensor):
                storage = leaf.untyped_storage()
                self._living[id(storage)] = storage
        self.most = max(self.most, sum(storage.nbytes() for storage in list(self._living.values())))
