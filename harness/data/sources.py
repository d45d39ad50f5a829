"""Where pictures come from: digits (embedded), CIFAR (torchvision), folders of pictures.

Validation pictures are drawn from the training part by seed. The test part is for the end: `open_test` alone reads it,
and only trials that confirm a study ask for it.
"""

from pathlib import Path
from typing import Any

import numpy as np

from harness.config import Training
from harness.data import folders
from harness.data.cache import Progress, entry, known, name_of
from harness.data.pictures import Counts, DataInfo, Files, Levels, Pictures, read, write
from harness.errors import DataError, one_line

CIFAR = {"cifar10": "cifar-10-batches-py", "cifar100": "cifar-100-python"}
"""The folders that torchvision unpacks the sets into."""

_opened: dict[tuple[Any, ...], tuple[Pictures | Files, DataInfo]] = {}


def open_data(training: Training, root: Path, progress: Progress | None = None) -> tuple[Pictures | Files, DataInfo]:
    """The training part a config names, and what it is; raises DataError in one line for what is missing or broken.

    Decoded once, kept under HARNESS_CACHE (default ~/.cache/attention-harness) and mapped into memory from there; folders
    too large for that (`folders.too_large`) are read as they pass."""
    source = tuple(getattr(training, name) for name in ("dataset", "limit", "image_size", "loading", "skip_bad_images"))
    if training.dataset == "own":
        raise DataError(
            "Training.dataset = 'own': the study's own loop (trial=...) reads or makes these data, nobody else can"
        )
    if (str(root), *source) not in _opened:
        openers = {"digits": _digits, "folder": folders.opened}
        _opened[str(root), *source] = openers.get(training.dataset, _cifar)(training, root, progress)
    return _opened[str(root), *source]


def open_test(training: Training, root: Path, progress: Progress | None = None) -> tuple[Pictures | Files, DataInfo]:
    """The test part of the data a config names, whole, and what it is (`train` counts its pictures); kept as the training
    part is. Raises DataError in one line where there is none, or it does not fit the training part."""
    _, info = open_data(training, root, progress)
    found: tuple[Pictures | Files, DataInfo]
    if training.dataset == "digits":
        found = read(entry(name_of("digits", "test"), lambda folder: _digits_part(folder, test=True), progress), "digits", 0)
    elif training.dataset == "folder":
        found = folders.opened_test(training, root, progress, streamed=info.streamed)
    else:
        found = _cifar(training, root, progress, test=True)
    if found[1].shape != info.shape:
        raise DataError(
            f"{root}: test pictures are {found[1].shape.width}x{found[1].shape.height}, training pictures"
            f" {info.shape.width}x{info.shape.height}: set Training.image_size to bring all pictures to one size"
        )
    return found


def split(labels: Counts, share: float, seed: int) -> tuple[Counts, Counts]:
    """Places of the training and of the validation pictures: stratified by class, each class shuffled by the seed."""
    kept, held = [], []
    for label in np.unique(labels):
        places = np.flatnonzero(labels == label)
        order = np.random.Generator(np.random.PCG64([seed, int(label)])).permutation(places)
        count = min(max(round(share * len(places)), 1), len(places) - 1)
        held.append(order[:count])
        kept.append(order[count:])
    return np.sort(np.concatenate(kept)), np.sort(np.concatenate(held))


def _digits(training: Training, root: Path, progress: Progress | None) -> tuple[Pictures, DataInfo]:
    """scikit-learn's 1,797 real handwritten digits, 8x8; a fifth is the test part, always the same."""
    _folders_only(training)
    limit = training.limit
    name = name_of("digits", limit)
    return read(entry(name, lambda folder: _digits_part(folder, limit), progress, "digits"), "digits", 359)


def _digits_part(folder: Path, limit: int | None = None, *, test: bool = False) -> None:
    """Writes an entry of the training part, or of the test part."""
    from sklearn.datasets import load_digits  # met where the entry is built alone: it takes a second to import

    raw = load_digits()
    labels = raw.target.astype(np.int64)
    part = split(labels, 0.2, seed=0)[int(test)]
    images = np.round(raw.images * (255 / 16)).astype(np.uint8)[..., None]
    _write(folder, images[part], labels[part], limit, 10)


def _cifar(training: Training, root: Path, progress: Progress | None, *, test: bool = False) -> tuple[Pictures, DataInfo]:
    """CIFAR-10 or -100 as torchvision unpacks it under the data folder: the training part, or the test part whole."""
    limit, part = (None, ("test",)) if test else (training.limit, ())

    def build(folder: Path) -> None:
        from torchvision.datasets import CIFAR10, CIFAR100  # met where the entry is built alone

        try:
            raw = (CIFAR10 if training.dataset == "cifar10" else CIFAR100)(str(root), train=not test, download=False)
        except (RuntimeError, OSError):
            raise missing from None
        _write(folder, raw.data, np.asarray(raw.targets, np.int64), limit, len(raw.classes))

    _folders_only(training)
    missing = DataError(
        f"{training.dataset} is not under {root}: add --download to fetch it there, or name its folder by --data"
    )
    files = sorted((root / CIFAR[training.dataset]).glob("*"))
    if not files:
        raise missing
    content = known(folders.state_of(files), lambda: name_of(folders.digests(files, progress)))
    name, about = name_of(training.dataset, limit, content, *part), " ".join([str(root.resolve()), *part])
    return read(entry(name, build, progress, about), training.dataset, 10_000)


def _write(folder: Path, images: Levels, labels: Counts, limit: int | None, classes: int) -> None:
    """An entry of the first `limit` pictures of each class."""
    places = np.sort(np.concatenate([np.flatnonzero(labels == label)[:limit] for label in np.unique(labels)]))
    write(folder, ((images[place], int(labels[place])) for place in places), classes)


def download(training: Training, root: Path) -> None:
    """Fetches a CIFAR set into the data folder."""
    if training.dataset not in CIFAR:
        return
    from torchvision.datasets import CIFAR10, CIFAR100

    try:
        (CIFAR10 if training.dataset == "cifar10" else CIFAR100)(str(root), download=True)
    except Exception as error:
        raise DataError(f"--download: {training.dataset} cannot be fetched into {root}: {one_line(error)}") from None


def _folders_only(training: Training) -> None:
    """Raises DataError for what only a folder has."""
    remedies = {
        "image_size": f"{training.dataset} has its own",
        "skip_bad_images": f"{training.dataset} has none",
    }
    for name, remedy in remedies.items():
        if value := getattr(training, name):
            raise DataError(f"Training.{name} = {value}: only for dataset='folder'; {remedy}")
    if training.loading == "stream":
        raise DataError(f"Training.loading = 'stream': only for dataset='folder'; {training.dataset} is held whole")
