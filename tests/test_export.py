"""`harness export`: tables of stored studies, in files and in papers."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from harness.cli.main import app
from harness.design import AddOneIn
from harness.errors import HarnessError
from harness.run import Options, run_study
from harness.study import Random, Study

RUN = CliRunner()
LOOP = "def run(it):\n    yield {'accuracy': 0.8 + 0.01 * it.seed + 0.001 * len(str(it.config)) % 7 / 100}\n"


@pytest.fixture
def stored(
    make_study: Callable[..., Study], storage: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Callable[..., None]]:
    """Runs a study whose trials take no time."""
    (tmp_path / "exported_loop.py").write_text(LOOP)
    monkeypatch.setenv("HARNESS_STORAGE", storage)

    def run(**fields: Any) -> None:
        study = make_study(trial="exported_loop:run", **fields)
        run_study(study, Options(storage=storage, backend="local", code=(str(tmp_path),)))

    yield run


def said(*words: str, code: int = 0) -> str:
    found = RUN.invoke(app, list(words))
    assert found.exit_code == code, found.output
    return found.output


def test_a_table_goes_into_a_paper_and_is_checked_there(stored: Callable[..., None], tmp_path: Path) -> None:
    stored(strategy=AddOneIn(margin=0.02), seeds=(0, 1, 2))
    table, paper = tmp_path / "table.tex", tmp_path / "paper.tex"
    assert said("export", "tiny", "--out", str(table)) == f"wrote {table}\n"
    text = table.read_text()
    assert text.startswith("% study tiny, ") and "stage 3 SE" in text and text == said("export", "tiny", "--as", "latex")
    paper.write_text(f"Before.\n\n{text}\nAfter.\n")
    assert said("export", "tiny", "--check", str(paper)).endswith("cells compared, all agree\n")
    paper.write_text(paper.read_text().replace("base & 3", "base & 5"))
    lines = said("export", "tiny", "--check", str(paper), code=1).splitlines()
    assert lines[0] == f"{paper}: line 8: row 'base', column 'seeds': there '5', now '3'"
    assert lines[-1].endswith("1 no longer agree")


def test_a_search_exports_its_front(stored: Callable[..., None], tmp_path: Path) -> None:
    stored(strategy=Random(trials=4))
    table = tmp_path / "front.md"
    said("export", "tiny", "--out", str(table))
    assert table.read_text().splitlines()[1].startswith("| config | trial | accuracy (%) | params (k) | macs (k) |")
    assert "all agree" in said("export", "tiny", "--check", str(table))
    assert said("export", "tiny", "--as", "csv").startswith("config,trial,seed,accuracy,params,macs\n")
    assert "on the front over accuracy, params, macs" in said("export", "tiny")


def test_what_cannot_be_read_or_written_is_one_line(stored: Callable[..., None], tmp_path: Path) -> None:
    stored(strategy=Random(trials=1))
    (tmp_path / "photo.tex").write_bytes(b"\xff\xd8\xff")
    for words, rule in (
        (("--check", str(tmp_path / "none.tex")), "name a LaTeX or Markdown file"),
        (("--check", str(tmp_path / "photo.tex")), "it is not UTF-8 text"),
        (("--out", str(tmp_path / "none" / "table.tex")), "name a file in a folder that is there"),
    ):
        found = RUN.invoke(app, ["export", "tiny", *words])
        assert rule in str(found.exception) and "\n" not in str(found.exception)


def test_a_figure_goes_into_a_folder_with_its_data(stored: Callable[..., None], tmp_path: Path) -> None:
    stored(strategy=Random(trials=4))
    out = said("export", "tiny", "--figure", "front", "--as", "svg", "--out", str(tmp_path / "drawn"))
    files = sorted(path.name for path in (tmp_path / "drawn").iterdir())
    assert files == [f"tiny-front-{cost}.{ending}" for cost in ("macs", "params") for ending in ("csv", "svg")]
    assert all(name in out for name in files)
    for words, remedy in (
        (("--figure", "front", "--as", "csv"), "a figure is svg, pdf or png"),
        (("--as", "svg"), "of which figure"),
        (("--figure", "effects"), "--figure effects: study 'tiny' compares no arms"),
        (("--figure", "front", "--out", str(tmp_path / "harness.db")), "cannot be written"),
    ):
        with pytest.raises(HarnessError, match=remedy):
            RUN.invoke(app, ["export", "tiny", *words], catch_exceptions=False)


def test_other_methods_are_told_on_request_alone(stored: Callable[..., None]) -> None:
    stored(strategy=AddOneIn(), seeds=(0, 1, 2))
    assert "sign-flip" not in said("export", "tiny")
    told = " ".join(said("export", "tiny", "--sensitivity").split())
    assert "stage 3 SE: sign-flip p = " in told and "(it cannot be below 0.25)" in told and "decide nothing" in told
    found = RUN.invoke(app, ["export", "tiny", "--sensitivity", "--as", "latex"])
    assert "stand in no paper's table" in str(found.exception)
