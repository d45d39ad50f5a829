"""What is confirmed, with which seeds, against what; the test part is read once a trial, whatever kills the driver."""

import contextlib
import os
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from harness.config import ExpAtt, ResNet, SqueezeExcite, Training
from harness.confirm import SUFFIX, Wanted, confirmation, confirming_study, fresh_seeds, name_of
from harness.design import AddOneIn, Listed, arms
from harness.errors import StudyError
from harness.execution.ledger import Ledger, Running, Watcher
from harness.key import trial_key
from harness.record import Record
from harness.run import Options, Summary, run_study
from harness.space import Params, choose, vary
from harness.storage.reader import read_records, read_studies
from harness.study import Exhaustive, Random, Study, SuccessiveHalving, maximize

SABOTEUR = Path(__file__).parent / "faults" / "saboteur.py"
attention = choose(None, SqueezeExcite(ratio=4), vary(ExpAtt, kernel=choose("gaussian", "cauchy")))
SPACE = vary(ResNet, depth=8, width=choose(0.5, 1.0), stages=(None, None, attention))
SEARCH = Study(name="search", question="Which?", space=SPACE, strategy=Random(trials=6), stopping=SuccessiveHalving())
PLAIN: Params = {"width": 1.0, "stages.3.attention": "none"}
SE: Params = {"width": 1.0, "stages.3.attention": "se"}
EXPATT: Params = {"width": 0.5, "stages.3.attention": "expatt", "stages.3.expatt.kernel": "cauchy"}


def record(number: int, params: Params, accuracy: float, size: int = 10, **fields: Any) -> Record:
    given = {"number": number, "state": "complete", "params": params, "key": "", "seed": 0, "config_json": {}}
    metrics = {"accuracy": accuracy, "loss": 1.0}
    return Record(**given | {"costs": {"params": size, "macs": size}, "metrics": metrics} | fields)


FOUND = [record(0, SE, 0.9, 20), record(1, EXPATT, 0.8, 10), record(2, SE | {"width": 0.5}, 0.7, 15)]


def made(wanted: Wanted = Wanted(), study: Study = SEARCH, records: list[Record] = FOUND) -> Study:  # noqa: B008
    return confirming_study(study.name, study.to_json(), records, wanted, (1000, 1001))


def design(study: Study) -> Listed:
    assert isinstance(study.strategy, Listed)
    return study.strategy


def test_the_front_is_confirmed_beside_the_best_one_without_its_attention() -> None:
    found = made()
    assert found.name == "search~confirm" and found.seeds == (1000, 1001)
    assert (found.stopping, found.constraints, found.question) == (None, (), "Which? (confirmed)")
    assert [(one.metric, one.direction) for one in found.objectives] == [
        ("test_accuracy", "maximize"),
        ("params", "minimize"),
        ("macs", "minimize"),
    ]
    assert design(found).configs == (PLAIN, SE, EXPATT) and design(found).numbers == ((), (0,), (1,))
    named = [arm.name for arm in arms(design(found), found.open_space())]
    assert named == ["plain", "stage 3 SE", "stage 3 ExpAtt · cauchy; width 0.5"]
    assert Study.from_json(found.to_json()).to_json() == found.to_json()


def test_the_best_and_named_trials_may_be_chosen() -> None:
    assert design(made(Wanted(top=1))).numbers == ((), (0,)) and design(made(Wanted(top=1))).rule == "the best"
    chosen = design(made(Wanted(trials=(2, 1))))
    assert chosen.numbers == ((), (1,), (2,)) and chosen.rule == "trials 2 and 1"
    stopped = [*FOUND, record(3, PLAIN, 0.0, state="stopped", metrics={}), record(4, SE, 0.0, state="failed")]
    again = design(made(Wanted(trials=(0, 3)), records=stopped))
    assert (again.configs, again.numbers) == ((PLAIN, SE), ((3,), (0,)))
    with pytest.raises(StudyError, match="--trials 4: it is failed; only trials that have a result"):
        made(Wanted(trials=(4,)), records=stopped)
    with pytest.raises(StudyError, match=r"--trials 9: study 'search' has no such trial .its last is 2"):
        made(Wanted(trials=(9,)))
    with pytest.raises(StudyError, match="has no complete trial yet, so there is nothing to confirm"):
        made(records=[])


