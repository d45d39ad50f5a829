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


NO_GPU = not Path("/dev/nvidiactl").exists()
_left_out = []


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Where there is no GPU, what needs one is left out, and said at the end."""
    if NO_GPU and (found := [item for item in items if item.get_closest_marker("gpu")]):
        _left_out.extend(found)
        config.hook.pytest_deselected(items=found)
        items[:] = [item for item in items if item not in found]


def pytest_terminal_summary(terminalreporter: Any) -> None:
    if _left_out:
        terminalreporter.write_line(f"left out, for there is no GPU: {', '.join(item.name for item in _left_out)}")


@pytest.fixture(autouse=True)
def own_cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """No test reads or fills the user's own cache."""
    monkeypatch.setenv("HARNESS_CACHE", str(tmp_path_factory.getbasetemp() / "cache"))
