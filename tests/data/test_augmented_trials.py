"""A trial with every augmentation on ends with the same bits, run twice or interrupted, its pictures held whole or read."""

from collections.abc import Callable
from pathlib import Path

import pytest

from harness.config import Config, ResNet, Training
from harness.cost import network_cost
from harness.data import sources, stream
from harness.data.sources import open_data
from harness.execution.backend import Resources
from harness.plan import make_plan
from harness.run import Options, run_study
from harness.storage.reader import read_studies
from harness.study import Random, Study
from harness.trial import Assignment, Report, run_trial


def trained(
    runs: Path, data: Path, training: Training, cores: int = 1, *, cut_after: int | None = None
) -> dict[str, object]:
    """The provenance of a small trial, begun anew in another's place where cut."""
    _, info = open_data(training, data)
    network = ResNet(depth=8)
    assignment = Assignment(
        study="s",
        number=0,
        key="k",
        seed=1,
        config=Config(network=network, training=training).model_dump(mode="json"),
        costs=network_cost(network, info.shape)._asdict(),
        data=str(data),
        fingerprint=info.fingerprint,
        runs=str(runs),
        cores=cores,
    )
    if cut_after is not None:
        seen: list[Report] = []
        for report in run_trial(assignment, stop=lambda: len(seen) == cut_after):
            seen.append(report)
        assert len(seen) == cut_after and seen[-1].outcome is None
    outcome = list(run_trial(assignment))[-1].outcome
    assert outcome is not None and outcome.state == "complete", outcome and outcome.traceback
    return outcome.provenance


@pytest.mark.parametrize("loading", ["resident", "stream"])
@pytest.mark.filterwarnings("ignore:This DataLoader will create")  # more than this machine may have
def test_interrupted_trials_end_with_the_same_bits(noise: Path, tmp_path: Path, loading: str) -> None:
    """Also where they go on with other cores to read pictures on."""
    (noise / "train" / "cat" / "00.png").write_bytes(b"")
    training = Training(
        dataset="folder",
        image_size=8,
        loading=loading,
        skip_bad_images=True,
        epochs=3,
        batch_size=8,
        augment="crop+flip",
        policy="trivial",
        jitter=0.3,
        cutout=0.5,
        mixup=0.2,
        cutmix=1.0,
        label_smoothing=0.1,
        precision="fp32",
    )
    once = trained(tmp_path / "one", noise, training)
    assert once["skipped_images"] == 1
    assert trained(tmp_path / "cut", noise, training, cores=3, cut_after=1)["weights"] == once["weights"]


def test_how_pictures_are_kept_is_settled_with_the_study_and_said(
    noise: Path, tmp_path: Path, storage: str, make_study: Callable[..., Study], monkeypatch: pytest.MonkeyPatch
) -> None:
    (noise / "train" / "cat" / "00.png").write_bytes(b"")
    training = Training(dataset="folder", image_size=8, skip_bad_images=True, epochs=1, batch_size=8, precision="fp32")
    study = make_study(training=training, strategy=Random(trials=1))
    assert any(line.endswith("8x8, 0.0 MB held decoded") for line in make_plan(study, noise, storage).lines())
    monkeypatch.setenv("HARNESS_RESIDENT_GB", "0.000001")
    sources._opened.clear()
    assert any(line.endswith("8x8, read as they pass (0.0 MB decoded)") for line in make_plan(study, noise, storage).lines())
    given = {"storage": storage, "backend": "local", "data": noise, "runs": tmp_path / "runs"}
    options, read_on = Options(**given, resources=Resources(cpus_per_trial=3)), []
    monkeypatch.setattr(stream, "processes", lambda cores, device: read_on.append(cores) or 0)
    done = run_study(study, options)
    assert read_on == [3], "its cores read, whatever its threads"
    assert done.complete == 1 and "skip_bad_images: 1 of 40 left out" in done.notes[0]
    monkeypatch.delenv("HARNESS_RESIDENT_GB")  # as on a larger machine: it goes on as it was begun
    sources._opened.clear()
    (stored,) = read_studies(storage)
    assert stored.attributes["definition"]["training"]["loading"] == "stream"
    assert stored.attributes["data"]["streamed"] and stored.attributes["data"]["skipped"] == 1
    assert run_study(study, options).trained == 0
