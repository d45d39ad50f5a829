"""The array job: clean for shellcheck, run by a real shell without Slurm, queued again when it should."""

import os
import re
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import closing, suppress
from pathlib import Path

import pytest
from typer.testing import CliRunner

from harness.cli.main import app
from harness.slurm import Job, clock, script

JOB = Job(study="fake", target="study file.py", tasks=4, seconds=86400.0)
STUDY = """
from harness.config import ExpAtt, ResNet, SqueezeExcite, Training
from harness.space import choose, vary
from harness.study import Exhaustive, Study

attention = choose(None, SqueezeExcite(ratio=4), ExpAtt())
SPACE = vary(ResNet, depth=8, stages=(None, None, attention))
STUDY = Study(name="fake", space=SPACE, training=Training(epochs=2), strategy=Exhaustive(), seeds=(0, 1), trial="fakes:run")
"""
FAKES = """
import os, time
def run(context):
    for epoch in (1, 2):
        time.sleep(float(os.environ.get("FAKE_PAUSE", "0")))
        yield {"accuracy": 0.5, "loss": 1.0}
"""


@pytest.fixture
def task(tmp_path: Path) -> Callable[..., subprocess.Popen[str]]:
    """A task of the array as Slurm would start it; `harness` is ours, or what the folder has in its place."""
    programs = tmp_path / "bin"
    programs.mkdir()
    (programs / "scontrol").write_text(f'#!/bin/sh\necho "$@" >> {tmp_path}/scontrol.log\n')
    (programs / "scontrol").chmod(0o755)
    job = tmp_path / "job.sh"

    def start(text: str, **environment: str) -> subprocess.Popen[str]:
        job.write_text(text)
        own = {"PATH": f"{programs}:{Path(sys.executable).parent}:{os.environ['PATH']}", "SLURM_SUBMIT_DIR": str(tmp_path)}
        ids = {"SLURM_ARRAY_TASK_ID": "2", "SLURM_ARRAY_JOB_ID": "77", "SLURM_JOB_ID": "79"}
        given = os.environ | own | ids | environment
        return subprocess.Popen(
            ["bash", str(job)], env=given, cwd="/", text=True, stdout=-1, stderr=-2, start_new_session=True
        )

    return start


def requeued(folder: Path) -> list[str]:
    log = folder / "scontrol.log"
    return log.read_text().splitlines() if log.exists() else []


def soon(happened: Callable[[], object], seconds: float = 200) -> None:
    end = time.monotonic() + seconds
    while not happened():
        assert time.monotonic() < end
        time.sleep(0.05)


def states(database: Path) -> list[str]:
    """The states of its trials, as far as there are some."""
    if not database.exists():
        return []
    with closing(sqlite3.connect(f"file:{database}?mode=ro", uri=True)) as connection, suppress(sqlite3.OperationalError):
        return [state for (state,) in connection.execute("SELECT state FROM trials ORDER BY number")]
    return []


