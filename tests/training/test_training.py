"""The recipe, and checkpoints from which a trial goes on bit for bit."""

import errno
import math
import os
import pickle
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import nn

from harness.config import ExpAtt, ResNet, SqueezeExcite, Training
from harness.data.batches import open_batches
from harness.data.sources import open_data
from harness.depot import Depot, Folder, depot
from harness.errors import DiskError
from harness.networks.build import build
from harness.record import Epoch
from harness.training import checkpoint, loop
from harness.training.learner import Learner
from tests import s3
from tests.conftest import content
from tests.users import BEN, user

TRAINING = Training(epochs=4, batch_size=32, limit=16, precision="fp32", augment="crop", lr=0.2)


def train(folder: Depot, epochs: int, *, interrupted_after: int | None = None) -> dict[str, torch.Tensor]:
    """Trains, through a checkpoint and a new network where interrupted; returns the final weights."""
    pictures, info = open_data(TRAINING, Path())
    data = open_batches(pictures, info, TRAINING, seed=1, device="cpu")
    network = ResNet(depth=8, stages=(None, SqueezeExcite(ratio=4), ExpAtt()))
    learner = Learner(build(network, info.shape, 1), TRAINING)
    for epoch in range(1, epochs + 1):
        loop.train_epoch(learner, data, seed=1, epoch=epoch)
        loop.evaluate(learner.judged, data, TRAINING)
        if epoch == interrupted_after:
            checkpoint.save(folder, 1, "key", learner.state(), [Epoch(epoch, 0.5, 1.0, 1.0, 0.1)])
            saved = checkpoint.load(folder, "key", "cpu")
            assert saved is not None and saved["curve"] == [[epoch, 0.5, 1.0, 1.0, 0.1]]
            learner = Learner(build(network, info.shape, 99), TRAINING)
            learner.restore(saved)
    return learner.network.state_dict()


@pytest.fixture
def folder(place: Depot) -> Depot:
    """A trial's, on a disk or in a store."""
    (place / "1").make()
    return place / "1"


def test_going_on_from_a_checkpoint_changes_no_bit(folder: Depot) -> None:
    straight, resumed = train(folder, 4), train(folder, 4, interrupted_after=2)
    assert straight.keys() == resumed.keys()
    assert all(torch.equal(straight[name], resumed[name]) for name in straight)


class Bomb:
    """Pickled, it would create a file when loaded."""

    def __init__(self, path: str) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, ...]:
        return (Path.touch, (Path(self.path),))


def test_nothing_in_a_checkpoint_is_executed(folder: Depot, tmp_path: Path) -> None:
    folder.write("last-1.pt", checkpoint.serial({"key": "key", "network": Bomb(str(tmp_path / "executed"))}))
    assert checkpoint.load(folder, "key", "cpu") is None
    assert not (tmp_path / "executed").exists()
    pickle.loads(pickle.dumps(Bomb(str(tmp_path / "executed"))))
    assert (tmp_path / "executed").exists(), "the bomb itself must work"


