"""What every attention kind and every network inherits: the same trial ends with the same bits, run twice or interrupted."""

from pathlib import Path
from typing import Any

import pytest

from harness.config import (
    AA,
    BAM,
    CBAM,
    ECA,
    GSA,
    LTPA,
    VGG,
    Attention,
    BottleneckAttention,
    Config,
    CoordinateAttention,
    Custom,
    EffectiveSE,
    ExpAtt,
    GatherExcite,
    GlobalContext,
    Halo,
    LambdaLayer,
    NonLocal,
    PreActResNet,
    ResNet,
    SimAM,
    SqueezeExcite,
    StandAlone,
    Training,
    TripletAttention,
    Trunk,
    WideResNet,
)
from harness.cost import network_cost
from harness.data.sources import open_data
from harness.measure.complexity import count_custom
from harness.trial import Assignment, Report, run_trial

Slots = tuple[Attention | None, ...]
KINDS: list[Attention | Slots | Trunk | None] = [
    None,
    SqueezeExcite(ratio=4),
    ECA(),
    CBAM(ratio=4),
    ExpAtt(),
    ExpAtt(kernel="laplacian", radius_per="head", heads=4),
    ExpAtt(kernel="cauchy"),
    ExpAtt(kernel="uniform"),
    AA(),
    GSA(),
    (EffectiveSE(), BAM(ratio=4), GlobalContext(ratio=4)),
    (TripletAttention(), GatherExcite(), GatherExcite(gather="pool", ratio=None)),
    (SimAM(), CoordinateAttention(), NonLocal()),
    (StandAlone(size=3), BottleneckAttention(), LambdaLayer(reach=7)),
    (None, None, Halo()),
    Custom("test_repeat_module:Scale"),
    Custom("test_repeat_module:Scale", place="block"),
    Custom("test_repeat_module:Scale", place="stage"),
    PreActResNet(depth=11, width=0.5, head=LTPA(taps=(2, 3))),
    WideResNet(depth=10, factor=0.5, dropout=0.3, head=LTPA(taps=(1, 3), score="dp")),
    VGG(trunk="attention", width=0.05, head=LTPA(taps=(3, 5), combine="indep")),
]
MODULE = """
import torch
from torch import nn

class Scale(nn.Module):
    def __init__(self, channels):
        super().__init__()
        self.scale = nn.Parameter(1 + 0.1 * torch.randn(channels, 1, 1))
        self.drop = nn.Dropout(0.3)  # draws from the global random numbers

    def forward(self, x):
        return self.drop(x * self.scale)
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "test_repeat_module.py").write_text(MODULE)
    monkeypatch.syspath_prepend(str(tmp_path))
    return tmp_path


def weights(runs: Path, slot: Attention | Slots | Trunk | None, precision: str, *, cut_after: int | None = None) -> str:
    """The hash of the final weights of a small trial, of three epochs, begun anew in another process's place where cut."""
    training = Training(
        epochs=3,
        limit=12,
        batch_size=32,
        validation=0.2,
        precision=precision,
        augment="crop",
        deterministic=True,  # type: ignore[arg-type]
    )
    stages: Any = slot if isinstance(slot, tuple) else (None, slot, slot)
    network: Any = slot if isinstance(slot, Trunk) else ResNet(depth=8, stages=stages)
    _, info = open_data(training, Path())
    assignment = Assignment(
        study="s",
        number=0,
        key="k",
        seed=1,
        config=Config(network=network, training=training).model_dump(mode="json"),
        costs=network_cost(network, info.shape, count_custom)._asdict(),
        data="data",
        fingerprint=info.fingerprint,
        runs=str(runs),
    )
    if cut_after is not None:
        seen: list[Report] = []
        batches = iter(range(10**6))
        for report in run_trial(assignment, stop=lambda: len(seen) == cut_after and next(batches) > 1):
            seen.append(report)
        assert len(seen) == cut_after and seen[-1].outcome is None, "it was to be cut within an epoch"
    outcome = list(run_trial(assignment))[-1].outcome
    assert outcome is not None and outcome.state == "complete", outcome and outcome.traceback
    return str(outcome.provenance["weights"])


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("slot", KINDS, ids=str)
def test_repeated_and_cut_trials_end_with_the_same_bits(
    folder: Path, slot: Attention | Slots | Trunk | None, precision: str
) -> None:
    once = weights(folder / "one", slot, precision)
    assert weights(folder / "two", slot, precision) == once
    assert weights(folder / "cut", slot, precision, cut_after=1) == once
