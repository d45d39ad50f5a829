"""harness take: a winner at home gives the recorded accuracy, where neither Ray nor Optuna is installed."""

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from harness.config import Custom, ResNet, SqueezeExcite, Training
from harness.errors import DataError, HarnessError, StudyError
from harness.execution.ledger import Rules
from harness.results import load_network, open_study
from harness.run import Options, run_study
from harness.space import choose, vary
from harness.storage.copying import copy
from harness.storage.reader import read_studies
from harness.storage.store import Store
from harness.study import Exhaustive, Study
from harness.take import take

SPACE = vary(ResNet, depth=8, stages=(None, None, choose(None, SqueezeExcite(ratio=4))))
ALONE = """
import sys
from importlib.abc import MetaPathFinder

class Blocked(MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in ("ray", "optuna"):
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

sys.meta_path.insert(0, Blocked())
"""
SCORED = """
import runpy
import numpy as np, torch
from sklearn.datasets import load_digits
from harness.data.sources import split

network = runpy.run_path(sys.argv[1] + "/load.py")["network"]
raw = load_digits()
part, _ = split(raw.target, 0.2, seed=0)
part = np.sort(np.concatenate([part[raw.target[part] == label][:40] for label in range(10)]))
_, held = split(raw.target[part], 0.25, seed=0)
pictures = torch.from_numpy(np.round(raw.images[part][held] * (255 / 16)) / 255).float()[:, None]
with torch.inference_mode():
    right = network(pictures).argmax(1).numpy() == raw.target[part][held]
print(right.mean(), len(right))
"""


def studied(storage: str, **fields: object) -> Study:
    training = Training(epochs=6, limit=40, batch_size=16, validation=0.25, precision="fp32")
    given = {"name": "tiny", "space": SPACE, "training": training, "strategy": Exhaustive()}
    study = Study(**given | fields)  # type: ignore[arg-type]
    run_study(study, Options(storage=storage, backend="local", rules=Rules(keep="all")))
    return study


