"""harness measure: rows gain measurements and nothing else; a CSV is taken whole or not at all; a kill costs one network."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from harness.config import ResNet, Training
from harness.errors import HarnessError, StorageError, StudyError
from harness.execution.ledger import Rules
from harness.latency import Latency
from harness.measure import latency
from harness.measuring import Asked, CsvError, bring, measure_study
from harness.record import Measurement, Record
from harness.results import open_study
from harness.run import Options, run_study
from harness.space import choose, vary
from harness.storage.reader import read_records, read_studies
from harness.storage.store import Store
from harness.study import Exhaustive, Random, Study, SuccessiveHalving, at_most, maximize, minimize
from harness.trial import Assignment, Outcome, Report
from tests.execution.desk import INFO, Desk, attention, curve

PART = vary(ResNet, depth=8, stages=(None, None, attention))
BOTH = (maximize("accuracy"), minimize("latency"))


@pytest.fixture(autouse=True)
def briefly(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(latency, "WARM_UP", 0.005)
    monkeypatch.setattr(latency, "BLOCK", 0.001)


def desk_of(folder: Path, name: str = "timed", **fields: Any) -> Desk:
    given: dict[str, Any] = {"space": PART, "training": Training(precision="fp32"), "strategy": Exhaustive()}
    return Desk(folder, Study(name=name, **given | fields))


def measured_as(seconds: float, batch: int = 1) -> dict[str, Any]:
    found = Measurement("AMD (cpu)", batch, seconds, where="cpu", memory=1e6, precision="fp32", threads=1, source="trial")
    return found.to_json()


def outcome(assignment: Assignment) -> Outcome:
    """A made-up accuracy and, where the study asks for it, a latency."""
    accuracy = int(assignment.key[:4], 16) / 0x10000
    asked = tuple(measured_as(accuracy / 100, latency["batch"]) for latency in assignment.measure)
    metrics = {"accuracy": accuracy, "loss": 1.0} | ({"latency": asked[0]["latency"]} if asked else {})
    return Outcome("complete", metrics=metrics, device="AMD (cpu)", measured=asked)


def trained(desk: Desk, **options: Any) -> int:
    """Runs a study to its end; how many trials were handed out."""
    ledger, count = desk.open(**options), 0
    ledger.store.set_attributes(ledger.study_id, {"data": INFO.to_json(), "asked": desk.study.to_json()})
    while (assignment := ledger.next()) is not None:
        count += 1
        ledger.report(assignment.number, Report(curve(2), outcome(assignment)))
    assert ledger.done
    return count


def rows(desk: Desk) -> list[Record]:
    return read_records(desk.storage, read_studies(desk.storage, desk.study.name)[0].study_id)


def kept(record: Record) -> tuple[Any, ...]:
    """What a measurement does not change."""
    own = {name: value for name, value in record.metrics.items() if name not in ("latency", "inference_memory")}
    return record.number, record.state, record.key, record.params, record.curve, own, record.started, record.ended


# -- here -------------------------------------------------------------------------------------------------------------


def test_rows_gain_measurements_and_nothing_else(tmp_path: Path) -> None:
    desk = desk_of(tmp_path, seeds=(0, 1))
    trained(desk)
    before = rows(desk)
    done = measure_study("timed", desk.storage, Asked("cpu", (1, 2)))
    after = rows(desk)
    assert list(map(kept, after)) == list(map(kept, before)) and len(after) == 12
    assert [step.numbers for step in done.steps] == [(number, number + 1) for number in range(0, 12, 2)]
    for record in after:
        assert [(one.batch, one.source, one.where) for one in record.measured] == [
            (batch, "harness measure", "cpu") for batch in (1, 2)
        ]
        assert record.metrics["latency"] == record.measured[0].latency > 0  # the study says nothing: one picture, a thread
        assert record.metrics["inference_memory"] == record.measured[0].memory
    assert after[0].measured == after[1].measured != after[2].measured  # seeds share a network


def test_what_is_measured_is_not_measured_again_unless_asked(tmp_path: Path) -> None:
    desk = desk_of(tmp_path)
    trained(desk)
    measure_study("timed", desk.storage, Asked("cpu", trials=(1, 2)))
    first = rows(desk)
    assert [len(record.measured) for record in first] == [0, 1, 1, 0, 0, 0]
    done = measure_study("timed", desk.storage, Asked("cpu"))
    assert [step.numbers for step in done.steps] == [(0,), (3,), (4,), (5,)] and done.skipped == 2
    second = rows(desk)
    assert second[1].measured == first[1].measured
    assert measure_study("timed", desk.storage, Asked("cpu")).steps == []
    measure_study("timed", desk.storage, Asked("cpu", again=True))
    third = rows(desk)
    assert [len(record.measured) for record in third] == [1] * 6
    assert third[1].measured != second[1].measured
    measure_study("timed", desk.storage, Asked("cpu", threads=2, front=True))
    best = {record.number for record in open_study("timed", desk.storage).front()}
    assert {record.number for record in rows(desk) if len(record.measured) == 2} == best
    assert [record.metrics for record in rows(desk)] == [
        record.metrics for record in third
    ]  # two threads are another device


def test_the_value_that_a_trial_was_judged_by_stays(tmp_path: Path) -> None:
    desk = desk_of(tmp_path, objectives=BOTH)
    trained(desk)
    before = rows(desk)
    assert all(record.metrics["latency"] == record.measured[0].latency for record in before)
    measure_study("timed", desk.storage, Asked("cpu", again=True))
    after = rows(desk)
    assert [record.metrics["latency"] for record in after] == [record.metrics["latency"] for record in before]
    assert [[one.source for one in record.measured] for record in after] == [["trial", "harness measure"]] * 6


@pytest.mark.parametrize(
    ("asked", "words"),
    [
        (Asked("tpu"), "--device tpu: this machine measures on cpu or cuda; numbers of another come by --from FILE.csv"),
        (Asked("cpu", trials=(99,)), "--trials 99: trial 99 of timed is not one of the 6"),
    ],
)
def test_what_cannot_be_measured_is_one_line(tmp_path: Path, asked: Asked, words: str) -> None:
    desk = desk_of(tmp_path)
    trained(desk)
    with pytest.raises(HarnessError, match=words):
        measure_study("timed", desk.storage, asked)


def test_a_running_row_is_left_alone_and_so_are_the_others(tmp_path: Path) -> None:
    desk = desk_of(tmp_path)
    trained(desk)
    with Store(desk.storage) as store:
        number = store.begin(1, {}, {}, {"key": "k", "config": {}})
        with pytest.raises(StorageError, match=f"trial {number} is still running"):
            store.amend(1, (0, number), lambda row: {"measured": [measured_as(1.0)]})
    assert not any(record.measured for record in rows(desk))


def test_killed_in_the_middle_it_goes_on_with_the_rest(tmp_path: Path) -> None:
    desk = desk_of(tmp_path)
    trained(desk)
    before = rows(desk)
    command = [sys.executable, "-c", "from harness.cli.main import main; main()", "measure", "timed", "--device", "cpu"]
    command += ["--storage", desk.storage]
    environment = os.environ | {"PYTHONUNBUFFERED": "1"}
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment, cwd=tmp_path)
    assert process.stdout is not None
    assert process.stdout.readline().startswith("[1/6] trial 0: batch 1 ")
    process.send_signal(signal.SIGKILL)
    process.communicate()
    cut = rows(desk)
    count = sum(bool(record.measured) for record in cut)
    assert 1 <= count < 6 and list(map(kept, cut)) == list(map(kept, before))
    done = measure_study("timed", desk.storage, Asked("cpu"))
    assert len(done.steps) == 6 - count and done.skipped == count
    assert [len(record.measured) for record in rows(desk)] == [1] * 6


# -- from elsewhere ---------------------------------------------------------------------------------------------------


def written(folder: Path, text: str) -> Path:
    (folder / "phone.csv").write_text(text, "utf-8")
    return folder / "phone.csv"


def test_a_phone_s_numbers_are_brought_by_number_or_key(tmp_path: Path) -> None:
    desk = desk_of(tmp_path)
    trained(desk)
    before = rows(desk)
    text = "trial,key,device,batch,latency_ms,peak_memory_mb,spread_ms\n0,,Pixel 7,1,3.25,12,0.5\n"
    file = written(tmp_path, f"{text},{before[1].key},Pixel 7,1,4.5,,\n1,,Pixel 7,8,20,,\n")
    done = bring("timed", desk.storage, file)
    assert [step.numbers for step in done.steps] == [(0,), (1,)]
    first, second, third = rows(desk)[:3]
    (one,) = first.measured
    assert (one.device, one.batch, one.latency, one.memory, one.spread) == ("Pixel 7", 1, 3.25e-3, 12e6, 5e-4)
    assert (one.where, one.source) == ("", "phone.csv") and "latency" not in first.metrics
    assert [(one.batch, one.latency) for one in second.measured] == [(1, 4.5e-3), (8, 0.02)] and not third.measured
    bring("timed", desk.storage, file)
    assert [len(record.measured) for record in rows(desk)] == [1, 2, 0, 0, 0, 0]
    assert list(map(kept, rows(desk))) == list(map(kept, before))
    frame = open_study("timed", desk.storage).frame()
    assert frame["latency, batch 1 on Pixel 7"].tolist()[:2] == [3.25e-3, 4.5e-3]


def test_every_bad_row_is_named_and_nothing_is_written(tmp_path: Path) -> None:
    desk = desk_of(tmp_path)
    trained(desk)
    good = "0,Pixel 7,1,3.25"
    bad = ["1,Pixel 7,1,fast", "99,Pixel 7,1,5", "2,,1,3", "2,cuda,1,3", "3,Pixel 7,0,3", "3,Pixel 7,1,nan", "3,Pixel 7,1,0"]
    bad += ["3,Pixel 7", "3,Pixel 7,1,3,4", "0,Pixel 7,1,4", ",Pixel 7,1,4", "one,Pixel 7,1,4"]
    file = written(tmp_path, "\n".join(["trial,device,batch,latency_ms", good, *bad]))
    with pytest.raises(CsvError) as caught:
        bring("timed", desk.storage, file)
    words = str(caught.value)
    assert "\n" not in words and "12 of 13 rows are wrong, nothing was written: " in words
    assert [f"line {line}: " in words for line in range(2, 15)] == [False] + [True] * 12
    for reason in ("latency_ms = 'fast'", "number 99 is not in timed", "batch = '0'", "'Pixel 7' is there twice"):
        assert reason.replace("'Pixel 7' is", "Pixel 7 is") in words
    assert not any(record.measured for record in rows(desk))


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "it has no rows"),
        ("trial,device,batch,latency_ms\n", "it has no rows"),
        ("trial,device,batch,latency\n0,P,1,3\n", "column 'latency' is unknown; did you mean 'latency_ms'?"),
        ("device,batch,latency_ms\nP,1,3\n", "column 'trial' is missing"),
        ("trial,trial,device,batch,latency_ms\n0,0,P,1,3\n", "column 'trial' is there twice"),
        ("trial,device,batch,latency_ms\n0,\xff,1,3\n", "it is no CSV in UTF-8"),
    ],
)
def test_what_is_no_such_csv_is_one_line(tmp_path: Path, text: str, words: str) -> None:
    desk = desk_of(tmp_path)
    trained(desk)
    (tmp_path / "phone.csv").write_bytes(text.encode("latin-1"))
    with pytest.raises(CsvError) as caught:
        bring("timed", desk.storage, tmp_path / "phone.csv")
    assert words in str(caught.value)


# -- as objective and constraint --------------------------------------------------------------------------------------


def test_finished_trials_are_taken_over_with_the_latency_that_is_asked_for(tmp_path: Path) -> None:
    trained(desk_of(tmp_path, measure=(Latency(batch=1), Latency(batch=8))))
    same = desk_of(tmp_path, "same", objectives=BOTH, measure=(Latency(batch=8, device="cpu", threads=1),))
    assert trained(same) == 0
    assert all(record.metrics["latency"] == record.measured[1].latency for record in rows(same))
    other = desk_of(tmp_path, "other", objectives=BOTH, measure=(Latency(batch=4, device="cpu"),))
    assert trained(other) == 6


def test_a_study_may_choose_by_a_phone_among_what_is_finished(tmp_path: Path) -> None:
    desk = desk_of(tmp_path)
    trained(desk)
    bring("timed", desk.storage, written(tmp_path, "trial,device,batch,latency_ms\n0,Pixel 7,1,3\n4,Pixel 7,1,2\n"))
    for strategy in (Exhaustive(), Random(trials=6)):
        phone = desk_of(
            tmp_path, f"by-{strategy.kind}", strategy=strategy, objectives=BOTH, measure=(Latency(device="Pixel 7"),)
        )
        assert trained(phone) == 0
        if strategy.kind == "exhaustive":
            assert [record.metrics["latency"] for record in rows(phone)] == [3e-3, 2e-3]
            assert {record.number for record in open_study(phone.study.name, desk.storage).front()} <= {0, 1}


def test_over_a_bound_ends_untrained_and_is_no_failure(tmp_path: Path) -> None:
    desk = desk_of(
        tmp_path,
        objectives=(maximize("accuracy"),),
        constraints=(at_most("latency", 5e-3),),
        stopping=SuccessiveHalving(quorum=2),
    )
    ledger = desk.open()
    assignment = ledger.next()
    assert assignment is not None and assignment.bounds == ({"metric": "latency", "at_most": 5e-3, "at_least": None},)
    over = Outcome(
        "failed", {"latency": 6e-3}, reason="not trained: it is 6 ms", cause="bound", measured=(measured_as(6e-3),)
    )
    ledger.report(assignment.number, Report((), over))
    assert (ledger.untrained, ledger.finished["stopped"], ledger.finished["failed"], ledger.ladder.saved) == (1, 1, 0, 0)
    again = desk.open(rules=Rules(promote=5))
    (record,) = rows(desk)
    assert (record.state, record.curve, record.metrics, record.reason) == (
        "stopped",
        (),
        {"latency": 6e-3},
        "not trained: it is 6 ms",
    )
    assert again.untrained == 1 and again.next() != assignment and len(rows(desk)) == 2


def test_what_is_taken_over_is_within_the_bound(tmp_path: Path) -> None:
    trained(desk_of(tmp_path, measure=(Latency(),)))
    slowest = max(record.metrics["latency"] for record in rows(desk_of(tmp_path)))
    asked = (Latency(device="cpu", threads=1),)
    bound = desk_of(tmp_path, "bound", constraints=(at_most("latency", 0.999 * slowest),), measure=asked)
    assert trained(bound) == 0 and len(rows(bound)) == 5


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"measure": (Latency(), Latency())}, "give each device and batch size once"),
        (
            {"measure": (Latency(device="Pixel 7"),), "constraints": (at_most("latency", 1),)},
            "a trial cannot measure on 'Pixel 7'",
        ),
        ({"trial": "mylab.train:run", "objectives": BOTH}, "leave latency out, then `harness measure timed`"),
        ({"objectives": BOTH, "stopping": SuccessiveHalving()}, "latency is known only when a trial has ended"),
    ],
)
def test_studies_that_cannot_be_measured_are_refused(tmp_path: Path, fields: dict[str, Any], words: str) -> None:
    with pytest.raises(StudyError, match=words):
        desk_of(tmp_path, **fields)


def test_a_trial_measures_before_it_trains_and_trains_to_the_same_bits(make_study: Any, storage: str) -> None:
    space = vary(ResNet, depth=choose(8, 56))
    fields: dict[str, Any] = {"space": space, "strategy": Exhaustive()}
    bounds = (at_most("inference_memory", 1e6),)  # ResNet-8 holds 0.3 MB at 8x8, ResNet-56 3.4 MB
    options = Options(storage=storage, backend="local", rules=Rules(reuse=False))
    found = run_study(
        make_study(name="small", constraints=bounds, measure=(Latency(), Latency(batch=64)), **fields), options
    )
    assert (found.complete, found.stopped, found.untrained, found.failed) == (1, 1, 1, 0)
    assert {"training", "evaluation", "rest"} == set(found.spent) and found.spent["training"] > 0
    small, large = open_study("small", storage).records
    assert large.state == "stopped" and not large.curve and large.metrics["inference_memory"] > 1e6
    assert large.reason.startswith("not trained: inference_memory at most 1e+06 is wanted, measured was ")
    assert [one.batch for one in small.measured] == [1, 64] and small.metrics["latency"] == small.measured[0].latency
    assert {one.source for one in small.measured} == {"trial"} and small.measured[0].threads == 1
    run_study(make_study(name="plain", space=vary(ResNet, depth=choose(8, 14)), strategy=Exhaustive()), options)
    plain = open_study("plain", storage).records[0]
    assert plain.key == small.key and plain.provenance["weights"] == small.provenance["weights"]
    assert json.loads(json.dumps(small.measured[0].to_json())) == small.measured[0].to_json()
