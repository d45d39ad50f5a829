"""Pictures a second while training: our trial, a bare loop, the common way and timm's own loader, interleaved in one run.

Every way is a process of its own that waits for its turn; a round gives each a turn of as many steps, so that what else the
machine does meets them all. Ours is the whole trial (`run_trial`): resident pictures, crops and flips, metrics, checkpoints;
its evaluation and its checkpoints are told beside. Ours and the common way also run as a study does: two at a time, of one
thread each. The bare loop has the same network, precision, memory settings and
optimiser, one batch that is ever the same, and nothing else. The common way is an ImageFolder with PIL transforms in a
DataLoader of two processes, in fp32. timm's is its loader, optimizer, scheduler and meters, with bf16 autocast and
channels-last, which its script has as flags.

    python tests/benchmarks/training.py --data DIR [--rounds 7] [--steps 25] [--compiled]

DIR holds train/<class>/* with test/<class>/* beside it, of 32x32 pictures.
"""

import argparse
import itertools
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
NETWORKS = ("ResNet-20", "ExpAtt-ResNet-20", "ResNet-8")
WAYS = ("ours", "bare", "common", "timm")
PACKED = {f"{way}, two trials of one thread": way for way in ("ours", "common")}
"""As a study runs them: a trial a core."""
BATCH, CLASSES, HELD = 128, 10, 0.1
AHEAD = 4
"""Batches that a DataLoader of two processes makes ahead: so many of a turn were made while others had theirs."""
SETTLE = 0.7
"""Seconds after a turn in which loaders make these, before the next begins."""
Turn = Callable[[], dict[str, float]]
"""Trains so many steps; returns pictures a second, and what is told beside."""


def network_of(name: str) -> Any:
    from harness.config import ExpAtt, ResNet

    depth = int(name.rpartition("-")[2])
    return ResNet(depth=depth, stages=(None, ExpAtt(), ExpAtt()) if name.startswith("ExpAtt") else ())


# -- the ways, each in a process of its own ---------------------------------------------------------------------------


def ours(given: argparse.Namespace) -> Turn:
    """The trial itself, an epoch a turn: of as many pictures as make the steps."""
    from harness.config import Config, Training
    from harness.cost import network_cost
    from harness.data.sources import open_data
    from harness.trial import Assignment, run_trial

    training = Training(
        dataset="folder",
        limit=round(given.steps * BATCH / CLASSES / (1 - HELD)) + 1,
        validation=HELD,
        epochs=10_000,
        batch_size=BATCH,
        precision=given.precision,
        augment="crop+flip",
        compile=given.way == "ours compiled",
        loading="resident",
    )
    network = network_of(given.network)
    _, info = open_data(training, given.data)
    assignment = Assignment(
        study="bench",
        number=os.getpid(),
        key="k",
        seed=0,
        config=Config(network=network, training=training).model_dump(mode="json"),
        costs=network_cost(network, info.shape)._asdict(),
        data=str(given.data),
        fingerprint=info.fingerprint,
        runs=str(given.folder),
        threads=int(os.environ["OMP_NUM_THREADS"]),
    )
    reports = run_trial(assignment)
    held = round(info.train * HELD)
    pictures = (info.train - held) // BATCH * BATCH

    def turn() -> dict[str, float]:
        began = time.perf_counter()
        report = next(reports)
        whole = time.perf_counter() - began
        assert report.outcome is None, report.outcome.traceback
        last = report.curve[-1]
        assert last.training is not None
        evaluation, rest = last.seconds - last.training, whole - last.seconds
        return {"rate": pictures / last.training, "held_rate": held / evaluation, "rest_ms": 1e3 * rest}

    return turn


def loop(batches: Callable[[], Any], model: Any, end: Callable[[], None], steps: int, precision: str) -> Turn:
    """A turn of a plain loop; its clock starts when what was made ahead is used up."""
    import torch
    from torch.nn import functional as F

    model.train()

    def turn() -> dict[str, float]:
        began, seen = 0.0, 0
        for step in range(-AHEAD, steps):
            if step == 0:
                began, seen = time.perf_counter(), 0
            images, labels = batches()
            with torch.autocast("cpu", dtype=torch.bfloat16, enabled=precision == "bf16"):
                scores = model(images)
            torch.autograd.backward(F.cross_entropy(scores.float(), labels))
            end()
            seen += len(labels)
        return {"rate": seen / (time.perf_counter() - began)}

    return turn


def plain(network: str) -> Any:
    from harness.cost import Shape
    from harness.networks.build import build

    return build(network_of(network), Shape(3, 32, 32, CLASSES), 0)


def sgd(model: Any) -> Callable[[], None]:
    import torch

    optim = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9, nesterov=True, weight_decay=5e-4)

    def end() -> None:
        optim.step()
        optim.zero_grad(set_to_none=True)

    return end


