"""A trial in two processes on a CPU (gloo): the numbers of one process, and what happens when one of them dies."""

import contextlib
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest

from harness.config import Config, Custom, ExpAtt, ResNet, SqueezeExcite, Training, WideResNet
from harness.data.sources import open_data
from harness.execution.backend import Resources
from harness.execution.ledger import Ledger, Running, Watcher
from harness.lead import run_apart
from harness.preflight import pricing
from harness.record import Epoch
from harness.run import Options, run_study
from harness.space import choose, vary
from harness.storage.reader import read_records
from harness.study import Random, Study
from harness.trial import Assignment, Report, run_trial
from tests.gpus import GB, DriveGpus

RECIPE: dict[str, Any] = {
    "limit": 30,
    "batch_size": 50,
    "lr": 0.05,
    "precision": "fp32",
    "compile": False,
    "augment": "crop",
}


def assigned(tmp_path: Path, name: str, network: Any, **fields: Any) -> Assignment:
    training = Training(**RECIPE | {"epochs": 3, "loading": "resident"} | fields)
    config = Config(network=network, training=training)
    info = open_data(training, tmp_path)[1]
    return Assignment(
        study="s",
        number=0,
        key="k",
        seed=1,
        config=config.model_dump(mode="json"),
        costs=pricing(info.shape)(config)._asdict(),
        data=str(tmp_path),
        fingerprint=info.fingerprint,
        runs=str(tmp_path / name),
        devices=2,
    )


def last(reports: Iterator[Report]) -> Report:
    *_, found = reports
    return found


def losses(curve: tuple[Epoch, ...]) -> list[float]:
    return [value for point in curve for value in (point.train_loss, point.loss)]


def processes(module: str) -> dict[int, int]:
    """Those that run a module, and who has begun them."""
    found = {}
    for folder in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            parent = (folder / "stat").read_text().rpartition(")")[2].split()[1]
            if f"-m\0{module}\0" in (folder / "cmdline").read_text():
                found[int(folder.name)] = int(parent)
    return found


def children(module: str = "harness.follow") -> list[int]:
    """Processes of trials that this one has begun."""
    return [pid for pid, parent in processes(module).items() if parent == os.getpid()]


@pytest.mark.parametrize(
    ("network", "fields"),
    [
        pytest.param(
            ResNet(depth=8, stages=(None, SqueezeExcite(ratio=4), ExpAtt())),
            {"mixup": 0.2, "clip": 1.0},
            marks=pytest.mark.faults_long,
        ),
        (ResNet(depth=8), {"batch_size": 51, "accumulate": 3, "ema": 0.9, "cutout": 0.5, "optimizer": "adamw", "lr": 0.002}),
    ],
    ids=["attention", "pieces"],
)
def test_two_processes_have_the_losses_of_one(tmp_path: Path, network: Any, fields: dict[str, Any]) -> None:
    """Three epochs of five steps, of pieces that are not all of one size: rounding alone is different."""
    two = assigned(tmp_path, "two", network, **fields)
    one = last(run_trial(replace(two, runs=str(tmp_path / "one"), devices=1)))
    both = last(run_trial(two))
    assert one.outcome is not None and both.outcome is not None and not both.outcome.reason
    assert losses(both.curve) == pytest.approx(losses(one.curve), rel=2e-3)
    assert losses(both.curve[:1])[0] == pytest.approx(losses(one.curve[:1])[0], rel=1e-5)
    assert both.outcome.provenance["devices"] == 2 and "devices" not in one.outcome.provenance
    assert not children()


@pytest.mark.faults_long
def test_a_dead_process_is_a_lost_worker_and_the_trial_goes_on_bit_for_bit(tmp_path: Path) -> None:
    given = assigned(tmp_path, "shot", ResNet(depth=8))
    whole = last(run_trial(replace(given, runs=str(tmp_path / "whole"))))
    reports = run_trial(given)
    first = next(reports)
    (other,) = children()
    os.kill(other, signal.SIGKILL)
    lost = last(reports)
    assert len(first.curve) == 1 and lost.outcome is not None
    assert (lost.outcome.state, lost.outcome.cause) == ("failed", "place")
    assert lost.outcome.reason == "RankLost: process 1 of the trial died (exit code -9)"
    again = list(run_trial(given))
    assert [len(report.curve) for report in again] == [2, 3]
    assert again[-1].outcome is not None and whole.outcome is not None
    assert again[-1].outcome.provenance["weights"] == whole.outcome.provenance["weights"]


@pytest.mark.faults_long
def test_a_stop_reaches_all_and_nothing_is_left(tmp_path: Path) -> None:
    given = assigned(tmp_path, "stopped", ResNet(depth=8), epochs=50)
    asked: list[bool] = []
    reports = run_trial(given, lambda: bool(asked))
    next(reports)
    assert len(children()) == 1
    asked.append(True)
    assert list(reports) == [] and not children()
    reports = run_trial(given)
    assert len(next(reports).curve) == 2
    reports.close()
    assert not children()


LAME = """
import os
from torch import nn

class Lame(nn.Module):
    def __init__(self, channels):
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 1)

    def forward(self, x):
        import torch.distributed as group
        if self.training and group.is_initialized() and group.get_rank() == 1:
            raise ValueError("lame")
        return self.conv(x)
"""


