"""What `harness check` does: a module of the user's at the contract, and what it costs; every network of a study, built.

The checks of a module are the promises of `measure/contract.py`, the very ones our own kinds are held to.
"""

import contextlib
import random
import statistics
import sys
import time
import traceback
import warnings
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

from harness.config import Custom, Network, name_of
from harness.cost import Cost, network_cost
from harness.errors import ConfigError, HarnessError, one_line
from harness.key import canonical, network_identity
from harness.loading import plain_value
from harness.measure.complexity import check, count_custom
from harness.measure.contract import CONTRACT, FIRST, Broken, Promise, Subject
from harness.networks.build import build
from harness.networks.custom import module_class
from harness.preflight import checked
from harness.space import Space
from harness.study import Study
from harness.training.device import best_device

BATCH = 32
ROUNDS, WARM, LONGEST = 15, 2, 5.0
"""Steps of each network that are timed, in turn; those before that are not; and the seconds after which no more are."""


@dataclass(frozen=True)
class Finding:
    """What one check saw; and where it does not hold, what mends it."""

    name: str
    holds: bool
    seen: str
    remedy: str = ""


@dataclass(frozen=True)
class Price:
    """What a module costs, alone and beside the plain network that it is tried in."""

    params: int
    macs: int
    counted: bool
    """Whether its MACs are counted from the operations it dispatches, for want of its own word."""
    network: Cost
    plain: Cost
    step: float
    """Seconds of a training step of the network with it."""
    plain_step: float
    ratio: float
    """The one to the other: the median of steps taken in turn."""

    def to_json(self) -> dict[str, Any]:
        costs = {"network": self.network._asdict(), "plain": self.plain._asdict()}
        return asdict(self) | costs


# -- a module ---------------------------------------------------------------------------------------------------------


def subject_of(target: str, knobs: list[str], channels: int, size: int, place: Any) -> Subject:
    """What is to be checked; raises a HarnessError when it names no module class, or knobs that the class has not."""
    given = {}
    for knob in knobs:
        name, equals, text = knob.partition("=")
        if not name or not equals:
            raise ConfigError(f"{knob}: write a knob as name=value, for instance reduction=4")
        given[name] = plain_value(text)
    if not 1 <= channels <= 512:
        raise ConfigError(f"--channels {channels}: use 1 to 512")
    subject = Subject(Custom(target, place=place, **given), channels, (size, size))
    with quietly():
        module_class(custom_of(subject), channels)
    return subject


def custom_of(subject: Subject) -> Custom:
    """The user's slot."""
    assert isinstance(subject.slot, Custom)
    return subject.slot


def findings(subject: Subject) -> Iterator[Finding]:
    """Every check in turn; nothing after one that the others build on."""
    for number, promise in enumerate(CONTRACT):
        yield (found := tried(promise, subject))
        if number < FIRST and not found.holds:
            return


def tried(promise: Promise, subject: Subject) -> Finding:
    """What came of a check: whatever a user's module raises is a finding."""
    name = promise.__name__.replace("_", " ")
    try:
        with quietly():
            return Finding(name, True, promise(subject))
    except Broken as error:
        return Finding(name, False, error.seen, error.remedy)
    except (Exception, SystemExit) as error:
        return Finding(name, False, one_line(error), f"mend {place_of(error)}")


@contextlib.contextmanager
def quietly() -> Iterator[None]:
    """What a module prints goes to stderr, and its warnings nowhere."""
    with contextlib.redirect_stdout(sys.stderr), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def place_of(error: BaseException) -> str:
    """The last line of the user's own that an error passed through: gate.py:14."""
    inner = error
    while inner.__cause__ is not None:
        inner = inner.__cause__
    ours, libraries = str(Path(__file__).parent), ("site-packages", "dist-packages", "/lib/python", "<")
    frames = reversed(traceback.extract_tb(inner.__traceback__))
    own = (f for f in frames if not f.filename.startswith(ours) and not any(part in f.filename for part in libraries))
    return next((f"{Path(frame.filename).name}:{frame.lineno}" for frame in own), "the module")


