"""Weights to begin with: a ResNet in timm's and torchvision's naming, our own checkpoints, and what is refused."""

import re
from collections import OrderedDict
from functools import reduce
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from harness import weights
from harness.config import Config, ExpAtt, ResNet, SqueezeExcite, Training
from harness.cost import Shape, network_cost
from harness.data.sources import open_data
from harness.errors import DataError, StudyError
from harness.networks.build import build
from harness.run import Options, run_study
from harness.space import vary
from harness.storage.reader import read_records, read_studies
from harness.study import Exhaustive, Study
from harness.training.initial import load_initial, match
from harness.trial import Assignment, run_trial

SHAPE = Shape(3, 32, 32, 10)


def theirs(network: torch.nn.Module) -> "OrderedDict[str, Tensor]":
    """The weights under the names that timm and torchvision give them, every value another."""
    words = [
        ("stem.conv", "conv1"),
        ("stem.norm", "bn1"),
        ("shortcut.conv", "downsample.0"),
        ("shortcut.norm", "downsample.1"),
    ]
    found = OrderedDict()
    for ours, weight in network.state_dict().items():
        name = reduce(lambda text, pair: text.replace(*pair), words, ours)
        name = re.sub(r"^stages\.(\d)", r"layer\1", name).replace("branch.", "").replace("head.", "fc.")
        value = torch.rand_like(weight) if weight.is_floating_point() else weight.clone()
        found[re.sub(r"\.norm(\d)\.", r".bn\1.", name)] = value
    return found


def test_the_names_are_those_of_timm() -> None:
    import timm

    timms = set(timm.create_model("resnet18").state_dict())
    with torch.device("meta"):
        assert set(theirs(build(ResNet(depth=18), Shape(3, 224, 224, 1000), device="meta"))) == timms


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_a_whole_network_is_loaded(tmp_path: Path, suffix: str) -> None:
    network = build(ResNet(depth=18, stem="cifar"), SHAPE, 0)
    given, path = theirs(network), tmp_path / f"weights{suffix}"
    if suffix == ".pth":
        torch.save({"state_dict": {f"module.{name}": weight for name, weight in given.items()}}, path)
    else:
        from safetensors.torch import save_file

        save_file(given, path)
    said = load_initial(network, str(path))
    assert said["new"] == [] and said["loaded"] == len(given) and said["weights"] == str(path)
    assert torch.equal(network.get_parameter("stages.2.0.shortcut.conv.weight"), given["layer2.0.downsample.0.weight"])
    assert torch.equal(network.get_parameter("stages.4.1.branch.conv2.weight"), given["layer4.1.conv2.weight"])
    assert torch.equal(network.get_buffer("stem.norm.running_var"), given["bn1.running_var"])


def test_what_does_not_fit_stays_as_drawn_and_is_named(tmp_path: Path) -> None:
    torch.save(theirs(build(ResNet(depth=20), Shape(3, 32, 32, 100), 0)), tmp_path / "w.pt")
    slots = (None, None, ExpAtt())
    network, drawn = (build(ResNet(depth=20, stages=slots), SHAPE, 7) for _ in range(2))
    said = load_initial(network, str(tmp_path / "w.pt"))
    assert {name.partition(".conv1.")[2] or name for name in said["new"]} == {
        "head.weight",
        "head.bias",
        "kept.weight",
        "values.weight",
        "map.log_radius",
        "project.weight",
    }
    assert all(torch.equal(network.state_dict()[name], drawn.state_dict()[name]) for name in said["new"])
    meta = build(ResNet(depth=20, stages=slots), SHAPE, device="meta")
    assert match(meta, str(tmp_path / "w.pt")).new == said["new"]


def training(init: Path | str, **fields: Any) -> Training:
    given = {
        "epochs": 1,
        "limit": 12,
        "batch_size": 32,
        "validation": 0.2,
        "precision": "fp32",
        "augment": "crop",
        "lr": 1e-9,
    }
    return Training(init=str(init), **given | fields)  # type: ignore[arg-type]


