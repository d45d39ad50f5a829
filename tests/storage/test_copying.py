"""Copies and merges: everything survives, in any order, however often, and whatever cuts them short."""

import os
import random
import re
import resource
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import optuna
import pytest
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.trial import TrialState, create_trial
from sqlalchemy import select, update

from harness.errors import HarnessError
from harness.record import Epoch
from harness.storage import tables
from harness.storage.copying import Copied, copy
from harness.storage.lease import Lease, LeaseError
from harness.storage.reader import read_records, read_studies
from harness.storage.store import Store
from harness.storage.tables import reading
from harness.study import Study, at_most
from tests.conftest import theirs
from tests.postgres import Server

Place = Callable[[str], str]
SPACE = {
    "stages.3.attention": CategoricalDistribution(("none", "se", None, 1.5)),
    "radius": FloatDistribution(0.5, 8.0, log=True),
    "epochs": IntDistribution(1, 9),
}
PARAMS: dict[str, Any] = {"stages.3.attention": None, "radius": 0.1 + 0.7, "epochs": 3}
CURVE = (Epoch(1, 0.25, 2.0, 2.5, 0.5), Epoch(2, 0.5, 1.0, 1.5, 0.5, radii={"2.1": (1.5,)}))
BOTH_WAYS = pytest.mark.parametrize(
    ("one", "other"),
    [
        ("sqlite", "sqlite"),
        pytest.param("sqlite", "postgresql", marks=pytest.mark.postgres),
        pytest.param("postgresql", "sqlite", marks=pytest.mark.postgres),
    ],
)


@pytest.fixture
def place(tmp_path: Path, request: pytest.FixtureRequest) -> Place:
    """The URL of a new database of a kind."""
    made: list[str] = []

    def new(kind: str = "sqlite") -> str:
        made.append(kind)
        if kind == "sqlite":
            return f"sqlite:///{tmp_path}/{len(made)}.db"
        server: Server = request.getfixturevalue("server")
        return server.url(server.fresh())

    return new


@pytest.fixture
def study(make_study: Callable[..., Study]) -> Study:
    return make_study()


def filled(url: str, study: Study, keys: str, *, accuracy: float = 0.5, **attributes: Any) -> str:
    """A database with a complete trial for each letter, which is its key."""
    with Store(url) as store:
        study_id = begun(store, study, **attributes)
        for key in keys:
            number = store.begin(study_id, PARAMS, SPACE, {"key": key, "seed": 7, "config": {}, "costs": {"params": 10}})
            metrics = {"metrics": {"accuracy": accuracy, "seconds": random.random()}}
            store.finish(study_id, number, "complete", values=(accuracy, 10.0, 20.0), curve=CURVE, attributes=metrics)
    return url


def begun(store: Store, study: Study, **attributes: Any) -> int:
    study_id = store.create(study.name, study.objectives)
    plain, places = study.to_json(), {"data": "/data", "runs": "/runs", "code": []}
    said = {"definition": plain, "asked": plain, "created": "2026-01-02", "data": {"fingerprint": "f1"}, "places": places}
    store.set_attributes(study_id, said | attributes)
    return study_id


def dump(url: str, name: str, *, numbers: bool = True) -> list[Any]:
    """Everything there is of a study's trials, in plain values; without numbers and origins in an order of its own."""
    found = []
    with reading(url) as connection:
        query = select(tables.trials).join(tables.studies, tables.trials.c.study_id == tables.studies.c.study_id)
        for row in connection.execute(query.where(tables.studies.c.study_name == name).order_by(tables.trials.c.number)):
            content: list[Any] = [row.state, row.datetime_start, row.datetime_complete, row.number if numbers else None]
            for table in (tables.trial_params, tables.trial_values, tables.trial_points, tables.trial_attributes):
                listed = connection.execute(select(table).where(table.c.trial_id == row.trial_id)).all()
                rows = [tuple(one)[2:] for one in listed]
                content.append(sorted((one for one in rows if numbers or one[0] != "origin"), key=repr))
            found.append(content)
    return found if numbers else sorted(found, key=repr)


def run(sources: list[str], target: str, *names: str, **options: Any) -> Copied:
    (found,) = copy(sources, target, names, **options)
    return found


