"""Decoded pictures at rest: folders under HARNESS_CACHE, named by content, each built by one process while others wait.

An entry is made beside its place and renamed once it is whole, so that what a killed builder leaves is never read and is
swept by the next one. Who uses an entry shares a lock to its end, so that nobody's pictures are cleared away. Locks are the
kernel's and end with their holders. Several users may share a cache: whoever may write its folder may write the folders and
locks in it.
"""

import contextlib
import fcntl
import hashlib
import json
import os
import shutil
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from harness.errors import DataError, one_line

ABOUT = "about"
"""The file of an entry that says what it is."""
COMPILED = f"compiled-{os.getuid()}"
"""The folder of kernels that torch.compile made, which are programs: every user's own."""
_held: dict[Path, int] = {}
"""The locks that this process shares, by their path."""
FORMAT = 2
"""Raised when what an entry holds changes."""
Progress = Callable[[int, int], None]
"""Told how many pictures of how many are decoded, 0 of 0 while the cache is looked for; what it raises ends the work."""


def cache_folder() -> Path:
    """HARNESS_CACHE, by default ~/.cache/attention-harness."""
    return Path(os.environ.get("HARNESS_CACHE", "~/.cache/attention-harness")).expanduser()


def name_of(*content: Any) -> str:
    """The name of an entry: 24 hex digits of what it is made from."""
    return hashlib.sha256(json.dumps([FORMAT, *content]).encode()).hexdigest()[:24]


def entry(name: str, build: Callable[[Path], None], progress: Progress | None = None, about: str = "") -> Path:
    """The folder of this name: `build` fills it where it is not there yet. Raises DataError in one line on a full disk.

    It stays there while this process lives. `about` says what it is to who looks into the cache."""
    place = cache_folder() / name
    while not (place.is_dir() and hold(name) and place.is_dir()):  # it may have been cleared away before it was held
        release(name)
        with _writable(), _swept(), _locked(name, progress):
            if not place.is_dir():
                made = cache_folder() / f"{name}.{uuid.uuid4().hex}.part"
                made.mkdir()
                try:
                    build(made)
                    (made / ABOUT).write_text(about)
                    for file in made.iterdir():
                        _flush(file)
                    _rename(made, place)
                finally:
                    shutil.rmtree(made, ignore_errors=True)
    return place


def hold(name: str) -> bool:
    """Marks an entry as used, now and until this process ends; a cache that is only read cannot be cleared either. True."""
    path = used(name)
    if path not in _held:
        with contextlib.suppress(OSError):
            _held[path] = lock = lock_file(path)
            os.utime(path)
            fcntl.flock(lock, fcntl.LOCK_SH)
    return True


def lock_file(path: Path) -> int:
    """Opens a lock, made where it is not there, which whoever may write the cache may take."""
    _share(path.parent)
    lock = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
    with contextlib.suppress(OSError):  # another user's, who has done so
        os.fchmod(lock, cache_folder().stat().st_mode & 0o666)
    return lock


def _share(folder: Path) -> None:
    """Makes a folder of the cache that whoever may write the cache may write; sticky it is not, as notes are replaced."""
    folder.mkdir(exist_ok=True)
    with contextlib.suppress(OSError):  # another user's, who has done so
        folder.chmod(cache_folder().stat().st_mode & 0o2777)


def used(name: str) -> Path:
    """The lock that users of an entry share; its time is when it was used last."""
    return cache_folder() / "locks" / f"{name}.used"


def release(name: str) -> None:
    """Takes the mark off."""
    if (lock := _held.pop(used(name), None)) is not None:
        os.close(lock)


def known(state: Any, content: Callable[[], str]) -> str:
    """The name of a content that costs reading, remembered by a state that is cheap to look at: names, sizes, times."""
    note = cache_folder() / "known" / name_of(state)
    with contextlib.suppress(OSError):  # none yet, or one that its writer keeps from us
        if name := note.read_text():
            return name
    name = content()
    with _writable():
        _share(note.parent)
        made = note.with_name(f"{note.name}.{uuid.uuid4().hex}")
        made.write_text(name)
        made.replace(note)
    return name


@contextlib.contextmanager
def _writable() -> Iterator[None]:
    try:
        cache_folder().mkdir(parents=True, exist_ok=True)
        yield
    except OSError as error:
        raise DataError(
            f"the cache {cache_folder()} cannot be written: {one_line(error)}; make space, or name another by HARNESS_CACHE"
        ) from None


@contextlib.contextmanager
def _locked(name: str, progress: Progress | None) -> Iterator[None]:
    """Holds the lock of an entry; `progress` is told of the waiting, so that it may end it."""
    with os.fdopen(lock_file(cache_folder() / "locks" / name)) as lock:
        while not _taken(lock.fileno()):
            if progress is not None:
                progress(0, 0)
            time.sleep(0.05)
        yield


def _taken(lock: int) -> bool:
    """Whether the lock is ours now; a file system without locks grants it to all, who then do the same work side by side."""
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:
        return True
    return True


@contextlib.contextmanager
def _swept() -> Iterator[None]:
    """Removes what killed builders have left: parts whose lock is free."""
    for part in cache_folder().glob("*.part"):
        path = cache_folder() / "locks" / part.name.partition(".")[0]
        with contextlib.suppress(OSError), os.fdopen(lock_file(path)) as lock:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            shutil.rmtree(part, ignore_errors=True)
    yield


def _flush(file: Path) -> None:
    with file.open("rb") as written:
        os.fsync(written.fileno())


def _rename(made: Path, place: Path) -> None:
    """Several may arrive where there are no locks: the first one stays."""
    try:
        made.rename(place)
    except OSError:
        if not place.is_dir():
            raise