def test_a_trial_begins_where_another_ended(tmp_path: Path) -> None:
    def run(name: str, recipe: Training, **changes: Any) -> Any:
        _, info = open_data(recipe, Path())
        network = ResNet(depth=8, stages=(None, None, SqueezeExcite(ratio=4)))
        plain = Config(network=network, training=recipe).model_dump(mode="json")
        costs = network_cost(network, info.shape)._asdict()
        given = {"number": 0, "key": "k", "seed": 0, "config": plain, "costs": costs, "data": "data"}
        found = Assignment(study=name, fingerprint=info.fingerprint, runs=str(tmp_path), **given | changes)
        return list(run_trial(found))[-1].outcome

    first = run("first", training("none.pt").model_copy(update={"init": None, "epochs": 8, "lr": 0.2}))
    assert first.state == "complete", first.traceback
    second = run("second", training(tmp_path / "first" / "0" / "final.pt"))
    assert second.state == "complete", second.traceback
    assert second.metrics["loss"] == pytest.approx(first.metrics["loss"], rel=0.2), "a rate of nothing changes little"
    assert second.provenance["init"]["new"] == [] and len(second.provenance["init"]["hash"]) == 16
    path = str(tmp_path / "first" / "0" / "final.pt")
    changed = run("third", training(path), sources={path: "0" * 16})
    assert changed.state == "failed" and "the file has changed since the study was begun" in changed.reason


def test_the_hash_of_the_weights_is_in_the_key_and_in_the_study(tmp_path: Path) -> None:
    keys = []
    for seed in (0, 1):
        torch.manual_seed(seed)
        torch.save(theirs(build(ResNet(depth=8), Shape(1, 8, 8, 10), seed)), tmp_path / "w.pt")
        url = f"sqlite:///{tmp_path}/{seed}.db"
        study = Study(name="s", space=vary(ResNet, depth=8), training=training(tmp_path / "w.pt"), strategy=Exhaustive())
        done = run_study(study, Options(storage=url, backend="local"))
        assert done.complete == 1 and done.notes[0].endswith(f"{tmp_path}/w.pt: 44 tensors are loaded, 0 are new")
        (stored,) = read_studies(url)
        assert stored.attributes["sources"] == {str(tmp_path / "w.pt"): weights.weights_source(str(tmp_path / "w.pt"))}
        (record,) = read_records(url, 1)
        assert record.provenance["init"]["loaded"] > 40 and record.provenance["init"]["new"] == []
        keys.append(record.key)
    assert keys[0] != keys[1]


@pytest.mark.parametrize(
    ("init", "words"),
    [
        ("nowhere.pt", "there is no such file; give a checkpoint's path, or timm:NAME"),
        ("timm:resnet18.not_here", "its weights are not on this machine; add --download where there is a network"),
    ],
)
def test_weights_that_are_not_there_are_refused_before_anything_is_written(tmp_path: Path, init: str, words: str) -> None:
    study = Study(name="s", space=vary(ResNet, depth=8), training=training(init), strategy=Exhaustive())
    with pytest.raises(DataError) as caught:
        run_study(study, Options(storage=f"sqlite:///{tmp_path}/h.db", backend="local"))
    assert words in str(caught.value) and "\n" not in str(caught.value) and not (tmp_path / "h.db").exists()


def test_files_that_are_no_weights_are_refused(tmp_path: Path) -> None:
    network = build(ResNet(depth=8), SHAPE, 0)
    (tmp_path / "text.pt").write_text("hello")
    with pytest.raises(DataError, match=r"text\.pt is no file of weights"):
        load_initial(network, str(tmp_path / "text.pt"))
    torch.save({"other": torch.zeros(3)}, tmp_path / "other.pt")
    with pytest.raises(DataError, match="none of its 1 tensors fits the network by name and shape"):
        load_initial(network, str(tmp_path / "other.pt"))


def test_a_precision_that_the_devices_have_not_is_refused(tmp_path: Path) -> None:
    recipe = Training(epochs=1, limit=12, precision="tf32")
    study = Study(name="s", space=vary(ResNet, depth=8), training=recipe, strategy=Exhaustive())
    if not torch.cuda.is_available():
        with pytest.raises(StudyError, match=r"Training\.precision = 'tf32': the devices found do not multiply in TF32"):
            run_study(study, Options(storage=f"sqlite:///{tmp_path}/h.db", backend="local"))
