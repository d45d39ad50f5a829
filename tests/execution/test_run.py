"""The main path, in this process: start, go on, refuse, resume, from Python as from the command line."""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import optuna
import pytest
from optuna.trial import TrialState

from harness.config import ResNet, Training
from harness.data.pictures import DataInfo
from harness.depot import Depot
from harness.errors import HarnessError, StorageError, StudyError
from harness.execution.ledger import Rules
from harness.hardware import Hardware
from harness.run import Options, Summary, resume_study, run_study, runs_place
from harness.shard import Shard
from harness.space import choose, vary
from harness.storage.reader import read_records, read_studies
from harness.storage.store import Store
from harness.study import Asha, Evolution, Exhaustive, Random, Study, SuccessiveHalving, at_most
from tests import s3
from tests.conftest import theirs

MakeStudy = Callable[..., Study]


@pytest.fixture
def options(storage: str) -> Options:
    return Options(storage=storage, backend="local")


def run(study: Study, options: Options, **more: Any) -> Summary:
    return run_study(study, options, **more)


def test_a_study_from_question_to_rows(make_study: MakeStudy, options: Options) -> None:
    done = run(make_study(), options)
    assert (done.planned, done.trained, done.complete, done.failed, done.left) == (4, 4, 4, 0, 0)
    study = optuna.load_study(study_name="tiny", storage=theirs(options.storage))
    assert [trial.state for trial in study.trials] == [TrialState.COMPLETE] * 4
    assert len(study.directions) == 3 and study.metric_names == ["accuracy", "params", "macs"]
    for trial in study.trials:
        assert {"key", "seed", "config", "costs", "metrics", "device", "provenance", "curve"} <= trial.user_attrs.keys()
        assert trial.values == [trial.user_attrs["metrics"]["accuracy"], *trial.user_attrs["costs"].values()]
    again = run(make_study(), options)
    assert (again.trained, again.complete) == (0, 4)


def test_the_same_trial_gives_the_same_numbers(make_study: MakeStudy, tmp_path: Path) -> None:
    study = make_study(strategy=Random(trials=2))
    found = []
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        here = f"sqlite:///{tmp_path}/{name}/harness.db"
        run(study, Options(storage=here, backend="local"))
        curves = [[(point.accuracy, point.loss) for point in record.curve] for record in read_records(here, 1)]
        found.append((curves, [record.key for record in read_records(here, 1)]))
    assert found[0] == found[1]