@BOTH_WAYS
def test_everything_survives_there_and_back(place: Place, study: Study, one: str, other: str) -> None:
    first, second, third = place(one), place(other), place(one)
    with Store(first) as store:
        study_id = begun(store, study)
        for key, state in (("a", "failed"), ("b", "stopped"), ("a", "complete"), ("b", "complete"), ("c", "running")):
            told: dict[str, Any] = {"key": key, "seed": 7, "config": {"näme": "\u0000"}, "costs": {"params": 10, "macs": 20}}
            told |= {"replaces": 0} if (key, state) == ("a", "complete") else {}
            told |= {"promotes": 1, "inherited": 1} if (key, state) == ("b", "complete") else {}
            number = store.begin(study_id, PARAMS, SPACE, told)
            if state == "running":
                store.progress(study_id, number, CURVE[:1])
            else:
                values = (0.1 + 0.2, 1e-300, 3.0) if state == "complete" else ()
                why = {"reason": "no luck", "metrics": {"accuracy": 0.1 + 0.2}}
                store.finish(study_id, number, state, values=values, curve=CURVE, attributes=why)  # type: ignore[arg-type]
    found = run([first], second)
    assert (found.copied, found.there, found.left, found.conflicts) == (4, 0, 1, [])
    assert found.notes == ["1 trial is not finished and stays behind"]
    assert dump(second, "tiny", numbers=False) == dump(first, "tiny", numbers=False)[:4]
    run([second], third)
    assert dump(third, "tiny") == dump(second, "tiny")
    assert [record.replaces for record in read_records(third, 1)] == [None, None, 0, None]
    ours, copied = (optuna.load_study(study_name="tiny", storage=theirs(url)) for url in (first, third))
    for a, b in zip(ours.trials, copied.trials):
        for name in ("number", "state", "params", "distributions", "values", "intermediate_values"):
            assert getattr(a, name) == getattr(b, name)
        assert (a.datetime_start, a.datetime_complete) == (b.datetime_start, b.datetime_complete)
        assert b.user_attrs | a.user_attrs == b.user_attrs
    assert (ours.directions, ours.metric_names, ours.user_attrs["definition"]) == (
        copied.directions,
        copied.metric_names,
        copied.user_attrs["definition"],
    )
    assert "runs" not in copied.user_attrs["places"]
    assert copied.trials[1].user_attrs["origin"]["folder"] == "/runs/tiny/1"


@BOTH_WAYS
def test_in_any_order_and_however_often(place: Place, study: Study, one: str, other: str) -> None:
    """Keys of which some are in several databases, some trained twice with other results."""
    parts = [
        filled(place(one), study, "abc", created="2026-01-03"),
        filled(place("sqlite"), study, "bcd", accuracy=0.6),
        filled(place("sqlite"), study, "de", accuracy=0.7),
    ]
    run([parts[0]], parts[2])  # what one has of another is nothing new
    found, together = [], []
    for order in (parts, parts[::-1], [parts[1], parts[2], parts[0]])[: 3 if one == other else 2]:
        target = place(other)
        done = [run([part], target) for part in order]
        assert [again.copied for again in (run([part], target) for part in order)] == [0, 0, 0]
        assert sum(each.copied for each in done) >= 5
        found.append(dump(target, "tiny", numbers=False))
        assert [record.number for record in read_records(target, 1)] == list(range(5))
        assert sorted(record.key for record in read_records(target, 1)) == list("abcde")
        assert read_studies(target)[0].attributes["created"] == "2026-01-02"
        at_once = place(other)
        assert run(list(order), at_once).copied == 5
        together.append(dump(at_once, "tiny"))
    assert all(each == found[0] for each in found)
    assert all([row[:7] for row in each] == [row[:7] for row in together[0]] for each in together)


def test_a_key_trained_twice_is_told_and_the_first_kept(place: Place, study: Study) -> None:
    old, new = filled(place(), study, "ab"), filled(place(), study, "a", accuracy=0.6)
    found = run([old], new)
    assert (found.copied, found.there) == (2, 0) and len(found.conflicts) == 1
    assert found.conflicts[0].startswith("key a: accuracy 0.6 and 0.5; kept is trial 0 of sqlite://")
    assert [(r.number, r.key, r.metrics["accuracy"]) for r in read_records(new, 1)] == [(0, "a", 0.5), (1, "b", 0.5)]
    again = run([new], old)
    assert (again.copied, again.there, again.conflicts) == (0, 2, [])


