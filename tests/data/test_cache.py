"""The cache: built once whoever asks, whole or not at all, whatever is killed."""

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from plain_pictures import picture

from harness.config import Training
from harness.data import cache as cache_module
from harness.data import folders, sources
from harness.data.cache import entry, known
from harness.data.sources import open_data
from harness.errors import DataError, Interrupted
from tests.users import ANNA, BEN, user

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


@pytest.fixture
def shared(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A cache that everybody may write, of users who give their group what they may do themselves."""
    for training in TRAININGS:
        open_data(training, folder)  # what is imported late may lie where others cannot read
    sources._opened.clear()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HARNESS_CACHE", "shared")
    (tmp_path / "shared").mkdir()
    for open_to_all in (tmp_path, tmp_path / "shared"):
        open_to_all.chmod(0o1777)
    before = os.umask(0o002)
    let_go()  # of another test's
    yield tmp_path / "shared"
    let_go()
    os.umask(before)


TRAININGS = [Training(dataset="folder", image_size=8, loading=loading) for loading in ("resident", "stream")]


def held() -> list[str]:
    """Entries that this process marks as used in the cache of several users."""
    return sorted(path.stem for path in cache_module._held if path.parent == Path("shared/locks"))


def let_go() -> None:
    for name in held():
        cache_module.release(name)


def test_what_one_user_has_decoded_another_reads(shared: Path, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    here = Path(folder.name)
    with user(ANNA):
        first = [open_data(training, here)[1] for training in TRAININGS]
    sources._opened.clear()
    let_go()
    entries = sorted(path.name for path in shared.glob("?" * 24))
    modes = {path.relative_to(shared): path.stat().st_mode & 0o7777 for path in shared.rglob("*")}
    assert len(entries) == 2 and {modes[Path(name)] for name in entries} == {0o775}
    assert {modes[Path(name)] for name in ("locks", "known")} == {0o777}
    assert {mode for path, mode in modes.items() if path.parent.name == "locks"} == {0o666}
    assert {mode for path, mode in modes.items() if path.parent.name == "known"} == {0o664}
    with user(BEN), monkeypatch.context() as same:
        same.setattr(folders, "_each", lambda *_: pytest.fail("read again"))
        assert [open_data(training, here)[1] for training in TRAININGS] == first
        assert held() == entries, "Anna cannot clear them away"
        assert known("another", lambda: "of Ben's") == "of Ben's"
        assert entry("another", write).joinpath("images").read_text() == "whole", "there is room for others"


def test_what_a_user_keeps_to_himself_is_made_again_or_named(shared: Path, folder: Path) -> None:
    here = Path(folder.name)
    with user(ANNA):
        known("state", lambda: "Anna's")
        for training in TRAININGS:
            open_data(training, here)
    sources._opened.clear()
    for path in (*(shared / "known").iterdir(), *shared.glob("*/facts.json"), *shared.glob("*/kept.npy")):
        path.chmod(0)
    with user(BEN):
        assert known("state", lambda: "Ben's") == "Ben's" == known("state", lambda: "read again")
        for training in TRAININGS:
            with pytest.raises(DataError, match=r"^shared/\w+: an entry of the cache that another user keeps [^\n]*CACHE$"):
                open_data(training, here)


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
