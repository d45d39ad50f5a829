"""The starter that `harness new` writes: an attention module, a space and a study that run as they are; or a training loop
and its study."""

import re
from pathlib import Path

from harness.errors import StudyError

MODULE = '''"""An attention module of your own: any nn.Module made by `cls(channels, **knobs)` that keeps the shape.

`harness check {name}_gate:Gate reduction=4` says whether it keeps what a study asks of it, and what it costs.
"""

from torch import Tensor, nn


class Gate(nn.Module):
    """Weighs each channel by a look at its mean."""

    def __init__(self, channels: int, reduction: int = 4) -> None:
        super().__init__()
        hidden = max(1, channels // reduction)
        self.weigh = nn.Sequential(
            nn.AdaptiveAvgPool2d(1), nn.Conv2d(channels, hidden, 1), nn.ReLU(), nn.Conv2d(hidden, channels, 1), nn.Sigmoid()
        )

    def forward(self, x: Tensor) -> Tensor:  # (batch, channels, height, width) in and out
        return x * self.weigh(x)
'''
SPACE = '''"""What may stand where: a config with choices in place of values."""

from harness.config import Custom, ExpAtt, ResNet
from harness.space import choose, span, vary

attention = choose(
    None,  # the control: no attention
    vary(ExpAtt, kernel=choose("gaussian", "laplacian"), radius=span(0.5, 4.0, log=True)),
    vary(Custom, "{name}_gate:Gate", reduction=choose(2, 4, 8)),  # {name}_gate.py, beside search_spaces/
)
SPACE = vary(ResNet, depth=8, stages=(None, attention, attention))  # one slot per stage, 1 to 3
'''
STUDY = '''"""Which attention belongs where?"""

from harness.config import Training
from harness.study import Evolution, Study, maximize, minimize
from search_spaces.{name} import SPACE

STUDY = Study(
    name="{study}",
    question="Which attention belongs where?",
    space=SPACE,
    training=Training(dataset="digits", epochs=10, batch_size=64),  # "folder" and --data DIR for your own pictures
    strategy=Evolution(trials=20),  # or Exhaustive(), Random(trials=...), Tpe(trials=...)
    # stopping=SuccessiveHalving(),  # from harness.study: ends early what others beat, accuracy and costs together
    objectives=(maximize("accuracy"), minimize("params"), minimize("macs")),
)
'''


LOOP = '''"""A training loop of your own: it is given the network that the study drew, and yields metrics each epoch."""

from collections.abc import Iterator

import torch
from torch.nn import functional as F

from harness.own_loop import Context


def run(context: Context) -> Iterator[dict[str, float]]:
    network = context.network  # with the initial weights of context.seed, on context.device
    optimizer = torch.optim.AdamW(network.parameters(), lr=context.training.lr)
    context.keep(optimizer=optimizer)  # whatever has a state: an interrupted trial then goes on, bit for bit
    for _ in context.epochs():
        network.train()
        for pictures, targets in context.batches():  # or your own loader: for x, y in context.watch(loader)
            optimizer.zero_grad()
            loss = F.cross_entropy(network(pictures), targets)
            loss.backward()
            optimizer.step()
        network.eval()
        wrong = held_out = 0
        with torch.inference_mode():
            for pictures, labels in context.held_out():
                wrong += int((network(pictures).argmax(1) != labels).sum())
                held_out += len(labels)
        yield {"error": wrong / held_out, "loss": loss.item()}
'''
LOOP_STUDY = '''"""Which attention belongs where? With a training loop and a metric of one's own."""

from harness.config import ExpAtt, ResNet, SqueezeExcite, Training
from harness.design import AddOneIn
from harness.space import choose, vary
from harness.study import Study, minimize

attention = choose(None, SqueezeExcite(ratio=4), ExpAtt())
STUDY = Study(
    name="{study}",
    question="Which attention belongs where?",
    space=vary(ResNet, depth=8, stages=(None, attention, attention)),
    # dataset="own" and data=OwnData(name="mine", shape=(3, 64, 64), classes=5) (harness.config) for data that the loop reads
    training=Training(dataset="digits", epochs=5, batch_size=64, lr=0.005),
    trial="{name}_loop:run",  # {name}_loop.py, beside studies/
    strategy=AddOneIn(margin=0.01),  # each attention alone against none; every arm with the same seeds
    objectives=(minimize("error", unit="%"), minimize("macs")),  # what the loop yields, by its name
    seeds=(0, 1, 2),
)
'''


def write_starter(study: str, folder: Path, *, loop: bool = False) -> list[Path]:
    """Writes files named after the study; raises StudyError rather than overwrite one."""
    name = study.replace("-", "_")
    if not re.fullmatch(r"[a-z][a-z0-9_]*", name):
        raise StudyError(f"harness new {study}: use lower-case letters, digits, - and _, as in 'my-kernels'")
    contents = {
        folder / f"{name}_gate.py": MODULE,
        folder / "search_spaces" / f"{name}.py": SPACE,
        folder / "studies" / f"{name}.py": STUDY,
    }
    if loop:
        contents = {folder / f"{name}_loop.py": LOOP, folder / "studies" / f"{name}.py": LOOP_STUDY}
    for path in contents:
        if path.exists():
            raise StudyError(f"harness new {study}: {path} is there already; choose another name, or remove it")
    try:
        for path, content in contents.items():
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(content.replace("{name}", name).replace("{study}", study))
    except OSError as error:
        raise StudyError(f"harness new {study}: {folder} cannot be written ({error.strerror})") from None
    return list(contents)
