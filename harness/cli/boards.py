"""The verb that shows the database in optuna-dashboard: dashboard."""

from contextlib import suppress
from typing import Annotated

import typer

from harness.cli.options import DATABASE, Storage, console

verbs = typer.Typer()
PANEL = "See"


@verbs.command(rich_help_panel=PANEL)
def dashboard(
    storage: Storage = DATABASE,
    host: Annotated[
        str, typer.Option("--host", help="Address to listen on; others reach only what is not local.")
    ] = "localhost",
    port: Annotated[int, typer.Option("--port", min=1, max=65535, help="Port to listen on.")] = 8080,
) -> None:
    """Open the database in optuna-dashboard, until Ctrl-C: needs `pip install 'attention-harness[dashboard]'`.

    It knows Optuna's side of a study alone, and whoever opens it may change or delete studies."""
    from harness.storage.board import serve

    console.print(f"http://{host}:{port}/ - Ctrl-C ends it; who opens it may delete studies", markup=False)
    with suppress(KeyboardInterrupt):
        serve(storage, host, port)
