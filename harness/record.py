"""What a trial left behind: the one shape that trials write, and store, analysis and report read."""

import gc
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import datetime
from functools import cached_property, wraps
from typing import Any, Literal, ParamSpec, TypeVar, cast

from harness.config import Config, Scalar, part_from_json

State = Literal["running", "complete", "stopped", "failed"]
"""stopped: ended early by our scheduler, and nothing else."""
FOLLOWED = ("accuracy", "loss", "train_loss", "top5")
"""What our own loop measures after each epoch."""

Given = ParamSpec("Given")
Made = TypeVar("Made")


def uncollected(make: Callable[Given, Made]) -> Callable[Given, Made]:
    """The function, during which cycles are not looked for: of a hundred thousand records none is one, and to go through
    all of them again and again takes a fifth of the time that they are made in."""

    @wraps(make)
    def made(*given: Given.args, **named: Given.kwargs) -> Made:
        collected = gc.isenabled()
        gc.disable()
        try:
            return make(*given, **named)
        finally:
            if collected:
                gc.enable()

    return made


@dataclass(frozen=True, slots=True)
class Epoch:
    """One point of a curve: what was measured after an epoch (from 1)."""

    epoch: int
    accuracy: float
    """Share of the validation pictures classified right; like the losses NaN where a loop of the user's own measures none
    of it (a point then has its metrics in `own`)."""
    loss: float
    """Mean cross-entropy on the validation pictures."""
    train_loss: float
    """Mean loss over the epoch's batches, augmented and smoothed as trained."""
    seconds: float
    """Wall-clock seconds of the epoch, evaluation included."""
    training: float | None = None
    """Seconds of training alone."""
    top5: float | None = None
    """Share with the right class among the first five, where there are more than five."""
    radii: dict[str, tuple[float, ...]] = field(default_factory=dict)
    """Learned radii by stage and block (`2.1`), one a head or one for all, in the unit of their module."""

    own: dict[str, float] = field(default_factory=dict)
    """What else a loop of the user's own measured, by the names it gave."""

    def metrics(self) -> dict[str, float]:
        """What of it can be a metric of the trial."""
        ours = {"accuracy": self.accuracy, "loss": self.loss, "top5": math.nan if self.top5 is None else self.top5}
        return {name: value for name, value in ours.items() if not math.isnan(value)} | self.own

    def value(self, metric: str) -> float:
        """A metric of the curve by name, NaN where the epoch has none."""
        found = self.own.get(metric, getattr(self, metric) if metric in FOLLOWED else None)
        return math.nan if found is None else found

    @property
    def headline(self) -> float:
        """The one number that stands for the epoch: its accuracy, or the first that a loop of the user's own measured."""
        return next((value for value in (self.accuracy, *self.own.values()) if not math.isnan(value)), self.loss)

    def row(self) -> list[Any]:
        """As JSON keeps it: the values in order, without those at the end that say nothing."""
        ours = (None if math.isnan(value) else value for value in (self.accuracy, self.loss, self.train_loss))
        row: list[Any] = [self.epoch, *ours, self.seconds, self.training, self.top5, self.radii, self.own]
        while row[-1] in (None, {}):
            row.pop()
        return row

    @staticmethod
    def from_row(row: Sequence[Any]) -> "Epoch":
        """What `row` gave, also of an earlier version."""
        epoch, *ours, seconds = row[:5]
        accuracy, loss, train_loss = (math.nan if value is None else value for value in ours)
        later: dict[str, Any] = dict(zip(("training", "top5", "radii", "own"), row[5:]))
        if "radii" in later:
            later["radii"] = {place: tuple(values) for place, values in later["radii"].items()}
        return Epoch(epoch, accuracy, loss, train_loss, seconds, **later)


@dataclass(frozen=True)
class Measurement:
    """How long a trial's network takes to classify a batch on a device, and how much memory: norms in evaluation, no
    gradients. Made by the trial itself, by `harness measure`, or brought from elsewhere as a CSV."""

    device: str
    """The device's own name; of a CSV what it says."""
    batch: int
    """Pictures passed at once."""
    latency: float
    """Seconds of a pass of the whole batch, its transfer apart: the median of the blocks' medians."""
    where: Literal["cpu", "cuda", ""] = ""
    """The kind of device; nothing where the numbers come from elsewhere."""
    memory: float | None = None
    """Bytes of tensors held at once at most, weights among them; None where it is not known."""
    spread: float | None = None
    """Seconds between the quartiles of the blocks' medians."""
    precision: str = ""
    """fp32, tf32 or bf16: as the trial was trained."""
    threads: int | None = None
    """CPU threads."""
    blocks: int | None = None
    repeats: int | None = None
    """Passes timed, over all blocks."""
    busy: float | None = None
    """Cores that other processes kept busy meanwhile, on average; None where the system does not say."""
    source: str = ""
    """Who measured: `trial`, `harness measure`, or the name of a file."""
    measured: str = ""
    """When, UTC, ISO 8601."""

    @property
    def place(self) -> tuple[str, int, str, int | None]:
        """What two measurements share that may stand for one another: device, batch, precision, threads on a CPU."""
        return self.device, self.batch, self.precision, self.threads if self.where == "cpu" else None

    @property
    def title(self) -> str:
        """batch 32 on NVIDIA H200"""
        threads = f", {self.threads} threads" if self.where == "cpu" and self.threads not in (None, 1) else ""
        return f"batch {self.batch} on {self.device}{threads}"

    def metrics(self) -> dict[str, float]:
        """As metrics of the trial: `latency`, `inference_memory`."""
        return {"latency": self.latency} | ({} if self.memory is None else {"inference_memory": self.memory})

    def to_json(self) -> dict[str, Any]:
        return {name: value for name, value in asdict(self).items() if value not in (None, "")}


