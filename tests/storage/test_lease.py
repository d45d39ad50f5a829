"""One driver per study: who gets the lease, who keeps it, who notices that it is gone."""

import json
import multiprocessing
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, suppress
from dataclasses import asdict, replace
from multiprocessing.synchronize import Barrier
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Engine, Table, create_engine, inspect, update

from harness.errors import StorageError
from harness.storage import lease as subject
from harness.storage.lease import Lease, LeaseError, Process, ask_to_stop, born, holders, seen, this_process
from harness.storage.tables import engine_options, full, parse_url
from tests.conftest import theirs

ME = this_process()
Unreachable = Callable[[], AbstractContextManager[None]]
ELSEWHERE = replace(ME, host="node17", boot="another", pid=4242, born="99")


@pytest.fixture
def engine(storage: str) -> Iterator[Engine]:
    """A database with one study, number 1."""
    from optuna.study import StudyDirection

    theirs(storage).create_new_study([StudyDirection.MAXIMIZE], "tiny")
    engine = connect(storage, patience=0.2)
    yield engine
    engine.dispose()


def connect(url: str, patience: float) -> Engine:
    """An engine that does not wait long for a locked file."""
    options = engine_options(url)
    if "timeout" in options["connect_args"]:
        options["connect_args"] = {"timeout": patience}
    return create_engine(parse_url(url), **options)


def owned_by(engine: Engine, process: Process, *, left: float = 300.0, study_id: int = 1) -> None:
    """A lease that another process took."""
    Lease.take(engine, study_id)
    change(engine, owner=json.dumps(asdict(process)), expires=subject._clock(engine) + left)


def change(engine: Engine, **values: Any) -> None:
    with engine.begin() as connection:
        connection.execute(update(subject.leases).values(**values))


def soon(happened: Callable[[], object], seconds: float = 5.0) -> bool:
    end = time.monotonic() + seconds
    while not happened() and time.monotonic() < end:
        time.sleep(0.02)
    return bool(happened())


# taking


def race(url: str, barrier: Barrier, studies: int, results: Any) -> None:
    engine = connect(url, patience=30)
    won = []
    for study_id in range(1, studies + 1):
        barrier.wait(30)
        with suppress(LeaseError):
            won.append((study_id, Lease.take(engine, study_id).token))
    barrier.wait(30)  # nobody leaves, so nobody is seen dead
    results.put((os.getpid(), won))
    engine.dispose()


def test_of_many_drivers_one_wins_every_race(engine: Engine, storage: str) -> None:
    """A dead owner (studies 1 to 5), one of another host whose lease has ended (6 to 10), none yet (11 to 25)."""
    with engine.begin() as connection:
        subject.leases.create(connection)
        for study_id in range(1, 11):
            dead = json.dumps(asdict(replace(ME, born="1") if study_id <= 5 else ELSEWHERE))
            expires = subject._clock(engine) + (300 if study_id <= 5 else -1)
            values = {"study_id": study_id, "token": 7, "owner": dead, "taken": 1.0, "expires": expires, "stop": True}
            connection.execute(subject.leases.insert().values(values))
    context = multiprocessing.get_context("spawn")
    barrier, results = context.Barrier(4), context.Queue()
    drivers = [context.Process(target=race, args=(storage, barrier, 25, results)) for _ in range(4)]
    for driver in drivers:
        driver.start()
    won = dict(results.get(timeout=60) for _ in drivers)
    for driver in drivers:
        driver.join()
    winners = sorted(pair for pairs in won.values() for pair in pairs)
    assert winners == [(study_id, 8 if study_id <= 10 else 1) for study_id in range(1, 26)]


