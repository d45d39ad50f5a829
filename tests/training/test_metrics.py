"""What a trial measures as objectives of a study: from the worker to the record, and refused where it says nothing."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from harness.config import ExpAtt, ResNet, Training
from harness.errors import StudyError
from harness.hardware import Hardware, worth_compiling
from harness.report.words import unit
from harness.results import open_study
from harness.run import Options, run_study
from harness.space import vary
from harness.study import Random, Study, maximize, minimize

SPACE = vary(ResNet, depth=8, stages=(None, None, ExpAtt()))


def test_measured_metrics_are_objectives_and_radii_reach_the_record(
    tmp_path: Path, make_study: Callable[..., Study], storage: str
) -> None:
    objectives = (maximize("top5"), maximize("pictures_per_second"), minimize("peak_memory"))
    study = make_study(space=SPACE, strategy=Random(trials=1), objectives=objectives)
    assert run_study(study, Options(storage=storage, backend="local")).complete == 1
    found = open_study("tiny", storage)
    (record,) = found.records
    assert record.curve[0].radii["3.1"] and record.curve[0].top5 == record.metrics["top5"]
    assert 50e6 < record.metrics["peak_memory"] < 50e9 and record.metrics["pictures_per_second"] > 1
    assert {"top5", "pictures_per_second", "peak_memory"} <= set(found.frame().columns)
    assert len(found.front()) == 1


def test_objectives_that_cannot_be_measured_are_refused(
    tmp_path: Path, make_study: Callable[..., Study], storage: str
) -> None:
    import torch

    for part in ("train", "test"):
        for name in ("a", "b"):
            (tmp_path / part / name).mkdir(parents=True)
            for index in range(3):
                level = np.full((8, 8, 3), 40 * index, np.uint8)
                Image.fromarray(level).save(tmp_path / part / name / f"{index}.png")
    options = Options(storage=storage, backend="local", data=tmp_path)
    few = Training(dataset="folder", epochs=1, precision="fp32")
    with pytest.raises(StudyError, match="top5 says nothing of 2 classes; use accuracy or loss"):
        run_study(make_study(training=few, objectives=(maximize("top5"),)), options)
    if not torch.cuda.is_available():
        with pytest.raises(StudyError, match="energy is what a GPU's driver tells"):
            run_study(make_study(objectives=(minimize("energy"),)), options)


@pytest.mark.parametrize(
    ("metric", "value", "text"),
    [
        ("top5", 0.98765, "98.77 %"),
        ("pictures_per_second", 1234.0, "1,234 /s"),
        ("peak_memory", 912_345_678.0, "912.3 MB"),
        ("energy", 45_600.0, "45.60 kJ"),
    ],
)
def test_units(metric: str, value: float, text: str) -> None:
    assert unit(metric, [value]).text(value).replace("\N{NO-BREAK SPACE}", " ") == text


def test_only_long_trials_are_compiled() -> None:
    """A ResNet-20 (41 million MACs) at 45,000 pictures an epoch is 351 steps, of 5 ms at least: 600 s are 342 epochs. A
    ResNet-50 at 224x224 has 3e12 operations a step of 128 pictures, 30 ms in bf16 and 160 ms in fp32."""
    gpu: Any = Hardware("cuda", "bf16", True, True)
    assert not worth_compiling(gpu, "bf16", 40_800_000, 330 * 351, 128)
    assert worth_compiling(gpu, "bf16", 40_800_000, 350 * 351, 128)
    assert not worth_compiling(gpu, "bf16", 4_089_000_000, 15_000, 128)
    assert worth_compiling(gpu, "fp32", 4_089_000_000, 15_000, 128), "the slower the trial, the sooner"
    assert not worth_compiling(gpu._replace(compiler=False), "bf16", 40_800_000, 350 * 351, 128)
    assert not worth_compiling(gpu._replace(device="cpu"), "fp32", 40_800_000, 10**9, 128), "a CPU wins nothing by it"
