"""A PostgreSQL server that crashes, goes away or falls silent while a study runs: time, not trials."""

import time
from collections.abc import Callable
from pathlib import Path

import pytest
from lab import Lab, searched

from tests.postgres import PASSWORD, USER, Server

MakeLab = Callable[[str, str], Lab]
pytestmark = [
    pytest.mark.postgres,
    pytest.mark.parametrize("make_lab", ["postgresql"], indirect=True),
]
STUDY = "Evolution(trials={}, population=4)"


@pytest.mark.parametrize("times", [2, pytest.param(8, marks=pytest.mark.faults_long)])
def test_restarted_under_load_as_after_a_crash(make_lab: MakeLab, server: Server, times: int) -> None:
    planned = 20 * times
    lab = make_lab(searched(STUDY.format(planned)), "server crashes and restarts")
    driver = lab.local(FAKE_PAUSE=0.02)
    for index in range(times):
        lab.wait_for_rows(driver, planned * (index + 1) // (times + 2))
        server.restart()
    assert driver.wait() == 0, driver.printed
    lab.assert_whole(planned, caused=times)


@pytest.mark.parametrize("seconds", [2, pytest.param(30, marks=pytest.mark.faults_long)])
@pytest.mark.parametrize("how", ["away", "silent"])
def test_out_of_reach_for_some_seconds(make_lab: MakeLab, server: Server, how: str, seconds: float) -> None:
    lab = make_lab(searched(STUDY.format(12)), f"server {how} for {seconds} s")
    driver = lab.local(FAKE_PAUSE=0.05)
    lab.wait_for_rows(driver, 3)
    with getattr(server, how)():
        time.sleep(seconds)
        assert driver.code is None, driver.printed
    assert driver.wait() == 0, driver.printed
    lab.assert_whole(12, caused=1)


def test_killed_while_the_server_is_away(make_lab: MakeLab, server: Server) -> None:
    lab = make_lab(searched(STUDY.format(12)), "kill -9 and the server restarts")
    driver = lab.local(FAKE_PAUSE=0.05)
    lab.wait_for_rows(driver, 3)
    with server.away():
        assert driver.shoot()
    lab.run_to_the_end()
    lab.assert_whole(12, caused=1)


def test_a_password_is_seen_nowhere(make_lab: MakeLab, server: Server) -> None:
    """In the URL, from the environment or from PGPASSWORD: in no output, file, row or command line."""
    lab = make_lab(searched("Random(trials=4)"), "password")
    place = f"127.0.0.1:{server.port}{lab.url[len('postgresql://') : lab.url.index('?')]}"
    secret, plain = f"postgresql://{USER}:{PASSWORD}@{place}", f"postgresql://{USER}@{place}"
    lab.url = plain
    wrong = lab.local(PGPASSWORD="wrong-one")
    assert wrong.wait() == 2 and wrong.printed.count("\n") == 1, wrong.printed
    assert "password authentication failed" in wrong.printed and "wrong-one" not in wrong.printed
    driver = lab.start("--backend", "local", fresh=True, PGPASSWORD=PASSWORD, FAKE_PAUSE=0.2)
    lab.url = secret
    lab.wait_for_rows(driver, 1)
    words = Path(f"/proc/{driver.pid}/cmdline").read_bytes()
    assert USER.encode() in words and PASSWORD.encode() not in words
    assert driver.wait() == 0, driver.printed
    told = lab.start(verb="status")
    assert told.wait() == 0 and "a password on the command line is seen" in told.printed
    report = lab.start("--out", str(lab.folder / "page"), verb="report")
    assert report.wait() == 0, report.printed
    files = [path for path in lab.folder.rglob("*") if path.is_file()]
    assert len(files) > 5
    assert [path for path in files if PASSWORD.encode() in path.read_bytes()] == []
    rows = lab.select(
        "SELECT value_json FROM study_user_attributes UNION ALL SELECT value_json FROM trial_user_attributes"
        " UNION ALL SELECT owner FROM harness_leases"
    )
    assert len(rows) > 20 and not any(PASSWORD in text for (text,) in rows)
    assert PASSWORD not in server.log