def test_drivers_may_make_the_table_at_once(storage: str, engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    Lease.take(engine, 1).release()
    monkeypatch.setattr(subject.leases, "create", lambda *_, **__: Table.create(subject.leases, engine, checkfirst=False))
    assert Lease.take(engine, 1).token == 2


def test_a_live_driver_refuses_a_second_and_says_who_it_is(engine: Engine, storage: str) -> None:
    Lease.take(engine, 1)
    with pytest.raises(LeaseError) as caught:
        Lease.take(engine, 1)
    words = str(caught.value)
    assert words.startswith(f"study 'tiny' is run by {ME.user} on {ME.host} (pid {os.getpid()}")
    assert " UTC, last renewed 0 s ago: end it with `harness stop tiny`" in words and "`--take-over`" in words
    assert "\n" not in words and "cannot be seen" not in words
    holder = holders(storage)[1]
    assert (holder.process, holder.alive, holder.seen, holder.token) == (ME, True, True, 1)
    assert abs(holder.since.timestamp() - time.time()) < 30 and 299 < holder.left <= 300
    assert Lease.take(engine, 2).token == 1  # another study is another lease


def test_a_killed_driver_is_followed_at_once(engine: Engine, storage: str) -> None:
    code = (
        "import sys, time; from sqlalchemy import create_engine; from harness.storage.lease import Lease\n"
        "with Lease.take(create_engine(sys.argv[1]), 1): print('taken', flush=True); time.sleep(60)"
    )
    with subprocess.Popen([sys.executable, "-c", code, full(storage)], stdout=subprocess.PIPE, text=True) as driver:
        assert driver.stdout and driver.stdout.readline() == "taken\n"
        with pytest.raises(LeaseError, match=rf"\(pid {driver.pid}"):
            Lease.take(engine, 1)
        driver.kill()
        assert soon(lambda: born(driver.pid) in ("", "ended"))  # not waited for: it may still be listed
        assert not holders(storage)[1].alive
        assert Lease.take(engine, 1).token == 2


def test_a_process_on_another_host_counts_until_its_lease_ends(engine: Engine, storage: str) -> None:
    owned_by(engine, ELSEWHERE, left=100)
    with pytest.raises(LeaseError, match=r"on node17 \(pid 4242\).*cannot be seen from here.*its lease ends in (100|99) s"):
        Lease.take(engine, 1)
    assert holders(storage)[1].seen is None
    change(engine, expires=subject._clock(engine) + 0.3)
    with pytest.raises(LeaseError):
        Lease.take(engine, 1)
    time.sleep(0.4)
    assert not holders(storage)[1].alive
    assert Lease.take(engine, 1).token == 2


def test_only_the_clock_of_the_database_counts(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    owned_by(engine, ELSEWHERE, left=1)
    monkeypatch.setattr(time, "time", lambda: 9e9)
    monkeypatch.setattr(subject, "uptime", lambda: 9e9)
    with pytest.raises(LeaseError):
        Lease.take(engine, 1)


def test_a_driver_seen_alive_keeps_even_an_expired_lease(engine: Engine) -> None:
    owned_by(engine, ME, left=-1000)  # stopped by Ctrl-Z, or just awake after a night
    with pytest.raises(LeaseError, match="last renewed 1300 s ago"):
        Lease.take(engine, 1)
    assert Lease.take(engine, 1, take_over=True).token == 2


@pytest.mark.parametrize("take_over", [False, True])
def test_what_happens_between_look_and_write_is_not_run_over(
    engine: Engine, monkeypatch: pytest.MonkeyPatch, take_over: bool
) -> None:
    """The owner renews at the last moment; another driver takes over a moment earlier."""
    owned_by(engine, ELSEWHERE, left=-1)
    write = subject._write

    def late(*given: Any) -> bool:
        monkeypatch.setattr(subject, "_write", write)
        change(engine, expires=subject._clock(engine) + 300, token=2 if take_over else 1)
        return write(*given)

    monkeypatch.setattr(subject, "_write", late)
    with pytest.raises(LeaseError, match="node17"):
        Lease.take(engine, 1, take_over=take_over)


def test_a_database_that_keeps_no_lease_is_refused(monkeypatch: pytest.MonkeyPatch, engine: Engine) -> None:
    monkeypatch.setattr(subject, "CLOCKS", {"another": ""})
    with pytest.raises(LeaseError, match=rf"cannot be run from a {engine.dialect.name} database: use one of another"):
        Lease.take(engine, 1)


# who lives


BOOTED = {"machine": "m", "boot": "b1", "namespace": subject.FIRST_NAMESPACE}
HERE = replace(ME, **BOOTED)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("owner", "lives"),
    [
        (HERE, True),
        (replace(HERE, born="1"), False),  # the number is used again
        (replace(HERE, born=""), None),
        (replace(HERE, namespace="pid:[4026532000]"), None),  # a container on this machine
        (replace(HERE, host="other"), None),
        (replace(HERE, boot="b0"), False),  # the machine was started again
        (replace(HERE, boot="b0", machine="n"), None),  # another machine of this name
        (replace(HERE, boot="b0", namespace="pid:[4026532000]"), None),
    ],
)
def test_a_process_is_told_from_others_of_its_number(owner: Process, lives: bool | None) -> None:
    assert seen(owner, HERE) is lives


@pytest.mark.parametrize(
    ("job", "restart", "lives"),
    [("71@lab", 1, False), ("71@lab", 2, None), ("71@lab", 3, None), ("72@lab", 1, None), ("", 0, None)],
)
def test_a_requeued_job_follows_itself_on_any_node(job: str, restart: int, lives: bool | None) -> None:
    assert seen(replace(ELSEWHERE, job=job, restart=restart), replace(HERE, job="71@lab", restart=2)) is lives


def test_a_requeued_job_takes_its_study_back_at_once(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SLURM_JOB_ID", "71")
    monkeypatch.setenv("SLURM_CLUSTER_NAME", "lab")
    owned_by(engine, replace(ELSEWHERE, job="71@lab"))
    with pytest.raises(LeaseError, match=r"\(pid 4242, Slurm job 71@lab\)"):
        Lease.take(engine, 1)
    monkeypatch.setenv("SLURM_RESTART_COUNT", "1")
    assert Lease.take(engine, 1).token == 2


def test_without_proc_the_start_comes_from_ps(monkeypatch: pytest.MonkeyPatch) -> None:
    if not Path("/bin/ps").exists():
        pytest.skip("no ps here")
    monkeypatch.setattr(Path, "exists", lambda _: False)
    assert len(born(os.getpid()).split()) == 5
    assert born(2**22 + 1) == ""


# keeping


def test_a_renewal_keeps_the_token_and_a_new_owner_raises_it(engine: Engine, storage: str) -> None:
    lease = Lease.take(engine, 1)
    change(engine, expires=subject._clock(engine) + 10)
    lease.renew()
    assert holders(storage)[1].left > 290
    assert (lease.token, holders(storage)[1].token) == (1, 1)
    lease.release()
    assert [Lease.take(engine, 1, take_over=True).token for _ in range(3)] == [2, 3, 4]


def test_a_driver_notices_that_it_was_taken_over(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(subject, "POLL", 0.05)
    with Lease.take(engine, 1) as old:
        assert old.must_stop == ""
        new = Lease.take(engine, 1, take_over=True)
        assert soon(lambda: old.must_stop)
        assert "study 'tiny' was taken over" in old.must_stop
        with pytest.raises(LeaseError, match="taken over"):
            old.renew()
    new.renew()  # what the old one gave back was not this


def test_the_thread_renews(engine: Engine, storage: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(subject, "POLL", 0.05)
    monkeypatch.setattr(subject, "RENEWAL", 0.2)
    with Lease.take(engine, 1):
        change(engine, expires=1.0)
        assert soon(lambda: holders(storage)[1].left > 290)
    assert holders(storage) == {}


def test_an_outage_is_borne_up_to_the_limit(
    engine: Engine, storage: str, unreachable: Unreachable, monkeypatch: pytest.MonkeyPatch
) -> None:
    words = {"sqlite": "database is locked", "postgresql": "not currently accepting connections"}[engine.dialect.name]
    for name, seconds in {"POLL": 0.05, "RENEWAL": 0.1, "LIMIT": 1.5, "EXPIRY": 6.0, "GRACE": 0.3}.items():
        monkeypatch.setattr(subject, name, seconds)
    with Lease.take(engine, 1) as lease:
        with unreachable():
            with pytest.raises(StorageError, match=words):
                lease.renew()
            time.sleep(0.5)
            assert lease.must_stop == ""
        assert soon(lambda: holders(storage)[1].left > 5.7)
        with unreachable():
            began = time.monotonic()
            assert soon(lambda: lease.must_stop)
            assert 1.0 < time.monotonic() - began < 4.0  # before the lease expires
            assert "could not be renewed for 2 s" in lease.must_stop and words in lease.must_stop
        assert soon(lambda: holders(storage)[1].left > 5.7)
        assert lease.must_stop  # for good


def test_a_machine_that_slept_renews_before_it_gives_up(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(subject, "POLL", 0.2)
    with Lease.take(engine, 1) as lease:
        late = subject.uptime() + 3600
        monkeypatch.setattr(subject, "uptime", lambda: late)
        assert not lease.must_stop
    alone = Lease.take(engine, 1)
    monkeypatch.setattr(subject, "uptime", lambda: late + subject.LIMIT + 1)
    assert alone.must_stop


def test_a_lease_given_back_is_free_at_once(engine: Engine, storage: str) -> None:
    lease = Lease.take(engine, 1)
    lease.release()
    assert holders(storage) == {}
    new = Lease.take(engine, 1)
    lease.release()
    assert new.token == 2 and holders(storage)[1].token == 2
    new.release()
    new.release()
    with pytest.raises(LeaseError):
        new.renew()


def test_giving_back_to_a_database_that_is_gone_is_silent(engine: Engine, unreachable: Unreachable) -> None:
    lease = Lease.take(engine, 1)
    with unreachable():
        lease.release()


def test_a_driver_is_asked_to_stop(engine: Engine, storage: str) -> None:
    assert ask_to_stop(storage, 1) is None
    with Lease.take(engine, 1) as lease:
        asked = ask_to_stop(storage, 1)
        began = time.monotonic()
        assert asked and asked.process == ME and holders(storage)[1].stop_asked
        assert soon(lambda: lease.stop_asked)
        assert time.monotonic() - began < 2
        assert not lease.must_stop
    assert ask_to_stop(storage, 1) is None
    with Lease.take(engine, 1) as lease:
        lease.look()
        assert not lease.stop_asked
    owned_by(engine, replace(ME, born="1"))
    assert ask_to_stop(storage, 1) is None


# the others at the table


def test_optuna_does_not_mind(engine: Engine, storage: str) -> None:
    import optuna

    Lease.take(engine, 1)
    code = "import sys; from optuna.cli import main; sys.exit(main())"
    command = [sys.executable, "-c", code, "storage", "upgrade", "--storage", full(storage)]
    assert "up-to-date" in subprocess.run(command, check=True, capture_output=True, text=True).stderr
    study = optuna.load_study(study_name="tiny", storage=theirs(storage))
    study.tell(study.ask(), 1.0)
    optuna.delete_study(study_name="tiny", storage=theirs(storage))
    assert holders(storage)[1].alive


def test_a_database_without_leases_is_only_read(engine: Engine, storage: str) -> None:
    assert holders(storage) == {}
    assert not inspect(engine).has_table(subject.leases.name)


def test_an_owner_of_another_version_is_read(engine: Engine, storage: str) -> None:
    Lease.take(engine, 1)
    change(engine, owner=json.dumps({"host": "h", "user": "u", "pid": 1, "colour": "red"}))
    assert holders(storage)[1].process == Process(host="h", user="u", pid=1)