def test_what_the_target_had_begun_is_ended_by_what_the_source_has_finished(place: Place, study: Study) -> None:
    target, source = place(), filled(place(), study, "ab")
    with Store(target) as store:
        store.begin(begun(store, study), PARAMS, SPACE, {"key": "b", "seed": 7})
    assert run([source], target).copied == 2
    assert [(r.number, r.key, r.state) for r in read_records(target, 1)] == [(0, "b", "complete"), (1, "a", "complete")]


def test_seeds_and_budget_are_those_of_all(place: Place, make_study: Callable[..., Study]) -> None:
    from harness.study import Exhaustive, Random

    for name, one, other in (
        ("searched", {"strategy": Random(trials=3)}, {"strategy": Random(trials=8), "question": "What?"}),
        ("designed", {"strategy": Exhaustive(), "seeds": (0, 1)}, {"strategy": Exhaustive(), "seeds": (1, 2)}),
    ):
        parts = [filled(place(), make_study(name=name, **fields), "a") for fields in (one, other)]
        whole = []
        for order in (parts, parts[::-1]):
            target = place()
            for part in order:
                run([part], target)
            whole.append(read_studies(target)[0].attributes["definition"])
        assert whole[0] == whole[1]
        assert whole[0]["strategy"].get("trials", 8) == 8 and set(whole[0]["seeds"]) == (
            {0} if name == "searched" else {0, 1, 2}
        )


@pytest.mark.parametrize(
    ("attributes", "fields", "said"),
    [
        ({}, {"training": {"epochs": 2}}, r"training\.epochs: 1 -> 2|training\.epochs: 2 -> 1"),
        ({"data": {"fingerprint": "f2"}}, {}, r"data: 'f2' -> 'f1'"),
    ],
)
def test_another_study_of_the_name_is_refused_with_a_remedy(
    place: Place, make_study: Callable[..., Study], attributes: dict[str, Any], fields: dict[str, Any], said: str
) -> None:
    from harness.config import Training

    source, changed = filled(place(), make_study(), "a"), {}
    if fields:
        changed = {"training": Training(**{"limit": 20, "batch_size": 64, "precision": "fp32"} | fields["training"])}
    target = filled(place(), make_study(**changed), "b", **attributes)
    before = dump(target, "tiny")
    with pytest.raises(HarnessError, match=said) as caught:
        run([source], target)
    assert "copy it beside that one with `--as NEWNAME tiny`" in str(caught.value) and "\n" not in str(caught.value)
    assert dump(target, "tiny") == before
    assert run([source], target, "tiny", rename="other").name == "other"
    stored = read_studies(target, "other")[0]
    assert stored.attributes["definition"]["name"] == stored.attributes["asked"]["name"] == "other"
    assert len(read_studies(target)) == 2


def test_what_cannot_be_copied_is_said_in_one_line(place: Place, study: Study, make_study: Callable[..., Study]) -> None:
    source = filled(place(), study, "a")
    filled(source, make_study(name="tinier"), "a")
    target = place()
    for words, given in (
        ("no study 'tinny' (there is tinier, tiny); did you mean 'tiny'?", ([source], target, ["tinny"])),
        ("source and target are one database; name another target, or --as NEWNAME", ([source], source, ["tiny"])),
        ("there is no database at", ([place()], target, [])),
    ):
        with pytest.raises(HarnessError, match=re.escape(words)):
            copy(*given)
    with pytest.raises(HarnessError, match="--as x: there is more than one study to copy"):
        copy([source], target, rename="x")
    assert run([source], source, "tiny", rename="twin").copied == 1  # beside itself, in one database
    with (
        Store(target) as store,
        Lease.take(store.engine, begun(store, study)),
        pytest.raises(LeaseError, match="study 'tiny' is run by"),
    ):
        run([source], target, "tiny")
    with Store(source) as store, Lease.take(store.engine, 1):
        (note,) = run([source], target, "tiny").notes
        assert f"pid {os.getpid()}" in note and "what is finished by now is copied" in note


def test_measurements_made_since_come_along(place: Place, study: Study) -> None:
    one = filled(place(), study, "a")
    other = place()
    run([one], other)
    for url, when in ((one, "2026-02-02"), (other, "2026-02-01")):
        with Store(url) as store:
            store.amend(
                1, [0], lambda _, when=when: {"measured": [{"device": "d", "batch": 1, "latency": 1.0, "measured": when}]}
            )  # type: ignore[misc]
    for source, target in ((one, other), (other, one), (one, other)):
        run([source], target)
    for url in (one, other):
        assert [each.measured for each in read_records(url, 1)[0].measured] == ["2026-02-01", "2026-02-02"]


