"""What the hardware of a trial can do, and how a trial claims it."""

import os
from pathlib import Path

import torch


def best_device() -> str:
    """`cuda` where a GPU is visible, else `cpu`."""
    return "cuda" if torch.cuda.is_available() else "cpu"


def best_precision() -> str:
    """bf16 where the device has matrix units for it, else fp32."""
    if torch.cuda.is_available():
        return "bf16" if torch.cuda.is_bf16_supported(including_emulation=False) else "fp32"
    listing = Path("/proc/cpuinfo")
    return "bf16" if listing.exists() and " amx_bf16" in listing.read_text() else "fp32"


def device_name(device: str) -> str:
    """The processor's own name."""
    if device == "cuda":
        return torch.cuda.get_device_name()
    listing = Path("/proc/cpuinfo")
    lines = listing.read_text().splitlines() if listing.exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return f"{names[0] if names else os.uname().machine} (cpu)"


def claim(threads: int, *, deterministic: bool = False) -> None:
    """Fixes the number of threads and the choice of kernels, on which the last bits of a result depend."""
    torch.set_num_threads(threads)
    torch.backends.cudnn.benchmark = False
    torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = False  # fp32 is fp32
    if deterministic:
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    torch.use_deterministic_algorithms(deterministic)
