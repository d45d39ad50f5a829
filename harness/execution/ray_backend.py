"""The Ray Tune backend: Tune schedules workers, the ledger decides and writes.

Tune is given a searcher that asks the ledger, and a trainable that runs one assignment after the other in a process that
is kept. Its own retries, snapshots, loggers and restore are off: the database is the only truth.
"""

import contextlib
import hashlib
import logging
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

SETTINGS = {
    "RAY_AIR_NEW_OUTPUT": "0",
    "RAY_CHDIR_TO_TRIAL_DIR": "0",
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    "RAY_DEDUP_LOGS_SKIP_REGEX": ".",
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",
    "TUNE_DISABLE_SIGINT_HANDLER": "1",
    "TUNE_GLOBAL_CHECKPOINT_S": "86400",
    "TUNE_WARN_THRESHOLD_S": "3600",
    "TUNE_RESULT_BUFFER_LENGTH": "0",
}
os.environ.update({name: os.environ.get(name, value) for name, value in SETTINGS.items()})

import ray  # noqa: E402
from ray import tune  # noqa: E402
from ray.tune.schedulers import FIFOScheduler  # noqa: E402
from ray.tune.search import Searcher  # noqa: E402

from harness.depot import Folder, depot  # noqa: E402
from harness.errors import HarnessError, one_line  # noqa: E402
from harness.execution.backend import Resources  # noqa: E402
from harness.execution.cluster import LOOK_EVERY, Asked, Room, Say, Sight, join  # noqa: E402
from harness.execution.ledger import Ledger  # noqa: E402
from harness.gpus import VISIBLE  # noqa: E402
from harness.hardware import Hardware, cores  # noqa: E402
from harness.storage.lease import this_process  # noqa: E402
from harness.trial import LACKS, Assignment, Report, run_trial  # noqa: E402

ROUND = 2_000
"""Trials after which Tune is started anew: it keeps some 40 kB of each for ever."""
MOMENT = 0.5
"""Seconds of epochs that travel in one message: a message takes Tune a few milliseconds."""


SET_ASIDE = 600.0
"""Seconds in which a worker whose machine lacks what trials need takes no trial, before it tries again."""


class Worker(tune.Trainable):
    """A process that runs one assignment after the other; a step is an epoch, or as many as fit into a moment, and ends at a
    rung: there the trial waits for the driver's word. Where its machine lacks something it keeps its place, if the driver
    says so, as the next trial would fail there too."""

    def setup(self, config: dict[str, Any]) -> None:
        hide_unassigned()
        self._reports = self._begin(config)

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        self._reports = self._begin(new_config)
        return True

    def _begin(self, config: dict[str, Any]) -> Iterator[Report]:
        assignment = Assignment(**config["assignment"])
        self._rungs = assignment.rungs
        self._aside: float | None = None
        return run_trial(assignment)

    def step(self) -> dict[str, Any]:
        began = time.monotonic()
        if self._aside is not None:
            time.sleep(LOOK_EVERY)
            return {"epoch": 0, "done": began - self._aside > SET_ASIDE}
        report = next(self._reports)
        while report.outcome is None and len(report.curve) not in self._rungs and time.monotonic() - began < MOMENT:
            report = next(self._reports)  # each holds the curve so far
        if report.outcome is not None:
            next(self._reports, None)  # lets the trial end: its memory and processes are free before another needs them
            self._aside = began if report.outcome.cause in LACKS else None
        done = report.outcome is not None and self._aside is None
        return {"report": report.to_json(), "epoch": len(report.curve), "done": done}


class Unpickled:
    """Tune pickles what it is given for a restore that never happens here: nothing of it is kept."""

    def __getstate__(self) -> dict[str, Any]:
        return {}


