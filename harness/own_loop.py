"""A training loop of one's own: what it is given, and how what it yields becomes the curve of a trial.

    def run(context: Context) -> Iterator[dict[str, float]]:
        network = context.network  # made from the config, with the initial weights of the seed
        optimizer = torch.optim.SGD(network.parameters(), lr=context.training.lr, momentum=0.9)
        context.keep(optimizer=optimizer)  # whatever has a state: an interrupted trial then goes on, bit for bit
        for epoch in context.epochs():
            for pictures, targets in context.batches():
                ...
            yield {"miou": ..., "loss": ...}  # finite numbers, by the names that the objectives use

`Study(trial="mylab.train:run", objectives=(maximize("miou", unit="%"), minimize("macs")), ...)` runs it for every trial. Try
it by hand: `for found in run(Context(config, shape=Shape(3, 48, 48, 4))): print(found)`.
"""

import contextlib
import hashlib
import inspect
import math
import random
import re
import sys
import time
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields, is_dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

import numpy as np

from harness.code import load
from harness.config import Config, Training
from harness.cost import Shape
from harness.depot import Depot, tokens
from harness.errors import CodeError, DataError, Diverged, HarnessError, Interrupted, hint, one_line
from harness.record import Epoch
from harness.study import UNLEARNED

if TYPE_CHECKING:
    import torch
    from torch import nn

    from harness.data.augment import Batch
    from harness.data.batches import Batches
    from harness.training.gauges import Gauges

T = TypeVar("T")


class Stateful(Protocol):
    """What can be kept: optimisers, schedulers, modules, or a class of one's own; its state holds tensors, numbers, strings,
    lists and dictionaries."""

    def state_dict(self) -> Any: ...

    def load_state_dict(self, state_dict: Any, /) -> Any: ...


@dataclass
class Backstage:
    """What a study puts behind a context; by hand there is nothing of it."""

    make: Callable[["Context"], "nn.Module"]
    fingerprint: str
    """Of the pictures."""
    folder: Depot
    """Of the trial's checkpoints, fenced by its driver's token."""
    key: str
    token: int = 0
    stop: Callable[[], bool] = lambda: False
    memory: float = 1.0
    """Share of its GPU's memory that the trial may take."""
    cores: int = 1
    """For processes that read pictures."""


