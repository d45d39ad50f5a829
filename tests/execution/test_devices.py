"""What Ray's workers see of a machine: GPUs that only the driver names here, cores of a job, folders that are too long."""

import tempfile
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from harness.config import ResNet, Training
from harness.execution.backend import Resources
from harness.run import Options, Summary, run_study
from harness.space import span, vary
from harness.study import Random, Study
from tests.gpus import GB, DriveGpus

LOOP = """
import os, time
from pathlib import Path

def run(context):
    log, began = Path({log!r}), time.time()
    with log.open("a") as file:
        visible = os.environ.get("CUDA_VISIBLE_DEVICES") or "none"
        file.write(f"{{os.getpid()}} {{visible}} {{context._backstage.memory}} {{began}}\\n")
    while len(log.read_text().splitlines()) < {together} and time.time() < began + 90:
        time.sleep(0.05)
    time.sleep(0.2)
    yield {{"accuracy": 0.5}}
"""
"""A loop that notes what it sees, and waits for so many others at its side."""


@pytest.fixture
def storage(tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path}/harness.db"


def ran(tmp_path: Path, storage: str, monkeypatch: pytest.MonkeyPatch, together: int, **resources: Any) -> list[list[str]]:
    """What each of four trials wrote down: process, GPUs seen, share of memory, when it began."""
    log, loop = tmp_path / "seen.txt", f"seen_{tmp_path.name.replace('-', '_')}"
    (tmp_path / f"{loop}.py").write_text(LOOP.format(log=str(log), together=together))
    monkeypatch.syspath_prepend(str(tmp_path))
    training = vary(Training, epochs=1, lr=span(0.01, 0.2, log=True), precision="fp32")
    study = Study(name="s", space=ResNet(depth=8), training=training, strategy=Random(trials=4), trial=f"{loop}:run")
    done: Summary = run_study(study, Options(storage=storage, resources=Resources(**resources), code=(str(tmp_path),)))
    assert (done.complete, done.left) == (4, 0)
    return [line.split() for line in log.read_text().splitlines()]


def test_workers_see_the_chosen_gpus_alone_and_take_their_share(
    tmp_path: Path, storage: str, monkeypatch: pytest.MonkeyPatch, drive_gpus: DriveGpus
) -> None:
    drive_gpus(*[80 * GB] * 4)
    seen = ran(tmp_path, storage, monkeypatch, 2, gpus=(2, 3), gpus_per_trial=0.6)
    by_process = {process: visible for process, visible, *_ in seen}
    assert sorted(by_process.values()) == ["2", "3"], "one on each of the two"
    assert {share for _, _, share, *_ in seen} == {"0.6"}


def test_a_job_on_one_core_with_a_long_folder_and_no_gpu_for_its_trials(
    tmp_path: Path, storage: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What a scheduler and other people leave in the environment; GPUs that trials have no share of are not seen."""
    long = tmp_path / ("a-folder-of-a-job-" * 6)
    long.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(long))
    monkeypatch.setenv("SLURM_CPUS_PER_TASK", "1")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0,1")
    monkeypatch.setenv("RAY_ADDRESS", "10.255.255.1:6379")
    seen = ran(tmp_path, storage, monkeypatch, 1, gpus_per_trial=0)
    assert {visible for _, visible, *_ in seen} == {"none"}, "workers see neither of the two"
    began = sorted(float(words[3]) for words in seen)
    assert all(second - first >= 0.2 for first, second in pairwise(began)), "one at a time"
    assert not list(long.iterdir())
