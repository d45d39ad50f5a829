"""Weights that a network begins with: matched by name and shape, from our own checkpoints, timm's or torchvision's."""

import re
from collections.abc import Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from harness.errors import DataError, one_line
from harness.weights import find_weights, weights_source

WRAPPERS = ("network", "state_dict", "model", "model_state_dict")
"""What files of weights call the weights among other things."""
PREFIXES = ("module.", "_orig_mod.", "model.")
"""What wrappers put before names."""
RULES = (
    (r"^conv1\.", "stem.conv."),
    (r"^bn1\.", "stem.norm."),
    (r"^layer(\d+)\.(\d+)\.conv(\d+)\.", r"stages.\1.\2.branch.conv\3."),
    (r"^layer(\d+)\.(\d+)\.bn(\d+)\.", r"stages.\1.\2.branch.norm\3."),
    (r"^layer(\d+)\.(\d+)\.downsample\.0\.", r"stages.\1.\2.shortcut.conv."),
    (r"^layer(\d+)\.(\d+)\.downsample\.1\.", r"stages.\1.\2.shortcut.norm."),
    (r"^layer(\d+)\.(\d+)\.(?:se|attn)\.", r"stages.\1.\2.attention."),
    (r"^fc\.", "head."),
)
"""From the paths of timm's and torchvision's ResNets to ours."""


class Matched(NamedTuple):
    """Which of a network's tensors a file has, by our names, and which stay as they were drawn."""

    weights: dict[str, Tensor]
    new: list[str]


def load_initial(network: nn.Module, init: str, expected: str | None = None) -> dict[str, Any]:
    """Gives the network what fits of a file of weights; returns what the record says of it.

    Raises DataError where the file is missing, is another than the study was begun with, or has nothing that fits."""
    source = weights_source(init)
    if expected is not None and source != expected:
        raise DataError(
            f"Training.init = {init!r}: the file has changed since the study was begun ({expected}, now {source})"
        )
    found = match(network, init)
    network.load_state_dict(found.weights, strict=False)
    return {"weights": init, "hash": source, "loaded": len(found.weights), "new": found.new}


def match(network: nn.Module, init: str) -> Matched:
    """What a file has for a network (which may be on the meta device): tensors of the same name and shape."""
    given = {renamed(name): weight for name, weight in read_weights(init).items()}
    wanted = network.state_dict()
    fitting = {name: given[name] for name, own in wanted.items() if name in given and given[name].shape == own.shape}
    if not fitting:
        raise DataError(f"Training.init = {init!r}: none of its {len(given)} tensors fits the network by name and shape")
    return Matched(fitting, [name for name in wanted if name not in fitting])


def renamed(name: str) -> str:
    """A tensor's name as our networks call it; a name of ours stays."""
    while (prefix := next(filter(name.startswith, PREFIXES), None)) is not None:
        name = name.removeprefix(prefix)
    for pattern, ours in RULES:
        name, count = re.subn(pattern, ours, name)
        if count:
            break
    return name


def read_weights(init: str) -> Mapping[str, Tensor]:
    """The tensors of a file by name; nothing in it is executed."""
    path = find_weights(init)
    try:
        content: Any
        if path.suffix == ".safetensors":
            from safetensors.torch import load_file

            content = load_file(path)
        else:
            content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:
        raise DataError(f"Training.init = {init!r}: {path.name} is no file of weights ({one_line(error, 200)})") from None
    while (inner := next((content[name] for name in WRAPPERS if isinstance(content.get(name), dict)), None)) is not None:
        content = inner
    return {name: weight for name, weight in content.items() if isinstance(weight, Tensor)}