def test_what_is_auto_is_resolved_when_the_study_is_created(
    make_study: MakeStudy, options: Options, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("harness.training.device.hardware", lambda: Hardware("cpu", "fp32", False, True))
    study = make_study(training=Training(epochs=1, limit=10), strategy=Random(trials=1))
    run(study, options)
    monkeypatch.setattr("harness.training.device.hardware", lambda: Hardware("cpu", "bf16", False, True))
    run(study, Options(storage=options.storage, backend="local", rules=Rules(trials=1)))
    (stored,) = read_studies(options.storage)
    assert stored.attributes["definition"]["training"]["precision"] == "fp32"
    assert stored.attributes["definition"]["training"]["augment"] == "crop"
    assert stored.attributes["definition"]["training"]["compile"] is False
    assert stored.attributes["asked"]["training"]["precision"] == "auto"


def test_a_larger_budget_goes_on_and_another_question_is_taken_over(make_study: MakeStudy, options: Options) -> None:
    run(make_study(strategy=Random(trials=1)), options)
    more = run(make_study(strategy=Random(trials=3), question="Which one?"), options)
    assert (more.trained, more.complete, more.planned) == (2, 3, 3)
    assert read_studies(options.storage)[0].attributes["definition"]["question"] == "Which one?"


def test_a_raised_budget_is_what_a_resume_goes_by(make_study: MakeStudy, options: Options) -> None:
    run(make_study(strategy=Random(trials=1)), options)
    run(make_study(strategy=Random(trials=4)), Options(storage=options.storage, backend="local", rules=Rules(trials=2)))
    done = resume_study("tiny", options)
    assert (done.complete, done.planned) == (4, 4)


def test_a_runs_folder_that_cannot_be_written_is_said_before_any_trial(
    make_study: MakeStudy, storage: str, tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageError, match=r"--runs .*file/runs: .*file cannot be written"):
        run(make_study(), Options(storage=storage, backend="local", runs=tmp_path / "file" / "runs"))
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


@pytest.mark.parametrize("runs", ["s3://nobodys/runs", "s3://me:hush@bucket/runs", "gs://bucket/runs", "s4://bucket/runs"])
def test_a_store_that_cannot_be_used_is_one_line_before_anything_is_written(
    make_study: MakeStudy, store: s3.Server, tmp_path: Path, runs: str
) -> None:
    with pytest.raises(HarnessError, match=r"^--runs s?") as told:
        run(make_study(), Options(storage=f"sqlite:///{tmp_path}/harness.db", backend="local", runs=runs))
    assert "\n" not in str(told.value) and "hush" not in str(told.value)
    assert list(tmp_path.iterdir()) == []


def test_shards_keep_what_they_leave_apart_also_in_one_place(tmp_path: Path) -> None:
    def place(runs: str | Path | None, shard: str) -> Depot:
        rules = Rules(shard=Shard.parse(shard))
        return runs_place(Options(storage=f"sqlite:///{tmp_path}/s.db", runs=runs, rules=rules))

    assert str(place("s3://bucket/x", "3/32")) == "s3://bucket/x/3-of-32"
    assert place("s3://bucket/x/3-of-32", "3/32") == place("s3://bucket/x", "3/32"), "as its database says"
    assert str(place(None, "1/2")) == f"{tmp_path}/runs/1-of-2"
    assert place(tmp_path / "runs", "1/2") == place(None, "1/2") == place(tmp_path / "runs" / "1-of-2", "1/2")


def test_a_shard_that_was_begun_without_a_folder_of_its_own_goes_on_without(make_study: MakeStudy, tmp_path: Path) -> None:
    storage = f"sqlite:///{tmp_path}/shard.db"
    study, runs = make_study(strategy=Random(trials=4)), tmp_path / "weights"
    one = Options(storage=storage, backend="local", runs=runs, rules=Rules(trials=1, shard=Shard.parse("1/2")))

    def placed() -> str:
        return str(read_studies(storage)[0].attributes["places"]["runs"])

    def as_before() -> None:
        (stored,) = read_studies(storage)
        with Store(storage) as store:
            store.set_attributes(stored.study_id, {"places": stored.attributes["places"] | {"runs": str(runs)}})

    run(study, one)
    assert placed() == f"{runs}/1-of-2"
    run(study, one)
    assert placed() == f"{runs}/1-of-2"
    as_before()
    resume_study("tiny", Options(storage=storage, backend="local"))
    assert placed() == str(runs)
    run(study, one)
    assert placed() == str(runs)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"training": Training(epochs=2, limit=20, batch_size=64, precision="fp32")}, "training.epochs: 1 -> 2"),
        ({"constraints": (at_most("macs", 1e6),)}, "constraints: macs at most .* added: "),
        ({"stopping": Asha()}, "stopping: None -> asha"),
        ({"space": vary(ResNet, depth=choose(8, 14))}, r"network\.depth: 8 -> 8 \| 14"),
    ],
)
def test_a_changed_study_under_an_old_name_opens_a_revision_and_says_what_changed(
    make_study: MakeStudy, options: Options, change: dict[str, Any], said: str
) -> None:
    one = Options(storage=options.storage, backend="local", rules=Rules(trials=1))
    run(make_study(), one)
    done = run(make_study(**change), one)
    assert done.name == "tiny@2" and re.search(f"{said}.*tiny@2 is opened beside tiny", done.changes[0])
    assert [sum(stored.counts.values()) for stored in read_studies(options.storage)] == [1, 1]