@pytest.mark.parametrize(
    "job",
    [
        JOB,
        Job(study="a~b=1", target="x.py", tasks=32, seconds=900, environment="source 'my venv/bin/activate'", gpus=0),
        Job(
            study="s",
            target="x.py",
            tasks=2,
            seconds=3e5,
            partition="gpu",
            account="a b",
            memory="8G",
            options=("--data", "/a b"),
            settled="the first shard that begins settles it",
        ),
    ],
)
def test_a_shell_checker_finds_nothing(job: Job, tmp_path: Path) -> None:
    (tmp_path / "job.sh").write_text(script(job))
    done = subprocess.run(["shellcheck", str(tmp_path / "job.sh")], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout


def test_what_is_asked_of_slurm() -> None:
    text = script(JOB)
    for line in ("array=1-4", "signal=B:USR1@300", "time=1-00:00:00", "requeue", "gres=gpu:1", "open-mode=append"):
        assert f"#SBATCH --{line}\n" in text
    assert "harness run 'study file.py' --shard \"$SLURM_ARRAY_TASK_ID/4\" --for 86100s &" in text
    assert re.search(
        r"sbatch --dependency=afterany:\$job .*--wrap='harness copy .*shards/fake\.\*-of-4\.db.* all\.db'", text
    )
    assert [clock(seconds) for seconds in (90, 3600, 90_061)] == ["00:01:30", "01:00:00", "1-01:01:01"]


@pytest.mark.parametrize("environment", [None, "source 'my venv/bin/activate'", 'source "$VENV"/bin/activate', "true"])
@pytest.mark.parametrize("study", ["fake", "a~b=1"])
def test_the_merge_is_run_by_sh_with_the_environment_of_bash(tmp_path: Path, environment: str | None, study: str) -> None:
    """As Slurm runs it: what `sbatch` is told to wrap is a script for /bin/sh."""
    job = Job(study, "x.py", 4, 900, partition="gpu", account="a b", environment=environment)
    programs, venv = tmp_path / "bin", tmp_path / "my venv"
    for path, text in (
        (
            programs / "sbatch",
            'for word; do case "$word" in --wrap=*) exec sh -c "${word#--wrap=}" ;; *) echo "$word" ;; esac; done',
        ),
        (programs / "harness", 'for word; do echo "harness $word"; done'),
        (venv / "bin" / "activate", "[[ -n $BASH_VERSION ]] && echo activated"),
        (tmp_path / "shards" / f"{study}.1-of-4.db", ""),
    ):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"#!/bin/sh\n{text}\n" if path.parent == programs else text)
        path.chmod(0o755)
    (line,) = [line for line in script(job).splitlines() if line.startswith("#   sbatch ")]
    given = os.environ | {"PATH": f"{programs}:{os.environ['PATH']}", "job": "79", "VENV": str(venv)}
    done = subprocess.run(["bash", "-c", line[1:]], env=given, cwd=tmp_path, capture_output=True, text=True, check=False)
    asked = ["--dependency=afterany:79", "--time=00:30:00", "--partition=gpu", "--account=a b"]
    words = ["copy", f"shards/{study}.1-of-4.db", "all.db"]
    activated = ["activated"] if environment and "source" in environment else []
    assert done.stdout.splitlines() == [*asked, *activated, *(f"harness {word}" for word in words)], done.stderr


def test_a_task_has_the_gpus_of_a_trial(tmp_path: Path) -> None:
    (tmp_path / "study.py").write_text(STUDY.replace(', trial="fakes:run"', ""))

    def slurm(*words: str) -> tuple[int, str, str]:
        done = CliRunner().invoke(app, ["slurm", str(tmp_path / "study.py"), "--split-arms", *words])
        return done.exit_code, done.stdout, str(done.exception or done.stderr)

    code, text, said = slurm("--gpus", "8", "--", "--gpus-per-trial", "4", "--data", "x")
    assert code == 0 and "#SBATCH --gres=gpu:4\n" in text and "#SBATCH --array=1-2\n" in text
    assert "#SBATCH --cpus-per-task=4\n" in text and '--gpus-per-trial 4 --data x --shard "$SLURM_ARRAY_TASK_ID/2"' in text
    for share in ("0.25", "auto", "1", "0"):
        text = slurm("--gpus", "2", "--", f"--gpus-per-trial={share}")[1]
        assert "#SBATCH --gres=gpu:1\n" in text and "#SBATCH --array=1-2\n" in text
    assert "#SBATCH --cpus-per-task=6\n" in slurm("--gpus", "6", "--", "--gpus-per-trial=6")[1]  # a core for each
    for words, refused in (
        (("--gpus", "6", "--", "--gpus-per-trial=4"), "--gpus 6: with --gpus-per-trial 4 a task has 4 GPUs; .* --gpus 4$"),
        (("--gpus", "2", "--", "--gpus-per-trial=4"), "--gpus 4$"),
        (("--gpus", "4", "--cpu-only", "--", "--gpus-per-trial", "4"), "leave one of them out"),
    ):
        code, text, said = slurm(*words)
        assert code != 0 and text == "" and re.search(refused, said), said


