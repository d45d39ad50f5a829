"""How trials share GPUs: a fixed share, or as many on one as the memory that is free on it holds."""

import contextlib
import json
import math
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from harness.child import begun
from harness.config import Config
from harness.cost import Cost, Shape
from harness.errors import ConfigError, HarnessError, Interrupted, StudyError, one_line
from harness.execution.backend import Resources
from harness.gpus import VISIBLE, Gpu, chosen, holds_pictures, tensors_share
from harness.hardware import cores
from harness.preflight import Checked, sampled
from harness.study import Study

HEADROOM = 0.1
"""Of the memory that is free: what fragments, and what others come to take meanwhile."""
DRAWS = 500
"""Configs among which the largest is looked for, in a space that is larger."""
DEAREST = 3
"""Configs that are measured for their activations; one more for its parameters."""
PATIENCE = 600
"""Seconds that measuring may take."""

AUTO = "--gpus-per-trial auto"
UNMEASURED = f"{AUTO}: a training step cannot be measured"
Measured = Callable[[Sequence[Config], Shape, Gpu, int], int | None]
"""Bytes of a GPU that the trial of these which takes most takes, in so many threads; None where it has not so many."""


@dataclass(frozen=True)
class Sharing:
    """What `--gpus-per-trial auto` has come to."""

    count: int
    """Trials at once on a GPU; 0 where none tells its memory."""
    memory: float
    """Share of a GPU's memory that a trial may take."""
    words: str
    gpu: str = ""
    """The GPU that was measured on, by its name."""
    bytes: int = 0
    """What a trial of the largest config takes of it, at most."""

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


def assert_sensible(resources: Resources) -> None:
    """Raises HarnessError for GPUs that are not there, or cannot be given to a trial."""
    asked = resources.gpus_per_trial
    if resources.address is not None and (resources.gpus is not None or asked == "auto"):
        what = "--gpus chooses" if resources.gpus is not None else "--gpus-per-trial auto measures"
        raise HarnessError(
            f"{what} GPUs of this machine, and --address {resources.address} names a cluster: leave one of them out"
            + ("; a fixed share works there, as in --gpus-per-trial 0.25" if asked == "auto" else "")
        )
    if resources.share is not None and resources.share > 1 and resources.share % 1:
        raise HarnessError(f"--gpus-per-trial {asked:g}: a trial has a share of one GPU, as 0.5, or whole ones, as 2")
    there = len(chosen(resources.gpus))
    if resources.devices > max(there, 1) and resources.address is None:
        raise HarnessError(f"--gpus-per-trial {asked:g}: this machine has {there} to use; name as many, or fewer")


def settled(resources: Resources, study: Study) -> Resources:
    """The resources with a core for each GPU of a trial. Raises StudyError for a loop of one's own, which neither shares its
    batches nor is measured."""
    if resources.devices > 1:
        if study.trial is not None:
            raise StudyError(
                f"--gpus-per-trial {resources.devices}: our own loop shares batches between GPUs, {study.trial} does"
                " not; leave it out, and as many trials train at once"
            )
        return replace(resources, cpus_per_trial=max(resources.cpus_per_trial, resources.devices))
    if resources.gpus_per_trial == "auto" and study.trial is not None and chosen(resources.gpus):
        raise StudyError(
            f"{AUTO}: it measures steps of our own loop, and the study has {study.trial}; name a share, as in 0.25"
        )
    return resources


def packed(
    resources: Resources, found: Checked, measured: Measured, *, one_by_one: bool = False
) -> tuple[Resources, Sharing]:
    """The resources with `auto` replaced by what it comes to now, and what was decided; `one_by_one` where trials do not run
    side by side, which leaves nothing to divide.

    What a trial takes is measured once a study and kind of GPU, and then known from its database; what is free is looked
    at anew. Raises HarnessError where a step cannot be measured."""
    gpus = chosen(resources.gpus)
    if not gpus:
        words = f"{AUTO}: no GPU tells its memory here: one trial a GPU, or on cores where there is none"
        return replace(resources, gpus_per_trial=None), Sharing(0, 1.0, words)
    if one_by_one:
        words = f"{AUTO}: --backend local trains one trial at a time, with all the memory that is free on its GPU"
        return replace(resources, gpus_per_trial=None), Sharing(1, 1.0, words)
    roomiest = max(gpus, key=lambda gpu: gpu.free)
    known = found.stored.attributes.get("sharing", {}) if found.stored is not None else {}
    if known.get("gpu") == roomiest.name and known.get("bytes"):
        need: int | None = known["bytes"]
    else:
        need = measured(largest(found), found.info.shape, roomiest, found.study.threads)
    pictures = 0 if found.info.streamed or found.info.own else found.info.bytes
    decided = replace(decide(need, pictures, gpus, resources), gpu=roomiest.name)
    at_once = decided.count * len(gpus) if decided.count > 1 else None
    kept = replace(resources, concurrency=resources.concurrency or at_once, memory=decided.memory)
    return replace(kept, gpus_per_trial=math.floor(1e4 / decided.count) / 1e4), decided