class LedgerSearcher(Unpickled, Searcher):
    """Tune asks, the ledger answers. What fails here ends the run and is raised by the backend, not swallowed by Tune."""

    def __init__(self, ledger: Ledger, room: Room, resources: Resources) -> None:
        super().__init__(metric="epoch", mode="max")
        self._ledger, self._room, self._looked = ledger, room, 0.0
        self._concurrency, self._own_ray = resources.concurrency, resources.address is None
        self.numbers: dict[str, int] = {}
        self.aside: set[str] = set()
        """Of Tune's trials, those in which a worker is set aside."""
        self.given = 0
        """Trials handed out in this round."""
        self.error: Exception | None = None

    @contextlib.contextmanager
    def _guarded(self) -> Iterator[None]:
        try:
            yield
        except Exception as error:
            self.error = self.error or error
            self._ledger.stop()

    def has_ray(self) -> bool:
        """Whether our own Ray is alive, looked at every few seconds; a cluster without workers is waited for."""
        if not self._own_ray or time.monotonic() - self._looked < LOOK_EVERY:
            return True
        self._looked = time.monotonic()
        return any(node["Alive"] for node in ray.nodes())

    def suggest(self, trial_id: str) -> dict[str, Any] | str | None:
        assignment = None
        if len(self.numbers) >= (self._concurrency or max(self._room.trials - len(self.aside), 1)):
            return None
        with self._guarded():
            assignment = self._ledger.next() if self.given < ROUND else None
        self.given += assignment is not None
        if assignment is not None:
            self.numbers[trial_id] = assignment.number
            return {"assignment": asdict(assignment)}
        return None if self._ledger.running else Searcher.FINISHED

    def take(self, trial_id: str, result: dict[str, Any]) -> bool:
        """Hands a report to the ledger; whether its trial goes on."""
        if trial_id in self.aside:
            return bool(self._ledger.running)
        number = self.numbers[trial_id]
        if "report" in result and number in self._ledger.running:
            report = Report.from_json(result["report"])
            with self._guarded():
                if report.outcome is not None and report.outcome.cause in LACKS and not self._own_ray:
                    return self._set_aside(trial_id, f"{result['hostname']} ({result['node_ip']})", report.outcome.reason)
                self._ledger.report(number, report)
        return not self._ledger.over(number)

    def _set_aside(self, trial_id: str, machine: str, reason: str) -> bool:
        """Gives the trial to another worker, and none to this one; ends the run where no other is left."""
        self.aside.add(trial_id)
        words = f"{machine} is set aside for {SET_ASIDE / 60:.0f} minutes: {reason}"
        self._ledger.lost(self.numbers.pop(trial_id), words, counted=False)
        if not self.numbers and len(self.aside) >= self._room.trials:
            name = self._ledger.study.name
            self._ledger.stop(
                f"no machine of the cluster can train, as {machine}: {reason}; `harness resume {name}` goes on"
            )
        return True

    def on_trial_result(self, trial_id: str, result: dict[str, Any]) -> None:
        """The scheduler has told it already."""

    def on_trial_complete(self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False) -> None:
        self.aside.discard(trial_id)
        number = self.numbers.pop(trial_id, None)
        if number is None or number not in self._ledger.running:
            return
        with self._guarded():
            report = Report.from_json(result["report"]) if result and "report" in result else None
            if report is not None and report.outcome is not None:
                self._ledger.report(number, report)
            elif error and not self._ledger.stopping:
                self._looked = 0.0
                if self.has_ray():
                    self._ledger.lost(number, "its worker process died, or the node went away")
                else:
                    self._ledger.leave(number)
            else:
                self._ledger.leave(number)

    def save(self, checkpoint_path: str) -> None:
        """The database is the only truth."""

    def restore(self, checkpoint_path: str) -> None:
        """The database is the only truth."""


class LedgerScheduler(Unpickled, FIFOScheduler):
    """Hands each report to the ledger and carries out what it says; of a stopped trial Tune tells its searcher no result."""

    def __init__(self, searcher: LedgerSearcher) -> None:
        super().__init__()
        self._searcher = searcher

    def on_trial_result(self, tune_controller: Any, trial: Any, result: dict[str, Any]) -> str:
        return str(self.CONTINUE if self._searcher.take(trial.trial_id, result) else self.STOP)


class RunEnds(BaseException):
    """Leaves Tune's loop at once: Tune itself would wait for every running epoch."""


class StopWhenAsked(Unpickled, tune.Stopper):
    """Ends the run once the ledger is told to stop."""

    def __init__(self, ledger: Ledger, searcher: LedgerSearcher) -> None:
        self._ledger, self._searcher = ledger, searcher
        self._handlers = handlers()

    def __call__(self, trial_id: str, result: dict[str, Any]) -> bool:
        return False

    def stop_all(self) -> bool:
        put_back(self._handlers)
        if not self._searcher.has_ray():
            self._searcher.error = HarnessError(
                f"Ray has died under the study: `harness resume {self._ledger.study.name}` goes on from the last epochs"
            )
            self._ledger.stop()
        if self._ledger.stopping:
            raise RunEnds
        return False


class Waiting(Unpickled, tune.Callback):
    """Says what is waited for while none of the trials handed out has a worker, until time is up; and which machines do not
    see a folder."""

    def __init__(self, ledger: Ledger, room: Room, sight: Sight | None) -> None:
        self._ledger, self._room, self._sight, self._looked = ledger, room, sight, 0.0

    def on_step_end(self, iteration: int, trials: list[Any], **info: Any) -> None:
        if time.monotonic() - self._looked < 1:
            return
        self._looked = time.monotonic()
        if self._sight is not None:
            self._sight.look()
        states = {trial.status for trial in trials}
        if "PENDING" not in states or "RUNNING" in states:
            self._room.moves()
        elif self._ledger.out_of_time(0.0):
            self._ledger.stop()
        else:
            self._room.waits()


