"""A running Ray cluster by its address: how it is joined, what room it has, and whether its head is still there."""

import contextlib
import math
import os
import re
import socket
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from harness.errors import HarnessError, Interrupted, one_line
from harness.report.words import counted
from harness.shipping import UNSHIPPED, needed

ANSWER = 5.0
"""Seconds that a head has to answer."""
UNSAID = 5.0
"""Seconds of waiting that need no words."""
LOOK_EVERY = 3.0
"""Seconds between looks at what machines there are."""
BACK = 60.0
"""Seconds that a cluster has, once its head is back, until it takes a driver."""
MARK = ".seen-"
"""How the file begins that a cluster's machines look for."""
BACK_AGAIN = "HARNESS_REJOINS"
"""In the environment of a driver that begins again because its cluster's head was lost."""
TOLD = "HARNESS_HEAD_PIPE"
"""In the environment of a driver that is looked after: the number of the pipe into which it writes the head's address."""

Say = Callable[[str], None]
Asked = Callable[[], bool]


def prepare(address: str) -> None:
    """What can be seen and set before Ray is loaded. Raises HarnessError for an address where nobody listens."""
    if "://" in address:
        raise HarnessError(
            f"--address {address}: the driver has to be on a machine of the cluster: `ray start --address=HOST:6379"
            " --num-cpus=0` makes this one such a machine, then give HOST:6379"
        )
    place = endpoint(address)
    if place is not None and BACK_AGAIN not in os.environ:
        try:
            socket.create_connection(place, ANSWER).close()
        except (OSError, UnicodeError) as error:  # the latter where it is no name of a host at all
            said = error.strerror if isinstance(error, OSError) else None
            raise HarnessError(
                f"--address {address} cannot be reached ({said or error}): is the head up, and is this what"
                " `ray start --head` printed as its address?"
            ) from None
        if not has_raylet():  # Ray would look for one for a minute
            raise HarnessError(
                f"--address {address}: this machine does not belong to the cluster; `ray start --address={address}"
                " --num-cpus=0` lets it join, without taking trials"
            )
    if has_token():  # Ray looks for one by itself only where it is given no address
        os.environ.setdefault("RAY_AUTH_MODE", "token")
    os.environ.setdefault("RAY_gcs_server_port_wait_time_s", "3")


def endpoint(address: str) -> tuple[str, int] | None:
    """Host and port; None of `auto`, which Ray looks up."""
    host, _, port = address.rpartition(":")
    if address == "auto":
        return None
    if not (host and port.isdecimal()):
        raise HarnessError(f"--address {address}: write HOST:PORT, as `ray start --head` prints it, or auto")
    return host.strip("[]"), int(port)


def has_raylet() -> bool:
    """Whether a machine's part of Ray runs here; taken for granted where processes cannot be listed so."""
    if not Path("/proc/self/cmdline").exists():
        return True
    for listing in Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):
            if listing.read_bytes().partition(b"\0")[0].endswith(b"/raylet"):
                return True
    return False


def has_token() -> bool:
    """Whether there is a token for Ray where it looks for one."""
    told = os.environ.get("RAY_AUTH_TOKEN") or os.environ.get("RAY_AUTH_TOKEN_PATH")
    return bool(told) or Path("~/.ray/auth_token").expanduser().exists()


def join(address: str, targets: Sequence[str], **quiet: Any) -> None:
    """Makes this process a driver of the cluster, and ships our code and the user's to its workers.

    Raises HarnessError, in one line, for a cluster that does not take us."""
    import ray

    shipped = {"py_modules": [str(place) for place in needed(targets)], "excludes": list(UNSHIPPED)}
    end = time.monotonic() + (BACK if BACK_AGAIN in os.environ else 0)
    while True:
        try:
            with silenced():
                ray.init(address=address, runtime_env=shipped, **quiet)
            break
        except Exception as error:
            if time.monotonic() > end:
                raise HarnessError(f"--address {address}: {why(error)}") from None
            time.sleep(1)
    if TOLD in os.environ:
        with contextlib.suppress(OSError):  # of another process, which has given us its environment
            os.write(int(os.environ.pop(TOLD)), ray.get_runtime_context().gcs_address.encode())


@contextlib.contextmanager
def silenced() -> Iterator[None]:
    """Ray's own processes write to stderr by themselves what is told in one line here."""
    with tempfile.TemporaryFile() as aside:
        before = os.dup(2)
        os.dup2(aside.fileno(), 2)
        try:
            yield
        finally:
            os.dup2(before, 2)
            os.close(before)


def why(error: BaseException) -> str:
    """Why a cluster did not take a driver, and what mends it."""
    words = "\n".join(map(str, chain(error)))
    if "AuthToken" in words or "Authentication" in words:
        has = "the token here is not the cluster's" if has_token() else "there is no token here"
        return (
            f"the cluster asks for a token, and {has}: copy its ~/.ray/auth_token to ~/.ray/auth_token here (mode 600), or"
            " name it by RAY_AUTH_TOKEN_PATH"
        )
    if "Version mismatch" in words:
        ray, python = (re.findall(rf"{name}: (\S+)", words) for name in ("Ray", "Python"))
        return (
            f"the cluster has Ray {ray[0]} and Python {python[0]}, this process Ray {ray[1]} and Python {python[1]}: use the"
            " same environment on both"
        )
    if "Could not find any running Ray" in words:
        return "no Ray runs on this machine: `ray start --head` starts one, or give the HOST:PORT of a cluster"
    return one_line(error)


