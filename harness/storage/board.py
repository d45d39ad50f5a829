"""optuna-dashboard on our database: the studies as plain Optuna has them."""

import socket

from harness.errors import HarnessError
from harness.storage.reader import read_studies
from harness.storage.tables import full, readable


def serve(url: str, host: str, port: int) -> None:
    """Serves the dashboard until it is interrupted; raises a HarnessError in one line where it cannot."""
    try:
        from optuna_dashboard import run_server
    except ModuleNotFoundError:
        remedy = "pip install 'attention-harness[dashboard]'"
        raise HarnessError(f"harness dashboard: optuna-dashboard is not installed: {remedy}") from None
    read_studies(url)  # raises where there is no database; Optuna would make one
    try:
        with socket.create_server((host, port)):  # tried first: the server leaves its own socket open where it cannot listen
            pass
        with readable(url):
            run_server(full(url), host=host, port=port)
    except (OSError, OverflowError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise HarnessError(f"--port {port}: cannot be listened on at {host} ({reason}); name another") from None
