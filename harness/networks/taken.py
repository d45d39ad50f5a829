"""A network that was taken home: a folder with its config and its weights, and the module that both make.

The folder is read with torch and safetensors alone; nothing in it is executed.
"""

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor, nn

from harness.config import Config, Network, part_from_json
from harness.cost import Shape
from harness.errors import DataError, one_line
from harness.key import canonical, network_identity
from harness.networks.build import build

CONFIG, WEIGHTS = "config.json", "weights.safetensors"


class Taken(nn.Module):
    """Pictures from 0 to 1 (batch, channels, height, width) to scores (batch, classes): normalised as in training, then
    passed through `network`."""

    mean: Tensor
    deviation: Tensor

    def __init__(self, network: nn.Module, config: Config, mean: Sequence[float], deviation: Sequence[float]) -> None:
        super().__init__()
        self.network, self.config = network, config
        for name, values in (("mean", mean), ("deviation", deviation)):
            self.register_buffer(name, torch.tensor(values)[:, None, None], persistent=False)

    def forward(self, pictures: Tensor) -> Tensor:
        scores: Tensor = self.network((pictures - self.mean) / self.deviation)
        return scores


def save(folder: Path, told: Mapping[str, Any], weights: Mapping[str, Tensor]) -> None:
    """Writes the folder's two files; `told` has at least config, shape, classes, mean and deviation."""
    from safetensors.torch import save_file

    network = cast(Config, part_from_json(told["config"])).network
    (folder / CONFIG).write_text(json.dumps({**told, "identity": identity(network)}, indent=1) + "\n", "utf-8")
    save_file({name: weight.detach().cpu().clone().contiguous() for name, weight in weights.items()}, folder / WEIGHTS)


def load(folder: Path) -> Taken:
    """The network of a folder that `harness take` wrote, on the CPU, in evaluation mode.

    Raises DataError in one line where the folder is none, was changed, or is of a release that builds the network otherwise;
    CodeError where a module of the user's is not found."""
    from safetensors.torch import load_file

    told = read(folder)
    config, shape = cast(Config, part_from_json(told["config"])), Shape(*[*told["shape"], told["classes"]])
    network = build(config.network, shape)
    if identity(config.network) != told["identity"]:
        release = told.get("provenance", {}).get("versions", {}).get("attention-harness", "of its time")
        raise DataError(
            f"{folder}: this release builds the network of {CONFIG} otherwise than the one that trained it:"
            f" install attention-harness {release}"
        )
    try:
        network.load_state_dict(load_file(folder / WEIGHTS))
    except Exception as error:
        raise DataError(f"{folder / WEIGHTS}: not the weights of {CONFIG} beside it ({one_line(error, 200)})") from None
    mean, deviation = told["mean"] or [0.0] * shape.channels, told["deviation"] or [1.0] * shape.channels
    return Taken(network, config, mean, deviation).eval()


def read(folder: Path) -> dict[str, Any]:
    """What `save` was told; raises DataError where the folder holds nothing of the kind."""
    path = folder / CONFIG
    try:
        told: dict[str, Any] = json.loads(path.read_text("utf-8"))
        missing = [name for name in ("config", "shape", "classes", "mean", "deviation", "identity") if name not in told]
    except (OSError, ValueError, TypeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is no JSON"
        raise DataError(f"{path}: cannot be read ({reason}); name a folder that `harness take` wrote") from None
    if missing:
        raise DataError(f"{path}: it has no {missing[0]!r}; name a folder that `harness take` wrote")
    return told


def identity(network: Network) -> str:
    """16 hex digits of what the network is, with the version of each module in it."""
    return hashlib.sha256(canonical(network_identity(network)).encode()).hexdigest()[:16]
