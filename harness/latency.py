"""What a study asks of its networks on devices: `Latency(batch=1, device="cpu")`, and which measurement answers it."""

from collections.abc import Iterable
from typing import Annotated

from pydantic import Field

from harness.config import Part
from harness.record import Measurement

MEASURED = {
    "latency": "seconds that the network takes to classify a batch, on the first device of Study.measure",
    "inference_memory": "bytes of tensors that it holds at once meanwhile, at most, weights among them",
}
"""Metrics that are measured on a device, before training: weights do not change them."""
HERE = ("cpu", "cuda")
"""Devices that a trial can measure on by itself; of others `harness measure NAME --from FILE.csv` brings the numbers."""


class Latency(Part):
    """A device and a batch size to measure every network at: in inference, in the precision of its training, not compiled.

    `cpu` or `cuda` is measured by the trial, before it trains; any other name is that of a device whose numbers a CSV
    brings (a phone, a board), to choose among trials that are finished."""

    batch: Annotated[int, Field(ge=1)] = 1
    """Pictures passed at once."""
    device: Annotated[str, Field(min_length=1, max_length=80)] = "auto"
    """auto: where trials run."""
    threads: Annotated[int, Field(ge=1)] | None = None
    """CPU threads; None: as many as trials have."""

    def resolved(self, device: str, threads: int) -> "Latency":
        """With what is left open as it comes to where trials run."""
        return Latency(
            batch=self.batch, device=device if self.device == "auto" else self.device, threads=self.threads or threads
        )

    def answered_by(self, found: Measurement) -> bool:
        """Whether a measurement is what this asks for."""
        if self.device in HERE:
            same = found.where == self.device and (found.where != "cpu" or self.threads in (None, found.threads))
        else:
            same = found.device == self.device
        return same and found.batch == self.batch


def answer(asked: Latency, found: Iterable[Measurement]) -> Measurement | None:
    """The newest measurement that is what is asked for."""
    return next((one for one in reversed(tuple(found)) if asked.answered_by(one)), None)
