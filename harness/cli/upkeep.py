"""Verbs that keep the house: cache."""

import json
from dataclasses import asdict
from typing import Annotated

import typer
from rich.table import Table

from harness.cli.options import AsJson, console, seconds
from harness.errors import HarnessError

verbs = typer.Typer()
PANEL = "Tidy"


@verbs.command(rich_help_panel=PANEL)
def cache(
    prune: Annotated[
        str | None, typer.Option("--prune", help="Remove what was not used for so long: `12h`, `30d`.", metavar="TIME")
    ] = None,
    clear: Annotated[bool, typer.Option("--clear", help="Remove everything that nobody uses now.")] = False,
    as_json: AsJson = False,
) -> None:
    """Show the cache of decoded pictures and compiled kernels (`HARNESS_CACHE`), or empty it.

    What a running trial uses is never removed. What is gone is made again when it is needed.
    """
    from harness.data.cache import cache_folder
    from harness.data.clearing import clear as cleared
    from harness.data.clearing import entries
    from harness.plan import size_words
    from harness.report.words import counted

    if clear and prune is not None:
        raise HarnessError("harness cache: give --clear or --prune, not both")
    age = 0.0 if clear else seconds(prune, "--prune")
    gone = [] if age is None else cleared(age / 86400)
    left = entries()
    if as_json:
        plain = {"folder": str(cache_folder()), "entries": [asdict(entry) for entry in left]}
        print(json.dumps(plain | {"removed": [asdict(entry) for entry in gone]}))
        return
    if age is not None:
        freed = size_words(sum(entry.bytes for entry in gone))
        console.print(f"removed: {counted(len(gone), 'entry', 'entries')}, {freed}", markup=False)
    if left:
        table = Table(box=None, padding=(0, 1), header_style="dim")
        table.add_column("size", justify="right", no_wrap=True)
        table.add_column("used", no_wrap=True)
        table.add_column("what", overflow="fold")
        for entry in left:
            table.add_row(size_words(entry.bytes), "now" if entry.in_use else _ago(entry.days), entry.about or entry.name)
        console.print(table)
    total = size_words(sum(entry.bytes for entry in left))
    console.print(f"{cache_folder()}: {counted(len(left), 'entry', 'entries')}, {total}", markup=False, soft_wrap=True)


def _ago(days: float) -> str:
    """3 days ago"""
    from harness.report.words import counted, duration

    return f"{counted(int(days), 'day')} ago" if days >= 2 else f"{duration(days * 86400)} ago"
