"""One trial in this process: it learns, reports, goes on, and fails as an outcome."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from harness.code import source_hash
from harness.config import Config, ExpAtt, ResNet, Training
from harness.cost import network_cost
from harness.data.sources import open_data
from harness.trial import Assignment, Report, run_trial

TRAINING = Training(epochs=6, batch_size=32, limit=60, validation=0.2, precision="fp32", augment="crop", lr=0.2)


def assignment(tmp_path: Path, training: Training = TRAINING, **changes: Any) -> Assignment:
    network = ResNet(depth=8, stages=(None, None, ExpAtt()))
    _, info = open_data(training, Path())
    costs = network_cost(network, info.shape)._asdict()
    config = Config(network=network, training=training).model_dump(mode="json")
    given = {"study": "s", "number": 3, "key": "k", "seed": 0, "config": config, "costs": costs, "data": "data"}
    return Assignment(**given | {"fingerprint": info.fingerprint, "runs": str(tmp_path)} | changes)


def last(reports: list[Report]) -> Any:
    assert reports[-1].outcome is not None and all(report.outcome is None for report in reports[:-1])
    return reports[-1].outcome


def test_a_trial_learns_and_says_what_it_was(tmp_path: Path) -> None:
    reports = list(run_trial(assignment(tmp_path)))
    outcome = last(reports)
    assert outcome.state == "complete", outcome.traceback
    assert [len(report.curve) for report in reports] == [1, 2, 3, 4, 5, 6]
    assert outcome.metrics["accuracy"] == reports[-1].curve[-1].accuracy > 0.5
    assert outcome.provenance["threads"] == 1 and outcome.provenance["precision"] == "fp32"
    assert outcome.provenance["versions"]["torch"] and "(cpu)" in outcome.device
    assert all(Report.from_json(report.to_json()) == report for report in reports)


def test_an_interrupted_trial_ends_as_an_uninterrupted_one(tmp_path: Path) -> None:
    whole = list(run_trial(assignment(tmp_path / "whole")))
    interrupted = run_trial(assignment(tmp_path / "cut"))
    assert len(next(interrupted).curve) == 1 and len(next(interrupted).curve) == 2
    interrupted.close()
    rest = list(run_trial(assignment(tmp_path / "cut")))
    assert [len(report.curve) for report in rest] == [3, 4, 5, 6]
    assert last(whole).provenance["weights"] == last(rest).provenance["weights"], "the final weights differ in some bit"
    scores = [[(point.accuracy, point.loss, point.train_loss) for point in reports[-1].curve] for reports in (whole, rest)]
    assert scores[0] == scores[1]


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"trial": "loop_that_is_not:there"}, "there is no module loop_that_is_not"),
        ({"fingerprint": "other"}, "the pictures under data are not those the study was started with"),
        ({"costs": {"params": 1, "macs": 2}}, "the closed form says 1 params and 2 MACs, ptflops"),
        ({"config": {"kind": "transformer"}}, "kind = 'transformer': unknown part"),
    ],
)
def test_what_goes_wrong_is_an_outcome_with_a_reason(tmp_path: Path, changes: dict[str, Any], reason: str) -> None:
    outcome = last(list(run_trial(assignment(tmp_path, **changes))))
    assert outcome.state == "failed"
    assert reason in outcome.reason and "\n" not in outcome.reason
    assert "Traceback" in outcome.traceback


def test_a_loss_that_is_no_number_fails_and_keeps_the_curve(tmp_path: Path) -> None:
    wild = TRAINING.model_copy(update={"lr": 1e18, "warmup": 0.0})
    reports = list(run_trial(assignment(tmp_path, wild)))
    outcome = last(reports)
    assert outcome.state == "failed" and "the loss is" in outcome.reason and "try a smaller lr" in outcome.reason
    assert len(reports[-1].curve) < 6


LOOP = """
def run(context):
    for epoch in range(context.training.epochs):
        yield {"accuracy": 0.1 * epoch + 0.01 * context.seed, "loss": 1.0, "iou": 0.5}

def nothing(context):
    yield from ()

def wild(context):
    yield {"accuracy": float("nan")}
"""


@pytest.fixture
def loops(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    (tmp_path / "loops_of_trial.py").write_text(LOOP)
    monkeypatch.syspath_prepend(str(tmp_path))
    return "loops_of_trial"


def test_a_loop_of_the_users_own(tmp_path: Path, loops: str) -> None:
    reports = list(run_trial(assignment(tmp_path, trial=f"{loops}:run", seed=3)))
    assert last(reports).metrics["accuracy"] == pytest.approx(0.53) and last(reports).metrics["iou"] == 0.5
    assert [point.accuracy for point in reports[-1].curve] == pytest.approx([0.03, 0.13, 0.23, 0.33, 0.43, 0.53])
    assert "yielded nothing" in last(list(run_trial(assignment(tmp_path, trial=f"{loops}:nothing")))).reason
    assert "a metric is a finite number" in last(list(run_trial(assignment(tmp_path, trial=f"{loops}:wild")))).reason


def test_a_module_edited_since_the_run_began_is_not_trained(tmp_path: Path, loops: str) -> None:
    old = source_hash(f"{loops}:run")
    assert (
        last(list(run_trial(assignment(tmp_path, trial=f"{loops}:run", sources={f"{loops}:run": old})))).state == "complete"
    )
    other = last(list(run_trial(assignment(tmp_path, trial=f"{loops}:run", sources={f"{loops}:run": "0" * 16}))))
    assert other.cause == "source" and "was edited while the study ran" in other.reason


@pytest.mark.parametrize(
    ("changes", "cause", "reason"),
    [
        ({"runs": "gs://bucket/x"}, "store", "Please install gcsfs"),
        ({"trial": "loop_that_is_not:there"}, "module", "there is no module loop_that_is_not"),
        ({"fingerprint": "other"}, "pictures", "are not those the study was started with"),
    ],
)
def test_what_only_this_machine_may_lack_is_told_apart(
    tmp_path: Path, changes: dict[str, Any], cause: str, reason: str
) -> None:
    outcome = last(list(run_trial(assignment(tmp_path, **changes))))
    assert outcome.cause == cause and reason in outcome.reason and outcome.traceback


def test_a_machine_that_lacks_what_links_lead_to_lacks_the_pictures(tmp_path: Path) -> None:
    for file in ("train/cat/0.png", "train/dog/0.png", "test/cat/0.png", "test/dog/0.png"):
        (tmp_path / file).parent.mkdir(parents=True)
        (tmp_path / file).symlink_to(tmp_path / "not-mounted" / "here.png")
    for name in ("cat", "dog"):
        (tmp_path / "train" / name / "1.png").symlink_to(tmp_path / "not-mounted" / "here.png")
    config = Config(network=ResNet(depth=8), training=Training(dataset="folder", image_size=8)).model_dump(mode="json")
    outcome = last(list(run_trial(assignment(tmp_path, config=config, data=str(tmp_path)))))
    assert outcome.cause == "pictures" and "cat/0.png: not a readable picture (FileNotFoundError" in outcome.reason


def test_a_checkpoint_of_another_trial_is_left_alone(tmp_path: Path) -> None:
    first = run_trial(assignment(tmp_path))
    next(first)
    first.close()
    other = replace(assignment(tmp_path), key="another")
    assert len(next(run_trial(other)).curve) == 1