def test_it_is_said_what_the_first_shard_settles(tmp_path: Path) -> None:
    (tmp_path / "study.py").write_text(STUDY)
    words, own = ["slurm", str(tmp_path / "study.py"), "--gpus", "2"], ["--set", "training.precision=fp32"]
    done = CliRunner().invoke(app, words)
    said = "the first shard that begins settles training.precision (auto) and training.compile (auto) for all"
    assert f"\n# {said}; --set training.precision=fp32, say, chooses\n" in done.stdout and said in done.stderr
    done = CliRunner().invoke(app, [*words, *own, "--set", "training.compile=false"])
    assert "settles" not in done.stdout and done.stderr == ""


STUB = """#!/bin/bash
trap 'echo told; sleep 0.3; exit 143' USR1 TERM
echo "$@" > {folder}/words
if [ "$1" = run ] && [ -n "{wait}" ]; then for _ in $(seq 300); do sleep 0.1; done; fi
exit {code}
"""


@pytest.mark.parametrize(
    ("sent", "code", "restarts", "ends", "again"),
    [
        (None, 0, 0, 0, False),
        (None, 1, 0, 1, False),
        (None, 2, 0, 2, False),
        (None, 143, 0, 0, True),  # its own clock
        (None, 143, 200, 143, False),
        (None, 75, 2, 0, True),  # something has to be mended first, and may be by now
        (None, 75, 3, 75, False),
        (signal.SIGUSR1, 0, 3, 0, True),  # Slurm's
        (signal.SIGTERM, 0, 0, 143, False),  # scancel
    ],
)
def test_a_task_is_queued_again_when_there_is_more_to_do(
    task: Callable[..., subprocess.Popen[str]],
    tmp_path: Path,
    sent: int | None,
    code: int,
    restarts: int,
    ends: int,
    again: bool,
) -> None:
    stub = tmp_path / "bin" / "harness"
    stub.write_text(STUB.format(folder=tmp_path, code=code, wait=sent or ""))
    stub.chmod(0o755)
    with task(script(JOB), SLURM_RESTART_COUNT=str(restarts)) as shell:
        soon((tmp_path / "words").exists)
        if sent is not None:
            time.sleep(0.2)
            shell.send_signal(sent)
        assert shell.wait(200) == ends, shell.communicate()
        assert shell.stdout is not None and ("told" in shell.stdout.read()) == (sent is not None)
    assert requeued(tmp_path) == (["requeue 77_2"] if again else [])
    assert (tmp_path / "words").read_text() == "run study file.py --shard 2/4 --for 86100s\n"


def test_a_shard_is_checkpointed_queued_again_and_ends(task: Callable[..., subprocess.Popen[str]], tmp_path: Path) -> None:
    from harness.storage.reader import read_records

    (tmp_path / "study.py").write_text(STUDY)
    (tmp_path / "fakes.py").write_text(FAKES)
    text = script(Job(study="fake", target="study.py", tasks=2, seconds=86400, gpus=0, options=("--backend", "local")))
    url = tmp_path / "shards" / "fake.2-of-2.db"
    with task(text, FAKE_PAUSE="0.5") as shell:
        soon(lambda: states(url) or shell.poll() is not None)
        shell.send_signal(signal.SIGUSR1)
        assert shell.wait(200) == 0, shell.communicate()
    assert requeued(tmp_path) == ["requeue 77_2"]
    assert states(url)[-1] == "RUNNING"
    with task(text, SLURM_RESTART_COUNT="1") as shell:
        assert shell.wait(200) == 0, shell.communicate()
        assert shell.stdout is not None and "merge it with the others" in shell.stdout.read()
    assert requeued(tmp_path) == ["requeue 77_2"]
    records = read_records(f"sqlite:///{url}", 1)
    assert [(record.state, record.seed) for record in records] == [("complete", 1)] * 3
