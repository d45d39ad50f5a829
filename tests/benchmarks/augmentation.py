"""Pictures per second that each augmentation alone allows: 32x32, batches of 128, one thread, nothing trained.

Rounds of all recipes alternate in one process, so that what else the machine does meets them all. Told are pictures per
second of the median batch, and of the fastest tenth, which were left alone. Beside ours: crops as the first release made
them (from a padded copy, indexed pixel by pixel), and torchvision's transforms on one picture at a time.

    python tests/benchmarks/augmentation.py [--rounds 15] [--device cpu]
"""

import argparse
import json
import os
import platform
import statistics
import time
from collections.abc import Callable, Iterator
from importlib.metadata import version
from pathlib import Path

os.environ["OMP_NUM_THREADS"] = "1"

import numpy as np
import torch
from torch import Tensor

from harness.config import Training
from harness.cost import Shape
from harness.data.pictures import DataInfo, Pictures, moments_of
from harness.data.resident import Resident
from harness.training.device import device_name

RESULTS = Path(__file__).resolve().parent / "results" / "augmentation.json"
COUNT, SIDE, BATCH = 10_000, 32, 128
RECIPES: dict[str, dict[str, object]] = {
    "none": {"augment": "none"},
    "crop+flip": {},
    "crop+flip, zero padding": {"padding": "zero"},
    "crop+flip, cutout": {"cutout": 0.5},
    "crop+flip, jitter": {"jitter": 0.4},
    "crop+flip, mixup": {"mixup": 0.2},
    "crop+flip, cutmix": {"cutmix": 1.0},
    "crop+flip, mixup and cutmix": {"mixup": 0.2, "cutmix": 1.0},
    "crop+flip, TrivialAugment": {"policy": "trivial"},
    "crop+flip, RandAugment": {"policy": "rand"},
    "everything": {"policy": "trivial", "jitter": 0.4, "cutout": 0.5, "mixup": 0.2, "cutmix": 1.0},
}


def pictures() -> tuple[Pictures, DataInfo]:
    """Noise, coarse enough for every operation to have something to do."""
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (COUNT, SIDE // 4, SIDE // 4, 3), np.uint8).repeat(4, 1).repeat(4, 2)
    held = Pictures(images, np.arange(COUNT) % 10, np.stack([moments_of(image) for image in images]))
    return held, DataInfo("folder", "benchmark", Shape(3, SIDE, SIDE, 10), COUNT, 0)


def ours(device: torch.device, fields: dict[str, object]) -> Iterator[object]:
    """Batches without end."""
    held, info = pictures()
    data = Resident(held, info, Training(**{"augment": "crop+flip", "batch_size": BATCH} | fields), 0, device)
    epoch = 0
    while True:
        epoch += 1
        yield from data.epoch(epoch)


def first_release(device: torch.device) -> Iterator[Tensor]:
    """Crop and flip out of a padded copy of the whole set."""
    images = torch.from_numpy(pictures()[0].images)
    padded = torch.nn.functional.pad(images.permute(0, 3, 1, 2), (4,) * 4, mode="reflect")
    padded = padded.permute(0, 2, 3, 1).contiguous().to(device)
    mean, deviation = torch.tensor([125.0, 123.0, 114.0]).to(device), torch.tensor([63.0, 62.0, 67.0]).to(device)
    across = torch.arange(SIDE)
    while True:
        order, (down, right), mirrored = torch.randperm(COUNT), torch.randint(0, 9, (2, COUNT)), torch.rand(COUNT) < 0.5
        for chosen in order.split(BATCH)[:-1]:
            rows = down[chosen, None] + across
            columns = right[chosen, None] + torch.where(mirrored[chosen, None], across.flip(0), across)
            places = [place.to(device) for place in (chosen[:, None, None], rows[:, :, None], columns[:, None, :])]
            yield ((padded[places[0], places[1], places[2]].float() - mean) / deviation).permute(0, 3, 1, 2)


def one_at_a_time(policy: bool) -> Iterator[Tensor]:
    """torchvision's transforms on PIL pictures, as a data set's `transform` has them."""
    from PIL import Image
    from torchvision.transforms import v2

    images = pictures()[0].images
    transform = v2.Compose(
        [v2.RandomCrop(SIDE, 4, padding_mode="reflect"), v2.RandomHorizontalFlip()]
        + ([v2.TrivialAugmentWide()] if policy else [])
        + [v2.ToImage(), v2.ToDtype(torch.float32, scale=True), v2.Normalize((0.49, 0.48, 0.45), (0.25, 0.24, 0.26))]
    )
    while True:
        for chosen in torch.randperm(COUNT).split(BATCH)[:-1]:
            yield torch.stack([transform(Image.fromarray(images[place])) for place in chosen.tolist()])


def timed(batches: Iterator[object], count: int, finish: Callable[[], None]) -> list[float]:
    """Seconds of each of so many batches."""
    found = []
    for _ in range(count):
        finish()
        began = time.perf_counter()
        next(batches)
        finish()
        found.append(time.perf_counter() - began)
    return found


def main() -> None:
    """Prints a table and writes the results file."""
    words = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    words.add_argument("--rounds", type=int, default=15)
    words.add_argument("--device", default="cpu")
    given = words.parse_args()
    device = torch.device(given.device)
    torch.set_num_threads(1)
    finish = torch.cuda.synchronize if device.type == "cuda" else lambda: None
    arms = {name: ours(device, fields) for name, fields in RECIPES.items()}
    arms["the first release's crop+flip"] = first_release(device)
    arms |= {
        f"torchvision, one at a time: {name}": one_at_a_time(name != "crop+flip")
        for name in ("crop+flip", "and TrivialAugment")
    }
    slow = {name for name in arms if name.startswith("torchvision")}
    seconds: dict[str, list[float]] = {name: [] for name in arms}
    for name in arms:
        timed(arms[name], 3, finish)
    for _ in range(given.rounds):
        for name, batches in arms.items():
            seconds[name] += timed(batches, 2 if name in slow else 10, finish)
    typical = {name: round(BATCH / statistics.median(found)) for name, found in seconds.items()}
    undisturbed = {name: round(BATCH / statistics.quantiles(found, n=10)[0]) for name, found in seconds.items()}
    for name, rate in sorted(undisturbed.items(), key=lambda item: -item[1]):
        print(f"{name:47} {rate:>9,} pictures/s undisturbed, {typical[name]:>9,} in the median")
    machine = {
        "device": device_name(device.type),
        "threads": 1,
        "load": os.getloadavg()[0],
        "versions": {name: version(name) for name in ("torch", "torchvision", "numpy")}
        | {"python": platform.python_version()},
    }
    setting = {"side": SIDE, "batch": BATCH, "rounds": given.rounds}
    RESULTS.write_text(
        json.dumps({"machine": machine, **setting, "undisturbed": undisturbed, "median": typical}, indent=1) + "\n"
    )


if __name__ == "__main__":
    main()
