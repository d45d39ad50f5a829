"""The cache: built once whoever asks, whole or not at all, whatever is killed."""

import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from plain_pictures import picture

from harness.config import Training
from harness.data import sources
from harness.data.cache import entry, known
from harness.data.sources import open_data
from harness.errors import DataError, Interrupted

BUILDER = """
import sys, time
from pathlib import Path
from harness.data import sources
from harness.data.cache import entry

def build(folder):
    (folder / "images").write_bytes(b"half")
    print("building", flush=True)
    {then}

entry("name", build)
"""


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    return tmp_path / "cache"


def write(folder: Path) -> None:
    (folder / "images").write_text("whole")


def start(then: str) -> subprocess.Popen[str]:
    script = BUILDER.format(then=then)
    return subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def test_one_builds_while_the_others_wait(cache: Path) -> None:
    built, found = [], []

    def build(folder: Path) -> None:
        built.append(folder)
        time.sleep(0.2)
        write(folder)

    threads = [
        threading.Thread(target=lambda: found.append(entry("name", build).joinpath("images").read_text())) for _ in "abcd"
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(built) == 1 and found == ["whole"] * 4
    assert entry("name", lambda _: pytest.fail("built again")) == cache / "name"


def test_a_killed_builder_leaves_nothing_that_blocks(cache: Path) -> None:
    builder = start("time.sleep(60)")
    assert builder.stdout is not None and builder.stdout.readline() == "building\n"
    assert [part.name for part in cache.glob("*.part")]
    builder.send_signal(signal.SIGKILL)
    builder.communicate()
    assert entry("name", write).joinpath("images").read_text() == "whole"
    assert not list(cache.glob("*.part"))


def test_what_a_builder_left_is_swept_by_the_builder_of_another_entry(cache: Path) -> None:
    left = start("import os; os._exit(9)")
    left.communicate()
    at_work = start("time.sleep(60)")
    assert at_work.stdout is not None and at_work.stdout.readline() == "building\n"
    assert len(list(cache.glob("*.part"))) == 1, "the second builder has swept what the first one left"
    entry("other", write)
    assert len(list(cache.glob("*.part"))) == 1, "who is at work is left alone"
    at_work.kill()
    at_work.communicate()


def test_waiting_ends_when_asked(cache: Path) -> None:
    builder = start("time.sleep(60)")
    assert builder.stdout is not None and builder.stdout.readline() == "building\n"

    def interrupted(done: int, total: int) -> None:
        raise Interrupted

    with pytest.raises(Interrupted):
        entry("name", write, interrupted)
    builder.kill()
    builder.communicate()


def test_an_interrupted_build_leaves_nothing(folder: Path, cache: Path) -> None:
    def interrupted(done: int, total: int) -> None:
        raise Interrupted

    with pytest.raises(Interrupted):
        open_data(Training(dataset="folder"), folder, interrupted)
    assert not list(cache.glob("*.part")) and not list(cache.glob("*/images"))
    assert open_data(Training(dataset="folder"), folder)[1].train == 6


def test_a_full_disk_is_one_line_and_leaves_nothing(cache: Path) -> None:
    full = start(
        "import resource; resource.setrlimit(resource.RLIMIT_FSIZE, (10, 10)); (folder / 'images').write_bytes(b'x' * 99)"
    )
    _, words = full.communicate()
    assert words.splitlines()[-1].startswith(
        f"harness.errors.DataError: the cache {cache} cannot be written: OSError: [Errno 27]"
    )
    assert words.splitlines()[-1].endswith("; make space, or name another by HARNESS_CACHE")
    assert not list(cache.glob("*.part")) and not (cache / "name").exists()


def test_a_cache_that_cannot_be_written_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("HARNESS_CACHE", str(tmp_path / "file"))
    with pytest.raises(DataError, match=r"^the cache \S+/file cannot be written: FileExistsError: [^\n]*HARNESS_CACHE$"):
        open_data(Training(), tmp_path)


def test_a_content_is_read_once_for_each_state(cache: Path) -> None:
    assert known(["a", 1], lambda: "first") == "first"
    assert known(["a", 1], lambda: pytest.fail("read again")) == "first"
    assert known(["a", 2], lambda: "second") == "second"
    next(iter((cache / "known").iterdir())).write_text("")  # the machine went down before the page was written
    assert {known(["a", 1], lambda: "first"), known(["a", 2], lambda: "second")} == {"first", "second"}


def test_progress_is_told_while_pictures_are_decoded(tmp_path: Path) -> None:
    for name in ("cat", "dog"):
        picture(tmp_path / "test" / name / "0.png", 1)
        for index in range(300):
            picture(tmp_path / "train" / name / f"{index}.png", index % 256, (2, 2))
    told = []
    pictures, _ = open_data(Training(dataset="folder"), tmp_path, lambda *words: told.append(words))
    assert told[-2:] == [(500, 600), (600, 600)]
    assert pictures.images[:, 0, 0, 0].tolist() == [int(name) % 256 for name in sorted(map(str, range(300)))] * 2


def test_processes_share_the_pages_and_write_to_none(folder: Path) -> None:
    pictures, _ = open_data(Training(dataset="folder"), folder)
    assert isinstance(pictures.images, np.memmap) and pictures.images.mode == "c"


@pytest.mark.parametrize(
    "spoil", [lambda file: file.unlink(), lambda file: file.write_bytes(b"short")], ids=["gone", "short"]
)
def test_an_entry_that_was_spoilt_is_named(folder: Path, cache: Path, spoil: Callable[[Path], None]) -> None:
    open_data(Training(dataset="folder"), folder)
    sources._opened.clear()
    (images,) = cache.glob("*/images")
    spoil(images)
    with pytest.raises(DataError, match=rf"^{images.parent}: no longer a whole entry of the cache \([^\n]*\); remove it$"):
        open_data(Training(dataset="folder"), folder)
