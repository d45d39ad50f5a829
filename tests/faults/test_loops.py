"""A loop of the user's own under kill -9 of its driver: it goes on, and its final weights are the same, bit for bit."""

from collections.abc import Callable

import pytest
from lab import STUDY, Lab

MakeLab = Callable[[str, str], Lab]
LOOP = """
import torch
from torch.nn import functional as F

def run(context):
    network = context.network
    optimizer = torch.optim.SGD(network.parameters(), lr=0.05, momentum=0.9)
    context.keep(optimizer=optimizer)
    for epoch in context.epochs():
        network.train()
        for pictures, targets in context.batches():
            loss = F.cross_entropy(network(F.dropout(pictures, 0.1)), targets)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        yield {"miss": loss.detach()}
"""
SPACE = "SPACE = vary(ResNet, depth=8, width=0.5, stages=(None, None, choose(None, SqueezeExcite(ratio=4))))"


def study() -> str:
    return STUDY.format(
        name="loop",
        space=SPACE,
        training='Training(epochs=3, limit=20, batch_size=32, precision="fp32")',
        strategy="Exhaustive()",
        stopping=None,
        objectives='(minimize("miss"), minimize("macs"))',
        trial="own:run",
    )


def weights(lab: Lab) -> dict[str, str]:
    found = lab.weights()
    assert len(set(found.values())) == 2 and None not in found.values()
    return found


@pytest.mark.parametrize(
    "plans",
    [
        ("save:after:1", "save:after:2", "save:inside:1", "finish:before:1"),
        pytest.param(
            ("save:before:1", "save:after:3", "final:before:1", "finish:after:1", "save:after:1", "final:after:1"),
            marks=pytest.mark.faults_long,
        ),
    ],
)
def test_killed_at_each_epoch_it_ends_with_the_same_bits(make_lab: MakeLab, plans: tuple[str, ...]) -> None:
    whole = make_lab(study(), "nothing, a loop of one's own")
    cut = make_lab(study(), "kill -9 in a loop of one's own, weights compared (local)")
    for lab in (whole, cut):
        (lab.folder / "own.py").write_text(LOOP)
    whole.run_to_the_end()
    caused = sum(map(cut.strike, plans))
    cut.run_to_the_end()
    cut.assert_whole(2, caused=caused)
    assert weights(cut) == weights(whole)
