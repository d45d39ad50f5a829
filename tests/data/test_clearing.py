"""The cache is shown and emptied: what somebody uses stays, however it is used, and what is gone is made again."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from harness.cli import main
from harness.config import Training
from harness.data import cache, sources
from harness.data.clearing import clear, entries
from harness.data.sources import open_data
from harness.errors import DataError
from harness.trial import prepare_process

USER = """
import sys, time
from pathlib import Path
from harness.config import Training
from harness.data import cache, sources
from harness.data.sources import open_data
"""


@pytest.fixture(autouse=True)
def own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("HARNESS_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(sources, "_opened", {})
    return tmp_path / "cache"


def leave() -> None:
    """What the end of a process does."""
    sources._opened.clear()
    for path in list(cache._held):
        cache.release(path.name.removesuffix(".used"))


def start(script: str) -> subprocess.Popen[str]:
    return subprocess.Popen([sys.executable, "-c", USER + script], stdout=subprocess.PIPE, text=True)


def test_entries_say_what_they_are_and_who_uses_them() -> None:
    assert entries() == []
    open_data(Training(limit=20), Path())
    (entry,) = entries()
    assert entry.about == "digits: 200 pictures, 8x8, 10 classes"
    assert 200 * 64 < entry.bytes < 200 * 64 + 50_000 and entry.in_use and entry.days < 1
    assert clear() == [] and entries() == [entry]
    leave()
    (free,) = entries()
    assert not free.in_use and clear() == [free] and entries() == []
    assert open_data(Training(limit=20), Path())[1].train == 200


def test_only_what_was_not_used_for_long_is_pruned(own: Path) -> None:
    open_data(Training(limit=20), Path())
    open_data(Training(limit=30), Path())
    leave()
    old = next(entry for entry in entries() if "200" in entry.about)
    long_ago = time.time() - 40 * 86400
    os.utime(cache.used(old.name), (long_ago, long_ago))
    assert [entry.name for entry in clear(days=30)] == [old.name]
    (left,) = entries()
    assert "300" in left.about
    open_data(Training(limit=30), Path())  # used again, which counts
    leave()
    assert clear(days=1e-3) == [] and len(entries()) == 1


def test_a_user_s_death_frees_what_it_used() -> None:
    user = start("open_data(Training(limit=20), Path()); print('ready', flush=True); time.sleep(60)")
    assert user.stdout is not None and user.stdout.readline() == "ready\n"
    assert entries()[0].in_use and clear() == []
    user.send_signal(signal.SIGKILL)
    user.communicate()
    assert len(clear()) == 1 and entries() == []


def test_clearing_beside_users_spoils_nothing() -> None:
    user = start("""
for count in range(30):
    sources._opened.clear()
    for path in list(cache._held):
        cache.release(path.name.removesuffix(".used"))
    time.sleep(0.02 * (count % 3))
    pictures, info = open_data(Training(limit=20), Path())
    assert info.fingerprint == "13a473b49f302c7a" and int(pictures.images[-1].sum()) > 0
""")
    removed = 0
    while user.poll() is None:
        removed += len(clear())
    user.communicate()
    assert user.returncode == 0 and removed > 1


def test_what_is_not_ours_is_left_alone(own: Path) -> None:
    own.mkdir()
    (own / "notes.txt").write_text("mine")
    (own / "photos").mkdir()
    (own / ("0" * 24)).symlink_to(own / "photos")
    for name in ("compiled", "compiled-1000"):  # of the first release, and of a user
        (own / name).mkdir()
        (own / name / "kernel").write_text("x" * 10)
    part = own / ("1" * 24 + ".abc.part")
    part.mkdir()
    assert {entry.about for entry in entries()} == {
        "kernels that torch.compile made",
        "being made, or left by who was killed",
    }
    assert len(clear()) == 3 and not part.exists()
    assert sorted(path.name for path in own.iterdir() if path.name != "locks") == ["0" * 24, "notes.txt", "photos"]


def test_kernels_are_each_users_own(own: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """torch makes them as the umask says, and runs what it finds."""
    monkeypatch.setattr(os, "environ", {**os.environ})
    os.environ.pop("TORCHINDUCTOR_CACHE_DIR", None)
    prepare_process(1)
    assert os.environ["TORCHINDUCTOR_CACHE_DIR"] == f"{own}/compiled-{os.getuid()}"
    Path(os.environ["TORCHINDUCTOR_CACHE_DIR"]).mkdir(parents=True)
    assert [entry.about for entry in entries()] == ["kernels that torch.compile made"]


def test_an_entry_that_vanished_is_made_again_by_who_holds_it(own: Path) -> None:
    import shutil

    open_data(Training(limit=20), Path())
    shutil.rmtree(next(path for path in own.iterdir() if path.name != "locks"))
    sources._opened.clear()
    assert open_data(Training(limit=20), Path())[1].train == 200


def test_the_verb_lists_and_removes(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], own: Path) -> None:
    def harness(*words: str) -> str:
        monkeypatch.setattr("sys.argv", ["harness", "cache", *words])
        with pytest.raises(SystemExit):
            main.main()
        return capsys.readouterr().out

    open_data(Training(limit=20), Path())
    assert "now" in (shown := harness()) and "digits: 200 pictures" in shown and f"{own}: 1 entry, 0.0 MB" in shown
    leave()
    assert harness("--prune", "1d").startswith("removed: 0 entries")
    gone = json.loads(harness("--clear", "--json"))
    assert gone["entries"] == [] and [entry["about"] for entry in gone["removed"]] == [
        "digits: 200 pictures, 8x8, 10 classes"
    ]


def test_what_cannot_be_removed_is_one_line(own: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    open_data(Training(limit=20), Path())
    leave()
    name = entries()[0].name
    (own / f"{name}.{os.getpid()}.part").write_text("in the way")
    with pytest.raises(DataError, match=r"^the cache \S+ cannot be cleared: NotADirectoryError"):
        clear()
