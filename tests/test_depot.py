"""Folders of weights on a disk and in a store: one contract, a real S3 server, and what goes wrong with one."""

import os
import subprocess
import sys
import threading
import time
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

import fsspec
import pytest
from fsspec.implementations.memory import MemoryFileSystem

from harness.depot import Bucket, Depot, Folder, depot
from harness.errors import DiskError, HarnessError, StorageError
from tests import s3
from tests.conftest import content

# -- the contract -----------------------------------------------------------------------------------------------------


def test_a_folder_is_made_filled_and_cleared_away(place: Depot) -> None:
    folder = place / "s~training.epochs=5 [a]*?" / "1"
    assert folder.names() is None and place.inside() == {}
    folder.clear()
    folder.make()
    folder.make()
    assert folder.names() == []
    folder.write("last-1.pt", b"one")
    folder.write("last-1.pt", b"two")
    folder.write("final.pt", b"")
    assert sorted(folder.names() or ()) == ["final.pt", "last-1.pt"]
    assert (content(folder, "last-1.pt"), content(folder, "final.pt")) == (b"two", b"")
    folder.remove(["last-1.pt", "never-there"])
    assert folder.names() == ["final.pt"]
    with pytest.raises(FileNotFoundError):
        content(folder, "last-1.pt")
    folder.clear()
    assert folder.names() is None


def test_nothing_is_written_into_a_folder_that_was_cleared_away(place: Depot) -> None:
    (place / "1").make()
    (place / "1").clear()
    with pytest.raises(DiskError, match="cannot be written"):
        (place / "1").write("last-1.pt", b"of an orphan")
    assert (place / "1").names() is None


def test_folders_are_told_apart_and_renamed(place: Depot) -> None:
    for number in ("1", "10", "11"):
        (place / number).make()
        (place / number).write("last-0.pt", number.encode())
    (place / "11").write("half.part", b"")
    assert {name: sorted(files) for name, files in place.inside().items()} == {
        "1": ["last-0.pt"],
        "10": ["last-0.pt"],
        "11": ["half.part", "last-0.pt"],
    }
    place.rename("1", "11")
    assert {name: sorted(files) for name, files in place.inside().items()} == {"10": ["last-0.pt"], "11": ["last-0.pt"]}
    assert content(place / "11", "last-0.pt") == b"1"
    (place / "11").write("final.pt", b"as in any other folder")


def test_what_can_be_written_is_known_before(place: Depot) -> None:
    place.assert_writable()
    assert place.names() is None, "nothing is left of the trial"


# -- which place a text is --------------------------------------------------------------------------------------------


def test_texts_are_folders_or_stores() -> None:
    assert depot("s3://bucket/a/b/") == depot(Path("s3://bucket/a/b")) == Bucket("s3://bucket/a/b")
    assert depot("S3://Bucket/a") == Bucket("s3://Bucket/a")
    assert depot("abfs://container@account.dfs.core.windows.net/x") == Bucket(
        "abfs://container@account.dfs.core.windows.net/x"
    )
    assert depot("file:///lab/runs") == depot(Path("file:///lab/runs")) == Folder(Path("/lab/runs"))
    for text in ("runs", "/lab/runs", "a:b/c", "c:/runs"):
        assert depot(text) == depot(Path(text)) == Folder(Path(text))


@pytest.mark.parametrize("text", ["s3://somebody:hush@bucket/x", "az://bucket/x?sv=1&sig=hush", "sftp://me:hush@host/x"])
def test_secrets_are_refused_and_not_repeated(text: str) -> None:
    with pytest.raises(StorageError, match="must hold no secret; give keys by the store's own environment") as told:
        depot(text)
    assert "hush" not in str(told.value)


@pytest.mark.parametrize("text", ["s3://", "memory://x", "simplecache::s3://bucket/x"])
def test_what_not_all_can_share_is_refused(text: str) -> None:
    with pytest.raises(StorageError, match="name a bucket that all machines reach"):
        depot(text)


# -- what goes wrong --------------------------------------------------------------------------------------------------


def refused(place: Depot) -> str:
    with pytest.raises(HarnessError) as told:
        place.assert_writable()
    assert "\n" not in str(told.value)
    return str(told.value)


