"""A table in a paper is found and held against the study: edits that only look otherwise agree, others are named."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from harness.report.ablation import ablation, sheet, written
from harness.report.facts import gather
from harness.report.fronts import front_csv, front_sheet
from harness.report.papers import PaperError, agrees, check
from harness.report.sheet import Cell, latex, markdown
from tests.report.sample import ATTRIBUTES, STUDY, records

PLAIN = [0.912, 0.905, 0.921, 0.899, 0.915, 0.908]
VALUES = {
    "base": dict(enumerate(PLAIN)),
    "stage 3 SE · ratio 8": dict(enumerate([0.919, 0.915, 0.926, 0.909, 0.921, 0.912])),
    "kernel_l2 & 50% <x>": dict(enumerate([0.911, 0.906, 0.921, 0.899, 0.915, 0.909])),
}
COSTS = {
    "base": {"params": 272_474, "macs": 40_813_184},
    "stage 3 SE · ratio 8": {"params": 280_346, "macs": 40_999_999},
    "kernel_l2 & 50% <x>": {"params": 272_474, "macs": 41_500_000},
}
TABLE = ablation(VALUES, "base", "accuracy", margin=0.02, costs=COSTS, comment="study kernels, commit f00, 2025-06-03")
SHEET = sheet(TABLE)
LATEX, MARKDOWN = latex(SHEET), markdown(SHEET)
OTHER = "\\begin{tabular}{lr}\nmodel & accuracy \\\\\nResNet & 99.99 \\\\\nVGG & 1.0 \\\\\n\\end{tabular}\n"


def told(text: str) -> list[tuple[str, str, str, str]]:
    return [(one.row, one.column, one.there, one.now) for one in check(text, SHEET, "kernels", "p.tex").wrong]


def test_costs_are_readable_and_the_best_of_each_column_is_bold() -> None:
    assert "& params (k) & macs (M)" in LATEX and "| params (k) | macs (M) |" in MARKDOWN
    assert r"\textbf{91.700 $\pm$ 0.654}" in LATEX and "**91.700 ± 0.654**" in MARKDOWN
    assert LATEX.count(r"\textbf{272.5}") == 2 and LATEX.count(r"\textbf{40.81}") == 1 and "280.3" in MARKDOWN


@pytest.mark.parametrize("text", [LATEX, MARKDOWN])
def test_what_export_wrote_agrees_among_other_text(text: str) -> None:
    found = check(f"Intro, 5 % more.\n\n{OTHER}\nText & more \\\\ \n{text}\nThe end.", SHEET, "kernels", "p.tex")
    assert found.wrong == () and found.notes == () and found.cells == (18 if text is LATEX else 24)
    assert found.tables == (11,)


def test_an_edited_cell_is_named_with_its_line() -> None:
    text = LATEX.replace("+0.700$^{*}$", "+0.90$^{*}$").replace("40.81", "40.18")
    (mean, macs) = check(text, SHEET, "kernels", "p.tex").wrong[::-1]
    assert (macs.row, macs.column, macs.there, macs.now) == ("base", "macs (M)", "40.18", "40.81")
    assert str(mean) == ("line 7: row 'stage 3 SE · ratio 8', column 'difference': there '+0.90*', now '+0.700*'")
    assert text.splitlines()[6].startswith("stage 3 SE")


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (r"$\pm$ 0.654", r"\pm 0.7"),
        ("+0.700$^{*}$", r"$+0.7^{*}$"),
        (r"\textbf{91.700 $\pm$ 0.654}", r"\textbf{91.7\%}"),
        ("280.3", r"0.28\,M"),
        ("params (k)", "Params (k)"),
        (r"\toprule", r"\hline % a remark & more \\"),
        ("& - & -", "& --- &"),
        (r"{lrrrrrr}", r"{@{}l*{6}{r}@{}}"),
        (r"\midrule", "\\midrule\n\\multicolumn{7}{l}{\\emph{CIFAR-10}} \\\\"),
        ("[+0.504, +0.896]", "$+0.50$ to $+0.90$"),
    ],
)
def test_a_hand_that_only_dresses_differently_is_left_alone(old: str, new: str) -> None:
    assert old in LATEX
    assert told(LATEX.replace(old, new)) == []


@pytest.mark.parametrize(
    ("old", "new", "there"),
    [
        ("+0.700$^{*}$", "+0.700", "+0.700"),
        ("+0.700$^{*}$", "+0.8$^{*}$", "+0.8*"),
        ("+0.700$^{*}$", "-0.70$^{*}$", "-0.70*"),
        ("280.3", r"0.28\,k", r"0.28 k"),
        ("[+0.504, +0.896]", "[+0.504]", "[+0.504]"),
        ("[+0.504, +0.896]", "n/a", "n/a"),
        (r"\textbf{91.700 $\pm$ 0.654}", "", ""),
        ("params (k)", "params (M)", "272.5"),
    ],
)
def test_what_says_something_else_is_named(old: str, new: str, there: str) -> None:
    assert old in LATEX
    assert there in [one[2] for one in told(LATEX.replace(old, new))]


def test_a_verdict_in_markdown_is_compared_in_words() -> None:
    assert told(MARKDOWN.replace("| helps |", "| hurts |")) == [("stage 3 SE · ratio 8", "verdict", "hurts", "helps")]
    assert told(MARKDOWN.replace("| <0.001 |", "| <0.01 |")) == []


def test_a_renamed_row_a_dropped_row_and_a_strange_column_are_told() -> None:
    text = MARKDOWN.replace("| base |", "| ResNet-20 |").replace("| seeds |", "| runs |")
    found = check(text, SHEET, "kernels", "p.md")
    assert [(one.row, one.now) for one in found.wrong] == [("ResNet-20", "no such row")]
    assert "column 'runs' is none of the export's" in found.notes[0]
    assert found.notes[1].endswith("the study has rows that are not there: 'base'")


def test_a_table_is_found_without_its_comment_and_not_taken_from_another_study() -> None:
    bare = LATEX.partition("\n")[2]
    assert check(OTHER + bare, SHEET, "kernels", "p.tex").tables == (6,)
    for text in (OTHER, f"% study others, commit f00, no date\n{bare}", "no table"):
        with pytest.raises(PaperError, match=r"p\.tex: no table of study 'kernels'") as error:
            check(text, SHEET, "kernels", "p.tex")
        assert "\n" not in str(error.value)


@settings(max_examples=60, deadline=None)
@given(st.floats(-1e4, 1e4), st.integers(0, 4), st.integers(0, 6))
def test_a_number_agrees_when_it_is_the_same_rounded_less(value: float, decimals: int, shown: int) -> None:
    cell = Cell(f"{value:,.{shown}f}", (value,))
    assert agrees(f"{value:,.{decimals}f}", cell)
    assert not agrees(f"{value + 2 * 10.0**-decimals:,.{decimals}f}", cell)


FACTS = gather(STUDY, ATTRIBUTES, records())
FRONT = front_sheet(FACTS, "study expatt-kernels-cifar10, commit f4ed666, 2025-06-03")


def test_the_front_is_a_table_by_what_differs() -> None:
    assert FRONT.head == ["config", "trial", "accuracy (%)", "params (k)", "macs (M)"]
    assert [row[1].values[0] for row in FRONT.rows] == [trial.number for trial in FACTS.front]
    best = next(row for row in FRONT.rows if row[2].best)
    assert FACTS.best and best[0].text == FACTS.best.label and f"**{best[2].text}**" in markdown(FRONT)
    assert front_csv(FACTS).splitlines()[1].endswith(str(FACTS.front[0].record.costs["macs"]))


@pytest.mark.parametrize("ink", [latex, markdown])
def test_a_front_in_a_paper_is_checked_as_arms_are(ink) -> None:  # type: ignore[no-untyped-def]
    text = ink(FRONT)
    assert check(text, FRONT, STUDY.name, "p").wrong == ()
    shown = FRONT.rows[1][2].text
    (wrong,) = check(text.replace(shown, "12.34"), FRONT, STUDY.name, "p").wrong
    assert (wrong.there, wrong.now, wrong.column) == ("12.34", shown, "accuracy (%)")


def test_csv_of_arms_is_not_dressed() -> None:
    assert ",272474,40813184" in written(TABLE, "csv")