def decide(need: int | None, pictures: int, gpus: Sequence[Gpu], resources: Resources) -> Sharing:
    """How many trials fit onto each GPU, of which each takes `need` bytes (None: more than it has), and its pictures where
    it holds them there, which it does by the share of memory that it is given."""
    least = min(gpus, key=lambda gpu: gpu.free)
    room, ways = int(least.free * (1 - HEADROOM)), []
    for held in (pictures, 0):
        taken = None if need is None else need + held
        too_much = taken is None or taken > room
        count, why = (1, "and it may fail") if too_much else fitting(room // (taken or 1), len(gpus), resources)
        memory = 1.0 if count == 1 else room / count / least.total
        if holds_pictures(pictures, tensors_share(memory, least.total) * least.total) == (held == pictures):
            ways.append((count, memory, taken, why))
    count, memory, taken, why = next((way for way in ways if way[0] > 1), ways[0])
    words = (
        f"{AUTO}: a trial of the largest config takes {'too much' if taken is None else _size(taken)} of {least.name};"
        f" {_size(least.free)} are free on GPU {least.number}{', the least' if len(gpus) > 1 else ''}:"
        f" {count} at once on {'each' if len(gpus) > 1 else 'it'} ({why})"
    )
    return Sharing(count, memory, words, bytes=need or 0)


def fitting(by_memory: int, gpus: int, resources: Resources) -> tuple[int, str]:
    """Trials on each of so many GPUs, of which the memory holds so many, and why not more."""
    by_cores = max(cores() // resources.cpus_per_trial // gpus, 1)
    asked = math.ceil(resources.concurrency / gpus) if resources.concurrency else by_memory
    count = min(by_memory, by_cores, asked)
    if count == by_memory:
        return count, f"its memory holds {by_memory}"
    if count == asked:
        return count, f"--concurrency {resources.concurrency}; its memory holds {by_memory}"
    return count, f"{cores()} cores, {resources.cpus_per_trial} a trial; its memory holds {by_memory}"


def _size(count: float) -> str:
    return f"{count / 1e9:.1f} GB"


# -- the largest config -----------------------------------------------------------------------------------------------


def largest(found: Checked) -> list[Config]:
    """Configs of which one takes most memory: the dearest by MACs and pictures passed at once, for what is kept of them
    grows with these, and the one with most parameters."""
    priced = list(_priced(found))
    if not priced:
        raise StudyError(f"study {found.study.name!r} has nothing to measure: no config drawn is within its bounds")
    by_activations = sorted(priced, key=lambda one: one[1].macs * passed_at_once(one[0]), reverse=True)
    by_params = max(priced, key=lambda one: one[1].params)
    return list(dict.fromkeys(config for config, _ in (*by_activations[:DEAREST], by_params)))


def passed_at_once(config: Config) -> int:
    """Pictures of which a step keeps what its way back needs."""
    return math.ceil(config.training.batch_size / config.training.accumulate)


def _priced(found: Checked) -> Iterator[tuple[Config, Cost]]:
    """Configs of the study that may be trained, with their costs."""
    for params in sampled(found.study, found.space, DRAWS)[1]:
        with contextlib.suppress(ConfigError):
            config = found.space.config(params)
            cost = found.price(config)
            if all(constraint.holds(cost._asdict()) for constraint in found.study.constraints):
                yield config, cost


def measure(
    configs: Sequence[Config], shape: Shape, gpu: Gpu, threads: int, *, stop: Callable[[], bool] = lambda: False
) -> int | None:
    """`Measured`, in a process of its own, which gives the memory back when it ends. Raises HarnessError where it fails,
    Interrupted where `stop` says so first."""
    plain = [config.model_dump(mode="json") for config in configs]
    asked = {"configs": plain, "shape": list(shape), "threads": threads}
    with tempfile.TemporaryFile("w+") as said, tempfile.TemporaryFile("w+") as complained:
        try:
            seen = {VISIBLE: gpu.uuid}
            with begun("harness.measure.footprint", asked, stdout=said, stderr=complained, environment=seen) as child:
                end = time.monotonic() + PATIENCE
                while child.poll() is None and time.monotonic() < end:
                    if stop():
                        raise Interrupted
                    time.sleep(0.05)
        except OSError as error:
            raise HarnessError(f"{UNMEASURED} ({one_line(error)}); name a share, as in 0.25") from None
        said.seek(0), complained.seek(0)
        try:
            found: int | None = json.loads(said.read().splitlines()[-1])["bytes"]
        except (ValueError, IndexError, KeyError, TypeError):
            words = (complained.read().strip() or f"exit code {child.returncode}").splitlines()[-1]
            raise HarnessError(f"{UNMEASURED} ({words}); name a share, as in 0.25") from None
    return found
