"""Temporary folders of Ray: what killed drivers left is cleared, what others use stays."""

import os
import shutil
import socket
import subprocess
from pathlib import Path
from typing import Any

import pytest

from harness.errors import HarnessError
from harness.execution import ray_backend
from harness.execution.backend import Resources
from harness.execution.ray_backend import RayBackend, clear_left_behind, system


@pytest.fixture
def dead() -> int:
    """The id of a process that has ended."""
    with subprocess.Popen(["true"]) as process:
        pass
    return process.pid


def left_by(pid: int, folder: Path) -> Path:
    left = folder / f"harness-{pid}-{system()}-abcdefgh"
    left.mkdir()
    return left


def test_what_a_killed_driver_left_is_cleared_and_a_live_ones_is_not(dead: int, tmp_path: Path) -> None:
    old, live = left_by(dead, tmp_path), left_by(os.getpid(), tmp_path)
    clear_left_behind(tmp_path)
    assert not old.exists() and live.exists()


def test_a_driver_of_another_machine_keeps_its_folder_on_a_shared_disk(
    dead: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as elsewhere:
        elsewhere.setattr(socket, "gethostname", lambda: "elsewhere")
        theirs = left_by(dead, tmp_path)  # no process here, but one there
    clear_left_behind(tmp_path)
    assert theirs.exists()


def test_several_may_clear_at_once(dead: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    left = left_by(dead, tmp_path)
    monkeypatch.setattr(ray_backend, "_alive", lambda pid: bool(shutil.rmtree(left)))  # another is sooner
    clear_left_behind(tmp_path)
    assert not left.exists()


def test_a_system_that_has_no_room_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: Any, **__: Any) -> str:
        raise OSError(28, "No space left on device", str(tmp_path))

    monkeypatch.setattr(ray_backend.tempfile, "mkdtemp", full)
    with pytest.raises(HarnessError, match=r"Ray on this machine cannot be started: .*No space left on device"):
        RayBackend(Resources())