def test_a_plain_config_that_was_found_is_the_baseline_and_named_by_its_trial() -> None:
    found = design(made(records=[*FOUND, record(3, PLAIN, 0.95)]))
    assert found.configs == (PLAIN,) and found.numbers == ((3,),)


def test_several_seeds_count_by_their_mean_and_a_design_brings_its_own_baseline() -> None:
    full = vary(
        ResNet, depth=8, stages=(None, None, choose(SqueezeExcite(ratio=4), ExpAtt(), SqueezeExcite(ratio=2, label="big")))
    )
    study = Study(name="design", space=full, strategy=Exhaustive(), seeds=(0, 1), objectives=(maximize("accuracy"),))
    rows = [
        record(0, {"stages.3.attention": "se"}, 0.99, seed=0),
        record(1, {"stages.3.attention": "se"}, 0.41, seed=1),
        record(2, {"stages.3.attention": "expatt"}, 0.75, seed=0),
        record(3, {"stages.3.attention": "expatt"}, 0.77, seed=1),
        record(4, {"stages.3.attention": "big"}, 1.0, seed=0),
    ]
    found = design(made(study=study, records=rows))
    assert (found.configs, found.numbers) == (({"stages.3.attention": "expatt"},), ((2, 3),))
    assert found.baseline == "the search's best", "the space has no plain network"
    other = Study(name="design", space=SPACE, strategy=AddOneIn(base=None), seeds=(0, 1))
    assert design(made(study=other)).baseline == "plain"


def test_epochs_given_take_the_place_of_a_choice_of_them() -> None:
    training = vary(Training, epochs=choose(5, 9), lr=choose(0.1, 0.2))
    study = Study(name="search", space=SPACE, training=training, strategy=Random(trials=3))
    rows = [record(n, SE | {"training.epochs": e, "training.lr": 0.2}, 0.8) for n, e in enumerate((5, 9))]
    found = made(Wanted(epochs=40), study, rows)
    assert design(found).numbers == ((), (0, 1)) and design(found).epochs == 40
    space = found.open_space()
    assert {space.config(params).training.epochs for params in design(found).configs} == {40}
    kept = made(study=study, records=rows)
    assert [kept.open_space().config(params).training.epochs for params in design(kept).configs] == [5, 5, 9]


def test_fresh_seeds_are_none_that_the_search_used() -> None:
    assert fresh_seeds(3, {0, 1}) == (1000, 1001, 1002)
    assert fresh_seeds(3, {0, 1000, 1002}) == (1001, 1003, 1004)
    assert fresh_seeds(4, {0}, (1000, 1001)) == (1000, 1001, 1002, 1003)
    assert fresh_seeds(2, {0, 1000}, (1000, 1001)) == (1001, 1002), "the search has used one since"
    for used in (set(range(2000)), {1000 + 2 * n for n in range(50)}):
        found = fresh_seeds(20, used)
        assert len(set(found)) == 20 and not used & set(found)


def test_a_score_of_the_test_part_is_in_the_key_and_asked_for_by_no_search() -> None:
    config = SEARCH.open_space().config(SE)
    assert trial_key(config, 0, "f", test="t") != trial_key(config, 0, "f") == trial_key(config, 0, "f", test="")
    for metric in ("test_accuracy", "test_loss"):
        with pytest.raises(StudyError, match=f"{metric}: the test part is not for choosing by it.*`harness confirm greedy`"):
            Study(name="greedy", space=SPACE, strategy=Random(trials=2), objectives=(maximize(metric),))
    with pytest.raises(StudyError, match="what confirms a study stops no trial"):
        Study(name="x", space=SPACE, strategy=design(made()), stopping=SuccessiveHalving())


def test_names_fit() -> None:
    assert (name_of("kernels"), name_of("kernels@2")) == ("kernels~confirm", "kernels~confirm")
    assert len(name_of("k" * 99)) <= 100 and name_of("k" * 99).endswith(SUFFIX) and name_of("k" * 99) != name_of("k" * 98)


# -- trained ----------------------------------------------------------------------------------------------------------


