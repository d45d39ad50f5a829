"""--on-finish tells how a run ended, and changes nothing of it."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from harness.cli import main
from harness.cli.driving import Driving
from harness.cli.options import DATABASE
from harness.cli.running import closing_words, finish
from harness.errors import HarnessError, StudyError
from harness.execution.backend import Resources
from harness.execution.cluster import Room
from harness.run import Options, Summary, run_study
from harness.storage.reader import read_studies
from harness.study import Random, Study

FOUND = Summary("tiny", "sqlite:///x.db", 4, 3, 2, 1, 1, 0, {}, 1.0, {})
WRITE = 'printf "%s" "$HARNESS_STUDY $HARNESS_STATE $HARNESS_COMPLETE $HARNESS_STOPPED $HARNESS_FAILED $HARNESS_LEFT" > told'


def ended(start: Callable[..., Any], command: str) -> int:
    with pytest.raises(SystemExit) as end:
        finish("tiny", Options(), Driving(on_finish=command, as_json=True), start)
    return int(end.value.code or 0)


@pytest.mark.parametrize(
    ("fields", "code", "told"),
    [
        ({"failed": 0}, 0, "tiny done 2 1 0 0"),
        ({}, 1, "tiny failed 2 1 1 0"),
        ({"trouble": "no space", "left": 2}, 75, "tiny interrupted 2 1 1 2"),
        ({"trouble": "all fail", "left": 2, "complete": 0, "stopped": 0, "failed": 5}, 1, "tiny failed 0 0 5 2"),
        ({"late": True, "left": 2}, 143, "tiny interrupted 2 1 1 2"),
    ],
)
def test_the_command_is_told(
    fields: dict[str, Any], code: int, told: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert ended(lambda **_: Summary(**{**vars(FOUND), **fields}), WRITE) == code
    assert (tmp_path / "told").read_text() == told


def test_an_error_is_told_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def start(**_: Any) -> Summary:
        raise StudyError("no")

    monkeypatch.chdir(tmp_path)
    with pytest.raises(StudyError):
        finish("tiny", Options(), Driving(on_finish=WRITE, as_json=True), start)
    assert (tmp_path / "told").read_text() == "tiny error    "


def test_time_that_is_up_before_a_machine_is_there_is_told_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def start(**_: Any) -> Summary:
        Room(1, None, stop=lambda: True).wait(lambda: False)
        return FOUND

    monkeypatch.chdir(tmp_path)
    assert ended(start, WRITE) == 143
    assert (tmp_path / "told").read_text() == "tiny interrupted    "


def test_a_cluster_that_is_not_there_is_told_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(HarnessError, match="--address localhost:1 cannot be reached"):
        finish("tiny", Options(resources=Resources(address="localhost:1")), Driving(on_finish=WRITE), lambda **_: FOUND)
    assert (tmp_path / "told").read_text() == "tiny error    "


def test_a_command_that_fails_is_one_line_and_changes_no_exit_code(capfd: pytest.CaptureFixture[str]) -> None:
    assert ended(lambda **_: FOUND, "echo loud; exit 7") == 1
    out, err = capfd.readouterr()
    assert json.loads(out)["name"] == "tiny"  # stdout is JSON alone
    assert err.splitlines() == ["loud", "harness: --on-finish echo loud; exit 7: exit code 7; the study is as it is"]


def test_confirm_tells_it_too(
    make_study: Callable[..., Study], storage: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run_study(make_study(strategy=Random(trials=2)), Options(storage=storage, backend="local"))
    monkeypatch.chdir(tmp_path)
    where = ["--storage", storage, "--backend", "local"]
    monkeypatch.setattr(
        "sys.argv", ["harness", "confirm", "tiny", "--top", "1", "--seeds", "2", *where, "--on-finish", WRITE]
    )
    with pytest.raises(SystemExit) as end:
        main.main()
    found = read_studies(storage, "tiny~confirm")[0]
    assert not end.value.code and found.counts["complete"] >= 2
    assert (tmp_path / "told").read_text() == f"tiny~confirm done {found.counts['complete']} 0 0 0"


def test_what_is_left_goes_on_where_it_ran() -> None:
    left = replace(FOUND, left=2, failed=0)
    assert "2 trials left: `harness resume tiny` goes on" in closing_words(left, DATABASE)
    assert "2 trials left: `harness resume tiny --address auto` goes on" in closing_words(left, DATABASE, "auto")
