"""The verb that takes a trial's network home: take."""

import json
from pathlib import Path
from typing import Annotated, Literal

import typer

from harness.cli.options import DATABASE, AsJson, Data, Runs, Storage, console

verbs = typer.Typer()
PANEL = "Move"


@verbs.command(rich_help_panel=PANEL)
def take(
    name: Annotated[str, typer.Argument(help="The study's name in the database.")],
    number: Annotated[
        int, typer.Argument(help="The trial's number, as the page and `harness status` show it.", metavar="TRIAL")
    ],
    out: Annotated[
        Path | None, typer.Option("--out", help="A new folder (default: `taken/NAME-TRIAL`).", metavar="DIR")
    ] = None,
    form: Annotated[
        Literal["torch-export", "onnx"] | None,
        typer.Option("--format", help="The network as a program, too, which runs without this package.", show_default=False),
    ] = None,
    storage: Storage = DATABASE,
    data: Data = None,
    runs: Runs = None,
    as_json: AsJson = False,
) -> None:
    """Take a trial's network home: its weights, its config and an example that loads it, in a folder of its own.

    `from harness.results import load_network; load_network("DIR")` needs torch, and neither Ray nor Optuna. Weights
    are those that runs have kept (`--keep`: by default the front's).
    """
    from harness.take import take as taken

    folder = out or Path("taken") / f"{name}-{number}"
    found = taken(name, number, storage, folder, form=form or "safetensors", runs=runs, data=data)
    if as_json:
        print(json.dumps(found.to_json()))
        return
    for note in found.notes:
        console.print(f"note: {note}", markup=False, soft_wrap=True)
    console.print(f"{found.study}, trial {found.number}: {found.reached}", markup=False, soft_wrap=True)
    console.print(f"wrote {', '.join(found.files)} into {folder}", markup=False, soft_wrap=True)
    console.print(f"try it: `python {folder / 'load.py'}`", markup=False, soft_wrap=True)