@pytest.fixture
def options(make_study: Callable[..., Study], storage: str, tmp_path_factory: pytest.TempPathFactory) -> Options:
    """A finished search in a database, and how to run what confirms it."""
    given, kept = Options(storage=storage, backend="local"), tmp_path_factory.getbasetemp() / "searched.db"
    if not kept.exists():
        space = vary(ResNet, depth=8, width=0.5, stages=(None, None, choose(None, SqueezeExcite(ratio=4))))
        training = Training(epochs=2, limit=10, batch_size=32, precision="fp32")
        study = make_study(space=space, training=training, strategy=Exhaustive(), objectives=(maximize("accuracy"),))
        run_study(study, Options(storage=f"sqlite:///{kept}", backend="local"))
    copy_database(f"sqlite:///{kept}", storage)
    return given


def confirmed(options: Options, **wanted: Any) -> Summary:
    return run_study(confirmation("tiny", options.storage, Wanted(trials=(0, 1), **wanted)).study, options)


def rows(options: Options, name: str = "tiny~confirm") -> list[Record]:
    return read_records(options.storage, read_studies(options.storage, name)[0].study_id)


def scores(records: list[Record]) -> list[tuple[Any, ...]]:
    return [
        (one.key, one.seed, one.metrics["test_accuracy"], one.metrics["test_loss"], one.provenance["weights"])
        for one in records
    ]


def test_the_test_part_is_scored_once_by_the_final_weights(options: Options) -> None:
    done = confirmed(options, seeds=2)
    assert (done.name, done.complete, done.planned) == ("tiny~confirm", 4, 4)
    found = rows(options)
    assert [one.seed for one in found] == [1000, 1000, 1001, 1001], "seed by seed, so that a half is whole"
    searched = rows(options, "tiny")
    assert not {one.seed for one in found} & {one.seed for one in searched}
    assert not any(set(one.metrics) & {"test_accuracy", "test_loss"} or one.test for one in searched)
    for one in found:
        assert one.test is not None and one.test["pictures"] == 359 and one.test["read"].startswith("20")
        assert {"accuracy", "test_accuracy", "test_loss", "test_top5"} <= one.metrics.keys()
        assert one.metrics["test_accuracy"] == pytest.approx(round(one.metrics["test_accuracy"] * 359) / 359)
    # the numbers are those of the kept weights, scored by hand
    import torch

    from harness.data.resident import statistics
    from harness.data.sources import open_data, open_test, split
    from harness.networks.build import build

    best = max(found, key=lambda one: one.metrics["test_accuracy"])
    content = torch.load(options_runs(options) / "tiny~confirm" / str(best.number) / "final.pt", weights_only=True)
    train, info = open_data(best.config.training, Path())
    network = build(best.config.network, info.shape, best.seed, "cpu")
    network.load_state_dict(content["network"])
    kept, _ = split(train.labels, 0.1, best.seed)
    mean, deviation = statistics(train.moments[kept], 64)  # type: ignore[union-attr]
    test, _ = open_test(best.config.training, Path())
    pixels = torch.from_numpy(test.images[:].copy()).permute(0, 3, 1, 2).float()  # type: ignore[union-attr]
    with torch.inference_mode():
        said = network.eval()((pixels - mean[:, None, None]) / deviation[:, None, None]).argmax(1)
    assert best.metrics["test_accuracy"] == float((said == torch.from_numpy(test.labels)).double().mean())


def options_runs(options: Options) -> Path:
    return Path(options.storage.removeprefix("sqlite:///")).parent / "runs"


def test_more_seeds_are_added_in_place_and_nothing_is_read_twice(options: Options) -> None:
    confirmed(options, seeds=2)
    before = rows(options)
    assert (again := confirmed(options)).trained == 0 and again.complete == 4, "as many seeds as there were"
    done = confirmed(options, seeds=3)
    assert (done.name, done.trained, done.complete) == ("tiny~confirm", 2, 6)
    assert scores(rows(options)[:4]) == scores(before)
    assert [one.test for one in rows(options)[:4]] == [one.test for one in before]
    with pytest.raises(StudyError, match="--seeds 2: tiny~confirm has 3 seeds already"):
        confirmed(options, seeds=2)
    with pytest.raises(StudyError, match="tiny~confirm: it confirms another study already"):
        confirmation("tiny~confirm", options.storage)


def test_another_choice_opens_a_revision_that_takes_over_what_holds(options: Options) -> None:
    run_study(confirmation("tiny", options.storage, Wanted(seeds=2, trials=(0,))).study, options)
    first = len(rows(options))
    done = confirmed(options)
    assert (done.name, done.reused + done.trained) == ("tiny~confirm@2", 4) and done.reused == first
    assert {one.reused["study"] for one in rows(options) if one.reused} == {"tiny~confirm"}


