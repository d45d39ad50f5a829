"""A desk to open ledgers on."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from harness.config import ResNet
from harness.space import vary
from harness.study import Evolution, Study
from tests.execution.desk import Desk, attention


@pytest.fixture
def desk(tmp_path: Path) -> Callable[..., Desk]:
    def make(strategy: Any = Evolution(trials=6, population=2), **fields: Any) -> Desk:  # noqa: B008
        space = vary(ResNet, depth=8, stages=(None, attention, attention))
        return Desk(tmp_path, Study(name="s", space=space, strategy=strategy, **fields))

    return make
