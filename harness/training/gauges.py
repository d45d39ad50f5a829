"""What a trial takes beside time: the peak of its memory, and the energy of its GPU where the driver tells."""

import contextlib
import ctypes
import re
from pathlib import Path

import torch

from harness import gpus

CLEAR, STATUS = Path("/proc/self/clear_refs"), Path("/proc/self/status")


class Gauges:
    """Read once, at the end of a trial; what they count begins when they are made."""

    def __init__(self, device: str) -> None:
        self._device = device
        if device == "cuda":
            torch.cuda.reset_peak_memory_stats()
        else:
            release_memory()
            with contextlib.suppress(OSError):
                CLEAR.write_text("5")  # Linux: the peak of resident memory starts anew
        self._energy = joules(device)

    def read(self) -> dict[str, float]:
        """`peak_memory` in bytes: of tensors on a GPU, of the whole process on a CPU. `energy` in joules, where it is known:
        that of the whole GPU, whatever else ran on it."""
        found: dict[str, float] = {}
        peak = torch.cuda.max_memory_allocated() if self._device == "cuda" else process_peak()
        if peak:
            found["peak_memory"] = float(peak)
        now = joules(self._device)
        if now is not None and self._energy is not None:
            found["energy"] = now - self._energy
        return found


def process_peak() -> int:
    """Bytes of the most memory that this process held; 0 where the system does not say."""
    try:
        found = re.search(r"VmHWM:\s*(\d+) kB", STATUS.read_text())
    except OSError:
        return 0
    return 1024 * int(found[1]) if found else 0


def release_memory() -> None:
    """Gives back to the system what earlier trials freed, which glibc keeps for the next step otherwise."""
    with contextlib.suppress(OSError, AttributeError):  # another libc, or another system
        ctypes.CDLL("libc.so.6").malloc_trim(0)


def joules(device: str) -> float | None:
    """Energy that the GPU has taken since its driver was loaded; None where that is not known."""
    return gpus.joules(f"GPU-{torch.cuda.get_device_properties(0).uuid}") if device == "cuda" else None
