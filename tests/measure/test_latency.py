"""Latency against modules that sleep a known time, memory against tensors of a known size; and nothing else is changed."""

import time

import pytest
import torch
from torch import Tensor, nn

from harness.config import ResNet, Training
from harness.cost import Shape
from harness.latency import Latency, answer
from harness.measure import latency
from harness.measure.latency import measure, measure_all, timed
from harness.networks.build import build
from harness.record import Measurement

SHAPE, FP32 = Shape(3, 8, 8, 10), Training(precision="fp32")


@pytest.fixture(autouse=True)
def briefly(monkeypatch: pytest.MonkeyPatch) -> None:
    """Tests need fewer passes than a number that is kept."""
    monkeypatch.setattr(latency, "WARM_UP", 0.02)
    monkeypatch.setattr(latency, "BLOCK", 0.01)


class Sleeper(nn.Module):
    """Takes a known time; longer by `growing` with each call."""

    def __init__(self, seconds: float, growing: float = 0.0) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(1))
        self.seconds, self.growing, self.batches = seconds, growing, set[int]()

    def forward(self, images: Tensor) -> Tensor:
        assert not self.training and torch.is_inference_mode_enabled()
        self.batches.add(len(images))
        time.sleep(self.seconds)
        self.seconds += self.growing
        return images


class Holder(nn.Module):
    """Holds 8 MB at once beside 4 kB of weights, and makes 9 MB on the way."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(1000))

    def forward(self, images: Tensor) -> Tensor:
        first = torch.ones(250_000)
        second = first.repeat(4)
        del first
        return (second + 1)[: len(images)]


def measured(network: nn.Module, **given: int) -> Measurement:
    return measure(network, SHAPE, FP32, **{"batch": 1, "threads": 1, **given}, device="cpu", source="test")


def test_a_known_time_is_found() -> None:
    sleeper = Sleeper(5e-3)
    found = measured(sleeper, batch=4)
    assert 5e-3 <= found.latency < 2e-2
    assert found.spread is not None and found.spread < 1e-2
    assert sleeper.batches == {4}
    assert (found.batch, found.where, found.precision, found.threads, found.source) == (4, "cpu", "fp32", 1, "test")
    assert found.repeats is not None and found.blocks is not None and found.repeats >= found.blocks == 9
    assert found.device.endswith("(cpu)") and found.busy is not None and found.busy >= 0


def test_what_becomes_slower_has_a_spread() -> None:
    found = measured(Sleeper(1e-3, growing=2e-4))
    assert found.spread is not None and found.spread > 0.3 * found.latency


def test_a_rare_long_pass_does_not_count() -> None:
    calls = []

    def once() -> None:
        calls.append(1)
        time.sleep(0.05 if len(calls) % 11 == 0 else 1e-3)

    blocks, repeats = timed(once, lambda: None)
    assert 1e-3 <= sorted(blocks)[len(blocks) // 2] < 1e-2
    assert len(calls) > repeats  # it was warmed up


def test_the_device_is_waited_for_before_and_after_each_pass() -> None:
    told: list[str] = []
    timed(lambda: (told.append("pass"), time.sleep(0.01))[0], lambda: told.append("wait"))
    assert told[:6] == ["wait", "pass", "wait"] * 2


def test_memory_is_what_lives_at_once() -> None:
    images, weights = 4 * 2 * 3 * 8 * 8, 4 * 1000
    assert measured(Holder(), batch=2).memory == 8_000_000 + images + weights


def test_larger_batches_and_networks_hold_more() -> None:
    small, large = (build(ResNet(depth=depth), SHAPE) for depth in (8, 20))
    one, many, deep = measured(small).memory, measured(small, batch=16).memory, measured(large).memory
    assert one is not None and many is not None and deep is not None
    assert one < many and one < deep
    weights = sum(weight.nbytes for weight in [*small.parameters(), *small.buffers()])
    assert weights < one < weights + 100_000


def test_bf16_holds_less_between_layers() -> None:
    network = build(ResNet(depth=8), SHAPE)
    half = measure(network, SHAPE, Training(precision="bf16"), batch=64, device="cpu", threads=1, source="test")
    assert half.precision == "bf16" and (half.memory or 0) < (measured(network, batch=64).memory or 0)


def test_nothing_else_is_changed() -> None:
    network = build(ResNet(depth=8), SHAPE).train()
    before = {name: weight.clone() for name, weight in network.state_dict().items()}
    state, threads = torch.get_rng_state(), torch.get_num_threads()
    measured(network)
    measured(Sleeper(1e-3), threads=2)
    assert network.training and torch.get_num_threads() == threads
    assert torch.equal(torch.get_rng_state(), state)
    assert all(torch.equal(weight, before[name]) for name, weight in network.state_dict().items())


def test_each_question_is_answered_by_its_own_measurement() -> None:
    asked = [Latency(batch=1, device="cpu"), Latency(batch=2, device="cpu", threads=2), Latency(device="Pixel 7")]
    found = measure_all(Sleeper(1e-3), SHAPE, FP32, asked, threads=1)
    assert [(one.batch, one.threads) for one in found] == [(1, 1), (2, 2)]
    assert [answer(one, found) for one in asked] == [found[0], found[1], None]
    phone = Measurement("Pixel 7", 1, 3e-3)
    assert answer(asked[2], [*found, phone]) == phone and answer(asked[0], [phone]) is None


def test_what_is_open_is_settled_where_trials_run() -> None:
    assert Latency().resolved("cuda", 2) == Latency(device="cuda", threads=2)
    assert Latency(batch=8, device="Pixel 7", threads=4).resolved("cpu", 1) == Latency(batch=8, device="Pixel 7", threads=4)


@pytest.mark.gpu
def test_a_gpu_is_timed_to_the_end_of_its_work() -> None:
    """A product of 4,096 squared matrices takes 137 GFLOP; no GPU does that in the 10 us that launching takes."""

    class Products(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight = nn.Parameter(torch.ones(4096, 4096))

        def forward(self, images: Tensor) -> Tensor:
            return self.weight @ self.weight

    network = Products()
    plain = measure(network, SHAPE, FP32, batch=1, device="cuda", threads=1, source="test")
    assert plain.where == "cuda" and plain.latency > 5e-4 and not network.weight.is_cuda
    assert plain.memory is not None and 2 * 4096**2 * 4 <= plain.memory < 4 * 4096**2 * 4


@pytest.mark.gpu
def test_tf32_is_faster_than_fp32_and_no_default() -> None:
    from harness.training.device import has_tf32

    class Products(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight = nn.Parameter(torch.ones(8192, 8192))

        def forward(self, images: Tensor) -> Tensor:
            return self.weight @ self.weight

    if has_tf32():
        exact, fast = (
            measure(
                Products(), SHAPE, Training(precision=precision), batch=1, device="cuda", threads=1, source="test"
            ).latency
            for precision in ("fp32", "tf32")
        )
        assert fast < 0.7 * exact


@pytest.mark.gpu
def test_energy_is_that_of_a_power_times_a_time() -> None:
    from harness.training.gauges import Gauges, joules

    if joules("cuda") is not None:
        gauges, began = Gauges("cuda"), time.perf_counter()
        weight = torch.ones(8192, 8192, device="cuda")
        while time.perf_counter() - began < 2.0:
            weight @ weight
            torch.cuda.synchronize()
        watts = gauges.read()["energy"] / (time.perf_counter() - began)
        assert 30 < watts < 2000
