"""A Ray cluster on one machine: nodes are real processes, begun by `ray start` as on machines of their own.

Where the system allows (root, `unshare`, `nsenter`, `ip`), each node has a network of its own, joined by a switch, so that a
cable can be pulled; elsewhere all of them share the loopback, and a node that is cut off is stopped instead. Nothing outside
is touched: networks live in unnamed namespaces, which end with the processes in them.
"""

import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
from functools import cache
from pathlib import Path
from types import TracebackType
from typing import Self

RAY = Path(sys.executable).with_name("ray")
PLAIN = {"RAY_USAGE_STATS_ENABLED": "0", "RAY_AUTH_MODE": "disabled", "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0"}
SOON = {
    "RAY_health_check_initial_delay_ms": "1000",
    "RAY_health_check_period_ms": "500",
    "RAY_health_check_timeout_ms": "1000",
    "RAY_health_check_failure_threshold": "3",
}
"""A head that sees within seconds that a node is gone."""


@cache
def isolates() -> bool:
    """Whether nodes can have networks of their own here."""
    joined = "ip link add switch type bridge && ip link add p1 type veth peer name cable && nsenter -t $$ -n true"
    command = ["unshare", "--net", "--pid", "--fork", "--mount-proc", "sh", "-c", joined]
    with contextlib.suppress(OSError):
        return subprocess.run(command, capture_output=True, check=False).returncode == 0
    return False


def within(outside: int) -> list[int]:
    """Processes in the namespace that a process has made for its children."""
    with contextlib.suppress(OSError):
        space = Path(f"/proc/{outside}/ns/pid_for_children").readlink()
        return [pid for pid in every() if same(f"/proc/{pid}/ns/pid", space)]
    return []


def same(link: str, target: Path) -> bool:
    with contextlib.suppress(OSError):
        return Path(link).readlink() == target
    return False


def on_node(folder: Path) -> list[int]:
    """Processes of the node that keeps its files below a folder: by their words, or a file they hold, as workers rename
    themselves."""
    found = []
    for pid in every():
        with contextlib.suppress(OSError):
            words, prefix = Path(f"/proc/{pid}/cmdline").read_bytes(), f"{folder}/"
            held = (str(link.readlink()) for link in Path(f"/proc/{pid}/fd").iterdir())
            if b"/bin/harness" not in words and (prefix.encode() in words or any(path.startswith(prefix) for path in held)):
                found.append(pid)
    return found


def every() -> list[int]:
    return [int(one.name) for one in Path("/proc").iterdir() if one.name.isdigit() and int(one.name) != os.getpid()]


class Network:
    """A network namespace with a cable to a switch; it lasts as long as the process that holds it."""

    def __init__(self, switch: "Network | None" = None, number: int = 0) -> None:
        self.holder = subprocess.Popen(["unshare", "--net", "sleep", "infinity"])
        own = Path("/proc/self/ns/net").readlink()
        while Path(f"/proc/{self.holder.pid}/ns/net").readlink() == own:
            time.sleep(0.005)
        self.inside = ("nsenter", "-t", str(self.holder.pid), "-n")
        self.run("ip link set lo up")
        self.switch, self.cable = switch, f"p{number}"
        if switch is None:
            self.run("ip link add switch type bridge && ip link set switch up")
            return
        switch.run(f"ip link add {self.cable} type veth peer name cable netns {self.holder.pid}")
        switch.run(f"ip link set {self.cable} master switch up")
        self.run(f"ip addr add 10.77.0.{number}/24 dev cable && ip link set cable up && ip route add default dev cable")

    def run(self, words: str) -> None:
        subprocess.run([*self.inside, "sh", "-c", words], check=True, capture_output=True)

    def pull(self) -> None:
        """Pulls the cable out of the switch."""
        assert self.switch is not None
        self.switch.run(f"ip link set {self.cable} down")

    def close(self) -> None:
        self.holder.kill()
        self.holder.wait()


