"""Pieces of a batch, and a norm over all of them; trials in several processes are in tests/faults."""

from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import pytest
import torch
from timm.layers import BatchNormAct2d
from torch import nn

from harness.errors import HarnessError, RankLost
from harness.training.ranks import ONE, Ranks, Synced, join


@pytest.fixture
def alone(tmp_path: Path) -> Iterator[Ranks]:
    """A group of one process."""
    yield join(0, 1, tmp_path, "cpu")
    torch.distributed.destroy_process_group()


def test_pieces_are_all_of_a_batch_in_order() -> None:
    images, labels = torch.arange(7.0)[:, None], torch.arange(7)
    found = [Ranks(rank, 3).piece(images, labels) for rank in range(3)]
    assert [len(theirs) for _, theirs in found] == [3, 2, 2]
    assert torch.equal(torch.cat([some for some, _ in found]), images)
    assert torch.equal(torch.cat([theirs for _, theirs in found]), labels)
    assert ONE.piece(images, labels)[0] is images
    with pytest.raises(HarnessError, match="a batch of 2 has not a picture for each of 3 devices"):
        Ranks(0, 3).piece(images[:2], labels[:2])


def goes_on(rank: int, folder: Path, done: int) -> str:
    """What one of two processes says that has found so many epochs done."""
    try:
        join(rank, 2, folder, "cpu").agree(done, "cpu")
    except RankLost as error:
        return str(error)
    finally:
        torch.distributed.destroy_process_group()
    return "agreed"


def test_processes_that_found_other_epochs_do_not_train_together(tmp_path: Path) -> None:
    with ProcessPoolExecutor(2, get_context("spawn")) as pool:
        for done, said in {
            (3, 3): "agreed",
            (2, 3): "the processes of the trial found checkpoints of epochs 2 and 3",
        }.items():
            folder = tmp_path / str(done)
            folder.mkdir()
            assert list(pool.map(goes_on, (0, 1), (folder, folder), done)) == [said, said]
    ONE.agree(3, "cpu")


def test_what_draws_random_numbers_is_found() -> None:
    with pytest.raises(HarnessError, match="draws random numbers while it trains"), Ranks(0, 2).drawing_nothing():
        torch.rand(1)
    with Ranks(0, 2).drawing_nothing():
        torch.ones(3).sum()
    with ONE.drawing_nothing():
        torch.rand(1)


def test_norms_of_others_are_refused_and_ours_keep_their_parameters() -> None:
    with pytest.raises(HarnessError, match=r"BatchNormAct2d is no batch norm of torch's own"):
        Ranks(0, 2).synchronised(nn.Sequential(BatchNormAct2d(4)), "cpu")
    network = nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4), nn.Sequential(nn.BatchNorm1d(4)))
    before = {name: id(weight) for name, weight in network.named_parameters()}
    assert ONE.synchronised(network, "cpu") is network and type(network[1]) is nn.BatchNorm2d
    made = Ranks(0, 2).synchronised(network, "cpu")
    assert {name: id(weight) for name, weight in made.named_parameters()} == before
    assert [type(module) for module in (made[1], made[2][0])] == [Synced, Synced]


@pytest.mark.usefixtures("alone")
@pytest.mark.parametrize("shape", [(6, 4, 5, 5), (6, 4)])
@pytest.mark.parametrize("momentum", [0.1, None])
def test_a_synced_norm_is_torchs_own(shape: tuple[int, ...], momentum: float | None) -> None:
    torch.manual_seed(0)
    theirs: nn.Module = (nn.BatchNorm2d if len(shape) == 4 else nn.BatchNorm1d)(4, momentum=momentum)
    nn.init.uniform_(theirs.weight)
    ours = Synced(4, momentum=momentum)
    ours.load_state_dict(theirs.state_dict())
    for _ in range(3):
        values = torch.randn(shape, dtype=torch.float32) * 3 + 2
        one, other = values.clone().requires_grad_(), values.clone().requires_grad_()
        (ours(one) ** 3).sum().backward()
        (theirs(other) ** 3).sum().backward()
        assert one.grad is not None and other.grad is not None
        assert torch.allclose(one.grad, other.grad, rtol=1e-3, atol=1e-3)
        assert torch.allclose(ours.weight.grad, theirs.weight.grad, rtol=1e-4, atol=1e-3)
    for name, value in theirs.state_dict().items():
        assert torch.allclose(ours.state_dict()[name].double(), value.double(), rtol=1e-5, atol=1e-6), name
    assert torch.allclose(ours.eval()(values), theirs.eval()(values), atol=1e-5)
