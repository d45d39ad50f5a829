"""Folders of pictures, `train/<class>/*` with the test part beside it: decoded once into the cache, or read as they pass.

What every picture becomes: three channels of 8 bits. Grey, palette and CMYK pictures are converted, an alpha channel is
dropped, 16 bits are scaled to 8, and the picture is turned as its EXIF orientation says (the loaders of torchvision and
timm leave a phone's pictures on their side).
"""

import contextlib
import hashlib
import os
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from PIL import ExifTags, Image, ImageOps

from harness.config import Training
from harness.data.cache import Progress, entry, known, name_of
from harness.data.pictures import DataInfo, Files, Levels, Pictures, facts_of, keep_facts, read, whole, write
from harness.errors import DataError, one_line
from harness.hardware import cores

HELD_OUT = ("test", "val", "valid", "validation")
"""Folders beside `train` that may hold the test part; the first one that is there counts."""
SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".ppm", ".pgm")
UPRIGHT = "upright"
"""In the names of entries since pictures are turned as their EXIF orientation says."""
AT_ONCE = 500
"""Pictures between two words of progress."""
Item = TypeVar("Item")
Done = TypeVar("Done")


def opened(training: Training, root: Path, progress: Progress | None) -> tuple[Pictures | Files, DataInfo]:
    """The training part of a folder and what it is; raises DataError in one line for what is missing or broken."""
    found = _listing(root, training.limit)
    if training.loading == "stream" or (training.loading == "auto" and too_large(found, training.image_size)):
        return _streamed(found, training, progress)
    return _resident(found, training, progress)


def opened_test(
    training: Training, root: Path, progress: Progress | None, *, streamed: bool
) -> tuple[Pictures | Files, DataInfo]:
    """The test part of a folder, all of it, kept as the training part is; raises DataError where it holds no picture."""
    found = _listing(root, None, test=True)
    if not found.files:
        raise DataError(f"{found.part} holds no pictures: put the test part there, {found.part}/<class>/*")
    return (_streamed if streamed else _resident)(found, training, progress)


# -- what is there ----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Listing:
    """The pictures of a part in order of name, and the number of test pictures."""

    root: Path
    part: Path
    """The folder of the part: train, or the one that is held out."""
    classes: list[str]
    files: list[Path]
    labels: list[int]
    test: int
    least: int
    """Pictures that each class needs."""

    @property
    def state(self) -> list[Any]:
        """What is cheap to look at and changes with the pictures."""
        return [str(self.root.resolve()), self.classes, state_of(self.files)]

    @property
    def names(self) -> list[str]:
        return [str(file.relative_to(self.root)) for file in self.files]


def _listing(root: Path, limit: int | None, *, test: bool = False) -> Listing:
    train, held = root / "train", next((root / name for name in HELD_OUT if (root / name).is_dir()), None)
    if not train.is_dir():
        raise DataError(
            f"dataset='folder': there is no folder {train}; give the folder that holds train/<class>/* by --data"
        )
    if held is None:
        raise DataError(f"dataset='folder': {root} has no test part; put one of {', '.join(HELD_OUT)} beside train")
    classes = sorted(entry.name for entry in train.iterdir() if entry.is_dir())
    others = {entry.name for entry in held.iterdir() if entry.is_dir()}
    if len(classes) < 2:
        raise DataError(f"{train}: {len(classes)} class folders; a classifier needs two or more")
    if missing := set(classes) ^ others:
        raise DataError(
            f"{train} and {held} differ in their classes: {', '.join(sorted(missing)[:5])} is in one of them only"
        )
    part, least = (held, 0) if test else (train, 2)
    files, labels = [], []
    for label, name in enumerate(classes):
        found = _pictures(part / name)[:limit]
        _assert_enough(part / name, len(found), least)
        files += found
        labels += [label] * len(found)
    return Listing(root, part, classes, files, labels, sum(len(_pictures(held / name)) for name in classes), least)


def _pictures(folder: Path) -> list[Path]:
    return sorted(entry for entry in folder.iterdir() if entry.suffix.lower() in SUFFIXES)


