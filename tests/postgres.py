"""A PostgreSQL server of the tests' own: made in a temporary folder, run by a user without rights, gone at the end."""

import contextlib
import os
import pwd
import shutil
import signal
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from itertools import count
from pathlib import Path
from typing import Any, Literal

USER, PASSWORD = "lab", "Zw1tscher-4711"
"""Who may connect: without a password over the socket, with it over TCP."""


def programs() -> Path | None:
    """The folder of the newest server that is installed, None where there is none."""
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"), key=lambda path: int(path.parts[-3]))
    if found:
        return found[-1].parent
    initdb = shutil.which("initdb")
    return Path(initdb).resolve().parent if initdb else None


class Server:
    """A server that is started, stopped, killed and started again."""

    def __init__(self) -> None:
        binaries = programs()
        assert binaries is not None, "no PostgreSQL server is installed: apt-get install postgresql"
        self._binaries, self._numbers = binaries, count(1)
        self.folder = Path(tempfile.mkdtemp(prefix="hpg-"))  # short: its socket lies in it
        self._user = pwd.getpwnam("postgres").pw_name if os.geteuid() == 0 else None
        if self._user is not None:
            shutil.chown(self.folder, self._user)
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        secret = self.folder / "password"
        secret.write_text(PASSWORD)
        secret.chmod(0o644)
        access = ("--auth-local=trust", "--auth-host=scram-sha-256", f"--pwfile={secret}")
        self._call("initdb", "--username", USER, "--no-sync", *access, "--pgdata", self.data)
        secret.unlink()
        self.start()
        self.template = ""
        self.template = self.fresh()
        self._make_tables(self.url(self.template))

    @property
    def data(self) -> str:
        return str(self.folder / "data")

    def url(self, database: str) -> str:
        """A URL over the socket, without a password."""
        return f"postgresql:///{database}?host={self.folder}&port={self.port}&user={USER}"

    def fresh(self) -> str:
        """The name of a new database, with Optuna's tables in it."""
        import psycopg

        name = f"db{next(self._numbers)}"
        origin = f" TEMPLATE {self.template}" if self.template else ""
        place = {"host": str(self.folder), "port": self.port, "user": USER}
        with psycopg.connect(dbname="postgres", autocommit=True, **place) as connection:  # type: ignore[arg-type]
            connection.execute(f"CREATE DATABASE {name}{origin}")  # type: ignore[arg-type]
        return name

    @staticmethod
    def _make_tables(url: str) -> None:
        from harness.storage.store import Store

        Store(url).close()

    # faults

    def start(self) -> None:
        settings = f"-p {self.port} -k {self.folder} -c listen_addresses=127.0.0.1 -c fsync=off -c max_connections=60"
        self._call("pg_ctl", "start", "-w", "-D", self.data, "-o", settings, "-l", str(self.folder / "log"))

    def stop(self, mode: Literal["fast", "immediate"] = "fast") -> None:
        self._call("pg_ctl", "stop", "-w", "-D", self.data, "-m", mode)

    def restart(self) -> None:
        """As after a crash: nobody is let finish, the server recovers from its log."""
        self._call("pg_ctl", "restart", "-w", "-D", self.data, "-m", "immediate", "-l", str(self.folder / "log"))

    @contextlib.contextmanager
    def away(self) -> Iterator[None]:
        self.stop()
        try:
            yield
        finally:
            self.start()

    @contextlib.contextmanager
    def silent(self) -> Iterator[None]:
        """Connections stay, nothing answers."""
        stopped = [int(line) for line in self._processes()]
        for pid in stopped:
            os.kill(pid, signal.SIGSTOP)
        try:
            yield
        finally:
            for pid in stopped:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGCONT)

    def _processes(self) -> list[str]:
        head = (Path(self.data) / "postmaster.pid").read_text().split()[0]
        children = Path(f"/proc/{head}/task/{head}/children").read_text().split()
        return [head, *children]

    @property
    def log(self) -> str:
        return (self.folder / "log").read_text()

    def close(self) -> None:
        with contextlib.suppress(subprocess.CalledProcessError):
            self.stop("immediate")
        shutil.rmtree(self.folder, ignore_errors=True)

    def _call(self, program: str, *words: str) -> None:
        own: dict[str, Any] = {} if self._user is None else {"user": self._user, "group": self._user, "extra_groups": []}
        done = subprocess.run(
            [str(self._binaries / program), *words],
            cwd=self.folder,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,  # a server that is started keeps what it was given
            stderr=subprocess.DEVNULL,
            check=False,
            timeout=60,
            **own,
        )
        if done.returncode:
            told = (self.folder / "log").read_text() if (self.folder / "log").exists() else ""
            raise subprocess.CalledProcessError(done.returncode, program, stderr=told)
