"""One trial from config to outcome, epoch by epoch, in whatever process it runs."""

import json
import math
import time
import traceback
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal, cast

from harness.code import SourceChanged, add_paths, import_as, load
from harness.config import Config, part_from_json
from harness.cost import Cost
from harness.errors import DataError, DiskError, HarnessError, Interrupted, one_line
from harness.key import canonical, network_identity
from harness.provenance import provenance
from harness.record import Epoch

Cause = Literal["", "memory", "disk", "source", "place"]


@dataclass(frozen=True)
class Assignment:
    """Everything a worker needs for a trial, as plain values that travel between machines."""

    study: str
    number: int
    key: str
    seed: int
    config: dict[str, Any]
    costs: dict[str, int]
    data: str
    """Folder of the data."""
    fingerprint: str
    runs: str
    """Folder of the checkpoints."""
    threads: int = 1
    token: int = 0
    """The driver's fencing token: checkpoints of a larger one are not overwritten."""
    trial: str | None = None
    """A training loop of the user's own, `module:function`."""
    sources: dict[str, str] = field(default_factory=dict)
    """Hashes of the user's modules as they were when the run began."""
    code: tuple[str, ...] = ()
    """Folders of the user's modules."""
    rungs: tuple[int, ...] = ()
    """Epochs after which the driver says whether the trial goes on."""

    @property
    def folder(self) -> Path:
        """Where this trial's checkpoint lies."""
        return Path(self.runs) / self.study / str(self.number)


@dataclass(frozen=True)
class Outcome:
    """How a trial ended: complete with metrics, or failed with a reason; the ledger alone says that one is stopped."""

    state: Literal["complete", "stopped", "failed"]
    metrics: dict[str, float] = field(default_factory=dict)
    device: str = ""
    provenance: dict[str, Any] = field(default_factory=dict)
    reason: str = ""
    traceback: str = ""
    cause: Cause = ""
    """What the driver treats in its own way: memory that others took, a disk that fails, a module that was edited while
    the study ran, a place where the trial cannot run."""


@dataclass(frozen=True)
class Report:
    """What a worker tells the driver after each epoch: the curve so far, and the outcome once there is one."""

    curve: tuple[Epoch, ...]
    outcome: Outcome | None = None

    def to_json(self) -> str:
        return json.dumps(
            {"curve": [asdict(point) for point in self.curve], "outcome": self.outcome and asdict(self.outcome)}
        )

    @staticmethod
    def from_json(text: str) -> "Report":
        """What `to_json` wrote."""
        data = json.loads(text)
        outcome = data["outcome"]
        return Report(tuple(Epoch(**point) for point in data["curve"]), Outcome(**outcome) if outcome else None)


_checked: set[object] = set()
"""Networks whose closed-form cost ptflops has confirmed in this process."""


class Diverged(HarnessError):
    """The loss is no longer a number."""


def run_trial(assignment: Assignment, stop: Callable[[], bool] = lambda: False) -> Iterator[Report]:
    """Trains, reporting each epoch; the last report has the outcome. A failing trial is an outcome, never an exception.

    Where `stop` says so it ends at the next batch, without an outcome: the checkpoint of the last epoch is where to go on.
    """
    curve: tuple[Epoch, ...] = ()
    try:
        add_paths(list(assignment.code))
        for target, source in assignment.sources.items():
            import_as(target, source)
        for report in _train(assignment, stop) if assignment.trial is None else _user_loop(assignment):
            curve = report.curve
            yield report
    except Interrupted:
        return
    except Exception as error:
        words = traceback.format_exc(limit=-12)
        yield Report(curve, Outcome("failed", reason=one_line(error), traceback=words, cause=cause_of(error)))


def cause_of(error: Exception) -> Cause:
    """What an error says of the machine rather than of the trial."""
    if isinstance(error, DiskError):
        return "disk"
    if isinstance(error, SourceChanged):
        return "source"
    if isinstance(error, DataError):
        return "place"
    out_of_memory = isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError"
    return "memory" if out_of_memory or "DefaultCPUAllocator: can't allocate" in str(error) else ""


