"""One trial from config to outcome, epoch by epoch, in whatever process it runs."""

import contextlib
import json
import math
import os
import sys
import time
import traceback
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, cast

from harness.code import CannotImport, SourceChanged, add_paths, import_as
from harness.config import Config, Training, part_from_json
from harness.cost import Cost, Shape
from harness.data.cache import COMPILED, cache_folder
from harness.depot import Depot, depot, tokens
from harness.errors import DataError, DiskError, Diverged, Interrupted, RankFailed, RankLost, StoreClosed, one_line
from harness.key import canonical, network_identity
from harness.latency import Latency, answer
from harness.parts.part import is_target
from harness.provenance import provenance
from harness.record import Epoch
from harness.study import Constraint

if TYPE_CHECKING:
    from torch import Tensor, nn

    from harness.data.batches import Batches
    from harness.data.pictures import DataInfo, Files, Pictures
    from harness.training.learner import Learner
    from harness.training.ranks import Ranks

Cause = Literal["", "memory", "disk", "source", "pictures", "module", "store", "place", "bound"]
LACKS: tuple[Cause, ...] = ("pictures", "module", "store")
"""What a machine may be without while another has it."""


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
    """Folder or store of the checkpoints."""
    threads: int = 1
    cores: int = 1
    """Of each of its processes, for those that read pictures beside it: these change no number, as threads do."""
    memory: float = 1.0
    """Share of its GPU's memory that the trial may take."""
    devices: int = 1
    """Processes that share each batch, one a GPU."""
    token: int = 0
    """The driver's fencing token: checkpoints of a larger one are not overwritten."""
    trial: str | None = None
    """A training loop of the user's own, `module:function`."""
    sources: dict[str, str] = field(default_factory=dict)
    """Hashes of the user's modules as they were when the run began."""
    code: tuple[str, ...] = ()
    """Folders of the user's modules."""
    shape: tuple[int, int, int, int] = (0, 0, 0, 0)
    """What the network sees and says, for a loop of the user's own: channels, height, width, classes."""
    wanted: tuple[str, ...] = ()
    """Metrics that such a loop has to yield: those of the objectives."""
    rungs: tuple[int, ...] = ()
    """Epochs after which the driver says whether the trial goes on."""
    measure: tuple[dict[str, Any], ...] = ()
    """`Latency`s to measure the fresh network at."""
    bounds: tuple[dict[str, Any], ...] = ()
    """`Constraint`s on what is measured: a network that breaks one is not trained."""
    test: str = ""
    """The fingerprint of the test part where the trial is scored on it, once, when it is trained: only in a study that
    confirms another."""

    @property
    def folder(self) -> Depot:
        """Where this trial's checkpoint lies."""
        return depot(self.runs) / self.study / str(self.number)


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
    the study ran, a machine without the pictures, a module or a way into the store, a process that died, a network over a
    measured constraint."""
    measured: tuple[dict[str, Any], ...] = ()
    """The measurements of its network, as JSON keeps them."""


@dataclass(frozen=True)
class Report:
    """What a worker tells the driver after each epoch: the curve so far, and the outcome once there is one."""

    curve: tuple[Epoch, ...]
    outcome: Outcome | None = None
    device: str = ""
    """Where it is trained."""

    def to_json(self) -> str:
        told = {"curve": [point.row() for point in self.curve], "outcome": self.outcome and asdict(self.outcome)}
        return json.dumps(told | ({"device": self.device} if self.device else {}))

    @staticmethod
    def from_json(text: str) -> "Report":
        """What `to_json` wrote."""
        data = json.loads(text)
        outcome = data["outcome"]
        if outcome:
            outcome["measured"] = tuple(outcome["measured"])
        curve = tuple(map(Epoch.from_row, data["curve"]))
        return Report(curve, Outcome(**outcome) if outcome else None, data.get("device", ""))


_checked: set[object] = set()
"""Networks whose closed-form cost ptflops has confirmed in this process."""


def run_trial(assignment: Assignment, stop: Callable[[], bool] = lambda: False) -> Generator[Report, None, None]:
    """Trains, reporting each epoch; the last report has the outcome. A failing trial is an outcome, never an exception.

    Where `stop` says so it ends at the next batch, without an outcome: the checkpoint of the last epoch is where to go on.
    """
    curve: tuple[Epoch, ...] = ()
    try:
        make_ready(assignment)
        with contextlib.ExitStack() as stack:
            for report in _train(assignment, stop, stack) if assignment.trial is None else _own_loop(assignment, stop):
                curve = report.curve
                yield report
    except Interrupted:
        return
    except Exception as error:
        words = traceback.format_exc(limit=-12)
        yield Report(curve, Outcome("failed", reason=one_line(error), traceback=words, cause=cause_of(error)))
    finally:
        if "torch" in sys.modules:
            from harness.training.device import give_memory_back

            give_memory_back()


def make_ready(assignment: Assignment) -> None:
    """What a process does before it begins with a trial."""
    prepare_process(assignment.threads)
    add_paths(list(assignment.code))
    for target, source in assignment.sources.items():
        if is_target(target):
            import_as(target, source)


OUT_OF_MEMORY = ("DefaultCPUAllocator: can't allocate", "CUDA error: out of memory", "STATUS_ALLOC_FAILED")
"""What torch, CUDA, cuBLAS and cuDNN say of it in errors of other types."""


def cause_of(error: Exception) -> Cause:
    """What an error says of the machine rather than of the trial."""
    if isinstance(error, StoreClosed):
        return "store"
    if isinstance(error, DiskError):
        return "disk"
    if isinstance(error, SourceChanged):
        return "source"
    if isinstance(error, DataError):
        return "pictures"
    if isinstance(error, CannotImport):
        return "module"
    if isinstance(error, RankLost):
        return "place"
    if isinstance(error, RankFailed):
        return cast(Cause, error.cause)
    out_of_memory = isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError"
    return "memory" if out_of_memory or any(words in str(error) for words in OUT_OF_MEMORY) else ""


def group_of(assignment: Assignment, device: str) -> AbstractContextManager["Ranks"]:
    """The processes of a trial, as a context that ends them."""
    from harness.training.ranks import ONE, Group

    if assignment.devices == 1:
        return contextlib.nullcontext(ONE)
    return Group(asdict(assignment), assignment.devices, device)


class Opened(NamedTuple):
    """What a trial trains, on what, and where."""

    config: Config
    device: str
    pictures: "Pictures | Files"
    info: "DataInfo"
    network: "nn.Module"
    begun: dict[str, Any]
    """What its initial weights were loaded from."""


def opened(assignment: Assignment) -> Opened:
    """Claims the device, opens the pictures, builds the network and counts it."""
    from harness.data.sources import open_data
    from harness.training import device

    config = cast(Config, part_from_json(assignment.config))
    training, where = config.training, device.best_device()
    device.claim(assignment.threads, precision=training.precision, deterministic=training.deterministic)
    device.limit_memory(assignment.memory)
    pictures, info = open_data(training, Path(assignment.data))
    if info.fingerprint != assignment.fingerprint:
        raise DataError(f"the pictures under {assignment.data} are not those the study was started with")
    return Opened(config, where, pictures, info, *made(assignment, config, info.shape, where))


def _train(assignment: Assignment, stop: Callable[[], bool], stack: contextlib.ExitStack) -> Iterator[Report]:
    from harness.data.batches import open_batches
    from harness.measure.latency import measure_all
    from harness.training import checkpoint, device, loop
    from harness.training.gauges import Gauges
    from harness.training.learner import Learner

    started = time.perf_counter()
    config, where, pictures, info, network, begun = opened(assignment)
    training = config.training

    # measure what training does not change, and end where that breaks a constraint
    asked = [Latency(**one) for one in assignment.measure]
    measured = measure_all(network, info.shape, training, asked, threads=assignment.threads)
    timed = answer(asked[0], measured) if asked else None
    known = {} if timed is None else timed.metrics()
    told: dict[str, Any] = {"device": device.device_name(where), "measured": tuple(one.to_json() for one in measured)}
    origin: dict[str, Any] = {"threads": assignment.threads, "precision": training.precision}
    if (broken := breach(assignment.bounds, known)) and not tokens(assignment.folder.names()):
        told |= {"reason": f"not trained: {broken}", "cause": "bound", "provenance": provenance() | origin}
        yield Report((), Outcome("failed", known, **told))
        return

    gauges = Gauges(where)
    data = open_batches(pictures, info, training, seed=assignment.seed, device=where, cores=assignment.cores)
    assignment.folder.make()
    ranks = stack.enter_context(group_of(assignment, where))
    learner = Learner(ranks.synchronised(network, where), training, ranks)

    # go on from the last epoch, if there is one
    curve: list[Epoch] = []
    if saved := checkpoint.load(assignment.folder, assignment.key, where):
        learner.restore(saved)
        curve = [Epoch.from_row(point) for point in saved["curve"]]
    ranks.agree(len(curve), where)
    if curve and len(curve) in assignment.rungs:
        yield Report(tuple(curve))  # a driver may have died before it said whether this one goes on

    # train and measure
    spent = sum(point.seconds for point in curve)
    for epoch in range(len(curve) + 1, training.epochs + 1):
        began = time.perf_counter()
        train_loss = loop.train_epoch(learner, data, seed=assignment.seed, epoch=epoch, stop=stop)
        trained = time.perf_counter() - began
        accuracy, loss, top5 = loop.evaluate(learner.judged, data, training)
        if not (math.isfinite(train_loss) and math.isfinite(loss)):
            raise Diverged(f"the loss is {train_loss if math.isfinite(loss) else loss} in epoch {epoch}: try a smaller lr")
        seconds, radii = time.perf_counter() - began, loop.radii(learner.judged)
        curve.append(Epoch(epoch, accuracy, loss, train_loss, seconds, trained, top5, radii))
        learner.note(curve[-1])
        checkpoint.save(assignment.folder, assignment.token, assignment.key, learner.state(), curve)
        if epoch < training.epochs:
            yield Report(tuple(curve), device=device.place_name(where))

    chosen, weights = learner.chosen(curve[-1])
    used = speed(curve, data.steps * data.size) | gauges.read()
    tested, looked = _score(assignment, training, learner, weights, data) if assignment.test else ({}, {})
    if assignment.devices > 1:
        origin["devices"] = assignment.devices
    if info.skipped:
        origin["skipped_images"] = info.skipped
    if begun:
        origin["init"] = begun
    if training.select == "best":
        origin["epoch"] = chosen.epoch
    origin["weights"] = checkpoint.save_final(assignment.folder, assignment.key, weights)
    origin |= looked
    metrics = chosen.metrics() | known | tested | used | {"seconds": time.perf_counter() - started + spent}
    yield Report(tuple(curve), Outcome("complete", metrics, provenance=provenance() | origin, **told))


def _score(
    assignment: Assignment, training: Training, learner: "Learner", weights: Mapping[str, "Tensor"], data: "Batches"
) -> tuple[dict[str, float], dict[str, Any]]:
    """The one look at the test part, by the weights that stand for the trial: its metrics, and what the record says of it.

    It comes after the checkpoint of the last epoch: a trial that was killed before its row was finished looks again, with
    the same weights at the same pictures, and finds the same numbers."""
    from harness.data.sources import open_test
    from harness.training import loop

    pictures, info = open_test(training, Path(assignment.data))
    if info.fingerprint != assignment.test:
        raise DataError(f"the test pictures under {assignment.data} are not those the study was started with")
    learner.judged.load_state_dict(weights)
    found = data.test(pictures)
    accuracy, loss, top5 = loop.evaluate(learner.judged, found, training)
    metrics = {"test_accuracy": accuracy, "test_loss": loss} | ({} if top5 is None else {"test_top5": top5})
    read = datetime.now(UTC).isoformat(timespec="seconds")
    return metrics, {"test": {"pictures": found.held, "fingerprint": info.fingerprint, "read": read}}


def breach(bounds: Sequence[dict[str, Any]], known: Mapping[str, float]) -> str:
    """The first constraint on what was measured that does not hold, in words; nothing where all do."""
    broken = next((bound for bound in (Constraint(**plain) for plain in bounds) if not bound.holds(known)), None)
    if broken is None:
        return ""
    return f"{broken} is wanted, measured was {known[broken.metric]:.3g} {'s' if broken.metric == 'latency' else 'bytes'}"


def prepare_process(threads: int) -> None:
    """What has to be said before torch is loaded: as many threads as the trial has, so that trials side by side do not
    fight for cores; huge pages; compiled kernels that all workers of the user share."""
    os.environ.setdefault("OMP_NUM_THREADS", str(threads))
    os.environ.setdefault("THP_MEM_ALLOC_ENABLE", "1")
    os.environ.setdefault("TORCHINDUCTOR_CACHE_DIR", str(cache_folder() / COMPILED))
    os.environ.setdefault("TORCHINDUCTOR_COMPILE_THREADS", str(threads))


def made(assignment: Assignment, config: Config, shape: Shape, device: str) -> tuple["nn.Module", dict[str, Any]]:
    """The network of a trial with its initial weights, counted; and what was loaded of weights that it begins with."""
    import torch

    from harness.networks.build import build
    from harness.training.initial import load_initial

    network: nn.Module = build(config.network, shape, assignment.seed, device).to(memory_format=torch.channels_last)
    check_cost(config, network, shape, Cost(**assignment.costs))
    init = config.training.init
    return network, {} if init is None else load_initial(network, init, assignment.sources.get(init))


def check_cost(config: Config, network: "nn.Module", shape: Shape, cost: Cost) -> None:
    """Raises CountError unless ptflops confirms the closed-form cost; once a network in this process."""
    from harness.measure.complexity import check

    counted = (canonical(network_identity(config.network)), shape, cost)
    if counted not in _checked:
        check(config.network, network, shape, cost)
        _checked.add(counted)


def speed(curve: Sequence[Epoch], pictures: int) -> dict[str, float]:
    """Pictures a second while training, evaluation and checkpoints apart: the median epoch's, without the first, which warms
    up, where there are others."""
    seconds = sorted(point.training for point in curve[1:] or curve if point.training)
    return {"pictures_per_second": pictures / seconds[len(seconds) // 2]} if seconds else {}


def _own_loop(assignment: Assignment, stop: Callable[[], bool]) -> Iterator[Report]:
    """A loop of the user's own: whatever it keeps goes on from its last epoch, as ours does."""
    from harness.own_loop import Backstage, Context, curves, finished, leave, used

    started = time.perf_counter()
    config, target = cast(Config, part_from_json(assignment.config)), cast(str, assignment.trial)
    origin: dict[str, Any] = {"trial": target, "threads": assignment.threads}

    def make(context: Context) -> "nn.Module":
        network, begun = made(assignment, config, context.shape, context.device)
        origin.update({"init": begun} if begun else {})
        return network

    context = Context(
        config,
        assignment.seed,
        shape=Shape(*assignment.shape),
        folder=Path(assignment.data),
        threads=assignment.threads,
        test=bool(assignment.test),
        backstage=Backstage(
            make,
            assignment.fingerprint,
            assignment.folder,
            assignment.key,
            assignment.token,
            stop,
            assignment.memory,
            assignment.cores,
        ),
    )
    if (earlier := finished(context)) and len(earlier) in assignment.rungs:
        yield Report(earlier)  # a driver may have died before it said whether this one goes on
    for curve in curves(context, target, assignment.wanted):
        yield Report(tuple(curve))
    metrics = context.curve[-1].metrics() | used(context)
    metrics["seconds"] = time.perf_counter() - started + sum(point.seconds for point in earlier)
    if assignment.test:
        origin["test"] = {"fingerprint": assignment.test, "read": datetime.now(UTC).isoformat(timespec="seconds")}
    told, where = provenance() | origin | leave(context), ""
    if "device" in vars(context):
        from harness.training.device import device_name

        where = device_name(context.device)
    yield Report(tuple(context.curve), Outcome("complete", metrics=metrics, device=where, provenance=told))
