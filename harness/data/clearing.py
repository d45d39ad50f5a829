"""What the cache holds, and what of it may go: entries that nobody uses now, compiled kernels, what killed builders left."""

import contextlib
import fcntl
import os
import re
import shutil
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from harness.data.cache import ABOUT, cache_folder, lock_file, used
from harness.data.pictures import facts_of
from harness.errors import DataError, one_line

COMPILED = r"compiled(-\d+)?"
"""Folders of kernels that torch.compile made, those of the first release too."""


@dataclass(frozen=True)
class Entry:
    """A folder of the cache."""

    name: str
    about: str
    """What it is, as far as it says so."""
    bytes: int
    last: float
    """When it was used last, seconds since 1970."""
    in_use: bool
    """Whether a process has it open now; such an entry is never removed."""

    @property
    def days(self) -> float:
        """Since it was used last."""
        return max(time.time() - self.last, 0.0) / 86400


def entries() -> list[Entry]:
    """Everything in the cache, the largest first."""
    folder = cache_folder()
    found = []
    for path in folder.iterdir() if folder.is_dir() else ():
        with contextlib.suppress(FileNotFoundError):  # its builder has just moved it to its place
            found += [_entry(path)] if _is_entry(path) else []
    return sorted(found, key=lambda entry: -entry.bytes)


def clear(days: float = 0.0) -> list[Entry]:
    """Removes what was not used for so many days, and returns it; what is in use stays, also that of other machines where
    the file system has locks. Raises DataError where something cannot be removed."""
    gone = []
    try:
        for entry in entries():
            if entry.days >= days and _remove(entry.name):
                gone.append(entry)
        for note in (cache_folder() / "known").glob("*"):
            if time.time() - note.stat().st_mtime >= days * 86400:
                note.unlink(missing_ok=True)
    except OSError as error:
        raise DataError(f"the cache {cache_folder()} cannot be cleared: {one_line(error)}") from None
    return gone


def _is_entry(path: Path) -> bool:
    """Whether a folder is one of ours: whatever else lies there is left alone."""
    ours = re.fullmatch(rf"[0-9a-f]{{24}}(\..*\.part)?|{COMPILED}", path.name)
    return bool(ours) and path.is_dir() and not path.is_symlink()


def _entry(path: Path) -> Entry:
    name = path.name
    lock = used(name)
    last = (lock if lock.exists() else path).stat().st_mtime
    with _alone(name, make=False) as free:
        return Entry(name, _about(path), _size(path), last, not free)


def _about(path: Path) -> str:
    if re.fullmatch(COMPILED, path.name):
        return "kernels that torch.compile made"
    if path.suffix == ".part":
        return "being made, or left by who was killed"
    words = []
    with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
        words.append((path / ABOUT).read_text("utf-8"))
    with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
        info = facts_of(path, "", 0)
        words.append(f"{info.train:,} pictures, {info.shape.width}x{info.shape.height}, {info.shape.classes} classes")
    return ": ".join(filter(None, words))


def _size(path: Path) -> int:
    """Bytes on disk of all files below."""
    total = 0
    for file in path.rglob("*"):
        with contextlib.suppress(OSError):
            total += 0 if file.is_symlink() or file.is_dir() else file.stat().st_size
    return total


def _remove(name: str) -> bool:
    """Removes an entry unless somebody uses or builds it: out of its place in one step, so that nobody finds half of it."""
    place = cache_folder() / name
    with _alone(name, make=True) as free:
        if not (free and place.is_dir()):
            return False
        gone = place if place.suffix == ".part" else place.with_name(f"{name}.{os.getpid()}.part")
        if gone != place:
            place.rename(gone)
        shutil.rmtree(gone)
    return True


@contextlib.contextmanager
def _alone(name: str, *, make: bool) -> Iterator[bool]:
    """Whether nobody uses or builds an entry, and nobody begins to within the block: for that locks are made."""
    with contextlib.ExitStack() as stack:
        yield all(_taken(stack, path, make) for path in (used(name), cache_folder() / "locks" / name.partition(".")[0]))


def _taken(stack: contextlib.ExitStack, path: Path, make: bool) -> bool:
    """Takes a lock to the end of the stack, where it is free."""
    try:
        lock = stack.enter_context(os.fdopen(lock_file(path)) if make else path.open())
    except OSError:  # never made, so that nobody holds it; or a cache that is only read
        return True
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:  # no locks here: nobody could say that it is in use
        return True
    return True
