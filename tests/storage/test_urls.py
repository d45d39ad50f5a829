"""Storage URLs: which driver, what is shown of them, and what is said where something is missing."""

import sys
from pathlib import Path

import pytest

from harness.cli import main
from harness.errors import StorageError
from harness.storage.reader import read_studies
from harness.storage.store import Store
from harness.storage.tables import full, lasting, masked, parse_url, shown


@pytest.mark.parametrize(
    ("url", "seen", "driver"),
    [
        ("postgresql://me:secret@host/db", "postgresql://me:***@host/db", "postgresql+psycopg"),
        ("postgres://me@host/db", "postgresql://me@host/db", "postgresql+psycopg"),
        ("postgresql+psycopg2://me:secret@host/db", "postgresql+psycopg2://me:***@host/db", "postgresql+psycopg2"),
        ("postgresql://h/db?password=secret&user=me", "postgresql://h/db?password=***&user=me", "postgresql+psycopg"),
        ("postgresql://me:p%40secret@h/db", "postgresql://me:***@h/db", "postgresql+psycopg"),
        ("sqlite:////tmp/ab.db", "sqlite:////tmp/ab.db", "sqlite"),
    ],
)
def test_a_url_is_shown_without_its_password(url: str, seen: str, driver: str) -> None:
    assert shown(url) == seen
    assert parse_url(url).drivername == driver and parse_url(full(url)) == parse_url(url)


@pytest.mark.parametrize(
    "url",
    [
        "postgres//me:secret@host/db",
        "postgresql://me:p@secret@host/db",
        "postgresql://me:p@secret/x@host/db",
        "postgresql://me:secret@host:port/db",
        "me:secret@host",
        "db?password=secret",
    ],
)
def test_what_is_no_url_is_not_quoted_with_its_password(url: str) -> None:
    for refused in (read_studies, Store):
        with pytest.raises(StorageError, match="--storage") as caught:
            refused(url)
        assert "secret" not in str(caught.value) and "\n" not in str(caught.value)
    assert "secret" not in masked(f"could not connect to {url}")


def test_without_the_driver_its_package_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "psycopg", None)
    for opening in (read_studies, Store):
        with pytest.raises(StorageError) as caught:
            opening("postgresql://me:secret@host/db")
        remedy = "psycopg cannot be imported; pip install 'attention-harness[postgres]'"
        assert str(caught.value) == f"postgresql://me:***@host/db: {remedy}"


@pytest.mark.parametrize("where", ["line", "environment"])
def test_a_password_on_the_command_line_is_warned_of(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], where: str
) -> None:
    url = "postgresql://me:secret@127.0.0.1:1/db"
    monkeypatch.setattr("sys.argv", ["harness", "status", *(["--storage", url] if where == "line" else [])])
    monkeypatch.setenv("HARNESS_STORAGE", url)
    with pytest.raises(SystemExit) as ended:
        main.main()
    said = capsys.readouterr()
    lines = said.err.splitlines()
    assert ended.value.code == 2 and "secret" not in said.out + said.err
    assert [line.startswith("harness: note: a password on the command line is seen") for line in lines] == (
        [True, False] if where == "line" else [False]
    )
    assert "Connection refused" in lines[-1]


@pytest.mark.parametrize(
    ("url", "kept"),
    [
        ("postgresql://lab:secret@host:1234/db", "postgresql://lab@host:1234/db"),
        ("postgresql:///db?host=/run&password=secret", "postgresql:///db?host=%2Frun"),
        ("sqlite:///a.db", "sqlite:////here/a.db"),
    ],
)
def test_a_url_is_written_down_without_its_password_and_with_its_folder(
    url: str, kept: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert lasting(url) == kept.replace("/here", str(tmp_path))