@pytest.fixture
def few_files() -> Iterator[None]:
    """This process may open some 150 files more."""
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(int(one.name) for one in Path("/dev/fd").iterdir()) + 150, before[1]))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, before)


def test_more_databases_than_files_that_may_be_open(
    place: Place, study: Study, make_study: Callable[..., Study], tmp_path: Path, few_files: None
) -> None:
    parts = [filled(place(), study, "abc"), filled(place(), study, "bcd", accuracy=0.6), filled(place(), study, "de")]
    few, many = place(), place()
    run(parts, few)
    for index in range(99):
        shutil.copy(tmp_path / f"{index % 3 + 1}.db", tmp_path / f"part-{index:03}.db")
    sources = [f"sqlite:///{path}" for path in sorted(tmp_path.glob("part-*.db"))]
    last = filled(f"sqlite:///{tmp_path}/z.db", make_study(constraints=(at_most("macs", 1e6),)), "x")
    with pytest.raises(HarnessError, match=r"z\.db is not the one|not the one in .*z\.db"):
        run([*sources, last], many)
    assert read_studies(many) == []  # the last source is looked at before anything of the first is written
    found = run(sources, many)
    assert (found.copied, len(found.conflicts)) == (5, 3)
    assert [row[:7] for row in dump(many, "tiny")] == [row[:7] for row in dump(few, "tiny")]
    assert run(sources[::-1], many).copied == 0


KILLED = """
import os, signal, sys
from harness.storage import copying
copying.BATCH = 3
def progress(name, done, total):
    if done >= int(sys.argv[3]):
        os.kill(os.getpid(), signal.SIGKILL)
copying.copy([sys.argv[1]], sys.argv[2], progress=progress)
"""


@BOTH_WAYS
def test_killed_at_any_batch_it_goes_on(place: Place, study: Study, one: str, other: str) -> None:
    source, target, undisturbed = filled(place(one), study, "abcdefghij"), place(other), place(other)
    for done in (0, 3):
        words = [sys.executable, "-c", KILLED, source, target, str(done)]
        assert subprocess.run(words, check=False, timeout=100).returncode == -signal.SIGKILL
        assert len(read_records(target, 1)) % 3 == 0
    last = run([source], target)
    assert (last.copied, last.there) == (7, 3)
    run([source], undisturbed)
    assert [row[:7] for row in dump(target, "tiny")] == [row[:7] for row in dump(undisturbed, "tiny")]


@BOTH_WAYS
def test_a_study_of_plain_optuna_is_copied_as_it_is(place: Place, one: str, other: str) -> None:
    source, target = place(one), place(other)
    study = optuna.create_study(study_name="plain", storage=theirs(source), directions=["minimize", "maximize"])
    study.set_user_attr("who", "me")
    for index in range(3):
        told = {"user_attrs": {"a": [1]}, "system_attrs": {"b": 2}, "params": {"x": 0.5}}
        curve, values = {1: float("nan"), 2: float("-inf"), 3: 0.5}, [float("inf"), float(index // 2)]
        kinds = {"x": FloatDistribution(0, 1)}
        study.add_trial(create_trial(values=values, intermediate_values=curve, distributions=kinds, **told))
    study.enqueue_trial({"x": 0.25})
    study.ask()
    for copied in (3, 0):
        assert run([source], target).copied == copied
    found = optuna.load_study(study_name="plain", storage=theirs(target))
    assert found.user_attrs == {"who": "me"} and found.directions == study.directions
    assert [trial.state for trial in found.trials] == [TrialState.COMPLETE] * 3
    for a, b in zip(study.trials, found.trials):
        assert repr((a.params, a.values, a.intermediate_values)) == repr((b.params, b.values, b.intermediate_values))
        assert (a.user_attrs, a.system_attrs, a.datetime_complete) == (b.user_attrs, b.system_attrs, b.datetime_complete)


def test_rows_without_times_are_told_apart_by_what_they_are(place: Place) -> None:
    source, target = place(), place()
    study = optuna.create_study(study_name="plain", storage=theirs(source))
    for _ in range(2):
        study.add_trial(create_trial(value=1.0))
    with Store(source) as store, store.engine.begin() as connection:
        connection.execute(update(tables.trials).values(datetime_start=None, datetime_complete=None))
    assert [run([source], target).copied for _ in range(2)] == [2, 0]
    assert read_studies(target) == []  # plain Optuna's are not listed among ours
