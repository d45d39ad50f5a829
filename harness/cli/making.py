"""Verbs to begin with: new, presets."""

import json
from pathlib import Path
from typing import Annotated

import typer

from harness.cli.options import AsJson, console

verbs = typer.Typer()
PANEL = "Begin"


@verbs.command(rich_help_panel=PANEL)
def new(
    name: Annotated[str, typer.Argument(help="Name of the study, which names the files too.")],
    folder: Annotated[Path, typer.Option("--in", help="Project folder.", metavar="DIR")] = Path(),
    loop: Annotated[bool, typer.Option("--loop", help="A training loop of your own, and its study.")] = False,
) -> None:
    """Write a starter: an attention module of your own, a space and a study, in some 40 commented lines."""
    from harness.starter import write_starter

    for path in write_starter(name, folder, loop=loop):
        console.print(f"wrote {path}", markup=False)
    console.print(
        f"next: `harness plan {folder / 'studies'}/{name.replace('-', '_')}.py`, then `harness run` it", markup=False
    )


@verbs.command(rich_help_panel=PANEL)
def presets(
    name: Annotated[str | None, typer.Argument(help="A preset, shown stage by stage; without one, all of them.")] = None,
    as_json: AsJson = False,
) -> None:
    """List the published networks: params and FLOPs computed here beside those that the papers print."""
    from harness.presets import PRESETS, find, stages
    from harness.report.presets import LEGEND, listing, shape_words, staged

    if name is None:
        if as_json:
            print(json.dumps([preset.to_json() for preset in PRESETS.values()]))
            return
        console.print(listing(PRESETS.values(), console.width))
        console.print(LEGEND, style="dim", markup=False)
        return
    found = find(name)
    if as_json:
        print(json.dumps(found.to_json() | {"stages": [stage.to_json(found.cost) for stage in stages(found)]}))
        return
    console.print(f"{found.title}, {shape_words(found.shape)} (arXiv {found.paper})", style="bold", markup=False)
    console.print(staged(found))
    if found.note:
        console.print(f"note: {found.note}", markup=False)
    console.print(f'in a study: from harness.presets import preset; preset("{found.name}")', style="dim", markup=False)