def price_of(subject: Subject) -> Price:
    """Params and MACs of the module, and the step time of a small network with and without it: medians of steps in turn."""
    slot, shape, pair = custom_of(subject), subject.shape, (subject.network, subject.plain)
    with quietly():
        own = slot.cost(subject.site(), count_custom)
        network, plain = (network_cost(each, shape, count_custom) for each in pair)
        steps = [_step(subject, each) for each in pair]
        rounds = _timed(steps)
    step, plain_step = (statistics.median(times) for times in zip(*rounds))
    ratio = statistics.median(one / other for one, other in rounds)
    counted = not states_macs(slot, subject.channels)
    return Price(own.params, own.macs, counted, network, plain, step, plain_step, ratio)


def states_macs(slot: Custom, channels: int) -> bool:
    """Whether a user's module says its own MACs."""
    return callable(getattr(module_class(slot, channels), "macs", None))


def _timed(steps: list[Callable[[], float]]) -> list[list[float]]:
    """Seconds of each step, round by round, on one thread, as a trial has by default."""
    threads, started = torch.get_num_threads(), time.monotonic()
    torch.set_num_threads(1)
    try:
        rounds: list[list[float]] = []
        while len(rounds) < WARM + 1 or (len(rounds) < WARM + ROUNDS and time.monotonic() - started < LONGEST):
            rounds.append([step() for step in steps])
        return rounds[WARM:]
    finally:
        torch.set_num_threads(threads)


def _step(subject: Subject, network: Network) -> Callable[[], float]:
    """A training step of a network, which gives the seconds it took."""
    device = best_device()
    model: nn.Module = build(network, subject.shape).to(device)
    optimiser = torch.optim.SGD(model.parameters(), lr=1e-3)
    x, target = torch.randn(BATCH, *subject.shape[:3], device=device), torch.zeros(BATCH, dtype=torch.long, device=device)

    def step() -> float:
        started = time.perf_counter()
        optimiser.zero_grad()
        torch.autograd.backward(F.cross_entropy(model(x), target))
        optimiser.step()
        if device == "cuda":
            torch.cuda.synchronize()
        return time.perf_counter() - started

    return step


def to_json(subject: Subject, found: list[Finding], price: Price | None) -> dict[str, Any]:
    """All of it, for machines."""
    slot = custom_of(subject)
    return {
        "target": slot.target,
        "knobs": slot.knobs,
        "place": slot.place,
        "channels": subject.channels,
        "size": list(subject.size),
        "holds": price is not None,
        "checks": [asdict(finding) for finding in found],
        "costs": None if price is None else price.to_json(),
    }


# -- a study ----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Rehearsal:
    """The networks of a study, built without memory and counted."""

    study: str
    built: int
    complete: bool
    """Whether these are all networks of the space, not a sample."""
    invalid: int
    """Combinations that are no networks, and are never trained."""
    problems: tuple[str, ...]

    def to_json(self) -> dict[str, Any]:
        return asdict(self) | {"holds": not self.problems}


def rehearse_study(
    study: Study, data: Path, storage: str, most: int, progress: Callable[[int, int], None] = lambda done, total: None
) -> Rehearsal:
    """Builds every network of a study on the meta device, or `most` drawn from a larger space, and checks its counts.

    Raises a HarnessError for what would stop a run before its first trial.
    """
    found = checked(study, storage, data)
    networks, invalid, complete = _networks(found.space, most)
    problems = []
    for done, (network, config) in enumerate(networks.values()):
        progress(done, len(networks))
        try:
            with quietly():
                check(network, build(network, found.info.shape, device="meta"), found.info.shape, found.price(config))
        except HarnessError as error:
            problems.append(str(error))
        except Exception as error:
            problems.append(f"{name_of(network)}: {one_line(error)}")
    progress(len(networks), len(networks))
    return Rehearsal(study.name, len(networks), complete, invalid, tuple(problems))


def _networks(space: Space, most: int) -> tuple[dict[str, tuple[Network, Any]], int, bool]:
    """Different networks by what they are, at most so many; how many combinations are none; and whether these are all."""
    complete = space.size <= most
    draws = space.enumerate() if complete else (space.draw(random.Random(index)) for index in range(most))
    networks: dict[str, tuple[Network, Any]] = {}
    invalid = 0
    for params in islice(draws, most):
        try:
            config = space.config(params)
        except ConfigError:
            invalid += 1
        else:
            networks.setdefault(canonical(network_identity(config.network)), (config.network, config))
    return networks, invalid, complete
