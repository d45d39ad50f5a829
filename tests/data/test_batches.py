"""What batches promise, wherever the pictures are; and the crops of those that are held whole, against a naive loop."""

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from harness.config import Training
from harness.cost import Shape
from harness.data.batches import Batches
from harness.data.pictures import DataInfo, Pictures, moments_of
from harness.data.resident import Resident
from harness.data.sources import open_data
from harness.data.stream import processes
from harness.errors import DataError

MIXING = {"mixup": 0.4, "cutmix": 1.0, "policy": "trivial", "cutout": 0.5, "jitter": 0.3}


def joined(batches: list[tuple[torch.Tensor, torch.Tensor]]) -> tuple[torch.Tensor, torch.Tensor]:
    images, targets = zip(*batches, strict=True)
    return torch.cat(images), torch.cat(targets)


# -- the contract


def test_an_epoch_has_whole_batches_of_one_size(opened: Callable[..., Batches]) -> None:
    data = opened()
    batches = list(data.epoch(1))
    assert (data.size, data.steps, data.held) == (8, 3, 10) and len(batches) == 3
    for images, targets in batches:
        assert images.shape == (8, 3, 8, 8) and images.dtype == torch.float32
        assert images.is_contiguous(memory_format=torch.channels_last)
        assert targets.shape == (8,) and targets.dtype == torch.int64


def test_every_picture_is_seen_once_an_epoch(opened: Callable[..., Batches]) -> None:
    data = opened(augment="none", batch_size=10)
    once, again = (joined(list(data.epoch(epoch)))[0].flatten(1) for epoch in (1, 2))
    assert len(once.unique(dim=0)) == 30
    assert not torch.equal(once, again) and torch.equal(once.unique(dim=0), again.unique(dim=0))


@pytest.mark.parametrize("fields", [{}, MIXING], ids=["crops", "everything"])
def test_an_epoch_follows_from_seed_and_epoch_alone(opened: Callable[..., Batches], fields: dict[str, object]) -> None:
    data = opened(seed=5, **fields)
    list(data.epoch(1))
    second = joined(list(data.epoch(2)))
    torch.manual_seed(99)
    torch.rand(3)
    fresh = joined(list(opened(seed=5, **fields).epoch(2)))  # as after an interruption
    assert all(map(torch.equal, second, fresh))
    assert not torch.equal(joined(list(data.epoch(3)))[0], second[0])
    assert not torch.equal(joined(list(opened(seed=6, **fields).epoch(2)))[0], second[0])


def test_an_epoch_that_is_cut_short_changes_no_later_one(opened: Callable[..., Batches]) -> None:
    data = opened()
    whole = joined(list(data.epoch(1)))
    next(iter(data.epoch(1)))
    assert all(map(torch.equal, whole, joined(list(data.epoch(1)))))


def test_batches_draw_nothing_from_the_trials_own_numbers(opened: Callable[..., Batches]) -> None:
    data = opened(**MIXING)
    torch.manual_seed(1)
    expected = torch.rand(3)
    torch.manual_seed(1)
    list(data.epoch(1))
    list(data.held_out())
    assert torch.equal(torch.rand(3), expected)


def test_validation_pictures_are_whole_in_order_and_never_trained_on(opened: Callable[..., Batches]) -> None:
    data = opened(augment="none", batch_size=2)
    images, labels = joined(list(data.held_out()))
    assert torch.equal(images, joined(list(data.held_out()))[0])
    assert labels.tolist() == [0] * 5 + [1] * 5
    trained = {bytes(image.numpy().tobytes()) for image in joined(list(data.epoch(1)))[0]}
    assert not trained & {bytes(image.numpy().tobytes()) for image in images}


def test_seeds_hold_out_different_pictures(opened: Callable[..., Batches]) -> None:
    first, second = (joined(list(opened(seed=seed).held_out()))[0] for seed in (0, 1))
    assert not torch.equal(first, second)


def test_a_set_smaller_than_a_batch_is_one_batch(opened: Callable[..., Batches]) -> None:
    data = opened(batch_size=128)
    assert [len(images) for images, _ in data.epoch(1)] == [30] and data.steps == 1


def test_mixtures_come_with_probabilities(opened: Callable[..., Batches]) -> None:
    _, targets = joined(list(opened(mixup=1.0).epoch(1)))
    assert targets.shape == (24, 2) and torch.allclose(targets.sum(1), torch.ones(24))
    assert ((targets > 0) & (targets < 1)).any()


# -- held whole


def pictures(count: int = 40, side: int = 8, wide: int = 8) -> tuple[Pictures, DataInfo]:
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (count, side, wide, 3), np.uint8)
    held = Pictures(images, np.arange(count) % 2, np.stack([moments_of(image) for image in images]))
    return held, DataInfo("folder", "f", Shape(3, side, wide, 2), count, 1)


def resident(seed: int = 0, wide: int = 8, **fields: object) -> tuple[Resident, np.ndarray]:
    """Batches, and the pictures they come from."""
    held, info = pictures(wide=wide)
    training = Training(**{"validation": 0.25, "batch_size": 10} | fields)
    return Resident(held, info, training, seed, torch.device("cpu")), held.images


