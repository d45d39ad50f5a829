"""Two hundred trials in one process, as in a worker that is kept: the memory it holds, and the seconds to the first batch.

Networks, attention, recipes and seeds alternate. Memory is read after each trial, when what it freed is given back.

    python tests/benchmarks/soak.py [--trials 200]
"""

import argparse
import gc
import os
import statistics
import tempfile
import time
from collections.abc import Iterator
from functools import partial
from itertools import cycle, islice
from pathlib import Path
from typing import Any

from harness.config import CBAM, ECA, Config, ExpAtt, ResNet, SqueezeExcite, Training
from harness.cost import network_cost
from harness.data.sources import open_data
from harness.trial import Assignment, run_trial

SLOTS: list[Any] = [None, SqueezeExcite(ratio=4), ExpAtt(), ExpAtt(kernel="laplacian_l2"), ECA(), CBAM(ratio=4)]
RECIPES: list[dict[str, Any]] = [{}, {"ema": 0.9}, {"optimizer": "adamw", "lr": 0.01}, {"select": "best"}, {"accumulate": 2}]


def trials(folder: Path, limit: int) -> Iterator[Assignment]:
    """Endlessly many small trials, no two neighbours alike."""
    for number, (slot, fields) in enumerate(zip(cycle(SLOTS), cycle(RECIPES))):
        training = Training(epochs=2, limit=limit, batch_size=64, precision="fp32", augment="crop", **fields)
        network = ResNet(depth=8 if number % 3 else 14, stages=(None, slot, slot))
        _, info = open_data(training, Path())
        yield Assignment(
            study="soak",
            number=number,
            key=str(number),
            seed=number,
            config=Config(network=network, training=training).model_dump(mode="json"),
            costs=network_cost(network, info.shape)._asdict(),
            data="data",
            fingerprint=info.fingerprint,
            runs=str(folder),
        )


def held() -> float:
    """Megabytes that this process holds once garbage is collected and given back."""
    from harness.training.gauges import release_memory

    gc.collect()
    release_memory()
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 2**20


def note(asked: list[float]) -> bool:
    """Takes the time at each batch, and stops none."""
    asked.append(time.perf_counter())
    return False


def soak(count: int, folder: Path, limit: int = 20) -> Iterator[tuple[float, float]]:
    """Megabytes held after each trial, and the seconds from its assignment to its first batch."""
    for assignment in islice(trials(folder, limit), count):
        asked: list[float] = []
        began = time.perf_counter()
        for _ in run_trial(assignment, stop=partial(note, asked)):
            pass
        yield held(), asked[0] - began


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--trials", type=int, default=200)
    given = parser.parse_args()
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    with tempfile.TemporaryDirectory() as folder:
        found = list(soak(given.trials, Path(folder)))
    for number in range(0, given.trials, max(given.trials // 10, 1)):
        print(f"after trial {number}: {found[number][0]:,.0f} MB")
    warm = [seconds for _, seconds in found[len(SLOTS) * len(RECIPES) :] or found]
    print(f"after the last: {found[-1][0]:,.0f} MB")
    print(f"to the first batch: {statistics.median(warm):.3f} s, at most {max(warm):.3f} s")


if __name__ == "__main__":
    main()
