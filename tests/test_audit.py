"""`harness audit`: verdicts for a table that came from elsewhere, in words, JSON and papers' forms."""

import json
from pathlib import Path

import pytest
from scipy import stats
from typer.testing import CliRunner

from harness.analysis.effects import EffectError
from harness.analysis.outside import read_table
from harness.cli.main import app

PLAIN = [0.912, 0.905, 0.921, 0.899, 0.915, 0.908]
SE = [0.919, 0.915, 0.926, 0.909, 0.921, 0.912]
RUN = CliRunner()


@pytest.fixture
def file(tmp_path: Path) -> Path:
    rows = [f"{arm},{seed},{value}" for arm, values in (("se", SE), ("plain", PLAIN)) for seed, value in enumerate(values)]
    path = tmp_path / "runs.csv"
    path.write_text("\n".join(["arm,seed,accuracy", *rows]) + "\n")
    return path


def test_the_baseline_is_found_by_its_name_and_the_verdict_is_told(file: Path) -> None:
    found = RUN.invoke(app, ["audit", str(file), "--margin", "0.02"])
    assert found.exit_code == 0 and "baseline" in found.output and "helps" in found.output
    assert "columns: arm = arm, seed = seed, metric = accuracy" in found.output


def test_json_holds_scipys_numbers(file: Path) -> None:
    found = json.loads(RUN.invoke(app, ["audit", str(file), "--json", "--sensitivity"]).output)
    expected = stats.ttest_rel(SE, PLAIN)
    (effect,) = found["effects"]
    assert found["baseline"] == "plain" and effect["p"] == pytest.approx(expected.pvalue)
    assert effect["interval"] == pytest.approx(list(expected.confidence_interval(0.95)))
    assert any("sign-flip p = 0.0312 (it cannot be below 0.0312)" in line for line in found["notes"])


def test_a_loss_helps_where_it_is_smaller(file: Path) -> None:
    found = json.loads(RUN.invoke(app, ["audit", str(file), "--json", "--smaller-is-better"]).output)
    assert found["effects"][0]["verdict"] == "hurts"


@pytest.mark.parametrize(
    ("form", "words"), [("latex", r"\toprule"), ("markdown", "| arm | seeds |"), ("csv", "arm,seeds,mean")]
)
def test_forms_for_papers(file: Path, form: str, words: str) -> None:
    assert words in RUN.invoke(app, ["audit", str(file), "--as", form]).output


def test_one_seed_has_numbers_that_json_can_hold(tmp_path: Path) -> None:
    path = tmp_path / "one.csv"
    path.write_text("arm,seed,acc\nbase,0,0.9\nse,0,0.91\n")
    (effect,) = json.loads(RUN.invoke(app, ["audit", str(path), "--json"]).output)["effects"]
    assert effect["interval"] == [None, None] and effect["verdict"] == "undecided"


def test_a_baseline_that_nobody_named_is_said_to_be_the_first(tmp_path: Path, file: Path) -> None:
    path = tmp_path / "two.csv"
    path.write_text("arm,seed,acc\nfoo,0,0.9\nfoo,1,0.91\nbar,0,0.91\nbar,1,0.93\n")
    words = "Baseline: foo, the first in the file; --baseline names another."
    assert words in RUN.invoke(app, ["audit", str(path)]).output
    assert words not in RUN.invoke(app, ["audit", str(path), "--baseline", "foo"]).output
    assert "the first in the file" not in RUN.invoke(app, ["audit", str(file)]).output


TWO = "Name,seed,train/accuracy,val/accuracy\n" + "".join(f"{a},{s},0.9{s},0.8{s}\n" for a in "ab" for s in range(3))


def test_columns_that_are_called_alike_are_asked_for(tmp_path: Path) -> None:
    path = tmp_path / "tracked.csv"
    path.write_text(TWO)
    with pytest.raises(EffectError, match=r"the metric\? train/accuracy, val/accuracy are alike; name it by --metric$"):
        read_table(path)
    assert read_table(path, metric="val/accuracy").values["b"][2] == 0.82
    path.write_text(TWO.replace("val/accuracy", "accuracy", 1))
    assert read_table(path).metric == "accuracy"


def test_a_row_that_is_too_short_is_one_line(tmp_path: Path) -> None:
    path = tmp_path / "short.csv"
    path.write_text("arm,seed,acc\na,1,1\nb\n")
    with pytest.raises(EffectError, match=r"short\.csv, line 3: the row is too short"):
        read_table(path)
