"""How trials are run: what every backend is told, and the backend that uses this very process."""

import contextlib
from dataclasses import dataclass
from typing import Literal, Protocol

from harness.execution.ledger import Ledger
from harness.hardware import Hardware
from harness.lead import run_apart
from harness.trial import run_trial


@dataclass(frozen=True)
class Resources:
    """What a run may use; None takes what the machine has."""

    concurrency: int | None = None
    """Trials at once."""
    cpus_per_trial: int = 1
    """Cores reserved for a trial: for its threads, and for processes that read pictures too many to hold."""
    gpus_per_trial: float | Literal["auto"] | None = None
    """May be a fraction: 0.25 puts four trials on a GPU; auto: as many as its free memory holds of the largest config. With
    4, four processes of one machine share each batch of a trial."""
    address: str | None = None
    """A running Ray cluster; None starts one on this machine."""
    gpus: tuple[int, ...] | None = None
    """Those to use, as `nvidia-smi` counts them."""
    memory: float | None = None
    """Share of a GPU's memory that a trial may take beside others; None: as much as its share of the GPU."""

    @property
    def share(self) -> float | None:
        """GPUs of a trial, None where that is left to the machine; `auto` is settled by now."""
        return None if self.gpus_per_trial == "auto" else self.gpus_per_trial

    @property
    def memory_share(self) -> float:
        """Of a GPU, that a trial may take; all of it where it shares with nobody."""
        return min(self.share or 1.0, 1.0) if self.memory is None else self.memory

    @property
    def devices(self) -> int:
        """Processes that share each batch of a trial, one a GPU."""
        return max(int(self.share or 1), 1)


class Backend(Protocol):
    """Runs trials until the ledger has no more, or is told to stop."""

    def hardware(self) -> Hardware:
        """The devices that trials will run on."""

    def run(self, ledger: Ledger) -> None:
        """Hands the ledger's trials to workers and their reports back."""

    def close(self) -> None:
        """Leaves nothing behind."""


class LocalBackend:
    """One trial after the other, in this process: for notebooks, debuggers and small machines. A trial on several devices is
    in processes of its own."""

    def hardware(self) -> Hardware:
        from harness.training.device import hardware

        return hardware()

    def run(self, ledger: Ledger) -> None:
        while (assignment := ledger.next()) is not None:
            run = run_trial if assignment.devices == 1 else run_apart
            with contextlib.closing(run(assignment, lambda: ledger.stopping)) as reports:
                for report in reports:
                    ledger.report(assignment.number, report)
                    if ledger.over(assignment.number):
                        break
            ledger.leave(assignment.number)  # what has no outcome by now goes on next time

    def close(self) -> None:
        """Nothing was opened."""
