"""Verbs for a paper: audit, export, cite."""

import json
import sys
from pathlib import Path
from typing import Annotated, Literal

import typer

from harness.cli.options import DATABASE, AsJson, Form, Margin, Storage, console, write_text
from harness.errors import HarnessError

verbs = typer.Typer()
PANEL = "For a paper"


Sensitivity = Annotated[bool, typer.Option("--sensitivity", help="Sign flips and bootstrap too; they decide nothing.")]
ENDINGS: dict[str, Literal["latex", "markdown", "csv"]] = {".md": "markdown", ".csv": "csv"}
"""Forms by the ending of a file; any other is LaTeX."""
TEXTS: dict[str, Literal["latex", "markdown", "csv"]] = {"latex": "latex", "markdown": "markdown", "csv": "csv"}
INKS: dict[str, Literal["svg", "pdf", "png"]] = {"svg": "svg", "pdf": "pdf", "png": "png"}


@verbs.command(rich_help_panel=PANEL)
def audit(
    file: Annotated[Path, typer.Argument(help="A CSV file with a row for each arm and seed.", metavar="FILE")],
    arm: Annotated[str | None, typer.Option("--arm", help="Column of the arms (default: found by its name).")] = None,
    seed: Annotated[str | None, typer.Option("--seed", help="Column of the seeds.")] = None,
    metric: Annotated[str | None, typer.Option("--metric", help="Column of the metric.")] = None,
    baseline: Annotated[str | None, typer.Option("--baseline", help="The arm that the others are compared with.")] = None,
    primary: Annotated[str | None, typer.Option("--primary", help="The one arm declared beforehand: tested alone.")] = None,
    margin: Margin = None,
    smaller: Annotated[bool, typer.Option("--smaller-is-better", help="The metric is a loss or an error.")] = False,
    sensitivity: Sensitivity = False,
    form: Form = None,
    as_json: AsJson = False,
) -> None:
    """Judge results that came from elsewhere: effects, intervals, verdicts, seeds still needed. Trains nothing."""
    from harness.audit import audit as audited
    from harness.report.ablation import sheet, written
    from harness.report.sheet import drawn

    found = audited(
        file,
        arm=arm,
        seed=seed,
        metric=metric,
        baseline=baseline,
        primary=primary,
        margin=margin,
        larger_is_better=not smaller,
        others=sensitivity,
    )
    if as_json:
        print(json.dumps(found.to_json()))
    elif form is not None:
        print(written(found.table, form), end="")
    else:
        console.print(drawn(sheet(found.table), console.width))
        for line in found.lines():
            console.print(line, style="dim", markup=False)


@verbs.command(rich_help_panel=PANEL)
def export(
    name: Annotated[str, typer.Argument(help="The study's name in the database.")],
    form: Annotated[
        Literal["latex", "markdown", "csv", "svg", "pdf", "png"] | None,
        typer.Option("--as", help="Print the table in this form; of a figure svg, pdf or png.", show_default=False),
    ] = None,
    figure: Annotated[
        Literal["front", "effects", "radii"] | None,
        typer.Option("--figure", help="Draw a figure instead, its data beside it as CSV.", show_default=False),
    ] = None,
    wide: Annotated[bool, typer.Option("--wide", help="The figure 6.9 inches wide, not 3.3: over both columns.")] = False,
    check: Annotated[
        Path | None,
        typer.Option("--check", help="Recompute the study's tables in a LaTeX or Markdown source.", metavar="FILE"),
    ] = None,
    out: Annotated[
        Path | None, typer.Option("--out", help="Write into a file instead; of a figure into a folder.", metavar="FILE")
    ] = None,
    confirmed: Annotated[
        bool, typer.Option("--confirmed", help="The table of the study that confirms it, on the test part.")
    ] = False,
    sensitivity: Sensitivity = False,
    storage: Storage = DATABASE,
) -> None:
    """Print the table of a study, for a paper, a README or a program; without --as, for the terminal.

    A design's is its ablation table, a search's its front. With --check, name each cell of a paper that no longer agrees
    (exit code 1 when any does not). With --figure, draw what the page shows in plain vector ink, as wide as a column."""
    from harness.export import checked, opened, others_of, table_of, text_of
    from harness.report.sheet import drawn

    facts = opened(name, storage)
    if confirmed:
        if facts.confirmed is None:
            raise HarnessError(f"--confirmed: nothing confirms {name} yet; `harness confirm {name}` does")
        facts = facts.confirmed
    if figure is not None:
        from harness.report.plates import COLUMN, PAGE, plates, write

        if form in TEXTS:
            raise HarnessError(f"--figure {figure} --as {form}: a figure is svg, pdf or png; its data go beside it as CSV")
        for path in write(
            plates(facts, figure), out or Path("figures"), name, INKS[form or "pdf"], PAGE if wide else COLUMN
        ):
            console.print(f"wrote {path}", markup=False, soft_wrap=True)
        return
    if form in INKS or wide:
        given = "--wide" if wide else f"--as {form}"
        raise HarnessError(f"{given}: of which figure? Add --figure front, effects or radii")
    if check is not None:
        found = checked(facts, check)
        for line in found.lines(str(check)):
            print(line)
        sys.exit(1 if found.wrong else 0)
    if form is None and out is None:
        table = table_of(facts)
        console.print(drawn(table, console.width))
        for line in (*table.notes, *(others_of(facts) if sensitivity else ())):
            console.print(line, style="dim", markup=False)
        return
    if sensitivity:
        raise HarnessError(
            "--sensitivity: these methods decide nothing, and stand in no paper's table; leave --as and --out out"
        )
    text = text_of(facts, TEXTS[form] if form else ENDINGS.get(out.suffix if out else "", "latex"))
    if out is None:
        print(text, end="")
    else:
        write_text(out, text)


@verbs.command(rich_help_panel=PANEL)
def cite(
    name: Annotated[str, typer.Argument(help="The study's name in the database.")],
    only: Annotated[
        Literal["bibtex", "methods"] | None, typer.Option("--only", help="One of the two alone.", show_default=False)
    ] = None,
    storage: Storage = DATABASE,
) -> None:
    """Print how a study was done, in a paragraph, and BibTeX of everything it used: a file that BibTeX reads."""
    from textwrap import wrap

    from harness.export import opened
    from harness.report.citation import bibtex, methods

    facts = opened(name, storage)
    if only == "methods":
        print(methods(facts))
        return
    if only is None:
        print("\n".join(f"% {line}" for line in wrap(methods(facts), 118)) + "\n")
    print(bibtex(facts), end="")