def test_what_is_wrong_from_the_beginning_is_one_line(store: s3.Server, monkeypatch: pytest.MonkeyPatch) -> None:
    assert "The specified bucket does not exist; make the bucket" in refused(depot("s3://nobodys/x"))
    assert "Please install gcsfs to access Google Storage (on every machine)" in refused(depot("gs://bucket/x"))
    assert 'SFTPFileSystem requires "paramiko" to be installed (on every machine)' in refused(depot("sftp://host/x"))
    assert "fsspec knows no such store; name one as in s3://bucket/runs" in refused(depot("s4://bucket/x"))
    bucket = depot(store.bucket())
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", os.devnull)
    fsspec.get_filesystem_class("s3").clear_instance_cache()
    try:
        assert (
            "Unable to locate credentials; the store's own environment variables or configuration file have to say"
            in refused(bucket)
        )
    finally:
        fsspec.get_filesystem_class("s3").clear_instance_cache()


def test_others_writes_are_seen_at_once(store: s3.Server) -> None:
    bucket = depot(store.bucket()) / "1"
    bucket.make()
    assert bucket.names() == []
    store.put(f"{str(bucket).removeprefix('s3://')}/last-7.pt", b"another's")
    assert bucket.names() == ["last-7.pt"] and content(bucket, "last-7.pt") == b"another's"


class Strict(MemoryFileSystem):  # type: ignore[misc]
    """As of those that take no options of fsspec's own, and keep listings."""

    protocol = "strict"
    store: ClassVar[dict[str, Any]] = {}
    pseudo_dirs: ClassVar[list[str]] = [""]

    def __init__(self, **options: Any) -> None:
        assert not options
        super().__init__()

    @classmethod
    def _strip_protocol(cls, path: str) -> str:
        return "/" + path.removeprefix("strict://").strip("/")

    def find(self, path: str, **options: Any) -> Any:
        if path not in self.dircache:
            self.dircache[path] = super().find(path, **options)
        return self.dircache[path]

    def invalidate_cache(self, path: str | None = None) -> None:
        self.dircache.clear()


def test_a_store_that_takes_no_options_is_listed_afresh_too() -> None:
    fsspec.register_implementation("strict", Strict, clobber=True)
    bucket = depot("strict://bucket/runs") / "1"
    bucket.assert_writable()
    bucket.make()
    assert bucket.names() == []
    bucket.write("last-1.pt", b"one")
    assert bucket.names() == ["last-1.pt"] and content(bucket, "last-1.pt") == b"one"


@pytest.mark.parametrize("how", [s3.REFUSING, s3.FAILING])
def test_a_store_that_goes_away_is_waited_for(store: s3.Server, how: str) -> None:
    folder = depot(store.bucket()) / "1"
    folder.make()
    store.away(how)
    threading.Timer(0.8, store.back).start()
    began = time.monotonic()
    folder.write("last-1.pt", b"late")
    assert time.monotonic() - began > 0.6
    assert content(folder, "last-1.pt") == b"late"


def test_a_store_that_stays_away_is_one_line(store: s3.Server) -> None:
    folder = depot(store.bucket()) / "1"
    folder.make()
    assert isinstance(folder, Bucket)
    hasty = replace(folder, patience=1.0)
    store.away()
    try:
        with pytest.raises(DiskError, match=r"/1 does not answer \(EndpointConnectionError: .*can be reached") as told:
            hasty.write("last-1.pt", b"x")
        assert "\n" not in str(told.value)
        with pytest.raises(DiskError, match="does not answer"):
            hasty.names()
    finally:
        store.back()
    store.away(s3.HANGING)
    try:
        began = time.monotonic()
        with pytest.raises(DiskError, match=r"does not answer \(FSTimeoutError"):
            hasty.names()
        assert time.monotonic() - began < 5
    finally:
        store.back()
    assert folder.names() == []


def test_a_folder_needs_nothing_of_a_store(tmp_path: Path) -> None:
    """Not even the import of fsspec, which takes a worker a tenth of a second."""
    script = (
        "import sys; from pathlib import Path; from harness.depot import depot; import harness.trial\n"
        "place = depot(sys.argv[1]); place.assert_writable(); place.make(); place.write('a', b'b'); place.inside()\n"
        "place.rename('x', 'y') if 'x' in place.inside() else place.clear()\n"
        "assert not [name for name in ('fsspec', 's3fs', 'torch') if name in sys.modules]"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, str(tmp_path / "runs")], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
