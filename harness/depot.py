"""Where trials leave their weights: folders of files on a disk, or in a store that fsspec knows, `s3://bucket/runs`.

This is the one place that turns a text into either. A store has objects: each is put whole or not at all, none is renamed,
and a folder is there as long as an object of no bytes in it says so. Listings are never cached, as others write too.
"""

import contextlib
import errno
import io
import os
import re
import shutil
import time
import uuid
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, replace
from itertools import chain, repeat
from pathlib import Path
from typing import Any, TypeAlias

from harness.errors import DiskError, StorageError, StoreClosed, one_line

PATIENCE = 60.0
"""Seconds in which a store that does not answer is asked again."""
SLOWEST = 2**20
"""Bytes a second that a store takes or gives, at least."""
PAUSES = (0.2, 0.5, 1.0, 2.0)
"""Seconds between the first attempts; the last of them between all others."""
MARK = ".folder"
"""The object that says that a folder is there."""
ADDRESS = re.compile(r"([a-z][a-z0-9+.:-]+):/{1,2}(.*)", re.DOTALL | re.IGNORECASE)
"""Of a store, also as pathlib writes it; a letter alone is a drive."""


@dataclass(frozen=True)
class Folder:
    """On a disk."""

    path: Path

    def __str__(self) -> str:
        return str(self.path)

    def __truediv__(self, name: str) -> "Folder":
        return Folder(self.path / name)

    def assert_writable(self) -> None:
        """Raises a HarnessError where checkpoints could not be written, which no trial is to find out."""
        there = next(place for place in (self.path, *self.path.parents) if place.exists())
        if not (there.is_dir() and os.access(there, os.W_OK | os.X_OK)):
            raise StorageError(f"--runs {self}: {there} cannot be written; mend it, or name another place")

    def make(self) -> None:
        """Makes it, if it is not there; raises DiskError where that cannot be."""
        try:
            self.path.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise DiskError(f"{self} cannot be made ({error.strerror}); mend it, or name another place by --runs") from None

    def names(self) -> list[str] | None:
        """Of the files in it; None where there is no such folder. Raises DiskError where it is closed to this user."""
        try:
            return [path.name for path in self.path.iterdir()]
        except (FileNotFoundError, NotADirectoryError):
            return None
        except PermissionError as error:
            raise closed(str(self), error) from None

    def inside(self) -> dict[str, list[str]]:
        """The folders in it, with the names of their files."""
        folders = [Folder(self.path / name) for name in self.names() or ()]
        return {folder.path.name: names for folder in folders if (names := folder.names()) is not None}

    def file(self, name: str) -> Path | io.BytesIO:
        """To be read; raises FileNotFoundError, at the latest when it is read."""
        return self.path / name

    def write(self, name: str, content: bytes) -> None:
        """Writes a file whole or not at all; raises DiskError where it cannot, or where the folder is gone."""
        try:
            self._write(name, content)
        except OSError as error:
            full = error.errno in (errno.ENOSPC, errno.EDQUOT)
            remedy = "free some space" if full else "mend it, or name another place by --runs"
            raise DiskError(f"{self} cannot be written ({error.strerror}): {remedy}") from None

    def _write(self, name: str, content: bytes) -> None:
        made = self.path / f"{uuid.uuid4().hex}.part"
        try:
            with made.open("xb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            made.replace(self.path / name)
        except BaseException:
            with contextlib.suppress(OSError):
                made.unlink()
            raise

    def remove(self, names: Iterable[str]) -> None:
        """Files that may be gone already."""
        for name in names:
            (self.path / name).unlink(missing_ok=True)

    def clear(self) -> None:
        """Removes it with all that is in it, as far as that can be."""
        shutil.rmtree(self.path, ignore_errors=True)

    def rename(self, name: str, other: str) -> None:
        """Gives a folder in it another's name and place."""
        (self / other).clear()
        (self.path / name).replace(self.path / other)


@dataclass(frozen=True)
class Bucket:
    """In a store. What it does not answer is asked again as long as patience lasts; then, and where it refuses or a package
    is missing, every method raises DiskError: StoreClosed where it is this machine that lacks something."""

    address: str
    patience: float = PATIENCE

    def __str__(self) -> str:
        return self.address

    def __truediv__(self, name: str) -> "Bucket":
        return replace(self, address=f"{self.address}/{name}")

    def assert_writable(self) -> None:
        hasty, name = replace(self, patience=min(self.patience, 15.0)), f".writable-{uuid.uuid4().hex[:8]}"
        hasty._put(name, b"")
        hasty.remove([name])

    def make(self) -> None:
        self._put(MARK, b"")

    def names(self) -> list[str] | None:
        found = self._found()
        return [name for name in found if name != MARK and "/" not in name] if found else None

    def inside(self) -> dict[str, list[str]]:
        found = defaultdict[str, list[str]](list)
        for folder, _, name in (name.rpartition("/") for name in self._found()):
            found[folder] += [name] if name not in ("", MARK) else []
        return dict(found)

    def file(self, name: str) -> Path | io.BytesIO:
        size = self._ask("info", f"/{name}")["size"]
        return io.BytesIO(self._ask("cat_file", f"/{name}", size=size))

    def write(self, name: str, content: bytes) -> None:
        self._put(name, content)
        if MARK not in self._found():  # cleared away meanwhile, by a driver that has finished the trial
            self.remove([name])
            raise DiskError(f"{self} cannot be written (it was cleared away)")

    def remove(self, names: Iterable[str]) -> None:
        for name in names:
            with contextlib.suppress(FileNotFoundError):
                self._ask("rm_file", f"/{name}")

    def clear(self) -> None:
        self.remove(self._found())

    def rename(self, name: str, other: str) -> None:
        (self / other).clear()
        found = (self / name)._found()
        for file in found:
            with contextlib.suppress(FileNotFoundError):
                self._ask("cp_file", f"/{name}/{file}", f"{self._store()[1]}/{other}/{file}")
        (self / name).remove(found)

    def _store(self) -> tuple[Any, str]:
        """What fsspec has for it, and how it names this folder there."""
        from fsspec.core import url_to_fs
        from fsspec.registry import get_filesystem_class

        protocol = self.address.partition(":")[0]
        try:
            kind = get_filesystem_class(protocol)
        except ImportError as error:
            raise StoreClosed(f"--runs {self}: {' '.join(str(error).split())} (on every machine)") from None
        except ValueError:
            raise StoreClosed(
                f"--runs {self}: fsspec knows no such store; name one as in s3://bucket/runs, or a folder"
            ) from None
        try:
            fs, path = url_to_fs(self.address, **({"use_listings_cache": False} if kind.async_impl else {}))
        except Exception as error:
            raise self._unset(error) from None
        if not kind.async_impl:  # some of these take no such option
            fs.invalidate_cache()
        return fs, str(path)

    def _found(self) -> list[str]:
        """All that is in it, at any depth, by its path from here."""
        path = self._store()[1]
        try:
            return [name for found in self._ask("find", "") if (name := str(found)[len(path) + 1 :])]
        except FileNotFoundError as error:
            raise self._refusal(error) from None

    def _put(self, name: str, content: bytes) -> None:
        try:
            self._ask("pipe_file", f"/{name}", content, size=len(content))
        except FileNotFoundError as error:
            raise self._refusal(error) from None

    def _ask(self, what: str, name: str, *rest: Any, size: int = 0) -> Any:
        """What a method of the store answers about an object; raises FileNotFoundError where that is its answer."""
        fs, path = self._store()
        end, pauses = time.monotonic() + self.patience, chain(PAUSES, repeat(PAUSES[-1]))
        while True:
            try:
                return _answer(fs, what, path + name, *rest, seconds=max(end - time.monotonic(), 1) + size / SLOWEST)
            except FileNotFoundError:
                raise
            except Exception as error:
                definite = isinstance(error, PermissionError) or "Credentials" in type(error).__name__
                if definite or time.monotonic() + (pause := next(pauses)) > end:
                    raise self._refusal(error) from None
            time.sleep(pause)

    def _unset(self, error: Exception) -> StoreClosed:
        return StoreClosed(
            f"--runs {self}: {said(error)}; the store's own environment variables or configuration file have to say how it"
            " is reached (for S3 AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or ~/.aws/credentials), on every machine"
        )

    def _refusal(self, error: Exception) -> DiskError:
        if "Credentials" in type(error).__name__:
            return self._unset(error)
        if isinstance(error, FileNotFoundError):
            return DiskError(f"--runs {self}: {said(error)}; make the bucket, or name another")
        if isinstance(error, PermissionError):
            return StoreClosed(
                f"--runs {self}: {said(error)}; the credentials have to allow to list, read, write and delete there"
            )
        remedy = "see that it can be reached, or name another place by --runs"
        return DiskError(f"{self} does not answer ({said(error)}): {remedy}")


def said(error: Exception) -> str:
    """What a store says, without what may sign an address."""
    return re.sub(r"\?[^\s\"']*", "", one_line(error))


def _answer(fs: Any, what: str, *arguments: Any, seconds: float) -> Any:
    """What a file system's method gives, within so many seconds where it can be told to end."""
    if not fs.async_impl:
        return getattr(fs, what)(*arguments)
    from fsspec.asyn import sync

    return sync(fs.loop, getattr(fs, f"_{what}"), *arguments, timeout=seconds)


Depot: TypeAlias = Folder | Bucket


def closed(what: str, error: PermissionError) -> DiskError:
    """Of what another user has left and keeps."""
    return DiskError(
        f"{what} cannot be read ({error.strerror}): have its owner allow it (`chmod -R g+rwX` on the runs folder), or name"
        " another place by --runs"
    )


def depot(text: str | Path) -> Depot:
    """The place that a user names. Raises StorageError for an address that holds a secret, or that not all can share."""
    match = ADDRESS.fullmatch(str(text))
    if match is None:
        return Folder(Path(text))
    protocol, rest = match[1].lower(), match[2].strip("/")
    if protocol in ("file", "local"):
        return Folder(Path(f"/{rest}"))
    where = rest.rpartition("@")[2].partition("?")[0]
    if ":" in rest.rpartition("@")[0] or "?" in rest:
        raise StorageError(
            f"--runs {protocol}://{where}: an address is stored and shown, so it must hold no secret; give keys by the"
            " store's own environment variables or configuration file"
        )
    if not rest or ":" in protocol or protocol == "memory":
        raise StorageError(f"--runs {text}: name a bucket that all machines reach, as in s3://bucket/runs, or a folder")
    return Bucket(f"{protocol}://{rest}")


def checkpoint_file(token: int) -> str:
    """The name of a trial's checkpoint, by its driver's fencing token."""
    return f"last-{token}.pt"


def tokens(names: Iterable[str] | None) -> list[int]:
    """Of the checkpoints among the files of a trial's folder, the largest first."""
    found = (re.fullmatch(r"last-(\d+)\.pt", name) for name in names or ())
    return sorted((int(match[1]) for match in found if match), reverse=True)
