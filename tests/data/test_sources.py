"""Data sets: what is read, what is left untouched, and one line for everything that is wrong with a folder."""

import os
import threading
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import ExifTags, Image
from plain_pictures import picture

from harness.config import Training
from harness.data import folders, sources
from harness.data.pictures import Files, fingerprint, moments_of
from harness.data.sources import open_data, split
from harness.errors import DataError
from tests.users import BEN, user

FOLDER = Training(dataset="folder")


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


def test_pictures_are_decoded_once(folder: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    first, info = open_data(FOLDER, folder)
    sources._opened.clear()
    monkeypatch.setattr(folders, "load", lambda *_: pytest.fail("decoded again"))
    again, same = open_data(FOLDER, folder)
    assert np.array_equal(first.images, again.images) and info == same
    moved = folder.rename(tmp_path / "elsewhere")
    os.utime(moved / "train" / "cat" / "0.png")  # it is the content that counts
    assert open_data(FOLDER, moved)[1] == info


def test_moments_are_sums_of_levels_and_squares(folder: Path) -> None:
    pictures, _ = open_data(FOLDER, folder)
    assert pictures.moments[4].tolist() == [[101 * 120, 101**2 * 120]] * 3
    noise = np.random.default_rng(0).integers(0, 256, (5, 7, 2), np.uint8)
    whole = noise.astype(np.int64)
    assert np.array_equal(moments_of(noise), np.stack([whole.sum((0, 1)), (whole**2).sum((0, 1))], axis=1))


def test_fingerprints_are_those_of_the_first_release(folder: Path) -> None:
    """Keys hold them: written down from the code as it was."""
    assert open_data(Training(), Path())[1].fingerprint == "34f710097bb466cd"
    assert open_data(Training(limit=20), Path())[1].fingerprint == "13a473b49f302c7a"
    assert open_data(FOLDER, folder)[1].fingerprint == "09990c815f18631c"
    assert open_data(Training(dataset="folder", image_size=8), folder)[1].fingerprint == "5269f08f630616ac"


def test_the_fingerprint_follows_the_pictures_and_not_their_place(folder: Path, tmp_path: Path) -> None:
    _, info = open_data(FOLDER, folder)
    moved = folder.rename(tmp_path / "elsewhere")
    assert open_data(FOLDER, moved)[1].fingerprint == info.fingerprint
    sources._opened.clear()
    picture(moved / "train" / "cat" / "0.png", 99)
    assert open_data(FOLDER, moved)[1].fingerprint != info.fingerprint


def first_pixel(folder: Path, made: Image.Image, name: str = "0.png", **kwargs: object) -> list[int]:
    (folder / "train" / "cat" / "0.png").unlink()
    made.save(folder / "train" / "cat" / name, **kwargs)
    return open_data(FOLDER, folder)[0].images[0, 0, 0].tolist()


def test_grey_pictures_become_three_equal_channels(folder: Path) -> None:
    assert first_pixel(folder, Image.new("L", (12, 10), 7)) == [7, 7, 7]


def test_pictures_of_two_tones_are_black_and_white(folder: Path) -> None:
    assert first_pixel(folder, Image.new("1", (12, 10), 1)) == [255, 255, 255]


def test_an_alpha_channel_is_dropped(folder: Path) -> None:
    assert first_pixel(folder, Image.new("RGBA", (12, 10), (1, 2, 3, 0))) == [1, 2, 3]


def test_palettes_are_looked_up_with_and_without_transparency(folder: Path) -> None:
    palette = Image.new("RGB", (12, 10), (9, 8, 7)).convert("P", palette=Image.Palette.ADAPTIVE)
    assert first_pixel(folder, palette) == [9, 8, 7]
    assert first_pixel(folder, palette, transparency=bytes([0, 128])) == [9, 8, 7]


def test_inks_become_colours(folder: Path) -> None:
    assert first_pixel(folder, Image.new("CMYK", (12, 10), (0, 0, 0, 0)), "0.jpg") == [255, 255, 255]


@pytest.mark.parametrize("name", ["0.png", "0.pgm"])
def test_sixteen_bits_are_scaled_and_not_cut_off(folder: Path, name: str) -> None:
    made = Image.fromarray(np.full((10, 12), 0x8034, np.uint16))
    assert first_pixel(folder, made, name) == [0x80] * 3


@pytest.mark.parametrize("loading", ["resident", "stream"])
def test_a_picture_is_turned_as_its_orientation_says(folder: Path, loading: str) -> None:
    """6: the camera was turned, the first row is the picture's right side. The fingerprint follows what is seen, and that of
    pictures without an orientation is what it was."""
    training = Training(dataset="folder", image_size=8, loading=loading)
    before = open_data(training, folder)[1].fingerprint
    levels = np.zeros((10, 12, 3), np.uint8)
    levels[:, :6] = 250  # bright on the left, and on top once it is turned
    found = []
    for orientation in (None, 1, 6):
        exif = Image.Exif()
        if orientation is not None:
            exif[ExifTags.Base.Orientation] = orientation
        (folder / "train" / "cat" / "0.png").unlink()
        Image.fromarray(levels).save(folder / "train" / "cat" / "0.png", exif=exif)
        sources._opened.clear()
        found.append(open_data(training, folder))
    assert len({info.fingerprint for _, info in found} | {before}) == (3 if loading == "resident" else 4)
    if loading == "resident":
        plain, same, turned = (pictures.images[0, :, :, 0].astype(int) for pictures, _ in found)
        assert (plain == same).all() and found[0][1].fingerprint == found[1][1].fingerprint
        assert plain[:, :3].min() > 200 and plain[:, 5:].max() < 50
        assert turned[:3].min() > 200 and turned[5:].max() < 50
    else:
        seen = np.asarray(folders.load(folder / "train" / "cat" / "0.png"))
        assert seen.shape == (12, 10, 3) and seen[:6].min() > 200 and seen[6:].max() < 50


@pytest.mark.parametrize("loading", ["resident", "stream"])
def test_bad_pictures_are_an_error_or_left_out_and_counted(folder: Path, loading: str) -> None:
    rng = np.random.default_rng(0)
    Image.fromarray(rng.integers(0, 256, (10, 12, 3), np.uint8)).save(folder / "train" / "cat" / "0.jpg")
    whole = (folder / "train" / "cat" / "0.jpg").read_bytes()
    (folder / "train" / "cat" / "0.jpg").write_bytes(whole[: len(whole) // 2])  # a download cut short
    fields = {"dataset": "folder", "image_size": 8, "loading": loading}
    with pytest.raises(DataError, match=r"^\S+cat/0\.jpg: not a readable picture \(OSError[^\n]*Training\.skip_bad_images$"):
        open_data(Training(**fields), folder)
    (folder / "train" / "dog" / "0.png").write_bytes(b"")
    found, info = open_data(Training(**fields, skip_bad_images=True), folder)
    assert (info.train, info.skipped) == (5, 2) and found.labels.tolist() == [0, 0, 0, 1, 1]
    (note,) = info.notes
    assert note.startswith("skip_bad_images: 2 of 7 left out: ") and note.endswith("and 1 more") and "cat/0.jpg" in note
    assert type(info).from_json(info.to_json()) == info
    (folder / "train" / "dog" / "1.png").write_bytes(b"")
    with pytest.raises(DataError, match="dog: 1 pictures; a class needs two or more"):
        open_data(Training(**fields, skip_bad_images=True), folder.rename(folder.parent / "worse"))


@pytest.mark.parametrize("loading", ["resident", "stream"])
def test_files_that_cannot_be_opened_are_named_or_left_out_like_broken_ones(folder: Path, loading: str) -> None:
    link, lost = folder / "train" / "cat" / "9.png", folder / "elsewhere.png"
    link.symlink_to(lost)
    fields = {"dataset": "folder", "image_size": 8, "loading": loading}
    with pytest.raises(DataError, match=r"^\S+cat/9\.png: not a readable picture \(FileNotFoundError[^\n]*$"):
        open_data(Training(**fields), folder)
    (folder / "train" / "dog" / "9.png").mkdir()
    skipping = Training(**fields, skip_bad_images=True)
    _, info = open_data(skipping, folder)
    assert (info.train, info.skipped) == (6, 2) and "cat/9.png" in info.notes[0]
    picture(lost, 50)
    sources._opened.clear()
    assert open_data(skipping, folder)[1].train == 7, "what the link leads to is there now"


def test_a_file_without_permission_is_left_out_until_there_is_one(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its time does not tell that it may be read now."""
    skipping, here = Training(dataset="folder", skip_bad_images=True), Path(folder.name)
    open_data(skipping, folder)  # what is imported late may lie where others cannot read
    monkeypatch.chdir(folder.parent)
    monkeypatch.setenv("HARNESS_CACHE", "shared")
    folder.parent.chmod(0o777)
    closed = folder / "train" / "cat" / "0.png"
    closed.chmod(0)
    with user(BEN):
        with pytest.raises(DataError, match=r"^\S+cat/0\.png: not a readable picture \(PermissionError[^\n]*$"):
            open_data(FOLDER, here)
        assert open_data(skipping, here)[1].skipped == 1
    closed.chmod(0o644)
    sources._opened.clear()
    with user(BEN):
        assert open_data(skipping, here)[1].skipped == 0


def test_leaving_out_nothing_changes_nothing(folder: Path) -> None:
    strict, lax = (open_data(Training(dataset="folder", skip_bad_images=skip), folder) for skip in (False, True))
    assert strict[1] == lax[1] and not lax[1].notes
    with pytest.raises(DataError, match=r"Training\.skip_bad_images = True: only for dataset='folder'; digits has none"):
        open_data(Training(skip_bad_images=True), folder)


# -- too many to hold


def test_a_folder_is_streamed_where_it_would_not_fit(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sized = Training(dataset="folder", image_size=8)
    assert not open_data(sized, folder)[1].streamed
    sources._opened.clear()
    monkeypatch.setenv("HARNESS_RESIDENT_GB", "0.000001")
    files, info = open_data(sized, folder)
    assert isinstance(files, Files) and info.streamed and info.shape == (3, 8, 8, 2)
    assert files.names[0] == "train/cat/0.png" and files.labels.tolist() == [0, 0, 0, 1, 1, 1]
    assert not open_data(sized.model_copy(update={"loading": "resident"}), folder)[1].streamed
    with pytest.raises(DataError, match=r"6 pictures, 0\.0 GB decoded, are more than 0\.0 GB .*: set Training\.image_size"):
        open_data(FOLDER, folder)
    monkeypatch.setenv("HARNESS_RESIDENT_GB", "much")
    with pytest.raises(DataError, match=r"HARNESS_RESIDENT_GB = 'much': a number of gigabytes, as in 8 or 0\.5"):
        open_data(FOLDER, folder)


def test_streaming_is_for_folders_of_a_stated_size(folder: Path) -> None:
    with pytest.raises(DataError, match=r"loading = 'stream': only for dataset='folder'; digits is held whole"):
        open_data(Training(loading="stream"), folder)
    with pytest.raises(DataError, match=r"loading = 'stream': set Training\.image_size"):
        open_data(Training(dataset="folder", loading="stream"), folder)


def test_the_fingerprint_of_a_stream_follows_content_and_size(folder: Path, tmp_path: Path) -> None:
    def found(size: int, root: Path) -> str:
        sources._opened.clear()
        return open_data(Training(dataset="folder", loading="stream", image_size=size), root)[1].fingerprint

    first = found(8, folder)
    assert found(9, folder) != first
    moved = folder.rename(tmp_path / "elsewhere")
    assert found(8, moved) == first
    picture(moved / "train" / "cat" / "0.png", 99)
    assert found(8, moved) != first


def test_a_folder_left_half_read_leaves_no_thread_behind(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The frames that an error keeps alive may be collected at any moment, in any thread: none may wait for threads then."""
    monkeypatch.setattr(folders, "AT_ONCE", 2)
    picture(folder / "train" / "cat" / "2.png", 50, size=(20, 20))
    with pytest.raises(DataError, match=r"cat/2\.png is 20x20") as held:
        open_data(FOLDER, folder)
    assert held.tb is not None
    assert not [one for one in threading.enumerate() if one.name.startswith("ThreadPoolExecutor")]


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
    assert not list((tmp_path / "cache").glob("*/images"))
    (folder / "train" / "emu").mkdir()
    with pytest.raises(DataError, match="differ in their classes: emu is in one of them only"):
        open_data(FOLDER, folder)
    (folder / "val" / "emu").mkdir()
    with pytest.raises(DataError, match="emu: 0 pictures; a class needs two or more"):
        open_data(FOLDER, folder)
    (folder / "val").rename(folder / "other")
    with pytest.raises(DataError, match="has no test part; put one of test, val, valid, validation beside train"):
        open_data(FOLDER, folder)


def test_one_class_is_none(folder: Path) -> None:
    for part in ("train", "val"):
        (folder / part / "dog").rename(folder / f"{part} dog")
    with pytest.raises(DataError, match="train: 1 class folders; a classifier needs two or more"):
        open_data(FOLDER, folder)


def test_cifar_is_read_once_as_torchvision_unpacks_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(0)
    images, labels = rng.integers(0, 256, (40, 32, 32, 3), np.uint8), [*range(10)] * 4
    opened = []

    class Unpacked:
        data, targets, classes = images, labels, [*"abcdefghij"]

        def __init__(self, root: str, train: bool, download: bool) -> None:
            opened.append((root, train, download))

    monkeypatch.setattr("torchvision.datasets.CIFAR10", Unpacked)
    (tmp_path / "cifar-10-batches-py").mkdir()
    (tmp_path / "cifar-10-batches-py" / "data_batch_1").write_bytes(b"batch")
    for _ in range(2):
        pictures, info = open_data(Training(dataset="cifar10"), tmp_path)
        assert np.array_equal(pictures.images, images) and pictures.labels.tolist() == labels
        assert (info.shape, info.train, info.test) == ((3, 32, 32, 10), 40, 10_000)
        assert info.fingerprint == fingerprint(pictures, 10)
        sources._opened.clear()
    few, _ = open_data(Training(dataset="cifar10", limit=2), tmp_path)
    assert np.array_equal(few.images, images[:20])
    assert opened == [(str(tmp_path), True, False)] * 2


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