def chain(error: BaseException | None) -> Iterator[BaseException]:
    """An error and those that led to it."""
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


def answer(place: tuple[str, int]) -> bool | None:
    """Whether somebody listens there: False where nobody does, None where nothing is heard."""
    try:
        socket.create_connection(place, ANSWER).close()
    except ConnectionRefusedError:
        return False
    except OSError:
        return None
    return True


def sweep(folder: Path) -> None:
    """Removes from a study's folder the marks of a driver that was killed."""
    for left in folder.glob(f"{MARK}*"):
        left.unlink(missing_ok=True)


class Sight:
    """Whether the cluster's machines see a study's folder, as on a shared disk: each is asked once, when it has come,
    while trials run."""

    def __init__(self, runs: Path, study: str, say: Say) -> None:
        import ray

        folder = runs / study  # nobody else's, as a study has one driver
        folder.mkdir(parents=True, exist_ok=True)
        self._runs, self._say = runs, say
        self._mark = tempfile.NamedTemporaryFile(dir=folder, prefix=MARK)  # noqa: SIM115  until it is closed
        self._there = ray.remote(os.path.exists)
        self._known, self._asked, self._looked = set[str](), dict[Any, str](), -LOOK_EVERY

    def look(self, patience: float = 0.0) -> None:
        """Asks machines that have come, and says which of those that have answered do not see it."""
        import ray

        self._ask()
        if not self._asked:
            return
        for answer in ray.wait(list(self._asked), num_returns=len(self._asked), timeout=patience)[0]:
            machine = self._asked.pop(answer)
            try:
                sees = ray.get(answer)
            except ray.exceptions.RayError:  # it has gone: it is asked again should it come back
                self._known.discard(machine)
                continue
            if not sees:
                self._say(
                    f"note: {machine} does not see {self._runs}: a trial that leaves it begins again, and its weights"
                    " stay there; name a folder on a shared disk, or a store, by --runs"
                )

    def _ask(self) -> None:
        import ray
        from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

        if time.monotonic() - self._looked < LOOK_EVERY:
            return
        self._looked = time.monotonic()
        for node in ray.nodes():
            machine = f"{node['NodeManagerHostname']} ({node['NodeManagerAddress']})"
            if node["Alive"] and node["Resources"].get("CPU") and machine not in self._known:
                self._known.add(machine)
                only = NodeAffinitySchedulingStrategy(node["NodeID"], soft=False)
                there = self._there.options(num_cpus=0, max_retries=0, scheduling_strategy=only)
                self._asked[there.remote(self._mark.name)] = machine

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        with self._mark:  # which is removed, whatever the others say
            if kind is None:
                self.look(patience=5.0)


class Room:
    """What the machines of a cluster, or this one, have for trials; and who is told that there is none."""

    def __init__(self, cpus: int, gpus: float | None, say: Say = lambda _: None, stop: Asked = lambda: False) -> None:
        self._cpus, self._asked = cpus, gpus
        self._say, self._stop = say, stop
        self._since: float | None = None
        self._said = ""
        self._looked, self._nodes = -LOOK_EVERY, list[dict[str, float]]()

    @property
    def nodes(self) -> list[dict[str, float]]:
        """What each machine has."""
        if time.monotonic() - self._looked >= LOOK_EVERY:
            import ray

            self._looked, self._nodes = time.monotonic(), [node["Resources"] for node in ray.nodes() if node["Alive"]]
        return self._nodes

    @property
    def gpus(self) -> float:
        """GPUs of a trial: those asked for, else one where a machine has any."""
        most = max((node.get("GPU", 0.0) for node in self.nodes), default=0.0)
        return self._asked if self._asked is not None else min(1.0, most)

    @property
    def trials(self) -> int:
        """How many fit in at once, as it is now."""
        gpus = self.gpus
        fits = (
            min(node.get("CPU", 0) // self._cpus, node.get("GPU", 0) / gpus if gpus else math.inf) for node in self.nodes
        )
        return sum(map(int, fits))

    def wait(self, ready: Callable[[], bool]) -> None:
        """Until something is so; what is waited for is said once. Raises Interrupted where the run is to end first."""
        self._since = None
        while not ready():
            if self._stop():
                raise Interrupted
            self.waits()
            time.sleep(0.2)
        self.moves()

    def waits(self) -> None:
        """Nothing moves: after a few seconds that is said, but no words twice in a row."""
        self._since = self._since or time.monotonic()
        if time.monotonic() - self._since >= UNSAID and (words := self.words()) != self._said:
            self._say(words)
            self._said = words

    def moves(self) -> None:
        """What was waited for is there."""
        self._since = None

    def words(self) -> str:
        """waiting for a machine with 2 CPUs free: the cluster has 4 CPUs and 0 GPUs on 4 machines, too few on each"""
        share = counted(self._cpus, "CPU") + (f" and {gpus:g} GPU{'s' if gpus > 1 else ''}" if (gpus := self.gpus) else "")
        nodes = [node for node in self.nodes if node.get("CPU") or node.get("GPU")]
        cpus, there = (sum(node.get(kind, 0) for node in nodes) for kind in ("CPU", "GPU"))
        has = f"{counted(cpus, 'CPU')} and {counted(there, 'GPU')} on {counted(len(nodes), 'machine')}"
        has += "" if self.trials else ", too few on each"
        return f"waiting for a machine with {share} free: the cluster has {has if nodes else 'no machine for trials yet'}"
