"""harness dashboard: what stands in its way is one line with its remedy, and a database is never made by looking."""

import contextlib
import http.client
import json
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from harness.errors import HarnessError
from harness.storage.board import serve
from harness.storage.store import Store
from harness.study import maximize, minimize

SERVE = "import sys; from harness.storage.board import serve; serve(sys.argv[1], 'localhost', int(sys.argv[2]))"


def free_port() -> int:
    with socket.create_server(("localhost", 0)) as taken:
        return int(taken.getsockname()[1])


def made(storage: str) -> None:
    with Store(storage) as store:
        store.set_attributes(store.create("kernels", (maximize("accuracy"), minimize("macs"))), {"definition": {}})


def test_what_stands_in_its_way_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    storage = f"sqlite:///{tmp_path}/lab.db"
    with pytest.raises(HarnessError, match="there is no database"):
        serve(storage, "localhost", free_port())
    assert not list(tmp_path.iterdir())
    made(storage)
    with (
        socket.create_server(("localhost", 0)) as taken,
        pytest.raises(HarnessError, match=r"cannot be listened on at localhost .*; name another"),
    ):
        serve(storage, "localhost", taken.getsockname()[1])
    monkeypatch.setitem(sys.modules, "optuna_dashboard", None)
    with pytest.raises(HarnessError, match=r"pip install 'attention-harness\[dashboard\]'"):
        serve(storage, "localhost", free_port())


def test_it_serves_our_studies(tmp_path: Path) -> None:
    storage = f"sqlite:///{tmp_path}/lab.db"
    made(storage)
    port = free_port()
    with subprocess.Popen([sys.executable, "-c", SERVE, storage, str(port)], stderr=subprocess.DEVNULL) as server:
        try:
            for _ in range(1200):
                time.sleep(0.1)
                try:
                    with contextlib.closing(http.client.HTTPConnection("localhost", port, timeout=10)) as asked:
                        asked.request("GET", "/api/studies")
                        (study,) = json.load(asked.getresponse())["study_summaries"]
                    break
                except OSError:
                    assert server.poll() is None
        finally:
            server.kill()
    assert study["study_name"] == "kernels" and study["directions"] == ["maximize", "minimize"]
