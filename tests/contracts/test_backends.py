"""What every backend must do with early stops: a stopped trial trains no further, its worker takes the next one."""

from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import optuna
import pytest
from optuna.trial import TrialState

from harness.config import ResNet, SqueezeExcite, Training
from harness.execution.backend import Resources
from harness.execution.ledger import Rules
from harness.record import Record
from harness.run import Options, run_study
from harness.space import choose, span, vary
from harness.storage.reader import read_records
from harness.study import Asha, Random, Study, SuccessiveHalving
from tests.conftest import theirs

LOOP = """
import hashlib, os
from pathlib import Path

def run(context):
    config = context.config
    name = hashlib.sha256(config.model_dump_json().encode()).hexdigest()
    try:
        for epoch in range(1, config.training.epochs + 1):
            with Path({log!r}).open("a") as log:
                log.write(f"{{os.getpid()}} {{name}} {{epoch}}\\n")
            yield {{"accuracy": int(name[:4], 16) / 0x10000 * epoch / config.training.epochs, "loss": 1 / epoch}}
    finally:
        with Path({log!r}).open("a") as log:
            log.write(f"{{os.getpid()}} {{name}} closed\\n")
"""
SPACE = vary(ResNet, depth=8, width=choose(0.5, 1.0), stages=(None, None, choose(None, SqueezeExcite(ratio=4))))
TRIALS = 20


@pytest.mark.parametrize("backend", ["local", "ray"])
def test_a_stopped_trial_trains_no_further_and_its_worker_goes_on(
    storage: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, backend: Any
) -> None:
    log, loop = tmp_path / "epochs.txt", f"loop_for_{backend}"  # a loop notes each epoch it trains, and that it was closed
    (tmp_path / f"{loop}.py").write_text(LOOP.format(log=log.name))
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.chdir(tmp_path)  # a relative path is the same file in a worker
    study = Study(
        name="s",
        space=SPACE,
        training=vary(Training, epochs=10, lr=span(0.01, 0.2, log=True)),
        strategy=Random(trials=TRIALS),
        stopping=SuccessiveHalving(quorum=4),
        trial=f"{loop}:run",
    )
    options = Options(storage=storage, backend=backend, resources=Resources(concurrency=2), code=(str(tmp_path),))
    done = run_study(study, options)
    records = read_records(storage, 1)
    assert (done.left, done.failed, done.complete + done.stopped) == (0, 0, TRIALS), done
    assert done.stopped > 4
    assert all(record.epochs in ((1, 3, 9) if record.state == "stopped" else (10,)) for record in records)
    assert done.saved == 10 * TRIALS - sum(record.epochs for record in records)

    lines = [line.split() for line in log.read_text().splitlines()]
    closed = [name for _, name, what in lines if what == "closed"]
    assert len(lines) - len(closed) == sum(record.epochs for record in records), "an epoch beyond a stop"
    assert len({process for process, _, _ in lines}) <= 2, "a worker was not used again"
    assert len(closed) >= TRIALS - 2, "a stopped loop is closed when its worker takes the next"

    trials = optuna.load_study(study_name="s", storage=theirs(storage)).trials
    states = Counter(trial.state for trial in trials)
    assert states == {TrialState.COMPLETE: done.complete, TrialState.PRUNED: done.stopped}
    assert [max(trial.intermediate_values) for trial in trials] == [record.epochs for record in records]


REAL = Study(
    name="s",
    space=SPACE,
    training=vary(Training, epochs=4, limit=20, batch_size=64, precision="fp32", lr=choose(0.02, 0.1, 0.3)),
    strategy=Random(trials=8),
)
STOPPING = REAL.model_copy(update={"stopping": Asha(quorum=2, reduction_factor=2)})


def result(record: Record) -> tuple[Any, ...]:
    """What must not depend on how often a trial was interrupted."""
    scores = [(point.epoch, point.accuracy, point.loss, point.train_loss) for point in record.curve]
    return record.state, record.provenance["weights"], record.value("accuracy"), scores


def test_a_promoted_trial_ends_with_the_bits_of_one_never_stopped(tmp_path: Path) -> None:
    found: dict[str, dict[str, Record]] = {}
    for name, study in (("whole", REAL), ("stopping", STOPPING)):
        (tmp_path / name).mkdir()
        options = Options(storage=f"sqlite:///{tmp_path}/{name}/harness.db", backend="local")
        run_study(study, options)
        found[name] = {record.key: record for record in read_records(options.storage, 1)}
    early = sorted(record.number for record in found["stopping"].values() if record.state == "stopped")
    assert len(early) >= 3
    gone, *_ = early
    for path in (tmp_path / "stopping" / "runs" / "s" / str(gone)).iterdir():
        path.unlink()
    done = run_study(STOPPING, replace(options, rules=Rules(promote=len(early), keep="all")))
    assert done.notes == (f"trained from the beginning, as their checkpoints are gone: trials {gone}",)
    new = read_records(options.storage, 1)[8:]
    assert sorted(record.promotes or 0 for record in new) == early
    assert all((record.inherited == 0) == (record.promotes == gone) for record in new)
    assert [result(record) for record in new] == [result(found["whole"][record.key]) for record in new]
    assert not list(tmp_path.rglob("last-*")), "what was promoted leaves no checkpoint"
