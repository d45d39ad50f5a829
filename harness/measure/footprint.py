"""How much of a GPU's memory a trial takes: a few steps of the engine's own loop and an evaluation, on pictures made up.

Run as a process of its own, which is told the configs and says the bytes on stdout: what it took is free again when it
ends.
"""

import json
from collections.abc import Sequence
from typing import Any, Protocol, cast

import torch

from harness.child import told
from harness.config import Config, part_from_json
from harness.cost import Shape
from harness.gpus import CONTEXT, Gpu, allowed, present
from harness.measure.timing import MadeUp, rehearsed
from harness.record import Epoch
from harness.training import loop
from harness.trial import cause_of

STEPS = 2
"""The second has the optimiser's moments beside the gradients."""


class Meter(Protocol):
    """Counts what a device holds."""

    device: str

    def begin(self) -> None:
        """Counts anew from here."""

    def peak(self) -> int:
        """Bytes held for tensors since, at most."""


class CudaMeter:
    """The allocator's own count of what it took from the GPU, fragments included."""

    device = "cuda"

    def begin(self) -> None:
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()

    def peak(self) -> int:
        torch.cuda.synchronize()
        return int(torch.cuda.max_memory_reserved())


def bytes_of(config: Config, shape: Shape, meter: Meter, threads: int = 1) -> int:
    """Of training the config's network, and of evaluating it."""
    meter.begin()
    learner = rehearsed(config, shape, meter.device, threads)
    size = config.training.batch_size
    batches: Any = MadeUp(torch.device(meter.device), STEPS, size, shape, held=4 * size)
    learner.note(Epoch(1, 0.0, 0.0, 0.0, 0.0))  # the best epoch's weights, where they are kept
    loop.train_epoch(learner, batches, seed=0, epoch=1)
    loop.evaluate(learner.judged, batches, learner.training)
    return meter.peak()


def beside(before: Gpu | None, after: Gpu | None) -> int:
    """Bytes that this process takes beside its tensors, by what was free before it used the GPU and when it holds no
    tensors any more; at least what such a process is known to take, as others may have given some back meanwhile."""
    return max(CONTEXT, before.free - after.free if before is not None and after is not None else 0)


def bytes_here(configs: Sequence[Config], shape: Shape, threads: int) -> int:
    """Of the trial that takes most, all that its process takes included."""
    before = next(iter(allowed(present())), None)
    peaks = [bytes_of(config, shape, CudaMeter(), threads) for config in configs]
    torch.cuda.empty_cache()
    after = next(iter(allowed(present())), None)
    return max(peaks) + beside(before, after)


def main() -> None:
    """Says the bytes; null where there is not so much memory."""
    asked = told()
    configs = [cast(Config, part_from_json(plain)) for plain in asked["configs"]]
    try:
        found: int | None = bytes_here(configs, Shape(*asked["shape"]), asked["threads"])
    except Exception as error:
        if cause_of(error) != "memory":
            raise
        found = None
    print(json.dumps({"bytes": found}))


if __name__ == "__main__":
    main()
