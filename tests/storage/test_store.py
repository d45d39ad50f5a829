"""The row protocol: begun whole, finished whole, frozen; and what Optuna itself reads of it."""

import math
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from pathlib import Path

import optuna
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.trial import TrialState
from sqlalchemy import create_engine

from harness.errors import StorageError
from harness.record import Epoch
from harness.storage import tables
from harness.storage.reader import read_records, read_studies
from harness.storage.store import Store
from harness.storage.tables import DatabaseAway, on_network_disk, shown, tune
from harness.study import maximize, minimize
from tests.conftest import theirs

OBJECTIVES = (maximize("accuracy"), minimize("params"))
SPACE = {
    "stages.3.attention": CategoricalDistribution(("none", "se", "expatt")),
    "stages.3.expatt.radius": FloatDistribution(0.5, 8.0, log=True),
    "training.epochs": IntDistribution(1, 9),
}
PARAMS = {"stages.3.attention": "expatt", "stages.3.expatt.radius": 2.5, "training.epochs": 3}
ATTRIBUTES = {"key": "k0", "seed": 7, "config": {"kind": "config"}, "costs": {"params": 10, "macs": 20}}
CURVE = (Epoch(1, 0.25, 2.0, 2.5, 0.5), Epoch(2, 0.5, 1.0, 1.5, 0.5))


sqlite_alone = pytest.mark.parametrize("storage", ["sqlite"], indirect=True)


def created(store: Store) -> int:
    study_id = store.create("study", OBJECTIVES)
    store.set_attributes(study_id, {"definition": {"name": "study"}, "created": "today"})
    return study_id


@sqlite_alone
def test_a_driver_killed_while_it_made_the_tables_leaves_a_database_that_the_next_one_completes(
    storage: str, tmp_path: Path
) -> None:
    """However many of the tables it had made: each is a commit of its own."""
    Store(storage).close()
    with sqlite3.connect(tmp_path / "harness.db") as whole:
        schema = [sql for (sql,) in whole.execute("SELECT sql FROM sqlite_master WHERE sql IS NOT NULL ORDER BY rowid")]
    assert len(schema) > 12
    for count in range(len(schema)):
        file = tmp_path / f"cut{count}.db"
        with sqlite3.connect(file) as cut:
            for statement in schema[:count]:
                cut.execute(statement)
        url = f"sqlite:///{file}"
        assert read_studies(url) == [], count
        with Store(url) as store:
            created(store)
        assert [study.name for study in read_studies(url)] == ["study"]
        assert optuna.load_study(study_name="study", storage=theirs(url)).trials == []


def test_optuna_reads_a_finished_row(storage: str) -> None:
    with Store(storage) as store:
        study_id = created(store)
        number = store.begin(study_id, PARAMS, SPACE, ATTRIBUTES)
        more = {"metrics": {"accuracy": 0.5}, "device": "a cpu"}
        store.finish(study_id, number, "complete", values=(0.5, 10.0), curve=CURVE, attributes=more)
    study = optuna.load_study(study_name="study", storage=theirs(storage))
    (trial,) = study.trials
    assert trial.state is TrialState.COMPLETE
    assert trial.params == PARAMS
    assert trial.values == [0.5, 10.0]
    assert trial.intermediate_values == {1: 0.25, 2: 0.5}
    assert trial.user_attrs | ATTRIBUTES | more == trial.user_attrs
    assert [direction.name for direction in study.directions] == ["MAXIMIZE", "MINIMIZE"]
    assert study.metric_names == ["accuracy", "params"]
    assert trial.duration is not None and 0 <= trial.duration.total_seconds() < 60


def test_a_row_is_whole_from_its_first_commit(storage: str) -> None:
    with Store(storage) as store:
        store.begin(created(store), PARAMS, SPACE, ATTRIBUTES)
    (trial,) = optuna.load_study(study_name="study", storage=theirs(storage)).trials
    assert trial.state is TrialState.RUNNING
    assert (trial.params, trial.user_attrs) == (PARAMS, ATTRIBUTES)
    (record,) = read_records(storage, 1)
    assert (record.state, record.key, record.seed, record.costs) == ("running", "k0", 7, ATTRIBUTES["costs"])