SIGNALS = tuple(getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGUSR1") if hasattr(signal, name))
"""What Ray and Tune take for themselves when they start."""


def handlers() -> dict[int, Any]:
    """The handlers of the signals that Ray takes; nothing outside the main thread, which cannot set them."""
    inside = threading.current_thread() is threading.main_thread()
    return {number: signal.getsignal(number) for number in SIGNALS} if inside else {}


def put_back(before: dict[int, Any]) -> None:
    """Gives our own handlers their place again."""
    for number, handler in before.items():
        if signal.getsignal(number) is not handler:
            signal.signal(number, handler)


GUARD = """
import glob, os, shutil, signal, sys, time
folder, spared = sys.argv[1], {os.getpid(), os.getppid()}
sys.stdin.read()  # returns when the driver is gone, however it went
def uses(process):  # by its command line, or by a file it has open: Ray's agents and workers rename themselves
    try:
        if folder.encode() in open(process + "/cmdline", "rb").read():
            return True
    except OSError:
        pass
    for link in glob.glob(process + "/fd/*"):
        try:
            if os.readlink(link).startswith(folder):
                return True
        except OSError:
            pass
    return False
def left():
    for process in glob.glob("/proc/[0-9]*"):
        if int(process[6:]) not in spared and uses(process):
            yield int(process[6:])
for number in (signal.SIGTERM, signal.SIGKILL):
    for pid in left():
        try:
            os.kill(pid, number)
        except OSError:
            pass
    end = time.monotonic() + 3
    while time.monotonic() < end and any(True for _ in left()):
        time.sleep(0.05)
shutil.rmtree(folder, ignore_errors=True)
"""


class Guard:
    """A small process that outlives the driver by seconds: it ends the Ray that the driver started, even after a kill -9,
    and removes its temporary folder. It knows them by the folder's name, so that nobody else's Ray is touched."""

    def __init__(self) -> None:
        place = short_folder()
        clear_left_behind(place)
        self.folder = tempfile.mkdtemp(prefix=f"harness-{os.getpid()}-{system()}-", dir=place)
        command = [sys.executable, "-I", "-S", "-c", GUARD, self.folder]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, start_new_session=True)

    def close(self) -> None:
        """Lets it do its work now."""
        self._process.communicate()


SOCKET = 107 if sys.platform == "linux" else 103
"""Bytes of the longest path that a socket may have."""


def short_folder() -> Path:
    """Where temporary files go, or another such place where its path is too long for the sockets that Ray puts there, as
    that of a scheduler's job often is."""
    pid = os.getpid()
    below = f"/harness-{pid}-{system()}-abcdefgh/session_2026-01-01_00-00-00_123456_{pid}/sockets/plasma_store"
    places = dict.fromkeys((tempfile.gettempdir(), "/tmp", "/var/tmp"))
    fitting = (Path(place) for place in places if len(os.fsencode(place + below)) <= SOCKET and os.access(place, os.W_OK))
    if (found := next(fitting, None)) is None:
        raise HarnessError(f"TMPDIR = {tempfile.gettempdir()}: too long a path for the sockets of Ray; name a shorter one")
    return found


def system() -> str:
    """Six hex digits of what process ids belong to, a machine from one boot to the next, or a container on it: others may
    share a temporary folder."""
    me = this_process()
    return hashlib.sha256(f"{me.host} {me.boot} {me.namespace}".encode()).hexdigest()[:6]


def clear_left_behind(folder: Path) -> None:
    """Removes temporary folders of drivers of ours that were killed here: their names hold system and process id."""
    for left in folder.glob(f"harness-*-{system()}-*"):
        pid = left.name.split("-")[1]
        with contextlib.suppress(FileNotFoundError):  # others clear too
            if pid.isdigit() and not _alive(int(pid)) and left.stat().st_uid == os.getuid():
                shutil.rmtree(left, ignore_errors=True)


def _alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def hide_unassigned() -> None:
    """In a worker without a share of a GPU: lets torch see none, as Ray leaves them all to be seen."""
    if not ray.get_runtime_context().get_accelerator_ids().get("GPU"):
        os.environ[VISIBLE] = ""


def _hardware() -> Hardware:
    hide_unassigned()
    from harness.training.device import hardware

    return hardware()


