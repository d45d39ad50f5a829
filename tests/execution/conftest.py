"""A desk to open ledgers on; every test here that takes a database runs on both."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from harness.config import ResNet
from harness.space import vary
from harness.study import Evolution, Study
from tests.conftest import BOTH, new_database
from tests.execution.desk import Desk, attention


@pytest.fixture(params=BOTH)
def storage(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    return new_database(request, tmp_path)


in_any_place = pytest.mark.parametrize(
    ("storage", "place"),
    [("sqlite", "folder"), pytest.param("postgresql", "folder", marks=pytest.mark.postgres), ("sqlite", "store")],
    indirect=True,
)
"""For tests of what trials leave: in a folder with either database, and in a store."""


@pytest.fixture
def desk(tmp_path: Path, storage: str) -> Iterator[Callable[..., Desk]]:
    made: list[Desk] = []

    def make(strategy: Any = Evolution(trials=6, population=2), **fields: Any) -> Desk:  # noqa: B008
        space = vary(ResNet, depth=8, stages=(None, attention, attention))
        made.append(Desk(tmp_path, Study(name="s", space=space, strategy=strategy, **fields), storage=storage))
        return made[-1]

    yield make
    for one in made:
        one.close()