def alone(script: str, *words: str) -> str:
    """What a script prints in a process of its own, without ray and optuna."""
    done = subprocess.run([sys.executable, "-c", ALONE + script, *words], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_a_winner_gives_the_recorded_accuracy_without_ray_and_optuna(storage: str, tmp_path: Path) -> None:
    studied(storage)
    winner = max(open_study("tiny", storage).records, key=lambda record: record.metrics["accuracy"])
    assert winner.metrics["accuracy"] > 0.2  # more than chance: the weights matter
    found = take("tiny", winner.number, storage, tmp_path / "home", form="torch-export")
    assert found.files == ("README.md", "config.json", "load.py", "network.pt2", "weights.safetensors")
    *_, told = alone(SCORED, str(tmp_path / "home")).splitlines()
    accuracy, count = told.split()
    assert int(count) == 100 and float(accuracy) == pytest.approx(winner.metrics["accuracy"], abs=1e-9)

    # the program beside it says the same of batches of any size
    network, pictures = load_network(tmp_path / "home"), torch.rand(5, 1, 8, 8)
    program = torch.export.load(tmp_path / "home" / "network.pt2").module()
    with torch.inference_mode():
        torch.testing.assert_close(program(pictures), network(pictures))
    assert len((tmp_path / "home" / "load.py").read_text().splitlines()) == 5
    readme = (tmp_path / "home" / "README.md").read_text()
    assert f"{100 * winner.metrics['accuracy']:.2f} %" in readme and "it normalises them itself" in readme

    with pytest.raises(HarnessError, match="there is something already"):
        take("tiny", 0, storage, tmp_path / "home")
    with pytest.raises(StudyError, match=r"has no trial 9 \(it has 0 to 1\)"):
        take("tiny", 9, storage, tmp_path / "other")

    # a folder that is not as it was written
    home = tmp_path / "home"
    weights = load_file(home / "weights.safetensors")
    save_file({name: weight for name, weight in weights.items() if name != "head.bias"}, home / "weights.safetensors")
    with pytest.raises(DataError, match=r"weights\.safetensors: not the weights of config\.json"):
        load_network(home)
    plain = json.loads((home / "config.json").read_text())
    (home / "config.json").write_text(json.dumps(plain | {"identity": "0"}))
    with pytest.raises(DataError, match="this release builds the network of"):
        load_network(home)
    with pytest.raises(DataError, match="name a folder that `harness take` wrote"):
        load_network(tmp_path)

    # weights that are gone, or are another's
    runs = tmp_path / "runs" / "tiny"
    (runs / "0" / "final.pt").write_bytes((runs / "1" / "final.pt").read_bytes())
    with pytest.raises(HarnessError, match="these are not the weights that trial 0 recorded"):
        take("tiny", 0, storage, tmp_path / "other")
    (runs / "0" / "final.pt").unlink()
    with pytest.raises(HarnessError, match=r"no weights under .*harness confirm tiny --trials 0 --keep all"):
        take("tiny", 0, storage, tmp_path / "other")
    assert not (tmp_path / "other").exists()


def test_a_trial_taken_over_is_found_where_it_was_trained(storage: str, tmp_path: Path) -> None:
    study = studied(storage)
    run_study(study.model_copy(update={"name": "again"}), Options(storage=storage, backend="local"))
    assert not (tmp_path / "runs" / "again").exists()
    take("again", 1, storage, tmp_path / "home")
    assert json.loads((tmp_path / "home" / "config.json").read_text())["study"] == "again"
    # where the pictures are not those of the study, nobody knows how to normalise
    with Store(storage) as store:
        stored = read_studies(storage, "again")[0]
        store.set_attributes(stored.study_id, {"data": stored.attributes["data"] | {"fingerprint": "0"}})
    found = take("again", 1, storage, tmp_path / "plain")
    assert "not those the study was started with" in found.notes[0]
    assert torch.equal(load_network(tmp_path / "plain").mean, torch.zeros(1, 1, 1))


def test_a_copied_trial_is_found_where_it_was_trained(storage: str, tmp_path: Path) -> None:
    studied(storage)
    (tmp_path / "all").mkdir()
    merged = f"sqlite:///{tmp_path}/all/all.db"
    copy([storage], merged)
    assert take("tiny", 1, merged, tmp_path / "home").reached == take("tiny", 1, storage, tmp_path / "same").reached
    (tmp_path / "runs" / "tiny" / "1" / "final.pt").unlink()
    with pytest.raises(HarnessError, match=rf"no weights under {tmp_path}/runs/tiny/1 .*name their folder by --runs"):
        take("tiny", 1, merged, tmp_path / "gone")


def test_code_of_ones_own_comes_along(storage: str, tmp_path: Path, make_module: Callable[[str], str]) -> None:
    target = make_module("mygate")
    studied(storage, space=vary(ResNet, depth=8, stages=(None, None, Custom(target))))
    found = take("tiny", 0, storage, tmp_path / "home")
    assert "code/mygate.py" in found.files
    script = "import runpy\nrunpy.run_path(sys.argv[1] + '/load.py')\nimport mygate\nprint(mygate.__file__)"
    assert alone(script, str(tmp_path / "home")).splitlines()[-1] == str(tmp_path / "home" / "code" / "mygate.py")
    # edited since, the source is another module: it is not packed, and said to be needed
    source = Path(sys.modules["mygate"].__file__ or "")
    source.write_text(source.read_text() + "\n")
    assert "mygate:Gate is not packed" in take("tiny", 0, storage, tmp_path / "edited").notes[0]
    # gone, it cannot be built: one line, and nothing is left behind
    source.unlink()
    verb = [sys.executable, "-c", "from harness.cli.main import main; main()", "take", "tiny", "0"]
    where = ["--storage", storage, "--out", str(tmp_path / "gone")]
    done = subprocess.run([*verb, *where], capture_output=True, text=True, check=False)
    assert done.returncode == 2 and not (tmp_path / "gone").exists()
    assert done.stderr.startswith("harness: mygate:Gate") and len(done.stderr.splitlines()) == 1


@pytest.fixture
def make_module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], str]:
    """A module with an attention class `Gate`, which can be imported."""

    def make(name: str) -> str:
        folder = tmp_path / "mine"
        folder.mkdir()
        (folder / f"{name}.py").write_text(
            "import torch\n\n\nclass Gate(torch.nn.Module):\n"
            "    def __init__(self, channels):\n        super().__init__()\n"
            "        self.scale = torch.nn.Parameter(torch.ones(channels, 1, 1))\n\n"
            "    def forward(self, x):\n        return x * self.scale\n"
        )
        monkeypatch.syspath_prepend(str(folder))
        return f"{name}:Gate"

    return make
