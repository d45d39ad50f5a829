"""The GPUs of this machine as NVIDIA's driver tells of them (NVML): which there are, which may be used, what is free.

Asking makes no context on a GPU, so that it takes none of its memory. Where there is no such driver there are no GPUs here.
"""

import contextlib
import os
import sys
from collections.abc import Iterator, Sequence
from functools import cache
from typing import Any, NamedTuple

from harness.errors import HarnessError

VISIBLE, ORDER = "CUDA_VISIBLE_DEVICES", "CUDA_DEVICE_ORDER"


class Gpu(NamedTuple):
    """A GPU, by the number that `nvidia-smi` gives it; memory in bytes."""

    number: int
    uuid: str
    name: str
    free: int
    total: int


def present() -> tuple[Gpu, ...]:
    """Every GPU of the machine, with what is free on it now."""
    if (driver := _driver()) is None:
        return ()
    found = []
    for index in range(driver.nvmlDeviceGetCount()):
        with contextlib.suppress(driver.NVMLError):  # one that is lost, or does not tell
            handle = driver.nvmlDeviceGetHandleByIndex(index)
            memory = driver.nvmlDeviceGetMemoryInfo(handle)
            uuid, name = driver.nvmlDeviceGetUUID(handle), driver.nvmlDeviceGetName(handle)
            found.append(Gpu(index, uuid, name, int(memory.free), int(memory.total)))
    return tuple(found)


def joules(uuid: str) -> float | None:
    """Energy that a GPU has taken since its driver was loaded (Volta and later); None where that is not known."""
    if (driver := _driver()) is None:
        return None
    try:
        return float(driver.nvmlDeviceGetTotalEnergyConsumption(driver.nvmlDeviceGetHandleByUUID(uuid))) / 1000
    except driver.NVMLError:
        return None


@cache
def _driver() -> Any:
    """NVML, opened once a process; None where there is none."""
    import pynvml

    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError:
        return None
    return pynvml


# -- which of them ----------------------------------------------------------------------------------------------------


def allowed(found: Sequence[Gpu]) -> tuple[Gpu, ...]:
    """Those that CUDA_VISIBLE_DEVICES leaves, in its order: numbers or the beginnings of UUIDs, up to the first that is
    neither, as CUDA reads it."""
    if VISIBLE not in os.environ:
        return tuple(found)
    kept: list[Gpu] = []
    for word in os.environ[VISIBLE].split(","):
        name = word.strip()
        gpu = next((one for one in found if name and (name == str(one.number) or _begins(one, name))), None)
        if gpu is None:
            break
        kept.append(gpu)
    return tuple(kept)


def _begins(gpu: Gpu, name: str) -> bool:
    return name.startswith("GPU-") and gpu.uuid.startswith(name)


def chosen(wanted: Sequence[int] | None) -> tuple[Gpu, ...]:
    """The GPUs to use: those wanted, or all that this process may. Raises HarnessError for one that is not among these."""
    here = allowed(present())
    if wanted is None:
        return here
    by_number = {gpu.number: gpu for gpu in here}
    if missing := [number for number in wanted if number not in by_number]:
        there = ", ".join(map(str, sorted(by_number))) or "none"
        limit = f"CUDA_VISIBLE_DEVICES={os.environ[VISIBLE]} leaves" if VISIBLE in os.environ else "this machine has"
        words = ",".join(map(str, wanted))
        raise HarnessError(f"--gpus {words}: there is no GPU {missing[0]} to use; {limit} {there}")
    return tuple(by_number[number] for number in wanted)


@contextlib.contextmanager
def only(wanted: Sequence[int] | None, *, here: bool = False) -> Iterator[None]:
    """For the block, what this process starts sees these GPUs alone; with `here` it is to use them itself. None changes
    nothing. Raises HarnessError where a GPU is not there, or this process has begun to use GPUs already."""
    if wanted is None:
        yield
        return
    numbers = ",".join(str(gpu.number) for gpu in chosen(wanted))
    torch = sys.modules.get("torch")
    if here and torch is not None and torch.cuda.is_initialized():
        raise HarnessError(f"--gpus {numbers}: this process uses GPUs already; set CUDA_VISIBLE_DEVICES before it starts")
    before = {name: os.environ.get(name) for name in (VISIBLE, ORDER)}
    os.environ |= {VISIBLE: numbers, ORDER: "PCI_BUS_ID"}  # the order in which the driver counts
    try:
        yield
    finally:
        for name, value in before.items():
            os.environ.pop(name, None)
            if value is not None:
                os.environ[name] = value


# -- what a trial may take of one -------------------------------------------------------------------------------------

CONTEXT = 600 * 2**20
"""Bytes that a process takes of a GPU beside its tensors: its context, kernels, workspaces of libraries (estimated)."""


def tensors_share(share: float, total: int) -> float:
    """Of a process's share of a GPU of `total` bytes, what is left for tensors; at least half of it."""
    return 1.0 if share >= 1 else max(share - CONTEXT / total, share / 2)


def holds_pictures(pictures: int, allowed: float) -> bool:
    """Whether a trial keeps so many bytes of pictures on its GPU: where they are at most half of what it may for tensors."""
    return 2 * pictures <= allowed