def test_torn_and_foreign_checkpoints_are_not_used(folder: Depot) -> None:
    network = nn.Linear(2, 2)
    checkpoint.save(folder, 1, "key", {"network": network.state_dict()}, [])
    assert checkpoint.load(folder, "another", "cpu") is None
    whole = content(folder, "last-1.pt")
    folder.write("last-2.pt", whole[: len(whole) // 2])
    assert checkpoint.load(folder, "key", "cpu") is not None, "an older one is whole"
    folder.remove(["last-1.pt"])
    assert checkpoint.load(folder, "key", "cpu") is None
    assert checkpoint.load(folder / "none", "key", "cpu") is None


def test_an_orphan_of_a_dead_driver_cannot_harm(folder: Depot) -> None:
    network = nn.Linear(2, 2)
    checkpoint.save(folder, 1, "key", {"network": network.state_dict()}, [Epoch(1, 0.5, 1.0, 1.0, 0.1)])
    checkpoint.save(
        folder, 2, "key", {"network": network.state_dict()}, [Epoch(1, 0.5, 1.0, 1.0, 0.1), Epoch(2, 0.6, 1.0, 1.0, 0.1)]
    )
    assert checkpoint.tokens(folder.names()) == [2]
    with pytest.raises(checkpoint.Fenced, match="another driver has taken this trial over"):
        checkpoint.save(folder, 1, "key", {"network": network.state_dict()}, [])
    saved = checkpoint.load(folder, "key", "cpu")
    assert saved is not None and len(saved["curve"]) == 2
    folder.clear()  # finished and cleared away by the other driver
    with pytest.raises(checkpoint.Fenced):
        checkpoint.save(folder, 1, "key", {"network": network.state_dict()}, [])
    assert folder.names() is None


def test_a_store_that_does_not_answer_is_not_taken_for_an_empty_one(store: s3.Server) -> None:
    folder = depot(f"{store.bucket()}/1")
    folder.make()
    checkpoint.save(folder, 1, "key", {}, [])
    store.away()
    try:
        with pytest.raises(DiskError, match="does not answer"):
            checkpoint.load(replace(folder, patience=0.5), "key", "cpu")
    finally:
        store.back()
    assert checkpoint.load(folder, "key", "cpu") is not None


def test_a_checkpoint_that_may_not_be_read_is_no_reason_to_begin_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    tmp_path.chmod(0o777)
    folder, before = Folder(Path("1")), os.umask(0o022)
    folder.make()
    checkpoint.save(folder, 1, "key", {}, [])
    os.umask(before)
    with user(BEN):
        assert checkpoint.load(folder, "key", "cpu") is not None, "as the umask says"
    for path, named in (("1/last-1.pt", "1/last-1.pt"), ("1", "1")):
        (tmp_path / path).chmod(0)
        with user(BEN), pytest.raises(DiskError, match=rf"^{named} cannot be read \(Permission denied\): [^\n]* by --runs$"):
            checkpoint.load(folder, "key", "cpu")
    (tmp_path / "1").chmod(0o755)


def test_the_hash_of_weights_is_of_every_bit(tmp_path: Path) -> None:
    weights = {"a": torch.zeros(2, 3), "b": torch.ones(1, dtype=torch.bfloat16)}
    found = checkpoint.weights_hash(weights)
    assert found == checkpoint.weights_hash({"b": weights["b"].clone(), "a": weights["a"].clone()})
    weights["a"][1, 2] = 1e-45  # the smallest number there is
    assert checkpoint.weights_hash(weights) != found
    assert checkpoint.weights_hash({"a": torch.zeros(3, 2), "b": weights["b"]}) != found


def test_an_interrupted_save_leaves_the_old_checkpoint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    network, folder = nn.Linear(2, 2), Folder(tmp_path)
    checkpoint.save(folder, 1, "key", {"network": network.state_dict()}, [])

    def fail(handle: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(DiskError, match=r"cannot be written \(No space left on device\): free some space"):
        checkpoint.save(folder, 1, "key", {"network": network.state_dict()}, [])
    monkeypatch.undo()
    assert checkpoint.load(folder, "key", "cpu") is not None
    assert folder.names() == ["last-1.pt"]


def test_evaluation_is_a_mean_over_all_validation_pictures() -> None:
    pictures, info = open_data(TRAINING, Path())
    network = build(ResNet(depth=8), info.shape, 0)
    losses = []
    for size in (32, 2):
        training = TRAINING.model_copy(update={"batch_size": size, "validation": 0.3})
        losses.append(loop.evaluate(network, open_batches(pictures, info, training, seed=0, device="cpu"), training)[1])
    whole, pieces = losses
    assert whole == pytest.approx(pieces, rel=1e-5) and whole == pytest.approx(math.log(10), rel=0.2)
