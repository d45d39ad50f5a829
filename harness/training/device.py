"""What the hardware of a trial can do, and how a trial claims it."""

import ctypes
import gc
import os
import platform
import shutil
from functools import cache
from pathlib import Path

import torch

from harness.errors import HarnessError
from harness.gpus import VISIBLE, tensors_share
from harness.hardware import Hardware


def best_device() -> str:
    """`cuda` where a GPU is visible, else `cpu`."""
    return "cuda" if torch.cuda.is_available() else "cpu"


def hardware() -> Hardware:
    """What this process would train on."""
    return Hardware("cuda" if best_device() == "cuda" else "cpu", best_precision(), has_tf32(), compiler() is not None)


def best_precision() -> str:
    """bf16 where the device multiplies in it, else fp32: GPUs, and CPUs with AMX or AVX-512 (1.3 to 1.5 times fp32)."""
    if torch.cuda.is_available():
        return "bf16" if torch.cuda.is_bf16_supported(including_emulation=False) else "fp32"
    listing = Path("/proc/cpuinfo")
    able = listing.exists() and not {"amx_bf16", "avx512_bf16"}.isdisjoint(listing.read_text().split())
    return "bf16" if able else "fp32"


def has_tf32() -> bool:
    """Whether the device multiplies in TF32: GPUs from Ampere on."""
    return torch.cuda.is_available() and torch.cuda.get_device_capability()[0] >= 8


def compiler() -> str | None:
    """The C++ compiler that torch.compile needs, None where there is none."""
    return next(filter(None, map(shutil.which, (os.environ.get("CXX", "g++"), "g++", "clang++"))), None)


def device_name(device: str) -> str:
    """The processor's own name."""
    if device == "cuda":
        return torch.cuda.get_device_name()
    listing = Path("/proc/cpuinfo")
    lines = listing.read_text().splitlines() if listing.exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return f"{names[0] if names else os.uname().machine} (cpu)"


def place_name(device: str) -> str:
    """Where the processor is, in a few words: node3 GPU 2; its number is the machine's, whatever this process sees of it."""
    visible = os.environ.get(VISIBLE, "").split(",")[0] or "0"
    return f"{platform.node()} {f'GPU {visible}' if device == 'cuda' else 'cpu'}"


def claim(threads: int, *, precision: str = "fp32", deterministic: bool = False) -> None:
    """Fixes the number of threads and the choice of kernels, on which the last bits of a result depend.

    Raises HarnessError for a precision that the device has not."""
    if precision == "tf32" and not has_tf32():
        raise HarnessError(
            f"Training.precision = 'tf32': {device_name(best_device())} does not multiply in TF32; use bf16 or fp32"
        )
    torch.set_num_threads(threads)
    keep_memory()
    torch.backends.cudnn.benchmark = False
    torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = precision == "tf32"  # fp32 is fp32
    if deterministic:
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    torch.use_deterministic_algorithms(deterministic)


def limit_memory(share: float) -> None:
    """Lets this process take so much of its GPU's memory, what lies beside tensors included; 1 lifts the limit. Whatever
    asks for more is out of memory, and nobody else is."""
    if best_device() == "cuda":
        total = torch.cuda.get_device_properties(0).total_memory
        torch.cuda.set_per_process_memory_fraction(tensors_share(share, total))


def memory_allowed(device: torch.device) -> float:
    """Bytes of tensors that this process may hold on a GPU."""
    total: int = torch.cuda.get_device_properties(device).total_memory
    return total * torch.cuda.get_per_process_memory_fraction(device)


def give_memory_back() -> None:
    """Leaves the GPU what a trial that has ended held: its process waits for the next, or beside one that needs it all."""
    if torch.cuda.is_initialized():  # type: ignore[no-untyped-call]
        gc.collect()
        torch.cuda.empty_cache()


@cache
def keep_memory() -> bool:
    """Lets glibc keep what a step of training frees for the next one, rather than hand pages back and fault them in again;
    once a process. Returns whether it was taken."""
    try:
        settings = ctypes.CDLL("libc.so.6").mallopt
    except (OSError, AttributeError):  # another libc, or another system
        return False
    map_no_block, trim_at, top_pad = (-4, 0), (-1, 2**31 - 1), (-2, 64 * 2**20)
    return all(settings(*pair) for pair in (map_no_block, trim_at, top_pad))