def _assert_enough(folder: Path, count: int, least: int) -> None:
    if count < least:
        raise DataError(f"{folder}: {count} pictures; a class needs two or more, one of them to validate on")


def state_of(files: Sequence[Path]) -> list[tuple[str, int, int]]:
    """Names, sizes and times of files; of one that cannot be opened, -1 and 0, whatever may be behind it."""
    return [(file.name, *_looks(file)) for file in files]


def _looks(file: Path) -> tuple[int, int]:
    try:
        found = file.stat()
    except OSError:  # a link to nowhere
        return -1, 0
    return (found.st_size, found.st_mtime_ns) if os.access(file, os.R_OK) else (-1, 0)


UNREADABLE = "unreadable"
"""In the place of a file's hash."""


def digests(files: Sequence[Path], progress: Progress | None) -> list[str]:
    """Hashes of what the files hold; who decodes them says which cannot be read, and why."""

    def asked(done: int, total: int) -> None:
        if progress is not None:
            progress(0, 0)

    return list(_each(_digest, files, asked))


def _digest(file: Path) -> str:
    try:
        return hashlib.sha256(file.read_bytes()).hexdigest()
    except OSError:
        return UNREADABLE


def _each(work: Callable[[Path], Done], files: Sequence[Path], progress: Progress | None) -> Iterator[Done]:
    """The work on every file in order, on all cores, a few hundred held at a time.

    No thread outlives a step: a generator left half-way is closed by the garbage collector, at any moment and in any
    thread, and waiting there for threads can wait for ever.
    """
    for start in range(0, len(files), AT_ONCE):
        with ThreadPoolExecutor(min(cores(), 32)) as pool:
            done = list(pool.map(work, files[start : start + AT_ONCE]))
        yield from done
        if progress is not None:
            progress(min(start + AT_ONCE, len(files)), len(files))


# -- one array --------------------------------------------------------------------------------------------------------


def resident_limit() -> float:
    """Bytes of decoded pictures above which a folder is streamed: HARNESS_RESIDENT_GB, else a quarter of the memory."""
    words = os.environ.get("HARNESS_RESIDENT_GB")
    try:
        return float(words) * 1e9 if words else os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 4
    except ValueError:
        raise DataError(f"HARNESS_RESIDENT_GB = {words!r}: a number of gigabytes, as in 8 or 0.5") from None


def too_large(found: Listing, image_size: int | None) -> bool:
    """Whether the pictures, decoded, are more than is held whole."""
    area = image_size**2 if image_size is not None else _area_of_first(found.files)
    if (too_many := 3 * area * len(found.files) > resident_limit()) and image_size is None:
        raise DataError(
            f"{found.root}: {len(found.files):,} pictures, {3 * area * len(found.files) / 1e9:.1f} GB decoded, are more than"
            f" {resident_limit() / 1e9:.1f} GB (HARNESS_RESIDENT_GB): set Training.image_size to stream them"
        )
    return too_many


def _area_of_first(files: Sequence[Path]) -> int:
    for file in files:
        with contextlib.suppress(Exception), Image.open(file) as picture:
            return picture.width * picture.height
    return 0


def _resident(found: Listing, training: Training, progress: Progress | None) -> tuple[Pictures, DataInfo]:
    """Decoded once; a picture that cannot be read is an error, or left out where the config says so."""

    def build(folder: Path) -> None:
        bad: list[str] = []
        write(folder, _decoded(found, training, bad, progress), len(found.classes), bad)

    content = known(found.state, lambda: name_of(digests(found.files, progress)))
    settings = [found.classes, found.labels, training.image_size, training.skip_bad_images, UPRIGHT]
    name, about = name_of("folder", settings, content), str(found.part.resolve())
    return read(entry(name, build, progress, about), "folder", found.test)


