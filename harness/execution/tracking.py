"""The trials of a run in TensorBoard, MLflow or W&B too, by Ray Tune's own logger callbacks.

The ledger drives them: Tune's trials know neither the study's numbers nor each epoch (a message may carry several), and
their folder goes when the run ends. So TensorBoard and MLflow work without a running Ray as well. The database stays the
only truth: a tracker that fails is left out, and nothing else changes.
"""

import importlib.util
import logging
import math
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from harness.depot import Folder, depot
from harness.errors import HarnessError, one_line
from harness.execution.ledger import Ledger, Running, Watcher
from harness.record import Epoch
from harness.report.words import differences, listed
from harness.storage.tables import masked, runs_beside
from harness.trial import Outcome

if TYPE_CHECKING:
    from ray.tune.logger import LoggerCallback

PACKAGES = {"tensorboard": "tensorboardX", "mlflow": "mlflow", "wandb": "wandb"}
"""What a tracker needs, as pip and Python call it."""
LONGEST = 80
"""Characters of a trial's name that are words."""


def assert_trackable(trackers: Sequence[str], backend: str) -> None:
    """Raises a HarnessError, with the remedy, where a tracker cannot be used."""
    for name in trackers:
        if name not in PACKAGES:
            raise HarnessError(f"--tracker {name}: there are {listed(PACKAGES)}")
        if importlib.util.find_spec(PACKAGES[name]) is None:
            raise HarnessError(f"--tracker {name}: {PACKAGES[name]} is not installed: pip install {PACKAGES[name]}")
        if name == "wandb" and backend != "ray":
            raise HarnessError("--tracker wandb writes from processes of Ray: leave --backend local out, or take another")


class Shown:
    """A trial as Ray Tune's logger callbacks look at one."""

    def __init__(self, study: str, running: Running, words: str, folder: Path) -> None:
        number, assignment = running.number, running.assignment
        self._name = f"{number:04d} {words}"
        self.trial_id = f"{number}-{assignment.key[:8]}"
        self.config = {**running.params, "seed": assignment.seed, "trial": number}
        self.evaluated_params = self.config
        self.experiment_dir_name = study
        self.local_path = str(folder / re.sub(r"[^\w.+-]+", "-", self._name)[:LONGEST].rstrip("-"))
        self.sent = 0
        """Epochs that were told of."""

    def init_local_path(self) -> None:
        """Makes its folder."""
        Path(self.local_path).mkdir(parents=True, exist_ok=True)

    def __str__(self) -> str:
        return self._name


@dataclass
class Tracking(Watcher):
    """Tells the trackers of what this run trains, epoch by epoch, and another watcher of everything."""

    inner: Watcher
    ledger: Ledger
    trackers: Sequence[str]

    def __enter__(self) -> Self:
        """Raises a HarnessError where a tracker cannot be reached."""
        runs = depot(self.ledger.places.runs)
        beside = runs.path if isinstance(runs, Folder) else runs_beside(self.ledger.store.url).resolve()
        self._folder = beside / self.ledger.study.name / "tracked"
        self._trials: dict[int, Shown] = {}
        self._callbacks: dict[str, LoggerCallback] = {}
        for name in self.trackers:
            try:
                self._callbacks[name] = callback(name, self.ledger.study.name)
                self._callbacks[name].setup()
            except Exception as error:
                self._tell(lambda one: one.on_experiment_end(trials=[]))  # closes those that are open
                raise HarnessError(f"--tracker {name}: {masked(one_line(error))}") from None
        if "tensorboard" in self._callbacks:
            self.ledger.notes.append(f"TensorBoard: `tensorboard --logdir {self._folder}`")
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        """Closes what is open; trials that go on later count as not finished."""
        for number in list(self._trials):
            self._end(number, failed=True)
        self._tell(lambda one: one.on_experiment_end(trials=[]))

    def began(self, ledger: Ledger, running: Running) -> None:
        self.inner.began(ledger, running)
        if running.number not in self._trials:
            words = "; ".join(map(str, differences(running.params, ledger.space.parameters)))
            trial = self._trials[running.number] = Shown(ledger.study.name, running, words, self._folder)
            if "wandb" in self._callbacks:
                trial.init_local_path()  # its process begins there
            self._tell(lambda one: one.log_trial_start(trial))

    def advanced(self, ledger: Ledger, running: Running) -> None:
        self.inner.advanced(ledger, running)
        self._epochs(running)

    def ended(self, ledger: Ledger, running: Running, outcome: Outcome) -> None:
        self.inner.ended(ledger, running, outcome)
        if running.number in self._trials:
            self._epochs(running)
            if outcome.state == "complete":
                self._result(running, {**running.assignment.costs, **outcome.metrics}, max(len(running.curve), 1))
            self._end(running.number, failed=outcome.state == "failed")

    def lost(self, ledger: Ledger, running: Running, reason: str) -> None:
        self.inner.lost(ledger, running, reason)

    def shares(self, words: str) -> None:
        self.inner.shares(words)

    def waits(self, words: str) -> None:
        self.inner.waits(words)

    def changed(self, changes: Sequence[str]) -> None:
        self.inner.changed(changes)

    def looked(self, ledger: Ledger, standing: str) -> None:
        self.inner.looked(ledger, standing)

    def _epochs(self, running: Running) -> None:
        """The epochs that were not told yet: of a trial that goes on, those of earlier runs too."""
        trial = self._trials[running.number]
        for point in running.curve[trial.sent :]:
            self._result(running, told(point), point.epoch)
        trial.sent = len(running.curve)

    def _result(self, running: Running, values: dict[str, Any], epoch: int) -> None:
        trial = self._trials[running.number]
        self._tell(lambda one: one.log_trial_result(epoch, trial, {"training_iteration": epoch, **values}))

    def _end(self, number: int, *, failed: bool) -> None:
        trial = self._trials.pop(number)
        self._tell(lambda one: one.log_trial_end(trial, failed=failed))

    def _tell(self, say: "Callable[[LoggerCallback], None]") -> None:
        """Tells every tracker; one that fails is told no more, and the run says so at its end."""
        for name, one in list(self._callbacks.items()):
            try:
                say(one)
            except Exception as error:
                del self._callbacks[name]
                self.ledger.notes.append(f"--tracker {name}: {masked(one_line(error))}; it has no more of this run")


def callback(name: str, study: str) -> "LoggerCallback":
    """Ray Tune's own callback; addresses and keys are what its package takes from the environment."""
    logging.getLogger("ray.tune").setLevel(logging.CRITICAL)
    if name == "tensorboard":
        from ray.tune.logger import TBXLoggerCallback

        return TBXLoggerCallback()
    if name == "mlflow":
        from ray.air.integrations.mlflow import MLflowLoggerCallback

        return MLflowLoggerCallback(experiment_name=study)
    from ray.air.integrations.wandb import WandbLoggerCallback

    return WandbLoggerCallback(project=study)


def told(point: Epoch) -> dict[str, Any]:
    """The numbers of an epoch; radii by stage, block and head."""
    radii = {f"{place} head {head}": value for place, heads in point.radii.items() for head, value in enumerate(heads, 1)}
    found = {**point.metrics(), "train_loss": point.train_loss, "epoch_seconds": point.seconds}
    known = {name: value for name, value in found.items() if not math.isnan(value)}
    return known | ({"radii": radii} if radii else {})