def test_other_pictures_under_an_old_name_are_refused(
    make_study: MakeStudy, options: Options, monkeypatch: pytest.MonkeyPatch
) -> None:
    run(make_study(), Options(storage=options.storage, backend="local", rules=Rules(trials=1)))
    real = DataInfo.from_json
    monkeypatch.setattr(DataInfo, "from_json", lambda data: real(data | {"fingerprint": "other"}))
    with pytest.raises(StudyError, match="was begun on other pictures"):
        run(make_study(), options)


def test_an_edited_early_stopping_opens_a_revision(make_study: MakeStudy, options: Options) -> None:
    run(make_study(stopping=Asha()), Options(storage=options.storage, backend="local", rules=Rules(trials=1)))
    done = run(make_study(stopping=SuccessiveHalving(quorum=8)), options)
    assert (done.name, done.complete, done.reused) == ("tiny@2", 4, 1)
    assert "stopping.quorum: 6 -> 8; stopping.kind: 'asha' -> 'halving'" in done.changes[0]
    assert read_studies(options.storage, "tiny@1")[0].attributes["definition"]["stopping"] == Asha().model_dump()


def test_a_study_resumes_from_its_database_alone(make_study: MakeStudy, options: Options) -> None:
    run(make_study(), Options(storage=options.storage, backend="local", rules=Rules(trials=1)))
    done = resume_study("tiny", options)
    assert (done.trained, done.complete) == (3, 4)


def test_a_stop_between_epochs_leaves_the_rest_for_next_time(make_study: MakeStudy, options: Options) -> None:
    study = make_study(training=Training(epochs=3, limit=20, precision="fp32"), strategy=Random(trials=2))
    asked = iter([False] * 6 + [True] * 1000)
    cut = run(study, options, stop=lambda: next(asked))
    assert cut.left == 2 - cut.complete > 0
    assert {record.state for record in read_records(options.storage, 1)} <= {"running", "complete"}
    done = run(study, options)
    assert (done.complete, done.left) == (2, 0)
    assert [record.epochs for record in read_records(options.storage, 1)] == [3, 3]


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        (
            {"training": vary(Training, dataset=choose("digits", "cifar10"))},
            "dataset, limit, image_size, loading, skip_bad_images are one",
        ),
        ({"training": Training(dataset="cifar100")}, "cifar100 is not under"),
        ({"training": Training(image_size=32)}, "only for dataset='folder'"),
        ({"space": vary(ResNet, width=choose(1.0, 1.0001))}, "every value gives the same network"),
        ({"strategy": Exhaustive()}, r"stages.3.expatt.radius is continuous"),
        ({"constraints": (at_most("params", 10),)}, "nothing to train"),
    ],
)
def test_what_cannot_be_run_is_said_before_anything_is_written(
    make_study: MakeStudy, options: Options, tmp_path: Path, fields: dict[str, Any], said: str
) -> None:
    with pytest.raises(HarnessError, match=said):
        run(make_study(**fields), options)
    assert list(tmp_path.iterdir()) == []


def test_failed_trials_do_not_stop_a_study(make_study: MakeStudy, options: Options) -> None:
    wild = vary(Training, lr=choose(0.1, 1e30), epochs=2, limit=20, warmup=0.0, precision="fp32")
    done = run(make_study(space=ResNet(depth=8), training=wild, strategy=Exhaustive()), options)
    assert (done.complete, done.failed) == (1, 1)
    failed = next(record for record in read_records(options.storage, 1) if record.state == "failed")
    assert "the loss is" in failed.reason and failed.config.training.lr == 1e30


def test_summaries_name_the_best(make_study: MakeStudy, options: Options) -> None:
    done = run(make_study(strategy=Evolution(trials=3, population=2)), options)
    records = read_records(options.storage, 1)
    assert done.best["accuracy"] == max(record.value("accuracy") for record in records)
    assert done.best["params"] == min(record.value("params") for record in records)