def test_a_row_is_finished_whole_or_not_at_all(storage: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with Store(storage) as store:
        study_id = created(store)
        store.begin(study_id, PARAMS, SPACE, ATTRIBUTES)
        with pytest.raises(TypeError, match="not JSON serializable"):
            store.finish(study_id, 0, "complete", values=(0.5, 10.0), curve=CURVE, attributes={"device": object()})
        (record,) = store.records(study_id)
        assert (record.state, record.curve, record.metrics) == ("running", (), {})
        store.finish(study_id, 0, "complete", values=(0.5, 10.0), curve=CURVE)
        assert store.records(study_id)[0].state == "complete"


def test_a_finished_row_is_frozen(storage: str) -> None:
    with Store(storage) as store:
        study_id = created(store)
        store.begin(study_id, PARAMS, SPACE, ATTRIBUTES)
        store.finish(study_id, 0, "failed", attributes={"reason": "diverged"})
        for change in (
            lambda: store.finish(study_id, 0, "complete", values=(1.0, 1.0)),
            lambda: store.progress(study_id, 0, CURVE),
        ):
            with pytest.raises(StorageError, match="trial 0 is FAIL already and cannot be changed"):
                change()
        (record,) = store.records(study_id)
    assert (record.state, record.reason, record.curve) == ("failed", "diverged", ())


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_a_value_that_is_no_number_is_never_stored(storage: str, value: float) -> None:
    with Store(storage) as store:
        study_id = created(store)
        store.begin(study_id, PARAMS, SPACE, ATTRIBUTES)
        with pytest.raises(ValueError, match="not finite"):
            store.finish(study_id, 0, "complete", values=(value, 1.0))
        assert store.records(study_id)[0].state == "running"


def test_progress_is_seen_and_replaced_by_the_whole_curve(storage: str) -> None:
    with Store(storage) as store:
        study_id = created(store)
        store.begin(study_id, PARAMS, SPACE, ATTRIBUTES)
        store.progress(study_id, 0, CURVE[:1])
        assert read_records(storage, study_id)[0].curve == CURVE[:1]
        store.finish(study_id, 0, "stopped", curve=CURVE)
    (trial,) = optuna.load_study(study_name="study", storage=theirs(storage)).trials
    assert (trial.state, trial.intermediate_values) == (TrialState.PRUNED, {1: 0.25, 2: 0.5})


def test_a_study_whose_creation_was_cut_short_is_completed(storage: str) -> None:
    optuna.create_study(study_name="study", storage=theirs(storage), directions=["maximize", "minimize"])
    assert read_studies(storage) == []
    with pytest.raises(StorageError, match="was not made by this harness"):
        read_studies(storage, "study")
    with Store(storage) as store:
        created(store)
    assert read_studies(storage, "study")[0].attributes["created"] == "today"


@pytest.mark.parametrize(
    ("directions", "trials"), [(["minimize", "minimize"], 0), (["maximize"], 0), (["maximize", "minimize"], 1)]
)
def test_a_study_of_somebody_else_is_left_alone(storage: str, directions: list[str], trials: int) -> None:
    foreign = optuna.create_study(study_name="study", storage=theirs(storage), directions=directions)
    for _ in range(trials):
        foreign.tell(foreign.ask(), [0.0] * len(directions))
    with Store(storage) as store, pytest.raises(StorageError, match="has a study 'study' that this harness did not make"):
        created(store)
    found = optuna.load_study(study_name="study", storage=theirs(storage))
    assert found.user_attrs == {} and found.metric_names is None and len(found.trials) == trials


@sqlite_alone
def test_a_finished_study_is_read_where_nothing_can_be_written(
    storage: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with Store(storage) as store:
        study_id = created(store)
        store.begin(study_id, PARAMS, SPACE, ATTRIBUTES)
        store.finish(study_id, 0, "complete", values=(0.5, 10.0), curve=CURVE)
    monkeypatch.setattr("harness.storage.tables.os.access", lambda *_: False)  # root may write anywhere
    assert [record.state for record in read_records(storage, study_id)] == ["complete"]
    assert [path.name for path in tmp_path.iterdir()] == ["harness.db"]


def test_a_write_whose_answer_was_lost_is_not_made_twice(storage: str, monkeypatch: pytest.MonkeyPatch) -> None:
    real = tables.readable

    def lose_the_next_answer() -> None:
        calls: list[int] = []

        @contextmanager
        def losing(url: str) -> Iterator[None]:
            with real(url):
                yield
            if not calls:
                calls.append(1)
                raise DatabaseAway("the connection was lost after the commit")

        monkeypatch.setattr("harness.storage.store.readable", losing)

    with Store(storage) as store:
        study_id = created(store)
        lose_the_next_answer()
        number = store.begin(study_id, PARAMS, SPACE, ATTRIBUTES)
        lose_the_next_answer()
        store.finish(study_id, number, "complete", values=(0.5, 10.0), curve=CURVE)
        monkeypatch.undo()
        (record,) = store.records(study_id)
    assert (record.number, record.state, len(record.curve)) == (0, "complete", 2)


@settings(max_examples=25, deadline=None, derandomize=True)
@given(
    choices=st.lists(
        st.one_of(st.text(max_size=8), st.integers(), st.floats(allow_nan=False), st.none()), min_size=1, max_size=4
    ),
    pick=st.integers(0, 3),
    real=st.floats(1e-6, 1e6),
    whole=st.integers(-100, 100),
)
def test_params_come_back_as_they_were(
    tmp_path_factory: pytest.TempPathFactory, choices: list[object], pick: int, real: float, whole: int
) -> None:
    storage = f"sqlite:///{tmp_path_factory.mktemp('round')}/trip.db"
    chosen = choices[choices.index(choices[pick % len(choices)])]
    params = {"a": chosen, "b": real, "c": whole}
    kinds = {"a": CategoricalDistribution(choices), "b": FloatDistribution(1e-6, 1e6), "c": IntDistribution(-100, 100)}  # type: ignore[arg-type]
    with Store(storage) as store:
        study_id = created(store)
        store.begin(study_id, params, kinds, ATTRIBUTES)  # type: ignore[arg-type]
        (record,) = store.records(study_id)
    assert record.params == params
    assert [type(record.params[name]) for name in params] == [type(value) for value in params.values()]


def test_a_database_out_of_reach_costs_time_and_nothing_else(
    storage: str, unreachable: Callable[[], AbstractContextManager[None]]
) -> None:
    with Store(storage) as store, ExitStack() as until:
        study_id = created(store)
        until.enter_context(unreachable())
        back = threading.Timer(1.0, until.pop_all().close)
        began = time.monotonic()
        back.start()
        assert store.begin(study_id, PARAMS, SPACE, ATTRIBUTES) == 0
        assert time.monotonic() - began > 0.5
        back.join()


def test_what_is_read_while_trials_run_waits_too(
    storage: str, unreachable: Callable[[], AbstractContextManager[None]]
) -> None:
    with Store(storage) as store, ExitStack() as until:
        study_id = created(store)
        store.begin(study_id, PARAMS, SPACE, ATTRIBUTES)
        for read in (
            lambda: [record.number for record in store.numbered(study_id, [0])] == [0],
            lambda: store.finished_elsewhere(study_id) == {},
            lambda: store.trial(-1) is None,
        ):
            until.enter_context(unreachable())
            back = threading.Timer(0.4, until.pop_all().close)
            back.start()
            assert read()
            back.join()


@sqlite_alone
def test_sqlite_writes_ahead_on_a_local_disk(storage: str, tmp_path: Path) -> None:
    with Store(storage) as store:
        created(store)
    assert sqlite3.connect(tmp_path / "harness.db").execute("PRAGMA journal_mode").fetchone() == ("wal",)


@pytest.mark.parametrize(
    ("path", "kind"),
    [("/home/me/x.db", "nfs4"), ("/home", "nfs4"), ("/homes/x.db", None), ("/scratch/x.db", "lustre"), ("/tmp/x.db", None)],
)
def test_network_disks_are_known_by_their_mounts(path: str, kind: str | None) -> None:
    mounts = "/dev/sda / ext4 rw 0 0\nserver:/home /home nfs4 rw 0 0\nfast /scratch lustre rw 0 0\n"
    assert on_network_disk(Path(path), mounts) == kind


def test_reading_what_is_not_there_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(StorageError, match=r"there is no database at .*missing\.db: start a study"):
        read_studies(f"sqlite:///{tmp_path}/missing.db")
    with pytest.raises(StorageError, match="there is no folder"):
        Store(f"sqlite:///{tmp_path}/nowhere/new.db")
    assert list(tmp_path.iterdir()) == []


def test_what_is_no_database_is_said_in_one_line(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("not a database at all, but long enough to be looked at\n" * 10)
    for opening in (read_studies, Store):
        with pytest.raises(StorageError, match="file is not a database") as caught:
            opening(f"sqlite:///{tmp_path}/notes.txt")
        assert "\n" not in str(caught.value)
    with pytest.raises(StorageError, match="not a database URL"):
        read_studies("harness.db")


def test_an_unknown_name_is_met_with_the_known_ones(storage: str) -> None:
    with Store(storage) as store:
        created(store)
    with pytest.raises(StorageError, match=r"has no study 'stdy' \(it has study\); did you mean 'study'\?"):
        read_studies(storage, "stdy")


def test_passwords_are_never_shown() -> None:
    assert shown("postgresql://me:secret@host/db") == "postgresql://me:***@host/db"
    with pytest.raises(StorageError) as caught:
        read_studies("postgresql+nodriver://me:secret@host/db")
    assert "secret" not in str(caught.value)


def test_a_database_whose_journal_is_just_being_changed_is_waited_for(tmp_path: Path) -> None:
    file = tmp_path / "new.db"
    other = sqlite3.connect(file, check_same_thread=False, isolation_level=None)
    other.execute("CREATE TABLE t (x)")
    other.execute("BEGIN EXCLUSIVE")  # in a rollback journal, as a new database is at first
    release = threading.Timer(0.5, other.rollback)
    release.start()
    engine = create_engine(f"sqlite:///{file}", connect_args={"timeout": 0})
    tune(engine)
    with engine.connect() as connection:
        assert connection.exec_driver_sql("PRAGMA journal_mode").scalar() == "wal"
    release.join()
    other.close()
    engine.dispose()
