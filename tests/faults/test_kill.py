"""A driver killed in the middle of a study, on Ray, with real trials: the rows are whole afterwards."""

import os
import signal
import sqlite3
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import optuna
import pytest

STUDY = """
from harness.config import Custom, ExpAtt, ResNet, Training
from harness.space import choose, span, vary
from harness.study import Evolution, Study

attention = choose(
    None,
    vary(ExpAtt, radius=span(0.5, 4.0, log=True)),
    vary(Custom, "lab.gate:Gate", reduction=choose(2, 4)),
)
STUDY = Study(
    name="killed",
    question="Is every trial there?",
    space=vary(ResNet, depth=8, stages=(None, choose(None, Custom("lab.gate:Gate")), attention)),
    training=Training(epochs=3, limit=40, batch_size=32, precision="fp32"),
    strategy=Evolution(trials=8, population=4),
)
"""
GATE = """
from torch import nn

class Gate(nn.Module):
    def __init__(self, channels, reduction=4):
        super().__init__()
        self.weigh = nn.Sequential(
            nn.AdaptiveAvgPool2d(1), nn.Conv2d(channels, channels // reduction, 1), nn.ReLU(),
            nn.Conv2d(channels // reduction, channels, 1), nn.Sigmoid(),
        )

    def forward(self, x):
        return x * self.weigh(x)
"""


@pytest.fixture
def lab(tmp_path: Path) -> Path:
    """A folder with a study and a module of its own, outside of any package that is installed."""
    (tmp_path / "studies").mkdir()
    (tmp_path / "studies" / "killed.py").write_text(STUDY)
    (tmp_path / "studies" / "lab").mkdir()
    (tmp_path / "studies" / "lab" / "__init__.py").touch()
    (tmp_path / "studies" / "lab" / "gate.py").write_text(GATE)
    return tmp_path


class Driver(subprocess.Popen[str]):
    """A `harness` command in a process of its own, with its output in a file."""

    def __init__(self, lab: Path, *words: str) -> None:
        self.log = lab / "output.txt"
        command = [sys.executable, "-c", "from harness.cli import main; main()", *words]
        with self.log.open("w") as output:
            super().__init__(command, cwd=lab, stdout=output, stderr=subprocess.STDOUT, text=True)

    def end(self, timeout: float = 200) -> str:
        """Waits for the end; gives what was printed."""
        self.wait(timeout)
        return self.log.read_text()

    def shoot(self) -> None:
        """kill -9"""
        self.kill()
        self.wait()


def states(lab: Path) -> Counter[str]:
    file = lab / "harness.db"
    if not file.exists():
        return Counter()
    try:
        rows = sqlite3.connect(f"file:{file}?mode=ro", uri=True, timeout=10).execute("SELECT state FROM trials").fetchall()
    except sqlite3.OperationalError:  # the tables are being made
        return Counter()
    return Counter(state for (state,) in rows)


def wait_for(lab: Path, driver: Driver, complete: int) -> None:
    end = time.monotonic() + 120
    while states(lab)["COMPLETE"] < complete:
        assert driver.poll() is None and time.monotonic() < end, driver.log.read_text()
        time.sleep(0.02)


def assert_whole(lab: Path) -> None:
    study = optuna.load_study(study_name="killed", storage=f"sqlite:///{lab}/harness.db")
    assert Counter(trial.state.name for trial in study.trials) == {"COMPLETE": 8}
    assert len({trial.user_attrs["key"] for trial in study.trials}) == 8
    assert all(set(trial.intermediate_values) == {1, 2, 3} for trial in study.trials)
    assert not list((lab / "runs").glob("killed/*"))


def test_killed_twice_and_gone_on_by_file_and_by_name(lab: Path) -> None:
    driver = Driver(lab, "run", "studies/killed.py", "--concurrency", "2")
    wait_for(lab, driver, 1)
    driver.shoot()
    left = states(lab)
    assert left["RUNNING"] > 0 and sum(left.values()) < 8

    driver = Driver(lab, "run", "studies/killed.py", "--concurrency", "2")
    wait_for(lab, driver, 3)
    driver.shoot()

    (lab / "studies" / "killed.py").rename(lab / "studies" / "gone.py")  # the database and the module are enough
    driver = Driver(lab, "resume", "killed", "--concurrency", "2")
    out = driver.end()
    assert driver.returncode == 0, out
    assert "8 of 8 in all" in out
    assert_whole(lab)
    study = optuna.load_study(study_name="killed", storage=f"sqlite:///{lab}/harness.db")
    assert "gate" in {trial.params["stages.3.attention"] for trial in study.trials}

    driver = Driver(lab, "resume", "killed")
    out = driver.end()
    assert (driver.returncode, out.splitlines()[0]) == (0, "killed: nothing to train, all 8 trials are finished")

    (lab / "studies" / "lab" / "gate.py").unlink()
    driver = Driver(lab, "resume", "killed")
    out = driver.end()
    assert driver.returncode == 2 and out.count("\n") == 1 and "lab.gate:Gate" in out and "--code" in out


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_ends_cleanly_and_says_how_to_go_on(lab: Path, number: signal.Signals, code: int) -> None:
    driver = Driver(lab, "run", "studies/killed.py", "--concurrency", "2")
    wait_for(lab, driver, 1)
    os.kill(driver.pid, number)
    out = driver.end()
    assert driver.returncode == code, out
    assert "left: `harness resume killed` goes on" in out and "Traceback" not in out
    driver = Driver(lab, "resume", "killed", "--backend", "local")
    out = driver.end()
    assert driver.returncode == 0, out
    assert_whole(lab)