class Context:
    """What a loop of one's own is given: the network, how it is to be trained, where, and on which random numbers.

    The loop reads what it wants of `training`; what it does not read has no effect. A loop that keeps nothing (`keep`) is
    begun again when it was interrupted.
    """

    def __init__(
        self,
        config: Config,
        seed: int = 0,
        *,
        shape: Shape,
        folder: Path = Path("data"),
        threads: int = 1,
        test: bool = False,
        backstage: Backstage | None = None,
    ) -> None:
        """By hand a config, a seed and a shape are enough; the rest is what a study knows."""
        self.config = config
        self.seed = seed
        self.shape = shape
        """Channels, height and width of what the network sees, and the number of classes (0 where the data have none)."""
        self.folder = folder
        """The data folder, `--data DIR`."""
        self.threads = threads
        """CPU threads of the trial, which torch is told already."""
        self.test = test
        """Whether the trial confirms another: then, and only then, its last epoch yields scores of the test part too, by the
        names of the objectives with `test_` before them, as in `test_miou`."""
        self.epoch = 0
        """The epoch under way, 0 before the first."""
        self.curve: list[Epoch] = []
        """The epochs finished."""
        self._backstage = backstage
        self._saved: dict[str, Any] | None = None
        self._kept: dict[str, Any] | None = None
        self._stepped: dict[int, Any] = {}
        self._gauges: Gauges | None = None
        self._closing = contextlib.ExitStack()

    @property
    def training(self) -> Training:
        """The recipe of this trial: `training.lr`, `training.batch_size`, ... as the study's space chose them."""
        return self.config.training

    # what is trained, where

    @cached_property
    def device(self) -> str:
        """`cuda` where the trial has a GPU, else `cpu`."""
        from harness.training.device import best_device
        from harness.training.gauges import Gauges

        self._claim()
        found = best_device()
        self._gauges = Gauges(found)
        return found

    @cached_property
    def network(self) -> "nn.Module":
        """The network of the config on the device, channels-last, with the initial weights of the seed (paired across arms),
        or those that `training.init` names; its counts are checked."""
        if self._backstage is not None:
            return self._backstage.make(self)
        import torch

        from harness.networks.build import build

        network: nn.Module = build(self.config.network, self.shape, self.seed, self.device)
        return network.to(memory_format=torch.channels_last)

    def autocast(self) -> "torch.autocast":
        """The precision of the recipe: `with context.autocast(): scores = network(pictures)`."""
        from harness.training.loop import autocast

        return autocast(self.training, self.device)

    def _claim(self) -> None:
        """Tells torch threads, precision, whether kernels have to repeat bit for bit, and how much of a GPU to use."""
        from harness.training.device import claim, limit_memory

        claim(self.threads, precision=self.training.precision, deterministic=self.training.deterministic)
        if self._backstage is not None:
            limit_memory(self._backstage.memory)

    # what it learns from

    @cached_property
    def data(self) -> "Batches":
        """The pictures that `training.dataset` names, split by the seed and augmented as our own loop has them."""
        from harness.data.batches import open_batches
        from harness.data.sources import open_data

        pictures, info = open_data(self.training, self.folder)
        if self._backstage is not None and self._backstage.fingerprint != info.fingerprint:
            raise DataError(f"the pictures under {self.folder} are not those the study was started with")
        cores = self.threads if self._backstage is None else self._backstage.cores
        return open_batches(pictures, info, self.training, seed=self.seed, device=self.device, cores=cores)

    def batches(self) -> Iterator["Batch"]:
        """This epoch's training batches of `data`: pictures (batch, channels, height, width) and their targets."""
        return self.watch(self.data.epoch(self.epoch))

    def held_out(self) -> Iterator["Batch"]:
        """The validation pictures of `data` and their classes, all of them, as they are."""
        return self.watch(self.data.held_out())

    def watch(self, items: Iterable[T]) -> Iterator[T]:
        """The items of a loader of one's own; ends the trial between two of them where the run is being stopped."""
        for item in items:
            self._end_if_stopped()
            yield item

    def _end_if_stopped(self) -> None:
        if self._backstage is not None and self._backstage.stop():
            raise Interrupted

    # random numbers

    def generator(self, name: str = "") -> "torch.Generator":
        """A stream of random numbers for torch on the CPU, named by seed, epoch and a word: the same whatever was drawn
        before. torch's, numpy's and Python's own are named by seed and epoch alike at the beginning of each epoch."""
        import torch

        return torch.Generator().manual_seed(self._number(name))

    def rng(self, name: str = "") -> np.random.Generator:
        """The same for numpy."""
        return np.random.Generator(np.random.PCG64(self._number(name)))

    def _number(self, name: str) -> int:
        return int.from_bytes(hashlib.sha256(f"{self.seed} {self.epoch} {name}".encode()).digest()[:7])

    def _reseed(self) -> None:
        """Names all global random numbers by seed and epoch, those of torch where it is there."""
        named = int.from_bytes(hashlib.sha256(f"epoch {self.seed} {self.epoch}".encode()).digest()[:4])
        random.seed(named)
        np.random.seed(named)
        if "torch" in sys.modules:
            import torch

            torch.manual_seed(named)

    # epochs, and going on

    def keep(self, **kept: "Stateful | torch.Generator") -> None:
        """Names what the next epoch depends on besides the network: it is saved after each `yield`, and an interrupted trial
        goes on from there. Called once, before `epochs()`; without arguments where there is nothing but the network."""
        if self._kept is not None or self.epoch:
            raise HarnessError("context.keep(...) is called once, before the first epoch: name everything in one call")
        for name, thing in kept.items():
            if not (callable(getattr(thing, "state_dict", None)) or callable(getattr(thing, "get_state", None))):
                kind = type(thing).__name__
                raise HarnessError(
                    f"context.keep({name}=...): {kind} has no state_dict() and load_state_dict(); give it both"
                )
        from torch.optim.optimizer import register_optimizer_step_post_hook

        hook = register_optimizer_step_post_hook(lambda one, *_: self._stepped.setdefault(id(one), one) and None)
        self._closing.callback(hook.remove)
        self._kept = kept
        if self._backstage is not None:
            self._backstage.folder.make()

    def epochs(self) -> Iterator[int]:
        """The epochs to train, from 1 to `training.epochs`; of an interrupted trial those after the last that was kept, with
        the network and all that is kept as they were then. A loop that ends by a rule of its own asks that rule first thing
        in an epoch, and keeps it: a trial that goes on then ends where it would have ended."""
        if self._kept is not None and self._saved is not None:
            self._restore(self._saved, self._kept)
        for epoch in range(len(self.curve) + 1, self.training.epochs + 1):
            self._end_if_stopped()
            self.epoch = epoch
            self._reseed()
            yield epoch

    def _restore(self, saved: Mapping[str, Any], kept: Mapping[str, Any]) -> None:
        self.network.load_state_dict(saved["network"])
        for name, thing in kept.items():
            if callable(getattr(thing, "load_state_dict", None)):
                thing.load_state_dict(saved["kept"][name])
            else:
                thing.set_state(saved["kept"][name].cpu())
        self.curve[:] = [Epoch.from_row(point) for point in saved["curve"]]

    def _save(self) -> None:
        """Keeps the epoch that was just finished, if anything is kept."""
        if self._kept is None:
            return
        if not self.epoch:
            raise HarnessError("context.keep(...) goes with `for epoch in context.epochs():`, which restores what was kept")
        for optimizer in self._stepped.values():
            if not any(optimizer is one for thing in self._kept.values() for one in (thing, *_inside(thing))):
                name = type(optimizer).__name__
                raise HarnessError(f"context.keep(...) names no {name}, which has stepped: keep(optimizer=...) it as well")
        states = {name: plain(_state(thing), name) for name, thing in self._kept.items()}
        if (stage := self._backstage) is not None:
            from harness.training import checkpoint

            state = {"network": self.network.state_dict(), "kept": states}
            checkpoint.save(stage.folder, stage.token, stage.key, state, self.curve)


