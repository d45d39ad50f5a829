"""Data sets: what is read, what is left untouched, and one line for everything that is wrong with a folder."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from harness.config import Training
from harness.data import sources
from harness.data.sources import open_data, split
from harness.errors import DataError

FOLDER = Training(dataset="folder")


@pytest.fixture(autouse=True)
def nothing_opened(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("HARNESS_CACHE", str(tmp_path / "cache"))
    sources._opened.clear()
    yield
    sources._opened.clear()


def picture(path: Path, shade: int, size: tuple[int, int] = (12, 10), mode: str = "RGB") -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new(mode, size, shade if mode == "L" else (shade,) * len(mode)).save(path)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Two classes, three training pictures each, of width 12 and height 10; one test picture each."""
    root = tmp_path / "pictures"
    for name, base in (("cat", 10), ("dog", 100)):
        for index in range(3):
            picture(root / "train" / name / f"{index}.png", base + index)
        picture(root / "val" / name / "t.png", base)
    return root


def test_digits_are_the_1797_of_scikit_learn() -> None:
    pictures, info = open_data(Training(dataset="digits"), Path())
    assert (info.train + info.test, info.shape) == (1797, (1, 8, 8, 10))
    assert pictures.images.shape == (info.train, 8, 8, 1)
    assert (pictures.images.min(), pictures.images.max()) == (0, 255)
    assert set(pictures.labels) == set(range(10))


def test_a_folder_is_read_in_the_order_of_names(folder: Path) -> None:
    pictures, info = open_data(FOLDER, folder)
    assert (info.shape, info.train, info.test) == ((3, 10, 12, 2), 6, 2)
    assert pictures.images[:, 0, 0, 0].tolist() == [10, 11, 12, 100, 101, 102]
    assert pictures.labels.tolist() == [0, 0, 0, 1, 1, 1]


def test_the_test_part_is_never_opened(folder: Path) -> None:
    (folder / "val" / "cat" / "t.png").write_bytes(b"not a picture")
    assert open_data(FOLDER, folder)[1].test == 2


def test_limit_takes_the_first_of_each_class(folder: Path) -> None:
    pictures, _ = open_data(Training(dataset="folder", limit=2), folder)
    assert pictures.images[:, 0, 0, 0].tolist() == [10, 11, 100, 101]


def test_pictures_are_decoded_once(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first, info = open_data(FOLDER, folder)
    sources._opened.clear()
    monkeypatch.setattr(sources, "_decode", lambda *_: pytest.fail("decoded again"))
    again, same = open_data(FOLDER, folder)
    assert np.array_equal(first.images, again.images) and info == same


def test_the_fingerprint_follows_the_pictures_and_not_their_place(folder: Path, tmp_path: Path) -> None:
    _, info = open_data(FOLDER, folder)
    moved = folder.rename(tmp_path / "elsewhere")
    assert open_data(FOLDER, moved)[1].fingerprint == info.fingerprint
    sources._opened.clear()
    picture(moved / "train" / "cat" / "0.png", 99)
    assert open_data(FOLDER, moved)[1].fingerprint != info.fingerprint


def test_grey_pictures_become_three_equal_channels(folder: Path) -> None:
    picture(folder / "train" / "cat" / "0.png", 7, mode="L")
    assert open_data(FOLDER, folder)[0].images[0, 0, 0].tolist() == [7, 7, 7]


def test_pictures_of_several_sizes_want_an_image_size(folder: Path) -> None:
    picture(folder / "train" / "dog" / "1.png", 50, size=(20, 20))
    with pytest.raises(DataError, match=r"dog/1\.png is 20x20 and .*cat/0\.png 12x10: set Training\.image_size"):
        open_data(FOLDER, folder)
    assert open_data(Training(dataset="folder", image_size=8), folder)[1].shape == (3, 8, 8, 2)


def test_broken_folders_are_named(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"there is no folder .*nowhere/train; give the folder that holds train/<class>"):
        open_data(FOLDER, tmp_path / "nowhere")
    (folder / "train" / "dog" / "1.png").write_bytes(b"")
    with pytest.raises(DataError, match=r"dog/1\.png: not a readable picture .*; mend or remove it"):
        open_data(FOLDER, folder)
    assert not list((tmp_path / "cache").glob("*"))
    (folder / "train" / "emu").mkdir()
    with pytest.raises(DataError, match="differ in their classes: emu is in one of them only"):
        open_data(FOLDER, folder)
    (folder / "val" / "emu").mkdir()
    with pytest.raises(DataError, match="emu: 0 pictures; a class needs two or more"):
        open_data(FOLDER, folder)
    (folder / "val").rename(folder / "other")
    with pytest.raises(DataError, match="has no test part; put one of test, val, valid, validation beside train"):
        open_data(FOLDER, folder)


def test_cifar_is_fetched_only_on_request(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"cifar10 is not under .*: add --download to fetch it there, or name its folder"):
        open_data(Training(dataset="cifar10"), tmp_path / "data")
    assert not (tmp_path / "data").exists()


@settings(max_examples=60, deadline=None, derandomize=True)
@given(
    counts=st.lists(st.integers(2, 40), min_size=2, max_size=5),
    share=st.floats(0.01, 0.99),
    seed=st.integers(0, 2**31),
)
def test_a_split_is_a_stratified_partition(counts: list[int], share: float, seed: int) -> None:
    labels = np.repeat(np.arange(len(counts)), counts)
    kept, held = split(labels, share, seed)
    assert sorted([*kept, *held]) == list(range(len(labels)))
    for label, count in enumerate(counts):
        there = int((labels[held] == label).sum())
        assert 1 <= there <= count - 1
        assert abs(there - share * count) <= 1
    again = split(labels, share, seed)
    assert all(np.array_equal(one, other) for one, other in zip((kept, held), again, strict=True))


def test_seeds_split_differently() -> None:
    labels = np.repeat(np.arange(3), 30)
    assert not np.array_equal(split(labels, 0.2, 0)[1], split(labels, 0.2, 1)[1])
