"""What many tests share: a tiny study on real digits, and a database in a temporary folder."""

import os

os.environ["OMP_NUM_THREADS"] = "1"  # before torch is loaded: tests share the cores with the workers they start

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from harness.config import ExpAtt, ResNet, SqueezeExcite, Training
from harness.space import choose, span, vary
from harness.study import Evolution, Study


@pytest.fixture
def storage(tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path}/harness.db"


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


@pytest.fixture(autouse=True)
def own_cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """No test reads or fills the user's own cache."""
    monkeypatch.setenv("HARNESS_CACHE", str(tmp_path_factory.getbasetemp() / "cache"))