def _state(thing: Any) -> Any:
    return thing.state_dict() if callable(getattr(thing, "state_dict", None)) else thing.get_state()


def _inside(thing: Any) -> list[Any]:
    """What an object of the user's own holds."""
    return list(vars(thing).values()) if hasattr(thing, "__dict__") else []


def plain(state: Any, path: str) -> Any:
    """A state as a checkpoint may hold it: what could only be read back by executing something is refused."""
    import torch

    if isinstance(state, torch.Tensor) or state is None or type(state) in (bool, int, float, str, bytes):
        return state
    if isinstance(state, np.generic):
        return state.item()
    if isinstance(state, Mapping):
        return {name: plain(value, f"{path}.{name}") for name, value in state.items()}
    if type(state) in (list, tuple):
        return type(state)(plain(value, f"{path}.{index}") for index, value in enumerate(state))
    kind = f"{type(state).__module__}.{type(state).__qualname__}"
    raise HarnessError(
        f"context.keep: {path} is a {kind}, which cannot be kept: a state holds tensors, numbers, strings, lists and"
        " dictionaries; give the object a state_dict() of these"
    )


# -- what it yields ---------------------------------------------------------------------------------------------------


def loop_of(target: str) -> Callable[[Context], Any]:
    """The loop that a study names; raises CodeError where it is none, or takes something else than a context."""
    loop = load(target)
    if not callable(loop):
        raise CodeError(f"{target} is no function: write a generator function of one argument, the context")
    try:
        inspect.signature(loop).bind(None)
    except TypeError:
        name = target.partition(":")[2]
        signature = f"{name}{inspect.signature(loop)}"
        raise CodeError(f"{target}: {signature} is called with one argument: write def {name}(context)") from None
    except ValueError:  # built in: it says nothing of its arguments
        pass
    return loop  # type: ignore[no-any-return]


def finished(context: Context) -> tuple[Epoch, ...]:
    """The epochs that an earlier run of the trial finished and kept, from which the loop will go on."""
    if (stage := context._backstage) is None or not tokens(stage.folder.names()):
        return ()
    from harness.training import checkpoint

    context._saved = checkpoint.load(stage.folder, stage.key, context.device)
    return tuple(map(Epoch.from_row, context._saved["curve"])) if context._saved else ()


def used(context: Context) -> dict[str, float]:
    """What the trial took beside time, as far as it used our device."""
    return context._gauges.read() if context._gauges is not None else {}


