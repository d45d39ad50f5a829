"""What many tests share: a tiny study on real digits, and a database: a file in a temporary folder, or on a server."""

import io
import os

os.environ["OMP_NUM_THREADS"] = "1"  # before torch is loaded: tests share the cores with the workers they start

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from optuna.storages import RDBStorage
from sqlalchemy import NullPool

from harness.config import ExpAtt, ResNet, SqueezeExcite, Training
from harness.depot import Depot, depot
from harness.space import choose, span, vary
from harness.storage.tables import full
from harness.study import Evolution, Study
from tests import s3
from tests.gpus import DriveGpus, FakeDriver
from tests.postgres import Server, programs


@pytest.fixture
def storage(tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path}/harness.db"


@pytest.fixture(scope="session")
def server() -> Iterator[Server]:
    """A PostgreSQL server, started when it is first asked for."""
    made = Server()
    yield made
    made.close()


@pytest.fixture(scope="session")
def s3_server() -> Iterator[s3.Server]:
    """An S3 server, started when it is first asked for."""
    made = s3.Server()
    yield made
    made.close()


@pytest.fixture
def store(s3_server: s3.Server, monkeypatch: pytest.MonkeyPatch) -> s3.Server:
    """The S3 server, for this process and those that it begins."""
    for name, value in s3_server.environment.items():
        monkeypatch.setenv(name, value)
    return s3_server


@pytest.fixture(params=("folder", "store"))
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Depot:
    """Where trials may leave their weights: a folder that is not there yet, or a part of a new bucket."""
    if request.param == "folder":
        return depot(tmp_path / "runs")
    found: s3.Server = request.getfixturevalue("store")
    return depot(f"{found.bucket()}/lab/runs")


def content(folder: Depot, name: str) -> bytes:
    """Of a file in such a place."""
    found = folder.file(name)
    return found.getvalue() if isinstance(found, io.BytesIO) else found.read_bytes()


BOTH = ("sqlite", pytest.param("postgresql", marks=pytest.mark.postgres))
"""Databases that a study may live in."""


def new_database(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """The URL of a new database, of the kind that the fixture was asked for."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path}/harness.db"
    found: Server = request.getfixturevalue("server")
    return found.url(found.fresh())


def theirs(storage: str) -> RDBStorage:
    """A database as Optuna's own storage, which keeps no connection."""
    return RDBStorage(full(storage), engine_kwargs={"poolclass": NullPool})


@pytest.fixture
def make_study() -> Callable[..., Study]:
    """A study of one-epoch trials on a few digits; any field may be given."""

    def make(**fields: Any) -> Study:
        explicit = vary(ExpAtt, radius=span(0.5, 4.0, log=True))
        attention = choose(None, SqueezeExcite(ratio=4), explicit)
        given: dict[str, Any] = {
            "name": "tiny",
            "question": "Which?",
            "space": vary(ResNet, depth=8, stages=(None, None, attention)),
            "training": Training(epochs=1, limit=20, batch_size=64, precision="fp32"),
            "strategy": Evolution(trials=4, population=2),
        }
        return Study(**given | fields)

    return make


@pytest.fixture
def drive_gpus(monkeypatch: pytest.MonkeyPatch) -> DriveGpus:
    """Puts a driver of GPUs in place that has so many bytes free on each, with CUDA_VISIBLE_DEVICES as `visible` says."""

    def put(*free: int | None, visible: str | None = None) -> FakeDriver:
        made = FakeDriver(list(free))
        monkeypatch.setattr("harness.gpus._driver", lambda: made)
        monkeypatch.delenv("CUDA_DEVICE_ORDER", raising=False)
        monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
        if visible is not None:
            monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
        return made

    return put


NEEDED = {
    "gpu": ("GPU", Path("/dev/nvidiactl").exists()),
    "postgres": ("PostgreSQL server", programs() is not None or "CI" in os.environ),
}
"""What some tests need, by their marks, and whether it is here."""
_left_out: dict[str, list[str]] = {}


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """What needs something that is not here is left out, and said at the end."""
    for mark in [mark for mark, (_, here) in NEEDED.items() if not here]:
        if found := [item for item in items if item.get_closest_marker(mark)]:
            _left_out[mark] = [item.name for item in found]
            config.hook.pytest_deselected(items=found)
            items[:] = [item for item in items if item not in found]


def pytest_terminal_summary(terminalreporter: Any) -> None:
    for mark, names in _left_out.items():
        shown = ", ".join(names[:12]) + (f" and {len(names) - 12} more" if len(names) > 12 else "")
        terminalreporter.write_line(f"left out, for there is no {NEEDED[mark][0]}: {shown}")


@pytest.fixture(autouse=True)
def own_cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """No test reads or fills the user's own cache."""
    monkeypatch.setenv("HARNESS_CACHE", str(tmp_path_factory.getbasetemp() / "cache"))
