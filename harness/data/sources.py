"""Where pictures come from: digits (embedded), CIFAR (torchvision), folders of pictures; decoded once, as uint8 arrays.

Only the training part is read: validation pictures are drawn from it by seed, and the test part is for the end.
"""

import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from harness.config import Training
from harness.cost import Shape
from harness.errors import DataError, one_line

HELD_OUT = ("test", "val", "valid", "validation")
"""Folders beside `train` that may hold the test part; the first one that is there counts."""
SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".ppm", ".pgm")
Progress = Callable[[int, int], None]
"""Told how many pictures of how many are decoded."""


@dataclass(frozen=True)
class Pictures:
    """Images as uint8 (count, height, width, channels) and their classes as int64 (count,)."""

    images: NDArray[np.uint8]
    labels: NDArray[np.int64]


@dataclass(frozen=True)
class DataInfo:
    """What a study says of its data; `fingerprint` is a hash of the training pictures and labels."""

    dataset: str
    fingerprint: str
    shape: Shape
    train: int
    test: int

    def to_json(self) -> dict[str, Any]:
        return asdict(self) | {"shape": list(self.shape[:3]), "classes": self.shape.classes}

    @staticmethod
    def from_json(data: dict[str, Any]) -> "DataInfo":
        """What `to_json` wrote."""
        channels, height, width = data["shape"]
        shape = Shape(channels, height, width, data["classes"])
        return DataInfo(data["dataset"], data["fingerprint"], shape, data["train"], data["test"])


_opened: dict[tuple[Any, ...], tuple[Pictures, DataInfo]] = {}


def open_data(training: Training, root: Path, progress: Progress | None = None) -> tuple[Pictures, DataInfo]:
    """The training part a config names, and what it is; raises DataError in one line for what is missing or broken.

    Decoded pictures are kept under HARNESS_CACHE (default ~/.cache/attention-harness) and mapped into memory from there."""
    source = (training.dataset, str(root), training.limit, training.image_size)
    if source not in _opened:
        if training.dataset == "digits":
            _opened[source] = _digits(training)
        elif training.dataset == "folder":
            _opened[source] = _folder(training, root, progress)
        else:
            _opened[source] = _cifar(training, root)
    return _opened[source]


