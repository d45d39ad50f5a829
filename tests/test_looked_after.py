"""A driver on a cluster that another process looks after, which has been given the same command line."""

import os
import subprocess
import sys
from pathlib import Path

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