@dataclass(frozen=True)
class Record:
    """One row of the study: one config, one seed, one training."""

    number: int
    state: State
    params: dict[str, Scalar]
    """The active choices of the space by flat name: what tells this trial from the others."""
    key: str
    seed: int
    config_json: dict[str, Any]
    costs: dict[str, int]
    """Exact: params, macs."""
    metrics: dict[str, float] = field(default_factory=dict)
    """Measured: accuracy, loss, top5, seconds, pictures_per_second, peak_memory, energy, latency, inference_memory; what
    there is of them."""
    measured: tuple[Measurement, ...] = ()
    """Latency and memory on devices, how they were found, in the order they came; `metrics` has those that the study is
    about (the first of `Study.measure`)."""
    curve: tuple[Epoch, ...] = ()
    epochs: int = 0
    """Epochs finished."""
    device: str = ""
    provenance: dict[str, Any] = field(default_factory=dict)
    """Commit, versions, host, threads, precision."""
    reason: str = ""
    """Why a trial failed or was stopped, in one line."""
    traceback: str = ""
    proposal: dict[str, Any] = field(default_factory=dict)
    """What the strategy wrote down to go on from after a restart."""
    replaces: int | None = None
    """The failed trial that this one runs anew."""
    promotes: int | None = None
    """The stopped trial that this one goes on with."""
    inherited: int = 0
    """Epochs of its curve that were trained by the stopped trial."""
    reused: dict[str, Any] | None = None
    """The finished trial of another study that this row was taken over from: its study, number and commit."""
    origin: dict[str, Any] | None = None
    """Of a row that was copied from another database: which, its study and number there, the folder of its weights."""
    started: datetime | None = None
    ended: datetime | None = None

    @cached_property
    def config(self) -> Config:
        """The resolved config, as it was trained."""
        return cast(Config, part_from_json(self.config_json))

    @property
    def untrained(self) -> bool:
        """Whether its network broke a measured constraint, so that it was stopped before its first epoch."""
        return self.state == "stopped" and not self.trained

    @property
    def trained(self) -> bool:
        """Whether it has finished an epoch."""
        return bool(self.curve)

    @property
    def learned(self) -> list[Mapping[str, Sequence[float]]]:
        """The radii after each epoch that has some, by stage and block."""
        return [point.radii for point in self.curve if point.radii]

    @property
    def remark(self) -> str:
        """Why a trial failed or was stopped, or what it took over or goes on with; nothing where there is nothing to say."""
        promoted = "" if self.promotes is None else f"goes on with trial {self.promotes}, which was stopped early"
        return self.reason or (origin_words(self.reused) if self.reused is not None else promoted)

    @property
    def test(self) -> dict[str, Any] | None:
        """The one look at the test part: how many pictures, their hash, and when; None for a trial that never looked."""
        found = self.provenance.get("test")
        return found if isinstance(found, dict) else None

    def value(self, metric: str) -> float:
        """A metric or a cost by name; raises KeyError where the trial has none."""
        return self.costs[metric] if metric in self.costs else self.metrics[metric]


def spent(curve: Sequence[Epoch], seconds: float | None = None) -> dict[str, float]:
    """Seconds of a trial by what they went into: training, evaluation, and the rest of `seconds`, its whole time. A loop of
    the user's own does not tell the first two apart: its epochs count as training."""
    training = math.fsum(point.seconds if point.training is None else point.training for point in curve)
    epochs = math.fsum(point.seconds for point in curve)
    rest = max((epochs if seconds is None else seconds) - epochs, 0.0)
    return {"training": training, "evaluation": epochs - training, "rest": rest}


def origin_words(reused: Mapping[str, Any]) -> str:
    """taken over from kernels, trial 3, commit 1a2b3c"""
    commit = f", commit {reused['commit']}" if reused.get("commit") else ""
    return f"taken over from {reused.get('study')}, trial {reused.get('number')}{commit}"
