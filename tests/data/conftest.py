"""Small pictures in folders, and a cache of its own for each test."""

from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from plain_pictures import picture

from harness.config import Training
from harness.data import sources
from harness.data.batches import Batches, open_batches


@pytest.fixture(autouse=True)
def nothing_opened(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("HARNESS_CACHE", str(tmp_path / "cache"))
    sources._opened.clear()
    yield
    sources._opened.clear()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Two classes, three training pictures each, of width 12 and height 10; one test picture each."""
    root = tmp_path / "pictures"
    for name, base in (("cat", 10), ("dog", 100)):
        for index in range(3):
            picture(root / "train" / name / f"{index}.png", base + index)
        picture(root / "val" / name / "t.png", base)
    return root


@pytest.fixture
def noise(tmp_path: Path) -> Path:
    """Two classes of twenty pictures of noise, 8 to 15 pixels wide and high."""
    rng = np.random.default_rng(0)
    root = tmp_path / "noise"
    for name in ("cat", "dog"):
        for part, count in (("train", 20), ("test", 1)):
            (root / part / name).mkdir(parents=True)
            for index in range(count):
                height, width = rng.integers(8, 16, 2)
                pixels = rng.integers(0, 256, (height, width, 3), np.uint8)
                Image.fromarray(pixels).save(root / part / name / f"{index:02}.png")
    return root


@pytest.fixture(params=["resident", "stream"])
def opened(request: pytest.FixtureRequest, noise: Path) -> Callable[..., Batches]:
    """Batches of the noise, 8x8, held whole and read as they pass."""

    def make(seed: int = 0, cores: int = 1, **fields: object) -> Batches:
        given = {"augment": "crop+flip", "validation": 0.25, "batch_size": 8}
        training = Training(dataset="folder", image_size=8, loading=request.param, **given | fields)
        return open_batches(*sources.open_data(training, noise), training, seed=seed, device="cpu", cores=cores)

    return make