def _decoded(found: Listing, training: Training, bad: list[str], progress: Progress | None) -> Iterator[tuple[Levels, int]]:
    first: tuple[Path, Levels] | None = None
    counts = Counter(found.labels)
    images = _each(lambda file: _attempted(file, training.image_size), found.files, progress)
    for image, file, label in zip(images, found.files, found.labels):  # the images first: their end is told too
        if isinstance(image, DataError):
            _left_out(image, training, bad)
            counts[label] -= 1
            continue
        first = first or (file, image)
        if image.shape != first[1].shape:
            raise DataError(
                f"{file} is {image.shape[1]}x{image.shape[0]} and {first[0]} {first[1].shape[1]}x{first[1].shape[0]}:"
                " set Training.image_size to bring all pictures to one size"
            )
        yield image, label
    for label, count in counts.items():
        _assert_enough(found.part / found.classes[label], count, found.least)


def _left_out(error: DataError, training: Training, bad: list[str]) -> None:
    if not training.skip_bad_images:
        raise error
    bad.append(str(error).partition("; mend")[0])


def _attempted(file: Path, image_size: int | None) -> Levels | DataError:
    try:
        picture = load(file)
    except DataError as error:
        return error
    if image_size is not None:
        picture = picture.resize((image_size, image_size), Image.Resampling.BILINEAR)
    return np.asarray(picture)


def load(source: Path) -> Image.Image:
    """A picture in three channels of 8 bits; raises DataError in one line for a file that is none."""
    try:
        with Image.open(source) as opened:
            ImageOps.exif_transpose(opened, in_place=True)
            return rgb(opened)
    except Exception as error:
        raise unreadable(source, error) from None


def unreadable(file: Path, error: Exception) -> DataError:
    return DataError(
        f"{file}: not a readable picture ({one_line(error)}); mend or remove it, or set Training.skip_bad_images"
    )


def rgb(picture: Image.Image) -> Image.Image:
    """Three channels of 8 bits, whatever it was."""
    if picture.mode.startswith("I"):  # 16 bits of grey, which convert() would cut off at 255
        return Image.fromarray((np.asarray(picture).astype(np.int64) >> 8).clip(0, 255).astype(np.uint8)).convert("RGB")
    if picture.mode == "P" and "transparency" in picture.info:
        return picture.convert("RGBA").convert("RGB")
    return picture.convert("RGB")


# -- read as they pass ------------------------------------------------------------------------------------------------


def _streamed(found: Listing, training: Training, progress: Progress | None) -> tuple[Files, DataInfo]:
    """Every file is read and decoded small once, so that what is broken is known before the first epoch."""
    side = training.image_size
    if side is None:
        raise DataError("Training.loading = 'stream': set Training.image_size, the side of the squares the network sees")

    def build(folder: Path) -> None:
        bad: list[str] = []
        kept, hashes = [], []
        for place, seen in enumerate(_each(_looked_through, found.files, progress)):
            if isinstance(seen, DataError):
                _left_out(seen, training, bad)
            else:
                kept.append(place)
                hashes.append(seen)
        counts = Counter(found.labels[place] for place in kept)
        for label, name in enumerate(found.classes):
            _assert_enough(found.part / name, counts[label], found.least)
        np.save(folder / "kept.npy", np.array(kept, np.int64))
        content = name_of("stream", found.classes, [found.labels[place] for place in kept], side, hashes)
        keep_facts(folder, content[:16], (len(kept), side, side, 3), len(found.classes), bad)

    name = name_of("stream", found.state, side, training.skip_bad_images, UPRIGHT)
    folder = entry(name, build, progress, f"{found.part.resolve()}, read as it passes")
    with whole(folder):
        kept, names = np.load(folder / "kept.npy"), found.names
        files = Files(found.root, [names[place] for place in kept], np.array(found.labels, np.int64)[kept])
        return files, facts_of(folder, "folder", found.test, streamed=True)


def _looked_through(file: Path) -> str | DataError:
    """The hash of a file's bytes, which decode to a picture to the end, and of its being turned where it is."""
    try:
        content = file.read_bytes()
        with Image.open(BytesIO(content)) as picture:
            picture.draft("RGB", (32, 32))  # of a JPEG, an eighth of the work
            picture.load()
            turned = picture.getexif().get(ExifTags.Base.Orientation, 1) != 1
    except Exception as error:
        return unreadable(file, error)
    return hashlib.sha256(content).hexdigest() + (f" {UPRIGHT}" if turned else "")
