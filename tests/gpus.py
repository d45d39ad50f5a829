"""A driver of GPUs that are not there: what NVML would say of them, by the names of its own functions."""

from collections.abc import Callable
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

GB = 10**9


@dataclass
class FakeDriver:
    """NVML of a machine with so many free bytes on each GPU; a GPU with None is lost."""

    free: list[int | None]
    total: int = 80 * GB
    name: str = "Fake H100"
    NVMLError: Any = field(default=RuntimeError)

    def nvmlDeviceGetCount(self) -> int:
        return len(self.free)

    def nvmlDeviceGetHandleByIndex(self, index: int) -> int:
        if self.free[index] is None:
            raise RuntimeError("GPU is lost")
        return index

    def nvmlDeviceGetMemoryInfo(self, handle: int) -> Any:
        return SimpleNamespace(free=self.free[handle], total=self.total)

    def nvmlDeviceGetUUID(self, handle: int) -> str:
        return f"GPU-{handle}{handle}aa-bb"

    def nvmlDeviceGetName(self, handle: int) -> str:
        return self.name

    def nvmlDeviceGetHandleByUUID(self, uuid: str) -> int:
        return int(uuid.removeprefix("GPU-")[0])

    def nvmlDeviceGetTotalEnergyConsumption(self, handle: int) -> int:
        return 5_000 + handle


DriveGpus = Callable[..., FakeDriver]
"""The fixture `drive_gpus`: puts such a driver in place."""