def split(labels: NDArray[np.int64], share: float, seed: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Places of the training and of the validation pictures: stratified by class, each class shuffled by the seed."""
    kept, held = [], []
    for label in np.unique(labels):
        places = np.flatnonzero(labels == label)
        order = np.random.Generator(np.random.PCG64([seed, int(label)])).permutation(places)
        count = min(max(round(share * len(places)), 1), len(places) - 1)
        held.append(order[:count])
        kept.append(order[count:])
    return np.sort(np.concatenate(kept)), np.sort(np.concatenate(held))


def _info(dataset: str, pictures: Pictures, classes: int, test: int) -> DataInfo:
    count, height, width, channels = pictures.images.shape
    content = hashlib.sha256(repr((pictures.images.shape, classes)).encode())
    content.update(np.ascontiguousarray(pictures.images).data)
    content.update(np.ascontiguousarray(pictures.labels).data)
    return DataInfo(dataset, content.hexdigest()[:16], Shape(channels, height, width, classes), count, test)


def _limited(pictures: Pictures, limit: int | None) -> Pictures:
    """The first `limit` pictures of each class."""
    if limit is None:
        return pictures
    places = [np.flatnonzero(pictures.labels == label)[:limit] for label in np.unique(pictures.labels)]
    kept = np.sort(np.concatenate(places))
    return Pictures(pictures.images[kept], pictures.labels[kept])


# -- digits and CIFAR -------------------------------------------------------------------------------------------------


def _digits(training: Training) -> tuple[Pictures, DataInfo]:
    """scikit-learn's 1,797 real handwritten digits, 8x8; a fifth is the test part, always the same."""
    from sklearn.datasets import load_digits

    _no_image_size(training)
    raw = load_digits()
    images = np.round(raw.images * (255 / 16)).astype(np.uint8)[..., None]
    labels = raw.target.astype(np.int64)
    train, test = split(labels, 0.2, seed=0)
    pictures = _limited(Pictures(images[train], labels[train]), training.limit)
    return pictures, _info("digits", pictures, 10, len(test))


def _cifar(training: Training, root: Path) -> tuple[Pictures, DataInfo]:
    """CIFAR-10 or -100 as torchvision unpacks it under the data folder."""
    from torchvision.datasets import CIFAR10, CIFAR100

    _no_image_size(training)
    source = CIFAR10 if training.dataset == "cifar10" else CIFAR100
    try:
        raw = source(str(root), train=True, download=False)
    except (RuntimeError, OSError):
        raise DataError(
            f"{training.dataset} is not under {root}: add --download to fetch it there, or name its folder by --data"
        ) from None
    pictures = _limited(Pictures(raw.data, np.asarray(raw.targets, np.int64)), training.limit)
    return pictures, _info(training.dataset, pictures, len(raw.classes), 10_000)


def download(training: Training, root: Path) -> None:
    """Fetches a CIFAR set into the data folder."""
    from torchvision.datasets import CIFAR10, CIFAR100

    if training.dataset in ("cifar10", "cifar100"):
        try:
            (CIFAR10 if training.dataset == "cifar10" else CIFAR100)(str(root), download=True)
        except Exception as error:
            raise DataError(f"--download: {training.dataset} cannot be fetched into {root}: {one_line(error)}") from None


def _no_image_size(training: Training) -> None:
    if training.image_size is not None:
        raise DataError(
            f"Training.image_size = {training.image_size}: only for dataset='folder'; {training.dataset} has its own"
        )


# -- folders of pictures ----------------------------------------------------------------------------------------------


def _folder(training: Training, root: Path, progress: Progress | None) -> tuple[Pictures, DataInfo]:
    """`train/<class>/*` with the test part beside it, decoded once and then mapped from the cache."""
    classes, files, test = _listing(root, training.limit)
    state = [(str(path.relative_to(root)), path.stat().st_size, path.stat().st_mtime_ns) for _, path in files]
    content = json.dumps([1, str(root.resolve()), classes, test, training.image_size, state])
    cache = _cache_folder() / hashlib.sha256(content.encode()).hexdigest()[:24]
    if not cache.is_dir():
        labels = np.array([label for label, _ in files], np.int64)
        pictures = Pictures(_decode([path for _, path in files], training.image_size, progress), labels)
        _keep(cache, pictures, _info("folder", pictures, len(classes), test))
    pictures = Pictures(np.load(cache / "images.npy", mmap_mode="r"), np.load(cache / "labels.npy"))
    return pictures, DataInfo.from_json(json.loads((cache / "info.json").read_text()))


def _listing(root: Path, limit: int | None) -> tuple[list[str], list[tuple[int, Path]], int]:
    """Class names, (class, file) of the training pictures in order of name, and the number of test pictures."""
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
    files = []
    for label, name in enumerate(classes):
        found = list(_pictures(train / name))[:limit]
        if len(found) < 2:
            raise DataError(f"{train / name}: {len(found)} pictures; a class needs two or more, one of them to validate on")
        files += [(label, path) for path in found]
    return classes, files, sum(1 for name in classes for _ in _pictures(held / name))


def _pictures(folder: Path) -> Iterator[Path]:
    return iter(sorted(entry for entry in folder.iterdir() if entry.suffix.lower() in SUFFIXES))


def _decode(files: list[Path], image_size: int | None, progress: Progress | None) -> NDArray[np.uint8]:
    from PIL import Image

    images: NDArray[np.uint8] | None = None
    for index, path in enumerate(files):
        try:
            with Image.open(path) as opened:
                picture = opened.convert("RGB")
        except Exception as error:
            raise DataError(f"{path}: not a readable picture ({one_line(error)}); mend or remove it") from None
        if image_size is not None:
            picture = picture.resize((image_size, image_size), Image.Resampling.BILINEAR)
        if images is None:
            images = np.empty((len(files), picture.height, picture.width, 3), np.uint8)
        if (picture.height, picture.width) != images.shape[1:3]:
            raise DataError(
                f"{path} is {picture.width}x{picture.height} and {files[0]} {images.shape[2]}x{images.shape[1]}:"
                " set Training.image_size to bring all pictures to one size"
            )
        images[index] = np.asarray(picture)
        if progress is not None and (index + 1) % 500 == 0:
            progress(index + 1, len(files))
    assert images is not None
    return images


def _cache_folder() -> Path:
    return Path(os.environ.get("HARNESS_CACHE", "~/.cache/attention-harness")).expanduser()


def _keep(cache: Path, pictures: Pictures, info: DataInfo) -> None:
    """Writes a cache folder whole: made beside and renamed, so that several workers may do it at once."""
    try:
        cache.parent.mkdir(parents=True, exist_ok=True)
        made = Path(tempfile.mkdtemp(dir=cache.parent))
        np.save(made / "images.npy", pictures.images)
        np.save(made / "labels.npy", pictures.labels)
        (made / "info.json").write_text(json.dumps(info.to_json()))
        try:
            made.rename(cache)
        except OSError:
            shutil.rmtree(made)
            if not cache.is_dir():
                raise
    except OSError as error:
        raise DataError(
            f"the cache {cache.parent} cannot be written: {one_line(error)}; name another by HARNESS_CACHE"
        ) from None
