"""Every test here that takes a database runs on both."""

import sqlite3
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, closing, contextmanager
from pathlib import Path

import psycopg
import pytest

from harness.storage.tables import parse_url
from tests.conftest import BOTH, new_database


@pytest.fixture(params=BOTH)
def storage(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    return new_database(request, tmp_path)


@pytest.fixture
def unreachable(storage: str) -> Callable[[], AbstractContextManager[None]]:
    """While inside, nobody gets at the database: the file is locked; the server has cut its connections and takes none."""
    parsed = parse_url(storage)

    @contextmanager
    def locked() -> Iterator[None]:
        with closing(sqlite3.connect(str(parsed.database), check_same_thread=False)) as other:
            other.execute("BEGIN EXCLUSIVE")
            try:
                yield
            finally:
                other.rollback()

    @contextmanager
    def refused() -> Iterator[None]:
        query = {name: str(value) for name, value in parsed.query.items()}
        with psycopg.connect(dbname="postgres", autocommit=True, **query) as other:  # type: ignore[arg-type]
            other.execute(f"ALTER DATABASE {parsed.database} ALLOW_CONNECTIONS false")  # type: ignore[arg-type]
            other.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = %s", (parsed.database,))
            try:
                yield
            finally:
                other.execute(f"ALTER DATABASE {parsed.database} ALLOW_CONNECTIONS true")  # type: ignore[arg-type]

    return locked if parsed.get_backend_name() == "sqlite" else refused