@pytest.mark.faults_long
def test_an_error_in_another_process_is_the_trials(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "lame.py").write_text(LAME)
    monkeypatch.syspath_prepend(str(tmp_path))
    given = assigned(tmp_path, "lame", ResNet(depth=8, stages=(None, None, Custom("lame:Lame"))))
    failed = last(run_trial(replace(given, code=(str(tmp_path),)))).outcome
    assert failed is not None and failed.reason == "RankFailed: ValueError: lame" and failed.cause == ""
    assert 'raise ValueError("lame")' in failed.traceback
    assert not children()


@pytest.mark.faults_long
def test_a_network_that_draws_random_numbers_is_refused(tmp_path: Path) -> None:
    failed = last(run_trial(assigned(tmp_path, "refused", WideResNet(depth=10, factor=1.0, dropout=0.3)))).outcome
    assert failed is not None and failed.reason.startswith("the network draws random numbers while it trains")
    assert not children()


@pytest.mark.faults_long
def test_a_process_ends_with_the_first(tmp_path: Path) -> None:
    """Its stdin ends when the first process is gone, however it went."""
    given = asdict(assigned(tmp_path, "orphan", ResNet(depth=8)))
    meeting = tmp_path / "meeting"
    meeting.mkdir()
    told = {"assignment": given, "rank": 1, "world": 2, "folder": str(meeting), "path": sys.path}
    other = subprocess.Popen([sys.executable, "-m", "harness.follow"], stdin=subprocess.PIPE, text=True)
    with other:
        assert other.stdin is not None
        other.stdin.write(json.dumps(told) + "\n")
        other.stdin.flush()
        while not (meeting / "ready-1").exists():
            assert other.poll() is None
            time.sleep(0.05)
        other.stdin.close()
        assert other.wait(10) == 0 and not meeting.exists()


def test_a_first_process_that_dies_is_a_lost_worker_and_not_the_users_own(tmp_path: Path) -> None:
    """With --backend local it is a process of its own; that it has no others beside it makes no difference here."""
    reports = run_apart(replace(assigned(tmp_path, "shot", ResNet(depth=8)), devices=1), lambda: False)
    assert len(next(reports).curve) == 1
    (first,) = children("harness.lead")
    os.kill(first, signal.SIGKILL)
    lost = last(reports)
    assert lost.outcome is not None and (lost.outcome.state, lost.outcome.cause) == ("failed", "place")
    assert lost.outcome.reason == "the first process of the trial died (exit code -9)" and len(lost.curve) == 1
    assert not children("harness.lead")


class Seen(Watcher):
    """Remembers why workers were lost."""

    def __init__(self) -> None:
        self.reasons: list[str] = []

    def lost(self, ledger: Ledger, running: Running, reason: str) -> None:
        self.reasons.append(reason)


@pytest.mark.faults_long
def test_a_process_that_dies_as_they_meet_costs_a_notebook_nothing(
    tmp_path: Path, make_study: Callable[..., Study], drive_gpus: DriveGpus, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first one does not notice: after half a minute it ends itself, and the trial goes on in others."""
    drive_gpus(GB, GB)
    monkeypatch.setenv("TMPDIR", str(tmp_path))

    def shoot() -> None:
        others: list[int] = []
        while not others:
            others = [pid for pid, parent in processes("harness.follow").items() if parent in children("harness.lead")]
            time.sleep(0.01)
        os.kill(others[0], signal.SIGSTOP)
        next(tmp_path.glob("harness-ranks-*")).joinpath("ready-1").touch()
        time.sleep(10)  # the first one loads torch, and goes to where they meet
        os.kill(others[0], signal.SIGKILL)

    training = Training(epochs=2, limit=30, batch_size=50, precision="fp32")
    study = make_study(strategy=Random(trials=1), space=vary(ResNet, depth=8, width=choose(0.5, 1.0)), training=training)
    options = Options(f"sqlite:///{tmp_path}/harness.db", "local", Resources(gpus=(0, 1), gpus_per_trial=2))
    shot = threading.Thread(target=shoot)
    shot.start()
    seen = Seen()
    done = run_study(study, options, watcher=seen)
    shot.join()
    assert (done.complete, done.failed, done.left) == (1, 0, 0), (done, seen.reasons)
    assert seen.reasons == ["the first process of the trial died (exit code 1)"]
    left = [pid for pid in processes("harness.follow") if str(tmp_path) in Path(f"/proc/{pid}/environ").read_text()]
    assert not left and not children("harness.lead") and not list(tmp_path.glob("harness-ranks-*"))


@pytest.mark.faults_long
def test_a_study_on_ray_whose_trials_have_two_devices_each(
    tmp_path: Path, make_study: Callable[..., Study], drive_gpus: DriveGpus
) -> None:
    """Two GPUs that a fake driver names; torch sees none of them, and trains on the cores that Ray has reserved."""
    drive_gpus(GB, GB)
    storage = f"sqlite:///{tmp_path}/harness.db"
    resources = Resources(gpus=(0, 1), gpus_per_trial=2)
    training = Training(epochs=2, limit=30, batch_size=50, precision="fp32")
    study = make_study(strategy=Random(trials=2), space=vary(ResNet, depth=8, width=choose(0.5, 1.0)), training=training)
    done = run_study(study, Options(storage=storage, resources=resources))
    assert (done.complete, done.failed, done.left) == (2, 0, 0), done
    assert [record.provenance["devices"] for record in read_records(storage, 1)] == [2, 2]