class RayBackend:
    """A Ray of our own on this machine, or a running cluster by its address."""

    def __init__(
        self,
        resources: Resources,
        targets: Sequence[str] = (),
        *,
        say: Say = lambda _: None,
        stop: Asked = lambda: False,
    ) -> None:
        """`targets` are the user's modules, shipped to a cluster; `say` is told what is waited for."""
        self._resources, self._say = resources, say
        try:
            self._guard = Guard()
        except OSError as error:
            raise HarnessError(f"Ray on this machine cannot be started: {one_line(error)}") from None
        self._folder = self._guard.folder
        before = handlers()
        logging.getLogger("ray").setLevel(logging.ERROR)
        logging.getLogger("ray.tune").setLevel(logging.CRITICAL)  # a lost worker is told by the ledger, in one line
        quiet: dict[str, Any] = {"logging_level": "error", "log_to_driver": False}
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                if resources.address is not None:
                    join(resources.address, targets, **quiet)
                else:
                    wanted = (resources.concurrency or 1) * resources.cpus_per_trial
                    ray.init(
                        address="local",
                        num_cpus=max(cores(), wanted),
                        num_gpus=None if resources.gpus is None else len(resources.gpus),
                        include_dashboard=False,
                        object_store_memory=100 * 2**20,
                        _temp_dir=self._folder,
                        **quiet,
                    )
        except Exception as error:
            self._guard.close()
            if isinstance(error, HarnessError):
                raise
            raise HarnessError(f"Ray on this machine cannot be started: {one_line(error)}") from None
        put_back(before)
        self._room = Room(resources.cpus_per_trial, resources.share, say, stop)
        try:
            self._find_room()
        except BaseException:
            self.close()
            raise
        self._gpus = self._room.gpus

    def _find_room(self) -> None:
        """On a cluster, waits for it; raises HarnessError where this machine has none."""
        if self._resources.address is not None:
            if not self._room.trials:  # a task that waits too is what an autoscaler brings machines for
                waiting = ray.remote(os.path.exists)
                waiting.options(num_cpus=self._resources.cpus_per_trial, num_gpus=self._room.gpus).remote(os.sep)
            self._room.wait(lambda: self._room.trials > 0)
        elif (share := self._room.gpus) > (there := ray.cluster_resources().get("GPU", 0)):
            raise HarnessError(f"--gpus-per-trial {share:g}: Ray sees {there:g} GPUs; use a smaller share, or 0")

    def hardware(self) -> Hardware:
        probe = ray.remote(_hardware).options(num_cpus=self._resources.cpus_per_trial, num_gpus=self._gpus)
        asked = [probe.remote()]
        self._room.wait(lambda: bool(ray.wait(asked, timeout=1)[0]))
        try:
            return Hardware(*ray.get(asked[0]))
        except ray.exceptions.RayError as error:
            said = str(error).strip().splitlines()[-1].strip()
            raise HarnessError(
                f"a worker of Ray cannot train: {said}; its machine needs the environment of this one"
            ) from None

    def run(self, ledger: Ledger) -> None:
        os.environ["TUNE_MAX_PENDING_TRIALS_PG"] = str(ROUND)  # the searcher says how many
        runs = depot(ledger.places.runs)
        shared = runs.path if isinstance(runs, Folder) and self._resources.address is not None else None
        with contextlib.nullcontext() if shared is None else Sight(shared, ledger.study.name, self._say) as sight:
            while self._round(ledger, sight) >= ROUND and not ledger.done:
                pass

    def _round(self, ledger: Ledger, sight: Sight | None) -> int:
        """Runs Tune until the ledger has no more or a round is full; returns how many trials were handed out."""
        searcher = LedgerSearcher(ledger, self._room, self._resources)
        share = {"cpu": self._resources.cpus_per_trial, "gpu": self._gpus}
        tuner = tune.Tuner(
            tune.with_resources(Worker, share),
            tune_config=tune.TuneConfig(
                search_alg=searcher,
                scheduler=LedgerScheduler(searcher),
                num_samples=-1,
                reuse_actors=True,
            ),
            run_config=tune.RunConfig(
                storage_path=self._folder,
                name="tune",
                verbose=0,
                stop=StopWhenAsked(ledger, searcher),
                callbacks=[Waiting(ledger, self._room, sight)],
                failure_config=tune.FailureConfig(max_failures=0),
                checkpoint_config=tune.CheckpointConfig(checkpoint_at_end=False),
            ),
        )
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with contextlib.suppress(RunEnds):
                tuner.fit()
        for number in list(ledger.running):
            ledger.leave(number)
        if searcher.error is not None:
            raise searcher.error
        return 0 if ledger.stopping else searcher.given

    def close(self) -> None:
        ray.shutdown()
        self._guard.close()