def _train(assignment: Assignment, stop: Callable[[], bool]) -> Iterator[Report]:
    import torch

    from harness.data.batches import open_batches
    from harness.data.sources import open_data
    from harness.measure.complexity import check
    from harness.networks.build import build
    from harness.training import checkpoint, device, loop

    started = time.perf_counter()
    config = cast(Config, part_from_json(assignment.config))
    training, where = config.training, device.best_device()
    device.claim(assignment.threads, deterministic=training.deterministic)

    # build and count
    pictures, info = open_data(training, Path(assignment.data))
    if info.fingerprint != assignment.fingerprint:
        raise DataError(f"the pictures under {assignment.data} are not those the study was started with")
    network = build(config.network, info.shape, assignment.seed, where).to(memory_format=torch.channels_last)
    cost = Cost(**assignment.costs)
    if (counted := (canonical(network_identity(config.network)), info.shape, cost)) not in _checked:
        check(config.network, network, info.shape, cost)
        _checked.add(counted)
    optim = loop.optimiser(network, training)
    data = open_batches(pictures, info, training, seed=assignment.seed, device=where, cores=assignment.threads)

    # go on from the last epoch, if there is one
    curve: list[Epoch] = []
    checkpoint.prepare(assignment.folder)
    if saved := checkpoint.load(assignment.folder, assignment.key, where):
        network.load_state_dict(saved["network"])
        optim.load_state_dict(saved["optimiser"])
        curve = [Epoch(*point) for point in saved["curve"]]
        if len(curve) in assignment.rungs:
            yield Report(tuple(curve))  # a driver may have died before it said whether this one goes on

    # train and measure
    spent = sum(point.seconds for point in curve)
    for epoch in range(len(curve) + 1, training.epochs + 1):
        began = time.perf_counter()
        train_loss = loop.train_epoch(network, optim, data, training, seed=assignment.seed, epoch=epoch, stop=stop)
        accuracy, loss = loop.evaluate(network, data, training)
        if not (math.isfinite(train_loss) and math.isfinite(loss)):
            raise Diverged(f"the loss is {train_loss if math.isfinite(loss) else loss} in epoch {epoch}: try a smaller lr")
        curve.append(Epoch(epoch, accuracy, loss, train_loss, time.perf_counter() - began))
        checkpoint.save(assignment.folder, assignment.token, assignment.key, network, optim, curve)
        if epoch < training.epochs:
            yield Report(tuple(curve))

    last = curve[-1]
    weights = checkpoint.save_final(assignment.folder, assignment.key, network)
    origin = {"threads": assignment.threads, "precision": training.precision, "weights": weights}
    if info.skipped:
        origin["skipped_images"] = info.skipped
    yield Report(
        tuple(curve),
        Outcome(
            "complete",
            metrics={"accuracy": last.accuracy, "loss": last.loss, "seconds": time.perf_counter() - started + spent},
            device=device.device_name(where),
            provenance=provenance() | origin,
        ),
    )


def _user_loop(assignment: Assignment) -> Iterator[Report]:
    """A loop of the user's own: no checkpoint of ours, so that an interrupted one begins again."""
    started = time.perf_counter()
    config = cast(Config, part_from_json(assignment.config))
    curve: list[Epoch] = []
    metrics: dict[str, float] = {}
    began = started
    for epoch, measured in enumerate(load(cast(str, assignment.trial))(config, assignment.seed), start=1):
        metrics = {name: float(value) for name, value in measured.items()}
        if not all(map(math.isfinite, metrics.values())):
            raise Diverged(f"epoch {epoch} measured {metrics}: a metric is a finite number")
        loss = metrics.get("loss", 0.0)
        curve.append(Epoch(epoch, metrics["accuracy"], loss, metrics.get("train_loss", loss), time.perf_counter() - began))
        began = time.perf_counter()
        yield Report(tuple(curve))
    if not curve:
        raise HarnessError(f"{assignment.trial} yielded nothing: it yields a dictionary of metrics after each epoch")
    metrics["seconds"] = time.perf_counter() - started
    yield Report(tuple(curve), Outcome("complete", metrics=metrics, provenance=provenance() | {"trial": assignment.trial}))