def raw(data: Resident, batch: torch.Tensor) -> np.ndarray:
    """A normalised batch as the uint8 pictures (count, height, width, channels) it came from."""
    return (batch.permute(0, 2, 3, 1) * data.deviation + data.mean).round().to(torch.uint8).numpy()


@pytest.mark.parametrize("wide", [8, 11])
@pytest.mark.parametrize("padding", ["reflect", "zero"])
@pytest.mark.parametrize("augment", ["crop", "crop+flip", "flip"])
def test_crops_are_windows_of_the_padded_picture(augment: str, padding: str, wide: int) -> None:
    pad = 1 if "crop" in augment else 0
    fields = {"padding": padding} if pad else {}
    data, images = resident(seed=3, wide=wide, augment=augment, **fields)
    windows: dict[bytes, tuple[int, bool]] = {}
    for index, image in enumerate(images):
        how = {"mode": "reflect"} if padding == "reflect" else {"mode": "constant"}
        padded = np.pad(image, ((pad, pad), (pad, pad), (0, 0)), **how)
        for down in range(2 * pad + 1):
            for right in range(2 * pad + 1):
                window = padded[down : down + 8, right : right + wide]
                windows[window.tobytes()] = (index, False)
                windows.setdefault(np.ascontiguousarray(window[:, ::-1]).tobytes(), (index, True))
    found = []
    for batch, labels in data.epoch(2):
        for image, label in zip(raw(data, batch), labels, strict=True):
            index, mirrored = windows[image.tobytes()]
            assert label == index % 2
            found.append((index, mirrored))
    assert len({index for index, _ in found}) == 30
    assert any(mirrored for _, mirrored in found) == ("flip" in augment)


def test_crops_draw_what_they_always_drew() -> None:
    """Written out as the first release did it: padded copies, one generator an epoch."""
    data, images = resident(seed=7, augment="crop+flip")
    rng = torch.Generator().manual_seed(7 * 1_000_003 + 4)
    order = torch.randperm(30, generator=rng)
    down, right = torch.randint(0, 3, (2, 30), generator=rng)
    mirrored = torch.rand(30, generator=rng) < 0.5
    kept = images[data._kept.numpy()]
    padded = np.pad(kept, ((0, 0), (1, 1), (1, 1), (0, 0)), mode="reflect")
    seen = [image for batch, _ in data.epoch(4) for image in raw(data, batch)]
    for place, image in zip(order.tolist(), seen, strict=True):
        window = padded[place, down[place] : down[place] + 8, right[place] : right[place] + 8]
        assert np.array_equal(image, window[:, ::-1] if mirrored[place] else window)


def test_training_pictures_have_mean_zero_and_deviation_one() -> None:
    data, _ = resident(augment="none", batch_size=30)
    seen = joined(list(data.epoch(1)))[0]
    assert seen.mean((0, 2, 3)).abs().max() < 1e-5
    assert (seen.std((0, 2, 3), correction=0) - 1).abs().max() < 1e-4


def test_trials_of_one_set_share_its_memory() -> None:
    held, info = pictures()
    trials = [Resident(held, info, Training(augment="crop"), seed, torch.device("cpu")) for seed in (0, 1)]
    assert {trial._images.data_ptr() for trial in trials} == {held.images.ctypes.data}


# -- read as they pass


@pytest.mark.parametrize("opened", ["stream"], indirect=True)
@pytest.mark.parametrize("cores", [2, 5])
@pytest.mark.filterwarnings("ignore:This DataLoader will create")  # more than this machine may have
def test_processes_that_read_change_no_picture(opened: Callable[..., Batches], cores: int) -> None:
    alone, helped = opened(), opened(cores=cores)
    assert all(map(torch.equal, joined(list(alone.epoch(3))), joined(list(helped.epoch(3)))))
    assert torch.equal(joined(list(alone.held_out()))[0], joined(list(helped.held_out()))[0])


@pytest.mark.parametrize("opened", ["stream"], indirect=True)
@pytest.mark.parametrize("cores", [1, 2])
def test_a_file_that_breaks_while_training_is_named(opened: Callable[..., Batches], noise: Path, cores: int) -> None:
    data = opened(cores=cores)
    for file in (noise / "train" / "dog").iterdir():
        file.write_bytes(b"gone")
    with pytest.raises(DataError, match=r"^\S+/dog/\d\d\.png: not a readable picture \(Unid[^\n]*$"):
        list(data.epoch(1))


def test_readers_stay_within_the_cores_of_the_trial() -> None:
    cpu, gpu = torch.device("cpu"), torch.device("cuda")
    assert [processes(cores, cpu) for cores in (1, 2, 4)] == [0, 1, 3]
    assert [processes(cores, gpu) for cores in (1, 2, 4)] == [1, 1, 3]


def test_a_worker_never_imports_torchvision_or_sklearn() -> None:
    """Once the cache is built, by whoever checks the study."""
    script = """
import sys
from pathlib import Path
from harness.config import Training
from harness.data.batches import open_batches
from harness.data.sources import open_data

training = Training(augment="crop", policy="trivial", mixup=0.2)
next(iter(open_batches(*open_data(training, Path()), training, seed=0, device="cpu").epoch(1)))
print([name for name in ("torchvision", "sklearn") if name in sys.modules])
"""
    open_data(Training(), Path())
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"