def test_a_search_takes_over_no_trial_that_has_seen_the_test_part(
    options: Options, make_study: Callable[..., Study]
) -> None:
    confirmed(options, seeds=2)
    stored = read_studies(options.storage, "tiny")[0].attributes["definition"]
    other = Study.from_json(stored | {"name": "other", "seeds": [1000]})
    done = run_study(other, options)
    assert (done.reused, done.trained) == (0, 2)
    assert not any("test_accuracy" in one.metrics for one in rows(options, "other"))


OWN = """
def run(context):
    for epoch in context.epochs():
        last = context.test and epoch == context.training.epochs
        yield {"miou": 0.1 * epoch} | ({"test_miou": 0.5 + 0.001 * (context.seed - 1000)} if last else {})

def blind(context):
    for epoch in context.epochs():
        yield {"miou": 0.1 * epoch}
"""


def test_a_loop_of_the_users_own_scores_the_test_part_with_its_last_epoch(
    options: Options, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "own_confirmed.py").write_text(OWN)
    monkeypatch.syspath_prepend(str(tmp_path))
    for loop in ("run", "blind"):
        fields = {"space": SPACE, "training": Training(epochs=2, limit=10, precision="fp32"), "strategy": Random(trials=2)}
        given = {"name": loop, "trial": f"own_confirmed:{loop}", "objectives": (maximize("miou", unit="%"),)}
        run_study(Study(**fields | given), options)
        found = confirmation(loop, options.storage, Wanted(seeds=2, top=1)).study
        assert [one.metric for one in found.objectives] == ["test_miou"] and found.learned == ("miou",)
        done = run_study(found, options)
        rows_of = rows(options, f"{loop}~confirm")
        if loop == "run":
            assert done.failed == 0
            assert {(one.seed, one.metrics["miou"], one.metrics["test_miou"]) for one in rows_of} == {
                (1000, 0.2, 0.5),
                (1001, 0.2, 0.501),
            }
            assert all(one.test for one in rows_of)
        else:
            assert {one.reason for one in rows_of} == {"the trial measured no test_miou, which is an objective"}


MOMENTS = [
    pytest.param("save:after:2", id="before it was scored"),
    pytest.param("finish:before:1", id="before it was told", marks=pytest.mark.faults_long),
]


@pytest.mark.parametrize("moment", MOMENTS)
def test_a_driver_killed_behind_the_last_epoch_scores_the_same_numbers(
    options: Options, tmp_path: Path, moment: str
) -> None:
    whole = tmp_path / "whole"
    whole.mkdir()
    there = Options(storage=f"sqlite:///{whole}/harness.db", backend="local")
    copy_database(options.storage, there.storage)
    confirmed(there, seeds=2)
    command = [sys.executable, str(SABOTEUR), "confirm", "tiny", "--trials", "0,1", "--seeds", "2", "--backend", "local"]
    environment = os.environ | {"SABOTAGE": moment, "HARNESS_STORAGE": options.storage, "FAKE_LOG": str(tmp_path / "log")}
    killed = subprocess.run(command, env=environment, cwd=tmp_path, capture_output=True, text=True, check=False, timeout=120)
    assert killed.returncode == -9, killed.stderr
    (left,) = rows(options)
    assert left.state == "running" and "test_accuracy" not in left.metrics
    epochs: list[int] = []
    done = run_study(confirmation("tiny", options.storage).study, options, watcher=Counting(epochs))
    assert (done.complete, done.failed) == (4, 0)
    assert len(epochs) == 3, "the killed trial had all its epochs: only the three others were trained"
    assert scores(rows(options)) == scores(rows(there))
    assert all(one.test for one in rows(options))


def copy_database(source: str, target: str) -> None:
    files = [url.removeprefix("sqlite:///") for url in (source, target)]
    with contextlib.closing(sqlite3.connect(files[0])) as one, contextlib.closing(sqlite3.connect(files[1])) as other:
        one.backup(other)


class Counting(Watcher):
    """Takes down the epochs that are trained."""

    def __init__(self, epochs: list[int]) -> None:
        self._epochs = epochs

    def advanced(self, ledger: Ledger, running: Running) -> None:
        self._epochs.append(len(running.curve))
