"""A database that is locked, and a disk that fills up: time, not trials."""

import contextlib
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from lab import TALLIES, Lab, Tally, real, searched

MakeLab = Callable[[str, str], Lab]
LOCK = """
import sqlite3, sys, time
connection = sqlite3.connect(sys.argv[1], isolation_level=None, timeout=60)
connection.execute("BEGIN EXCLUSIVE")
print("locked", flush=True)
time.sleep(float(sys.argv[2]))
"""


@contextlib.contextmanager
def locked(database: Path, seconds: float) -> Iterator[None]:
    """Another process holds the database for itself."""
    words = [sys.executable, "-c", LOCK, str(database), str(seconds)]
    with subprocess.Popen(words, stdout=subprocess.PIPE, text=True) as other:
        assert other.stdout is not None and other.stdout.readline() == "locked\n"
        yield
        assert other.wait() == 0


@pytest.mark.parametrize(
    ("backend", "seconds"),
    [
        ("local", 1.5),
        pytest.param("local", 62, marks=pytest.mark.faults_long),
        pytest.param("ray", 62, marks=pytest.mark.faults_long),
    ],
)
def test_a_locked_database_costs_time(make_lab: MakeLab, backend: str, seconds: float) -> None:
    planned = 30 if seconds > 10 else 12
    lab = make_lab(searched(f"Evolution(trials={planned}, population=4)"), f"database locked for {seconds} s ({backend})")
    driver = (lab.on_ray if backend == "ray" else lab.local)(FAKE_PAUSE=0.02)
    lab.wait_for_rows(driver, 2)
    with locked(lab.database, seconds):
        before = lab.states
        time.sleep(1)
        assert lab.states == before and driver.code is None, driver.printed
    assert driver.wait() == 0, driver.printed
    lab.assert_whole(planned, caused=1)


@pytest.fixture
def mounted() -> Iterator[Callable[[Path, str], None]]:
    """Mounts a disk of a size on a folder; says so where it may not."""
    disks: list[Path] = []

    def mount(folder: Path, size: str) -> None:
        folder.mkdir()
        done = subprocess.run(
            ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(folder)], capture_output=True, text=True, check=False
        )
        if done.returncode:
            name = "a disk that fills up: NOT TESTED, no right to mount a tmpfs"
            TALLIES[name] = Tally(name)
            pytest.skip(f"{name}: {done.stderr.strip()}")
        disks.append(folder)

    yield mount
    for disk in disks:
        subprocess.run(["umount", "--lazy", str(disk)], check=True)


def fill(disk: Path, spare: int) -> Path:
    """Leaves so many bytes."""
    filler = disk / "filler"
    with contextlib.suppress(OSError), filler.open("wb", buffering=0) as file:
        while True:
            file.write(bytes(4096))
    size = filler.stat().st_size
    with filler.open("rb+") as file:
        file.truncate(max(0, size - spare))
    return filler


def full_disk(lab: Lab, kind: str, backend: str, spares: list[int]) -> int:
    """Fills the disk while a driver runs, as often as there are spares; how often that ended the driver."""
    disk, ended = lab.folder / "disk", 0
    lab.database = disk / "harness.db"
    for spare in spares:
        done = lab.states["COMPLETE"]
        driver = (lab.on_ray if backend == "ray" else lab.local)("--keep", "all", FAKE_PAUSE=0.02)
        lab.wait_for_rows(driver, done + 1)
        filler = fill(disk, spare)
        code = driver.wait(120)
        words = [line for line in driver.printed.splitlines() if not line.startswith("[")]
        with contextlib.closing(sqlite3.connect(f"file:{lab.database}?mode=ro", uri=True)) as connection:
            assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)
            assert connection.execute("SELECT count(*) FROM trials").fetchone()[0] > 0
        assert code in (2, 75), (code, driver.printed)
        assert sum("full" in line or "No space" in line for line in words) == 1, driver.printed
        assert "Traceback" not in driver.printed, driver.printed
        if kind == "fake":
            assert len(words) == 1 or code == 75, driver.printed
        filler.unlink()
        ended += 1
    return ended


@pytest.mark.parametrize(
    ("kind", "backend", "spares"),
    [
        ("fake", "local", [0]),
        pytest.param("fake", "local", [0, 4096, 20_000, 60_000, 100_000], marks=pytest.mark.faults_long),
        pytest.param("fake", "ray", [20_000], marks=pytest.mark.faults_long),
        pytest.param("real", "local", [0, 60_000], marks=pytest.mark.faults_long),
        pytest.param("real", "ray", [100_000], marks=pytest.mark.faults_long),
    ],
)
def test_a_disk_fills_up(
    make_lab: MakeLab, mounted: Callable[[Path, str], None], kind: str, backend: str, spares: list[int]
) -> None:
    """With room again, it goes on."""
    planned = 120 if kind == "fake" else 14
    lab = make_lab(
        searched(f"Random(trials={planned})") if kind == "fake" else real(planned), f"disk full ({kind}, {backend})"
    )
    mounted(lab.folder / "disk", "16m")
    caused = full_disk(lab, kind, backend, spares)
    last = lab.local("--keep", "all")
    assert last.wait() == 0, last.printed
    lab.assert_whole(planned, caused=caused)