def bare(given: argparse.Namespace) -> Turn:
    from harness.trial import prepare_process

    threads = int(os.environ["OMP_NUM_THREADS"])
    prepare_process(threads)
    import torch

    from harness.training.device import claim

    claim(threads)
    model = plain(given.network).to(memory_format=torch.channels_last)
    images = torch.randn(BATCH, 3, 32, 32).to(memory_format=torch.channels_last)
    labels = torch.randint(0, CLASSES, (BATCH,))
    return loop(lambda: (images, labels), model, sgd(model), given.steps, given.precision)


def endless(loader: Any) -> Callable[[], Any]:
    """Batch after batch, epoch after epoch."""

    def batches() -> Iterator[Any]:
        while True:
            yield from loader

    found = batches()
    return lambda: next(found)


def common(given: argparse.Namespace) -> Turn:
    import torch
    from torchvision import transforms as T
    from torchvision.datasets import ImageFolder

    augment = [T.RandomCrop(32, padding=4), T.RandomHorizontalFlip()]
    normalise = [T.ToTensor(), T.Normalize((0.4914, 0.4822, 0.4465), (0.247, 0.2435, 0.2616))]
    pictures = ImageFolder(str(given.data / "train"), T.Compose(augment + normalise))
    loader = torch.utils.data.DataLoader(
        pictures, BATCH, shuffle=True, num_workers=2, drop_last=True, persistent_workers=True
    )
    model = plain(given.network)
    return loop(endless(loader), model, sgd(model), given.steps, "fp32")


def timms(given: argparse.Namespace) -> Turn:
    import torch
    from timm.data import create_dataset, create_loader
    from timm.optim import create_optimizer_v2
    from timm.scheduler import CosineLRScheduler
    from timm.utils import AverageMeter

    pictures = create_dataset("", root=str(given.data), split="train", is_training=True)
    loader = create_loader(
        pictures,
        (3, 32, 32),
        BATCH,
        is_training=True,
        use_prefetcher=False,
        scale=(0.8, 1.0),
        hflip=0.5,
        color_jitter=None,
        num_workers=2,
        persistent_workers=True,
    )
    model = plain(given.network).to(memory_format=torch.channels_last)
    optim = create_optimizer_v2(model, opt="sgd", lr=0.1, momentum=0.9, weight_decay=5e-4)
    scheduler, losses, updates = CosineLRScheduler(optim, t_initial=100_000, t_in_epochs=False), AverageMeter(), [0]
    batches = endless(loader)

    def end() -> None:
        optim.step()
        optim.zero_grad()
        updates[0] += 1
        scheduler.step_update(updates[0])
        losses.update(0.0, BATCH)

    def next_batch() -> Any:
        images, labels = batches()
        return images.contiguous(memory_format=torch.channels_last), labels

    return loop(next_batch, model, end, given.steps, given.precision)


MAKERS: dict[str, Callable[[argparse.Namespace], Turn]] = {
    "ours": ours,
    "ours compiled": ours,
    "bare": bare,
    "common": common,
    "timm": timms,
}


def serve(given: argparse.Namespace) -> None:
    """Gets ready, then trains a turn for every line it reads."""
    turn = MAKERS[given.way](given)
    turn()  # warm
    print("ready", flush=True)
    for _ in sys.stdin:
        print(json.dumps(turn()), flush=True)


# -- the comparison ---------------------------------------------------------------------------------------------------


class Way:
    """A process that trains when it is asked to."""

    def __init__(self, way: str, network: str, threads: int, given: argparse.Namespace, folder: str) -> None:
        words = [sys.executable, __file__, "--way", way, "--network", network, "--steps", str(given.steps)]
        words += ["--data", str(given.data), "--precision", given.precision, "--folder", folder]
        environment = os.environ | {"OMP_NUM_THREADS": str(threads)}
        pipe = subprocess.PIPE
        self._process = subprocess.Popen(words, stdin=pipe, stdout=pipe, text=True, env=environment)
        self.name = way
        assert self._answer() == "ready"

    def _answer(self) -> str:
        assert self._process.stdout is not None
        line = self._process.stdout.readline().strip()
        if not line:
            sys.exit(f"{self._process.args} ended")
        return line

    def begin(self) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write("go\n")
        self._process.stdin.flush()

    def end(self) -> dict[str, float]:
        found: dict[str, float] = json.loads(self._answer())
        time.sleep(SETTLE)
        return found

    def close(self) -> None:
        self._process.kill()
        self._process.wait()


