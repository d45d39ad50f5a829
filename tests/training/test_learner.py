"""What a recipe may switch on: each goes on from a checkpoint bit for bit, and does what its definition says."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from harness.config import Config, ExpAtt, ResNet, Training
from harness.cost import network_cost
from harness.data.sources import open_data
from harness.errors import HarnessError
from harness.networks.build import build
from harness.record import Epoch
from harness.training import learner as learners
from harness.training import loop
from harness.training.gauges import Gauges, process_peak
from harness.training.learner import Learner, better
from harness.trial import Assignment, Report, run_trial

BASE = Training(epochs=3, limit=12, batch_size=32, validation=0.2, precision="fp32", augment="crop")
FEATURES: dict[str, dict[str, Any]] = {
    "adamw": {"optimizer": "adamw", "lr": 0.01},
    "average": {"ema": 0.9},
    "best": {"select": "best", "lr": 0.5},
    "best of averages": {"select": "best", "ema": 0.8},
    "pieces": {"accumulate": 3},
    "clipped": {"clip": 0.5, "nesterov": False},
    "restarts": {"schedule": "restarts", "cycle": 1, "warmup": 0.0},
    "one-cycle": {"schedule": "onecycle"},
    "steps": {"schedule": "step", "milestones": (2,)},
    "radii": {"radius_lr": 10.0},
    "compiled": {"compile": True},
}


@pytest.fixture(autouse=True)
def quick_compiler(monkeypatch: pytest.MonkeyPatch) -> None:
    """Compiling goes through the whole of dynamo, but for the minute that kernels take."""
    original: Callable[..., Any] = torch.compile
    monkeypatch.setattr(torch, "compile", lambda module: original(module, backend="eager"))


def assignment(folder: Path, training: Training) -> Assignment:
    network = ResNet(depth=8, stages=(None, None, ExpAtt(radius_per="head", heads=4)))
    _, info = open_data(training, Path())
    return Assignment(
        study="s",
        number=0,
        key="k",
        seed=1,
        config=Config(network=network, training=training).model_dump(mode="json"),
        costs=network_cost(network, info.shape)._asdict(),
        data="data",
        fingerprint=info.fingerprint,
        runs=str(folder),
    )


def ended(reports: list[Report]) -> tuple[Any, tuple[Epoch, ...]]:
    outcome = reports[-1].outcome
    assert outcome is not None and outcome.state == "complete", outcome and outcome.traceback
    return outcome, reports[-1].curve


@pytest.mark.parametrize("fields", FEATURES.values(), ids=FEATURES.keys())
def test_every_feature_ends_with_the_same_bits_when_cut(tmp_path: Path, fields: dict[str, Any]) -> None:
    training = Training(**BASE.model_dump() | fields)
    whole, curve = ended(list(run_trial(assignment(tmp_path / "whole", training))))
    cut = run_trial(assignment(tmp_path / "cut", training))
    next(cut)
    next(cut)
    cut.close()
    resumed, again = ended(list(run_trial(assignment(tmp_path / "cut", training))))
    assert resumed.provenance["weights"] == whole.provenance["weights"]
    assert [replace(point, seconds=0.0, training=None) for point in curve] == [
        replace(point, seconds=0.0, training=None) for point in again
    ]
    assert {name: value for name, value in whole.metrics.items() if name in ("accuracy", "loss", "top5")} == {
        name: value for name, value in resumed.metrics.items() if name in ("accuracy", "loss", "top5")
    }


def test_features_matter() -> None:
    """Else the test above would hold for a field that nobody reads."""
    ends = set()
    for fields in [{}, *FEATURES.values()]:
        if "select" not in fields and "compile" not in fields:
            network = trained(Training(**BASE.model_dump() | fields)).judged
            ends.add(float(network.get_parameter("head.weight").detach().double().abs().sum()))
    assert len(ends) == len(FEATURES) - 3 + 1


def trained(training: Training, steps: int | None = None) -> Learner:
    from harness.data.batches import open_batches

    pictures, info = open_data(training, Path())
    network = build(ResNet(depth=8, stages=(None, None, ExpAtt())), info.shape, 0)
    learner, data = Learner(network, training), open_batches(pictures, info, training, seed=0, device="cpu")
    for epoch in range(1, (steps or 2) + 1):
        loop.train_epoch(learner, data, seed=0, epoch=epoch)
    return learner


# -- one by one, against their definitions


def linear(training: Training) -> tuple[Learner, nn.Linear]:
    torch.manual_seed(0)
    layer = nn.Linear(3, 2)
    return Learner(layer, training), layer


def test_the_average_is_exponential() -> None:
    learner, layer = linear(Training(ema=0.75, warmup=0.0))
    expected: torch.Tensor | None = None
    for step in range(5):
        layer.weight.grad, layer.bias.grad = torch.randn(2, 3), torch.randn(2)
        learner.step(step, 5)
        now = layer.weight.detach().clone()
        expected = now if expected is None else 0.75 * expected + 0.25 * now
    assert expected is not None
    assert torch.allclose(learner.judged.get_parameter("weight"), expected, atol=1e-6)
    assert not torch.allclose(layer.weight, expected)


def test_the_average_has_its_own_statistics() -> None:
    judged = trained(Training(**BASE.model_dump() | {"ema": 0.9})).judged
    live = trained(BASE).network
    assert not torch.equal(judged.get_buffer("stem.norm.running_mean"), live.get_buffer("stem.norm.running_mean"))


def test_gradients_are_clipped_to_their_common_norm() -> None:
    moved = []
    for clip in (None, 0.1):
        learner, layer = linear(Training(momentum=0.0, weight_decay=0.0, lr=1.0, warmup=0.0, clip=clip))
        before = torch.cat([layer.weight.detach().clone().flatten(), layer.bias.detach().clone()])
        layer.weight.grad, layer.bias.grad = torch.full((2, 3), 2.0), torch.full((2,), 2.0)
        learner.step(0, 10**6)
        moved.append(float((torch.cat([layer.weight.detach().flatten(), layer.bias.detach()]) - before).norm()))
    assert moved == pytest.approx([2 * 8**0.5, 0.1], rel=1e-4)


def test_a_batch_in_pieces_has_the_gradient_of_the_whole() -> None:
    """Without batch norms, which see a piece at a time."""

    class Batches:
        device, steps, size, held = torch.device("cpu"), 1, 7, 0

        def epoch(self, epoch: int) -> Any:
            rng = torch.Generator().manual_seed(0)
            yield torch.randn(7, 3, generator=rng), torch.randint(0, 2, (7,), generator=rng)

        def held_out(self) -> Any:
            yield from ()

    found = []
    for count in (1, 3):
        learner, layer = linear(Training(batch_size=8, accumulate=count, warmup=0.0))
        found.append((loop.train_epoch(learner, Batches(), seed=0, epoch=1), layer.weight.detach().clone()))
    assert found[0][0] == pytest.approx(found[1][0], rel=1e-6) and torch.allclose(found[0][1], found[1][1], atol=1e-6)
    assert [len(images) for images, _ in loop.pieces(torch.zeros(7, 1), torch.zeros(7), 3)] == [3, 2, 2]
    assert [len(images) for images, _ in loop.pieces(torch.zeros(3, 1), torch.zeros(3), 3)] == [3]


def test_the_best_epoch_stands_for_the_trial(tmp_path: Path) -> None:
    training = Training(**BASE.model_dump() | {"select": "best", "epochs": 6, "lr": 1.0, "schedule": "restarts", "cycle": 1})
    outcome, curve = ended(list(run_trial(assignment(tmp_path, training))))
    best = max(curve, key=lambda point: (point.accuracy, -point.loss))
    assert (outcome.metrics["accuracy"], outcome.metrics["loss"]) == (best.accuracy, best.loss)
    assert outcome.provenance["epoch"] == best.epoch
    assert better(Epoch(2, 0.5, 1.0, 1.0, 1.0), Epoch(1, 0.5, 1.5, 1.0, 1.0))
    assert not better(Epoch(2, 0.5, 1.0, 1.0, 1.0), Epoch(1, 0.5, 1.0, 1.0, 1.0))


def test_metrics_and_radii_of_a_trial(tmp_path: Path) -> None:
    outcome, curve = ended(list(run_trial(assignment(tmp_path, Training(**BASE.model_dump() | {"radius_lr": 100.0})))))
    assert set(outcome.metrics) >= {"accuracy", "loss", "top5", "seconds", "pictures_per_second", "peak_memory"}
    assert 0 <= outcome.metrics["accuracy"] <= outcome.metrics["top5"] <= 1
    assert [list(point.radii) for point in curve] == [["3.1"]] * 3 and len(curve[0].radii["3.1"]) == 4
    assert curve[0].radii != curve[2].radii, "radii are learned"
    assert all(0 < (point.training or 0) < point.seconds for point in curve)
    assert process_peak() <= outcome.metrics["peak_memory"] + 2**20


def test_top5_by_hand() -> None:
    scores = torch.tensor([[9.0, 8, 7, 6, 5, 4, 3], [1.0, 2, 3, 4, 5, 6, 7]])

    class Batches:
        device, steps, size, held = torch.device("cpu"), 1, 2, 2

        def held_out(self) -> Any:
            yield scores, torch.tensor([4, 1])

        def epoch(self, epoch: int) -> Any:
            yield from ()

    found = loop.evaluate(nn.Identity(), Batches(), BASE)
    assert (found.accuracy, found.top5) == (0.0, 0.5)
    scores = scores[:, :5]
    assert loop.evaluate(nn.Identity(), Batches(), BASE).top5 is None


def test_curves_travel_as_rows() -> None:
    short, long = Epoch(1, 0.5, 1.0, 1.1, 2.0), Epoch(2, 0.5, 1.0, 1.1, 2.0, 1.5, 0.0, {"2.1": (1.5, 2.25)})
    assert short.row() == [1, 0.5, 1.0, 1.1, 2.0] and Epoch.from_row(short.row()) == short
    assert Report.from_json(Report((short, long)).to_json()).curve == (short, long)


def test_what_cannot_be_compiled_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(learners, "compiler", lambda: None)
    with pytest.raises(HarnessError, match="there is no C\\+\\+ compiler here; install g\\+\\+, or use compile=False"):
        linear(Training(compile=True))


def test_memory_is_counted_anew_for_each_trial() -> None:
    first = Gauges("cpu")
    ballast = torch.ones(60_000_000)
    high = first.read()["peak_memory"]
    del ballast
    low = Gauges("cpu").read()["peak_memory"]
    assert high - low > 200e6
