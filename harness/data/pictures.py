"""Pictures at rest: one array, mapped from the cache and shared by all processes, or files that are read as they pass."""

import contextlib
import hashlib
import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from harness.cost import Shape
from harness.errors import DataError, one_line

Levels = NDArray[np.uint8]
Counts = NDArray[np.int64]


@dataclass(frozen=True)
class Pictures:
    """Images as uint8 (count, height, width, channels), their classes (count,), and their moments (count, channels, 2): the
    sums of levels and of squared levels, from which means and deviations of any part follow exactly."""

    images: Levels
    labels: Counts
    moments: Counts


@dataclass(frozen=True)
class Files:
    """Pictures too many to hold: files under a folder, and their classes (count,)."""

    root: Path
    names: Sequence[str]
    labels: Counts


@dataclass(frozen=True)
class DataInfo:
    """What a study says of its data; `fingerprint` is a hash of the training pictures and labels."""

    dataset: str
    fingerprint: str
    shape: Shape
    train: int
    test: int
    streamed: bool = False
    """Whether pictures are read from their files as they pass, for they are too many to hold."""
    skipped: int = 0
    """Pictures that cannot be read and are left out."""
    skipped_first: str = ""
    """One of them, and why."""
    own: bool = False
    """Whether a loop of the user's own reads or makes them by itself."""
    scored_on: str = ""
    """A hash of the test pictures and labels, where a study scores its trials on them: only one that confirms does."""

    @property
    def bytes(self) -> int:
        """Of all training pictures, decoded."""
        return self.train * self.shape.channels * self.shape.height * self.shape.width

    @property
    def notes(self) -> tuple[str, ...]:
        """What a run says of its data."""
        if not self.skipped:
            return ()
        rest = "" if self.skipped == 1 else f", and {self.skipped - 1:,} more"
        return (f"skip_bad_images: {self.skipped:,} of {self.skipped + self.train:,} left out: {self.skipped_first}{rest}",)

    def to_json(self) -> dict[str, Any]:
        return asdict(self) | {"shape": list(self.shape[:3]), "classes": self.shape.classes}

    @staticmethod
    def from_json(data: dict[str, Any]) -> "DataInfo":
        """What `to_json` wrote."""
        channels, height, width = data["shape"]
        shape = Shape(channels, height, width, data["classes"])
        return DataInfo(**{name: value for name, value in data.items() if name != "classes"} | {"shape": shape})


def fingerprint(pictures: Pictures, classes: int) -> str:
    """A hash of pictures, labels and the number of classes."""
    content = hashlib.sha256(repr((pictures.images.shape, classes)).encode())
    content.update(np.ascontiguousarray(pictures.images).data)
    content.update(np.ascontiguousarray(pictures.labels).data)
    return content.hexdigest()[:16]


def moments_of(image: Levels) -> Counts:
    """(channels, 2): the sums of levels and of squared levels of one picture (height, width, channels)."""
    flat = image.reshape(-1, image.shape[-1]).astype(np.uint32)
    return np.stack([flat.sum(0, dtype=np.int64), (flat * flat).sum(0, dtype=np.int64)], axis=1)


# -- in the cache -----------------------------------------------------------------------------------------------------


def write(folder: Path, pairs: Iterable[tuple[Levels, int]], classes: int, bad: Sequence[str] = ()) -> None:
    """Fills an entry of the cache with pictures of one shape and their classes, as they come; `bad` says what was left out,
    and may grow meanwhile."""
    labels, moments, shape = [], [], ()
    with (folder / "images").open("wb") as file:
        for image, label in pairs:
            file.write(np.ascontiguousarray(image).data)
            labels.append(label)
            moments.append(moments_of(image))
            shape = image.shape
    written = Pictures(
        images=_mapped(folder / "images", (len(labels), *shape)),
        labels=np.array(labels, np.int64),
        moments=np.stack(moments),
    )
    np.save(folder / "labels.npy", written.labels)
    np.save(folder / "moments.npy", written.moments)
    keep_facts(folder, fingerprint(written, classes), written.images.shape, classes, bad)


def read(folder: Path, dataset: str, test: int) -> tuple[Pictures, DataInfo]:
    """What `write` wrote, mapped and not copied; raises DataError where something has been at it since."""
    with whole(folder):
        info = facts_of(folder, dataset, test)
        channels, height, width, _ = info.shape
        images = _mapped(folder / "images", (info.train, height, width, channels))
        return Pictures(images, np.load(folder / "labels.npy"), np.load(folder / "moments.npy")), info


@contextlib.contextmanager
def whole(folder: Path) -> Iterator[None]:
    """Where an entry is read: raises DataError where something has been at it."""
    try:
        yield
    except PermissionError as error:
        raise DataError(
            f"{folder}: an entry of the cache that another user keeps to himself ({one_line(error)}); have it made readable"
            " (`chmod -R a+rX`), or name another cache by HARNESS_CACHE"
        ) from None
    except (OSError, ValueError) as error:
        raise DataError(f"{folder}: no longer a whole entry of the cache ({one_line(error)}); remove it") from None


def keep_facts(folder: Path, fingerprint: str, shape: Sequence[int], classes: int, bad: Sequence[str]) -> None:
    """The facts of an entry; `shape` is (count, height, width, channels)."""
    facts = {"fingerprint": fingerprint, "skipped": len(bad), "skipped_first": bad[0] if bad else ""}
    (folder / "facts.json").write_text(json.dumps(facts | {"shape": list(shape), "classes": classes}))


def facts_of(folder: Path, dataset: str, test: int, *, streamed: bool = False) -> DataInfo:
    """What an entry is."""
    facts = json.loads((folder / "facts.json").read_text())
    count, height, width, channels = facts.pop("shape")
    shape = Shape(channels, height, width, facts.pop("classes"))
    return DataInfo(dataset, shape=shape, train=count, test=test, streamed=streamed, **facts)


def _mapped(file: Path, shape: tuple[int, ...]) -> Levels:
    """Pages that all processes share; torch wants them writable, which makes a private copy of what is written: nothing."""
    return np.memmap(file, np.uint8, mode="c", shape=shape)