def measured(network: str, given: argparse.Namespace) -> dict[str, Any]:
    """Rounds of all ways with one network."""
    names = [*WAYS, "ours compiled"] if given.compiled else list(WAYS)
    rounds: dict[str, list[dict[str, float]]] = {name: [] for name in (*names, *PACKED)}
    ways: list[Way] = []
    packed: dict[str, list[Way]] = {}
    with tempfile.TemporaryDirectory(prefix="bench-") as folder:
        try:
            for name in names:
                ways.append(Way(name, network, given.threads, given, folder))
            for name, way in PACKED.items():
                packed[name] = [Way(way, network, 1, given, folder) for _ in range(2)]
            for index in range(given.rounds):
                for way in ways:
                    way.begin()
                    rounds[way.name].append(way.end())
                for name, pair in packed.items():
                    for way in pair:
                        way.begin()
                    rounds[name].append({"rate": sum(way.end()["rate"] for way in pair)})
                told = ", ".join(f"{name} {found[-1]['rate']:,.0f}" for name, found in rounds.items())
                print(f"{network}, round {index + 1}: {told}", flush=True)
        finally:
            for way in itertools.chain(ways, *packed.values()):
                way.close()
    return summary(rounds)


def summary(rounds: dict[str, list[dict[str, float]]]) -> dict[str, Any]:
    """Medians over the rounds, and ratios taken within each."""

    def median(name: str, field: str = "rate") -> float:
        return statistics.median(found[field] for found in rounds[name])

    def ratio(one: str, other: str) -> float:
        pairs = zip(rounds[one], rounds[other])
        return round(statistics.median(first["rate"] / second["rate"] for first, second in pairs), 3)

    ratios = {f"ours / {other}": ratio("ours", other) for other in ("bare", "common", "timm")}
    two_of_ours, two_common = PACKED
    ratios["two trials of one thread / one of two"] = ratio(two_of_ours, "ours")
    ratios["two of ours / two common"] = ratio(two_of_ours, two_common)
    if "ours compiled" in rounds:
        ratios["ours compiled / common"] = ratio("ours compiled", "common")
    return {
        "pictures_a_second": {name: round(median(name)) for name in rounds},
        "rounds": {name: [round(one["rate"]) for one in found] for name, found in rounds.items()},
        "ratios": ratios,
        "beside": {
            "evaluation, pictures a second": round(median("ours", "held_rate")),
            "checkpoint and report, ms an epoch": round(median("ours", "rest_ms"), 1),
        },
    }


def machine() -> dict[str, Any]:
    from harness.training.device import device_name

    packages = ("attention-harness", "torch", "torchvision", "timm", "numpy", "pillow")
    return {
        "device": device_name("cpu"),
        "cores": len(os.sched_getaffinity(0)),
        "system": f"{platform.system()} {platform.machine()}",
        "versions": {name: version(name) for name in packages} | {"python": platform.python_version()},
        "load_before": round(os.getloadavg()[0], 2),
    }


def table(found: dict[str, Any]) -> str:
    networks = found["networks"]
    first = next(iter(networks.values()))
    lines = ["", f"| pictures a second | {' | '.join(networks)} |", "|---" * (1 + len(networks)) + "|"]
    for name in first["pictures_a_second"]:
        lines.append(f"| {name} | " + " | ".join(f"{one['pictures_a_second'][name]:,}" for one in networks.values()) + " |")
    for name in first["ratios"]:
        lines.append(f"| **{name}** | " + " | ".join(f"{one['ratios'][name]:.2f}" for one in networks.values()) + " |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--data", type=Path, default=os.environ.get("HARNESS_DATA"), help="a folder of 32x32 pictures")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--steps", type=int, default=25, help="of a turn")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--precision", help="default: the best there is")
    parser.add_argument("--compiled", action="store_true", help="ours compiled, too (a minute more for each network)")
    parser.add_argument("--networks", nargs="*", choices=NETWORKS, default=NETWORKS)
    parser.add_argument("--out", type=Path, default=HERE / "results" / "training.json")
    parser.add_argument("--way", choices=MAKERS, help="run this one alone, here, a turn for each line of input")
    parser.add_argument("--network", choices=NETWORKS)
    parser.add_argument("--folder", type=Path)
    given = parser.parse_args()
    if given.data is None or not (Path(given.data) / "train").is_dir():
        sys.exit("--data DIR (or HARNESS_DATA): a folder with train/<class>/* and test/<class>/* of 32x32 pictures")
    given.data = Path(given.data)
    if given.way is not None:
        serve(given)
        return
    from harness.training.device import best_precision

    given.precision = given.precision or best_precision()
    found = {"machine": machine(), "precision": given.precision, "batch": BATCH, "steps_a_turn": given.steps}
    found["networks"] = {name: measured(name, given) for name in given.networks}
    given.out.parent.mkdir(exist_ok=True)
    given.out.write_text(json.dumps(found, indent=1) + "\n")
    print(table(found))


if __name__ == "__main__":
    main()
