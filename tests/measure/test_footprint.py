"""What a step of training holds, counted on a CPU by the storages that operations make; on a GPU by its allocator."""

import pytest
import torch

from harness.config import Config, ResNet, Training
from harness.cost import Shape
from harness.gpus import CONTEXT, Gpu, tensors_share
from harness.measure.footprint import CudaMeter, beside, bytes_of
from harness.measure.latency import Storages
from harness.training.device import limit_memory

SHAPE = Shape(3, 16, 16, 10)
GIB = 2**30


class Counting:
    """A meter of a CPU: the bytes of tensors that live at one moment, of those that operations make."""

    device = "cpu"

    def begin(self) -> None:
        self._seen = Storages(())
        self._seen.__enter__()

    def peak(self) -> int:
        self._seen.__exit__(None, None, None)
        return self._seen.most


def held(batch: int, width: float = 1.0, depth: int = 8, **fields: object) -> int:
    training = Training(batch_size=batch, precision="fp32", **fields)
    return bytes_of(Config(network=ResNet(depth=depth, width=width), training=training), SHAPE, Counting())


def test_a_step_holds_weights_gradients_moments_and_what_the_way_back_needs() -> None:
    params = 4 * 78_000
    maps = 4 * (3 * 16 * 16 * 16 + 2 * 32 * 8 * 8 + 2 * 64 * 4 * 4)  # a picture's, of each convolution of ResNet-8
    small, large = held(16), held(64)
    assert large - small > 1.8 * 48 * maps, "each map is kept for the norm behind it, and the norm's for the next one"
    assert small > 2 * params + 1.8 * 16 * maps
    assert held(64, depth=20, accumulate=4) < 0.8 * held(64, depth=20), "pieces are passed one after the other"
    assert held(2, width=4.0) > 3 * 16 * params, "weights, gradients and moments, of sixteen times the parameters"


def test_averages_and_best_weights_count() -> None:
    plain, one = held(4, width=4.0), 16 * 4 * 76_000
    assert plain + 0.95 * one < held(4, width=4.0, ema=0.9) < held(4, width=4.0, ema=0.9, select="best") - 0.95 * one


def test_what_a_process_takes_beside_its_tensors() -> None:
    def gpu(free: int) -> Gpu:
        return Gpu(0, "GPU-0", "H100", free, 80 * GIB)

    assert beside(gpu(70 * GIB), gpu(69 * GIB)) == GIB
    assert beside(gpu(70 * GIB), gpu(71 * GIB)) == CONTEXT, "others gave some back meanwhile"
    assert beside(None, None) == CONTEXT


@pytest.mark.parametrize(
    ("share", "total", "kept"),
    [(1.0, 80, 1.0), (0.25, 80, 0.25 - 600 / 1024 / 80), (0.5, 8, 0.5 - 600 / 1024 / 8), (0.1, 8, 0.05)],
)
def test_tensors_get_what_the_context_leaves(share: float, total: int, kept: float) -> None:
    assert tensors_share(share, total * GIB) == pytest.approx(kept)


def test_a_limit_is_told_to_the_allocator_and_lifted(monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[float] = []
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda _: type("Properties", (), {"total_memory": 80 * GIB}))
    monkeypatch.setattr(torch.cuda, "set_per_process_memory_fraction", told.append)
    limit_memory(0.5)
    limit_memory(1.0)
    assert told == [tensors_share(0.5, 80 * GIB), 1.0]


def test_without_a_gpu_nothing_is_limited(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.cuda, "set_per_process_memory_fraction", pytest.fail)
    limit_memory(0.5)


# -- on a GPU ---------------------------------------------------------------------------------------------------------


@pytest.mark.gpu
def test_who_asks_for_more_than_its_share_is_out_of_memory() -> None:
    total = torch.cuda.get_device_properties(0).total_memory
    limit_memory(0.1)
    try:
        with pytest.raises(torch.OutOfMemoryError):
            torch.empty(int(0.15 * total), dtype=torch.uint8, device="cuda")
    finally:
        limit_memory(1.0)
    assert torch.empty(int(0.15 * total), dtype=torch.uint8, device="cuda").is_cuda


@pytest.mark.gpu
def test_a_gpu_counts_as_a_cpu_does_but_for_workspaces() -> None:
    config = Config(network=ResNet(depth=20), training=Training(batch_size=256, precision="fp32"))
    here, there = bytes_of(config, SHAPE, Counting()), bytes_of(config, SHAPE, CudaMeter())
    assert 0.5 * here < there < 3 * here + 256 * 2**20
