"""The table says what the effects say, escapes what it shows, and names what is missing."""

import csv
import io
from pathlib import Path

import pytest

from harness.analysis.effects import EffectError, effects
from harness.analysis.outside import read_table
from harness.report.ablation import ablation, written

PLAIN = [0.912, 0.905, 0.921, 0.899, 0.915, 0.908]
SE = [0.919, 0.915, 0.926, 0.909, 0.921, 0.912]
VALUES = {
    "se & co_2 | <b>": {seed: value for seed, value in enumerate(SE) if seed != 3},
    "plain": dict(enumerate(PLAIN)),
}


def test_markdown_rounds_to_what_the_seeds_can_tell() -> None:
    lines = written(
        ablation(VALUES, "plain", "accuracy", margin=0.02, comment="study x -- commit y"), "markdown"
    ).splitlines()
    assert lines[0] == "<!-- study x - - commit y -->"
    assert lines[3] == "| plain | 6 | 91.00 ± 0.81 | - | - | - | baseline |"
    assert lines[4] == r"| se & co_2 \| <b> | 5 | **91.86 ± 0.67** | +0.64 | [+0.35, +0.93] | 0.003 | helps |"
    assert any("1 seed missing here or in the baseline (3)" in line for line in lines)


def test_latex_is_a_booktabs_table_with_its_marks_explained() -> None:
    text = written(ablation(VALUES, "plain", "accuracy", comment="study x"), "latex")
    assert text.startswith("% study x\n\\begin{tabular}{lrrrr}\n\\toprule\n")
    assert r"se \& co\_2 | $<$b$>$ & 5 & \textbf{91.86 $\pm$ 0.67} & +0.64$^{*}$ & [+0.35, +0.93] \\" in text
    assert r"$*$ differs from the baseline" in text and text.count(r"\\") == 3
    turned = written(ablation(VALUES, "se & co_2 | <b>", "accuracy"), "latex")
    assert r"plain & 6 & 91.00 $\pm$ 0.81 & $-$0.64$^{*}$ & [$-$0.93, $-$0.35] \\" in turned  # a minus, not a hyphen


def test_csv_holds_the_numbers_themselves() -> None:
    costs = {"plain": {"params": 10, "macs": 20}}
    rows = list(csv.DictReader(io.StringIO(written(ablation(VALUES, "plain", "accuracy", costs=costs), "csv"))))
    (effect,) = effects(VALUES, "plain")
    assert rows[0]["arm"] == "plain" and (rows[0]["params"], rows[0]["macs"]) == ("10", "20")
    assert float(rows[1]["difference"]) == effect.difference and float(rows[1]["p_holm"]) == effect.adjusted


def test_a_metric_that_is_no_share_keeps_its_unit() -> None:
    table = ablation({"a": {0: 1.2, 1: 1.3, 2: 1.25}, "b": {0: 1.1, 1: 1.3, 2: 1.2}}, "a", "loss", larger_is_better=False)
    assert "| a | 3 | 1.250 ± 0.124 |" in written(table, "markdown") and table.best == "b"


def outside(folder: Path, text: str) -> Path:
    file = folder / "runs.csv"
    file.write_text(text)
    return file


def test_a_trackers_export_is_read_by_its_usual_names(tmp_path: Path) -> None:
    found = read_table(outside(tmp_path, "Name;Seed;lr;val_acc\nbase;0;0.1;91.2 %\nbase;1;0.1;\nse;0;0.1;92\n"))
    assert (found.arm, found.seed, found.metric) == ("Name", "Seed", "val_acc")
    assert found.values == {"base": {0: 91.2}, "se": {0: 92.0}}


def test_a_tracker_that_names_each_run_has_its_arms_elsewhere(tmp_path: Path) -> None:
    rows = "r1,plain,0,0.9\nr2,plain,1,0.91\nr3,se,0,0.92\nr4,se,1,\n"
    found = read_table(outside(tmp_path, f"Name,params.model,params.seed,metrics.val_acc\n{rows}"))
    assert (found.arm, found.seed, found.metric) == ("params.model", "params.seed", "metrics.val_acc")
    assert found.values == {"plain": {0: 0.9, 1: 0.91}, "se": {0: 0.92}}


@pytest.mark.parametrize(
    ("text", "more", "words"),
    [
        ("arm,seed,accuracy\na,0,x\n", {}, "line 2: accuracy = 'x' is no number"),
        ("arm,seed,accuracy\na,0,nan\n", {}, "line 2: accuracy = 'nan' is not finite; leave a failed run's cell empty"),
        ("arm,seed,accuracy\na,0,1\na,0,1\n", {}, "line 3: arm 'a' has seed 0 twice"),
        ('arm,seed,accuracy\na,0,"0,9"\n', {}, "line 2: accuracy = '0,9' is no number; write a decimal point"),
        ("arm,seed,accuracy\na,1.5,1\n", {}, "line 2: seed = '1.5' is no whole number; number the repeats of an arm"),
        ("who,seed,accuracy\na,0,1\n", {}, "which column is the arm? It has who, seed, accuracy; name it by --arm"),
        ("arm,seed 0,seed 1\na,0.9,0.8\n", {}, "name it by --seed; a row for each arm and seed is needed"),
        (
            "Name,config.seed,config.attention,accuracy\nsunny-1,0,se,0.9\nfoggy-2,1,se,0.9\n",
            {},
            "which column is the arm? Name has another value in each row; It has Name, config.seed, config.attention,",
        ),
        (
            "arm,seed,accuracy\na,0,1\n",
            {"metric": "acuracy"},
            "no column 'acuracy' (it has arm, seed, accuracy); did you mean",
        ),
    ],
)
def test_a_bad_table_is_told_in_one_line(tmp_path: Path, text: str, more: dict[str, str], words: str) -> None:
    with pytest.raises(EffectError) as error:
        read_table(outside(tmp_path, text), **more)
    assert words in str(error.value) and "\n" not in str(error.value)


def test_a_file_that_is_not_there_is_told_in_one_line(tmp_path: Path) -> None:
    with pytest.raises(EffectError, match=r"none.csv cannot be read: No such file"):
        read_table(tmp_path / "none.csv")
