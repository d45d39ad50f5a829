"""The test part: whole, apart from the training pictures, normalised as they are, and read by nobody but who confirms."""

import re
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from plain_pictures import picture

from harness.config import Training
from harness.data.batches import open_batches
from harness.data.sources import open_data, open_test
from harness.errors import DataError

ROOT = Path(__file__).parents[2] / "harness"
FOLDER = Training(dataset="folder")


def test_digits_of_the_test_part_are_the_fifth_that_training_never_sees() -> None:
    from sklearn.datasets import load_digits

    (_, info), (test, found) = (opens(Training(limit=20), Path()) for opens in (open_data, open_test))
    assert (found.train, found.shape) == (info.test, info.shape) == (359, (1, 8, 8, 10))
    whole, _ = open_data(Training(), Path())
    both = np.concatenate([whole.images, test.images])  # type: ignore[union-attr]
    raw = np.round(load_digits().images * (255 / 16)).astype(np.uint8)[..., None]
    assert sorted(image.tobytes() for image in both) == sorted(image.tobytes() for image in raw)
    assert found.fingerprint not in ("", info.fingerprint)


def test_a_folder_has_all_of_its_test_part_whatever_the_limit(folder: Path) -> None:
    pictures, info = open_test(Training(dataset="folder", limit=2), folder)
    assert info.train == 2 and pictures.labels.tolist() == [0, 1]
    assert pictures.images[:, 0, 0, 0].tolist() == [10, 100]  # type: ignore[union-attr]
    before = info.fingerprint
    picture(folder / "val" / "cat" / "u.png", 77)
    assert open_test(FOLDER, folder)[1].fingerprint != before
    assert open_data(FOLDER, folder)[1].fingerprint == open_data(Training(dataset="folder"), folder)[1].fingerprint


def test_a_test_part_that_cannot_be_scored_is_one_line(folder: Path) -> None:
    (folder / "val" / "cat" / "t.png").write_bytes(b"not a picture")
    with pytest.raises(DataError, match=r"t\.png: not a readable picture"):
        open_test(FOLDER, folder)
    for name in ("cat", "dog"):
        (folder / "val" / name / "t.png").unlink()
    with pytest.raises(DataError, match="val holds no pictures: put the test part there"):
        open_test(FOLDER, folder)
    picture(folder / "val" / "cat" / "t.png", 10)
    Image.new("RGB", (4, 4)).save(folder / "val" / "cat" / "t.png")
    with pytest.raises(DataError, match=r"test pictures are 4x4, training pictures 12x10: set Training\.image_size"):
        open_test(FOLDER, folder)


@pytest.mark.parametrize("loading", ["resident", "stream"])
def test_test_pictures_come_whole_in_order_and_normalised_as_the_trials_own(noise: Path, loading: str) -> None:
    training = Training(dataset="folder", image_size=8, loading=loading, augment="crop", validation=0.25, batch_size=2)  # type: ignore[arg-type]
    data = open_batches(*open_data(training, noise), training, seed=3, device="cpu")
    found = data.test(open_test(training, noise)[0])
    once, again = ([torch.cat(part) for part in zip(*found.held_out(), strict=True)] for _ in range(2))
    assert found.held == len(once[0]) == 2 and once[1].tolist() == [0, 1]
    assert torch.equal(once[0], again[0])
    trained = torch.cat([images for images, _ in data.test(open_data(training, noise)[0]).held_out()])
    rows = {bytes(image.numpy().tobytes()) for image in trained}  # as if the training part were the test part
    assert {bytes(image.numpy().tobytes()) for images, _ in data.held_out() for image in images} <= rows


def test_nothing_but_a_confirming_trial_and_its_check_reads_the_test_part() -> None:
    users = {
        str(path.relative_to(ROOT)) for path in ROOT.rglob("*.py") if re.search(r"\bopen(ed)?_test\b", path.read_text())
    }
    assert users == {"data/folders.py", "data/sources.py", "preflight.py", "trial.py"}
