"""The page of a study that plain Optuna made: its front and trials, escaped, and nothing that runs it."""

import csv
from pathlib import Path

import optuna
import pytest
from optuna.trial import TrialState

from harness.errors import StorageError
from harness.report.plain import front, summary, write_plain
from harness.run import Options, resume_study
from harness.storage.copying import copy
from harness.storage.plain import read_plain
from harness.storage.reader import read_studies

HOSTILE = "<script>alert(1)</script>"


@pytest.fixture
def imported(tmp_path: Path) -> str:
    """A study of plain Optuna's, copied."""
    source, target = f"sqlite:///{tmp_path}/theirs.db", f"sqlite:///{tmp_path}/ours.db"
    study = optuna.create_study(study_name=HOSTILE, storage=source, directions=["maximize", "minimize"])
    for gain, cost in ((1.0, 5.0), (2.0, 6.0), (1.5, 7.0), (3.0, float("inf"))):
        trial = study.ask()
        trial.suggest_float("lr", 0, 1)
        trial.suggest_categorical(HOSTILE, ["</script><b>", None])
        study.tell(trial, [gain, cost])
    study.tell(study.ask(), state=TrialState.FAIL)
    copy([source], target)
    return target


def test_front_and_trials_are_shown(imported: str, tmp_path: Path) -> None:
    study = read_plain(imported, HOSTILE)
    assert study is not None and [trial.number for trial in front(study)] == [1, 0]
    assert summary(study).startswith(
        "4 complete and 1 failed; maximizing value 1 and minimizing value 2: 2 trials on the front."
    )
    page = write_plain(study, tmp_path / "out").read_text()
    body = page.partition("</head>")[2].rpartition('<script type="application/json"')[0]
    assert "<b>" not in body and "alert(1)</script>" not in body and "&lt;script&gt;alert(1)&lt;/script&gt;" in body
    rows = list(csv.DictReader((tmp_path / "out" / "trials.csv").read_text().splitlines()))
    assert [row["front"] for row in rows] == ["yes", "yes", "", "", ""]
    assert [row["value 2"] for row in rows] == ["5.0", "6.0", "7.0", "inf", ""]


def test_it_cannot_be_run(imported: str) -> None:
    assert read_studies(imported) == []
    with pytest.raises(StorageError, match=r"was not made by this harness: .*`harness report") as caught:
        resume_study(HOSTILE, Options(storage=imported, backend="local"))
    assert "\n" not in str(caught.value)