class Node:
    """One machine of the cluster."""

    def __init__(self, cluster: "Cluster", number: int, words: tuple[str, ...], hidden: tuple[Path, ...]) -> None:
        self.cluster, self.number, self.words, self.hidden = cluster, number, words, hidden
        self.network = Network(cluster.switch, number) if cluster.switch else None
        self.ip = f"10.77.0.{number}" if self.network else "127.0.0.1"
        self.inside = self.network.inside if self.network else ()
        self.folder = cluster.folder / f"n{number}"
        self.log = cluster.folder / f"n{number}.log"
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Begins it, again if it has ended."""
        words = [str(RAY), "start", "--block", *self.words, f"--node-ip-address={self.ip}", f"--temp-dir={self.folder}"]
        words += ["--object-store-memory=80000000", "--disable-usage-stats", "--include-log-monitor=false"]
        if self.network:  # processes of its own, which end with the first of them, and without some folders
            covers = "".join(f"mount -t tmpfs none {folder} && " for folder in self.hidden)
            alone = ["unshare", "--pid", "--fork", "--kill-child", "--mount-proc"]
            words = [*self.inside, *alone, "sh", "-c", f'{covers}exec "$@"', "sh", *words]
        environment = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "RAY_ADDRESS")}
        with self.log.open("w") as output:
            self.process = subprocess.Popen(
                words,
                env=environment | PLAIN | SOON | self.cluster.environment,
                cwd="/",
                stdout=output,
                stderr=subprocess.STDOUT,
                stdin=subprocess.DEVNULL,
                start_new_session=True,
            )

    def wait(self) -> None:
        """Until it belongs to the cluster."""
        assert self.process is not None
        end = time.monotonic() + 120
        while "Ray runtime started" not in self.log.read_text():
            assert self.process.poll() is None and time.monotonic() < end, self.log.read_text()
            time.sleep(0.02)

    @property
    def pids(self) -> list[int]:
        """What runs on it."""
        if self.process is None:
            return []
        return within(self.process.pid) if self.network else on_node(self.folder)

    def freeze(self) -> None:
        """All of it stands still, and nothing is told of that."""
        for pid in self.pids:
            os.kill(pid, signal.SIGSTOP)

    def kill_raylet(self) -> None:
        """The part of Ray dies that runs its workers; another reports that."""
        for pid in self.pids:
            if Path(f"/proc/{pid}/cmdline").read_bytes().partition(b"\0")[0].endswith(b"/raylet"):
                os.kill(pid, signal.SIGKILL)

    def kill(self) -> None:
        """The power goes: all of it ends at one moment."""
        while pids := self.pids:
            for pid in pids:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            time.sleep(0.02)
        if self.process is not None:
            self.process.kill()
            self.process.wait()
            self.process = None

    def pull(self) -> None:
        """Pulls its cable: it runs on, hears nothing and is not heard."""
        assert self.network is not None
        self.network.pull()

    def close(self) -> None:
        self.kill()
        if self.network:
            self.network.close()


class Cluster:
    """A head, without room for trials unless it is told otherwise, and machines that join it."""

    def __init__(self, folder: Path, *, head_cpus: int = 0, **environment: str) -> None:
        self.folder, self.environment = folder, environment
        self.switch = Network() if isolates() else None
        self.nodes: list[Node] = []
        port = 6379 if self.switch else free_port()
        self.head = self._made(("--head", f"--port={port}", f"--num-cpus={head_cpus}", "--include-dashboard=false"), ())
        self.head.wait()
        self.address = f"{self.head.ip}:{port}"

    def join(self, cpus: int = 2, hidden: tuple[Path, ...] = ()) -> Node:
        """One more machine; of `hidden` folders it sees nothing."""
        node = self.begin(cpus, hidden)
        node.wait()
        return node

    def begin(self, cpus: int = 2, hidden: tuple[Path, ...] = ()) -> Node:
        """One more machine, which joins while something else is done."""
        return self._made((f"--address={self.address}", f"--num-cpus={cpus}"), hidden)

    @property
    def status(self) -> str:
        """What an autoscaler would see."""
        words = [*self.head.inside, str(RAY), "status", "--address", self.address]
        return subprocess.run(
            words, env=os.environ | PLAIN | self.environment, capture_output=True, text=True, check=True
        ).stdout

    def _made(self, words: tuple[str, ...], hidden: tuple[Path, ...]) -> Node:
        node = Node(self, len(self.nodes) + 1, words, hidden)
        self.nodes.append(node)
        node.start()
        return node

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        for node in reversed(self.nodes):
            node.close()
        if self.switch:
            self.switch.close()


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])
