"""A driver on a cluster that another process looks after, which has been given the same command line."""

import contextlib
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from harness.cli import cluster

STUDY = """
from harness.config import ResNet, Training
from harness.space import choose, vary
from harness.study import Random, Study, maximize

STUDY = Study(
    name="fetched",
    question="Is it fetched once?",
    space=vary(ResNet, depth=choose(8, 14)),
    training=Training(dataset="cifar10"),
    strategy=Random(trials=2),
    objectives=(maximize("accuracy"),),
)
"""


def test_it_fetches_nothing_as_that_has_been_done(tmp_path: Path) -> None:
    (tmp_path / "fetched.py").write_text(STUDY)
    (tmp_path / "file").touch()  # into which nothing can be fetched
    words = ["run", "fetched.py", "--download", "--data", "file"]
    done = subprocess.run(
        [Path(sys.executable).with_name("harness"), *words],
        cwd=tmp_path,
        env=os.environ | {"HARNESS_LOOKED_AFTER_BY": str(os.getpid())},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2 and "cifar10 is not under file" in done.stderr, done.stderr


SECRET = "postgresql://me:a-secret@127.0.0.1:1/lab"


def test_its_command_line_shows_no_password_as_ray_keeps_it(monkeypatch: pytest.MonkeyPatch) -> None:
    begun: list[tuple[list[str], dict[str, str]]] = []

    class Driver:
        def __init__(self, words: list[str], *, env: dict[str, str], **_: Any) -> None:
            begun.append((words, env))
            self.returncode = 0

        def poll(self) -> int:
            return 0

    monkeypatch.setattr("harness.execution.cluster.prepare", lambda _: None)
    monkeypatch.setattr(cluster.subprocess, "Popen", Driver)
    told = ["resume", "s", "--storage", SECRET, f"--reuse-from={SECRET}?sslmode=prefer", "--address", "127.0.0.1:1"]
    monkeypatch.setattr(sys, "argv", ["/bin/harness", *told])
    monkeypatch.setattr(sys, "orig_argv", [sys.executable, "-I", "/bin/harness", *told])
    assert cluster.watch("127.0.0.1:1", 60.0, lambda: contextlib.nullcontext([])) == 0
    ((words, env),) = begun
    assert words[:5] == [sys.executable, "-I", "/bin/harness", "resume", "s"] and words[-2] == "--for"
    assert "a-secret" not in " ".join(words) and "postgresql://me:***@127.0.0.1:1/lab" in words
    assert json.loads(env[cluster.WORDS]) == [*told, *words[-2:]]


def test_it_does_what_its_environment_says(tmp_path: Path) -> None:
    words = ["status", "none", "--storage", SECRET]
    for pid, said in ((os.getpid(), "127.0.0.1"), (1, "no such study file")):  # the latter's parent looks after nobody
        done = subprocess.run(
            [Path(sys.executable).with_name("harness"), "run", "other.py"],
            cwd=tmp_path,
            env=os.environ | {cluster.LOOKED_AFTER: str(pid), cluster.WORDS: json.dumps(words)},
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 2 and said in done.stderr and "a-secret" not in done.stderr, done.stderr