def leave(context: Context) -> dict[str, str]:
    """Writes the final weights of a network that was used; returns their hash for the record."""
    if (stage := context._backstage) is None or "network" not in vars(context):
        return {}
    from harness.training import checkpoint

    stage.folder.make()
    return {"weights": checkpoint.save_final(stage.folder, stage.key, context.network.state_dict())}


def curves(context: Context, target: str, wanted: Sequence[str]) -> Iterator[list[Epoch]]:
    """Runs a loop; gives the curve so far after each of its epochs, which is kept by then. `wanted` are the metrics of the
    objectives. Raises a HarnessError in one line for a yield that is none."""
    loop = loop_of(target)
    if "torch" in sys.modules:
        context._claim()
    context._reseed()
    began = time.perf_counter()
    made = loop(context)
    if not isinstance(made, Generator):
        raise HarnessError(f"{target} gave {_short(made)}: write a generator, which yields a dictionary of metrics an epoch")
    with context._closing, contextlib.closing(made):
        for given in made:
            epoch = len(context.curve) + 1
            if epoch > context.training.epochs:
                raise HarnessError(
                    f"{target} yielded more often than {context.training.epochs} times, the epochs of its config: loop over"
                    " context.epochs()"
                )
            metrics = metrics_of(given, f"{target}, epoch {epoch}", wanted, tested=context.test)
            context.curve.append(point(epoch, metrics, time.perf_counter() - began))
            context._save()
            yield context.curve
            began = time.perf_counter()
    if not context.curve:
        raise HarnessError(f"{target} yielded nothing: it yields a dictionary of metrics after each epoch")


def metrics_of(given: Any, where: str, wanted: Sequence[str], *, tested: bool = False) -> dict[str, float]:
    """The numbers of a yield: of a dictionary, a dataclass or a named tuple."""
    if is_dataclass(given) and not isinstance(given, type):
        given = {field.name: getattr(given, field.name) for field in fields(given)}
    elif isinstance(given, tuple) and hasattr(given, "_asdict"):
        given = given._asdict()
    if not isinstance(given, Mapping) or not given:
        raise HarnessError(f"{where}: it yielded {_short(given)}; yield a dictionary of metrics, such as {{'miou': 0.5}}")
    found = {name: _number(name, value, where, tested=tested) for name, value in given.items()}
    if missing := next((name for name in wanted if name not in found), None):
        raise HarnessError(
            f"{where}: it yielded no {missing!r}, which is an objective (but {', '.join(found)}){hint(missing, found)}"
        )
    return found


def _number(name: Any, value: Any, where: str, *, tested: bool) -> float:
    if not isinstance(name, str) or not re.fullmatch(r"[A-Za-z_]\w{0,39}", name, re.ASCII):
        raise HarnessError(f"{where}: {name!r} names no metric; use letters, digits and _ (40 at most), as in 'miou'")
    if name.startswith("test_") and not tested:
        raise HarnessError(f"{where}: {name} is for trials that confirm others; yield it where context.test is True")
    if name in UNLEARNED and not name.startswith("test_"):
        raise HarnessError(f"{where}: {name} is measured by the harness itself; leave it out, or give it another name")
    try:
        number = math.nan if isinstance(value, str | bytes | bool) else float(value)
    except Exception as error:
        raise HarnessError(f"{where}: {name} = {_short(value)} is no number ({one_line(error)})") from None
    if isinstance(value, str | bytes | bool):
        raise HarnessError(f"{where}: {name} = {_short(value)} is no number")
    if not math.isfinite(number):
        raise Diverged(f"{where}: it measured {name} = {number}; a metric is a finite number (a smaller lr may help)")
    return number


def _short(value: Any) -> str:
    words = repr(value)
    return words if len(words) <= 60 else f"{words[:57]}..."


def point(epoch: int, metrics: Mapping[str, float], seconds: float) -> Epoch:
    """A point of the curve: accuracy, loss and top-5 in their own places, whatever else by its name."""
    own = {name: value for name, value in metrics.items() if name not in ("accuracy", "loss", "top5")}
    accuracy, loss = (metrics.get(name, math.nan) for name in ("accuracy", "loss"))
    return Epoch(epoch, accuracy, loss, math.nan, seconds, top5=metrics.get("top5"), own=own)
