"""From a config to a network with reproducible initial weights.

Every module draws from a stream of its own, named by seed and path: what two networks share starts equal, whatever else
is in them, so that the arms of an ablation are paired. All is drawn on the CPU, so that the device changes nothing.
"""

import hashlib
import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from harness.config import VGG, Attention, Backbone, Custom, Network, PreActResNet, ResNet, Site, Trunk, WideResNet
from harness.cost import Cost, Shape, network_cost
from harness.networks.attention.catalog import MADE, attention
from harness.networks.backbone import BackboneNetwork
from harness.networks.custom import rehearse
from harness.networks.preact import PreactivatedNetwork
from harness.networks.resnet import ResidualNetwork
from harness.networks.vgg import VGGNetwork

NETWORK_MODULES: dict[type[Trunk], Callable[[Any, Shape], nn.Module]] = {
    ResNet: ResidualNetwork,
    PreActResNet: PreactivatedNetwork,
    WideResNet: PreactivatedNetwork,
    VGG: VGGNetwork,
}
"""How each network is built from its config."""


def build(network: Network, shape: Shape, seed: int | None = 0, device: str = "cpu") -> nn.Module:
    """The network of a config for pictures and classes of `shape`, with the initial weights of `seed` (None: any).

    On "meta" there are no weights. The caller's random numbers are left as they were. Raises CodeError when a module of
    the user's does not fit its slot.
    """
    if isinstance(network, Backbone):
        return _backbone(network, shape, seed, device)
    network_cost(network, shape, _rehearsed)
    with torch.random.fork_rng(devices=[]), torch.device("meta"):
        model = NETWORK_MODULES[type(network)](network, shape)
    if device == "meta":
        return model
    seed = torch.Generator().seed() if seed is None else seed
    model.to_empty(device="cpu")
    initialise(model, seed)
    return model.to(device)


def _backbone(network: Backbone, shape: Shape, seed: int | None, device: str) -> nn.Module:
    """A model of others is made by its constructor, from one stream, so that its layers start equal whatever is added."""
    root = torch.Generator().seed() if seed is None else seed

    def make(slot: Attention, site: Site, path: str) -> nn.Module:
        return attention(slot, site) if device == "meta" else seeded_attention(slot, site, root, path)

    with torch.random.fork_rng(devices=[]), torch.device("meta" if device == "meta" else "cpu"):
        torch.default_generator.manual_seed(_number(root, "model"))
        return BackboneNetwork(network, shape, make).to(device)


def seeded_attention(slot: Attention, site: Site, seed: int, path: str) -> nn.Module:
    """The module of a slot with the initial weights it has at this path; the caller's random numbers are left alone."""
    with torch.random.fork_rng(devices=[]), torch.device("cpu"):
        torch.default_generator.manual_seed(_number(seed, path))
        module = attention(slot, site)
        if _ours(module):
            initialise(module, seed, path)
        return module


def _rehearsed(slot: Custom, channels: int, height: int, width: int) -> Cost:
    rehearse(slot, channels, height, width)
    return Cost(0, 0)


def _number(seed: int, path: str) -> int:
    return int.from_bytes(hashlib.sha256(f"{seed} {path}".encode()).digest()[:8])


def initialise(module: nn.Module, seed: int, path: str = "") -> None:
    """Our own layers by our own rules; a module that is not ours is left to its constructor, and made again."""
    for name, child in list(module.named_children()):
        below = f"{path}.{name}".lstrip(".")
        if child in MADE and not _ours(child):
            setattr(module, name, seeded_attention(*MADE[child], seed, below))
        else:
            initialise(child, seed, below)
    if isinstance(module, nn.BatchNorm2d):
        module.reset_parameters()
    elif isinstance(module, nn.Conv2d):
        # The filters that a convolution keeps beside attention are the first of those it would have had.
        _he_normal(module.weight, _stream(seed, path.removesuffix(".kept")))
        if module.bias is not None:
            nn.init.zeros_(module.bias)
    elif isinstance(module, nn.Linear):
        stream, bound = _stream(seed, path), module.in_features**-0.5  # PyTorch's own rule for linear layers
        for parameter in (module.weight, module.bias):
            nn.init.uniform_(parameter, -bound, bound, generator=stream)
    elif callable(reset := getattr(module, "reset_parameters", None)):
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(_number(seed, path))
            reset()
    elif any(True for _ in module.parameters(recurse=False)) or any(True for _ in module.buffers(recurse=False)):
        raise TypeError(f"{path}: no rule initialises {type(module).__name__}")


def _ours(module: nn.Module) -> bool:
    return type(module).__module__.startswith("harness.networks.")


def _stream(seed: int, path: str) -> torch.Generator:
    return torch.Generator().manual_seed(_number(seed, path))


@torch.no_grad()
def _he_normal(weight: Tensor, stream: torch.Generator) -> None:
    """N(0, 2 / fan-in) (He et al., arXiv 1502.01852). Fan-in, not fan-out: a filter's scale then does not depend on how
    many filters stand beside it, so that a convolution which gives up channels keeps the others as they were."""
    whole = math.ceil(weight.numel() / 16) * 16  # torch draws normals in sixteens: a shorter tail would be drawn anew
    drawn = torch.empty(whole, device="cpu").normal_(0, math.sqrt(2 / weight[0].numel()), generator=stream)
    weight.copy_(drawn[: weight.numel()].view_as(weight))
