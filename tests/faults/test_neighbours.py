"""Two users' studies at once on one machine, beside somebody's Ray: all end whole, none touches another's."""

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from lab import Lab, searched

from harness.execution.ray_backend import SETTINGS

MakeLab = Callable[[str, str], Lab]


@pytest.fixture
def somebodys_ray() -> Iterator[subprocess.Popen[bytes]]:
    """A Ray that was begun by hand, on the port that everybody takes for theirs."""
    folder = tempfile.mkdtemp(prefix="sr-")
    words = ["start", "--head", "--block", "--num-cpus=1", "--include-dashboard=false", f"--temp-dir={folder}"]
    command = [str(Path(sys.executable).with_name("ray")), *words]
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    head = subprocess.Popen(command, env=os.environ | SETTINGS, start_new_session=True, **quiet)
    end = time.monotonic() + 60
    while not list(Path(folder).glob("session_*/sockets/raylet*")):
        assert head.poll() is None and time.monotonic() < end
        time.sleep(0.1)
    yield head
    with contextlib.suppress(ProcessLookupError):
        os.killpg(head.pid, signal.SIGKILL)
    head.wait()
    shutil.rmtree(folder, ignore_errors=True)


@pytest.mark.faults_long
def test_two_users_and_somebodys_ray(make_lab: MakeLab, somebodys_ray: subprocess.Popen[bytes]) -> None:
    """One of them has a job's short grant of cores and long folder for temporary files; both find RAY_ADDRESS set."""
    labs = [make_lab(searched("Random(trials=12)"), "two users at once, beside somebody's Ray") for _ in range(2)]
    long = labs[1].folder / ("a-folder-of-a-job-" * 6)
    long.mkdir()
    shared = {"FAKE_PAUSE": 0.2, "RAY_ADDRESS": "127.0.0.1:6379"}
    first = labs[0].on_ray(**shared)
    second = labs[1].on_ray("--concurrency", "1", TMPDIR=long, SLURM_CPUS_PER_TASK=1, **shared)
    for lab, driver in zip(labs, (first, second), strict=True):
        assert driver.wait() == 0, driver.printed
        lab.assert_whole(12, caused=0)
    assert not list(long.iterdir())
    assert somebodys_ray.poll() is None, "somebody's Ray has ended"
