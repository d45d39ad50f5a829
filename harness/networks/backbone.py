"""Models of timm, torchvision or the user's, with attention put at places named by path.

A place is found on a copy of the model without weights, by one forward pass of two pictures: what each named module gives,
whether channels come first or last, and, of a convolution, what goes in. The model's own layers are made by its own
constructor from one stream of random numbers before any attention is, so that they start equal whatever stands in the slots.
"""

import inspect
import warnings
from collections.abc import Callable
from fnmatch import fnmatchcase
from functools import lru_cache
from typing import Any, NamedTuple, cast

import torch
from torch import Tensor, nn

from harness.code import load
from harness.config import Attention, Custom, Site
from harness.cost import Cost, Shape
from harness.errors import CodeError, ConfigError, hint, one_line
from harness.networks.custom import rehearse
from harness.parts.backbone import Backbone

Make = Callable[[Attention, Site, str], nn.Module]
"""Makes the attention of a site at a path."""


class Place(NamedTuple):
    """A module that a slot names."""

    path: str
    type_name: str
    site: Site
    """Of what it gives."""
    last: bool
    """Whether its channels come last."""
    convolution: Site | None
    """Where it is a convolution of size > 1 that attention may stand in for, the site of that; else None."""
    replaced: Cost
    """Of that convolution."""
    inner: str
    """The first convolution of size > 1 inside, if there is one."""

    def where(self, attention: Attention) -> Site:
        """The site that an attention has here; raises ConfigError where it cannot stand."""
        site = self.convolution if attention.where == "conv" else self.site
        if site is None:
            raise ConfigError(
                f"{type(attention).__name__} takes the place of a convolution larger than 1x1 with a stride of 1 or 2, and"
                f" {self.path!r} is none ({self.type_name})"
                + (f"; name one by its path, such as {self.inner!r}" if self.inner else "")
            )
        attention.check(site.channels)
        return site


class BackboneNetwork(nn.Module):
    """(batch, channels, height, width) to logits (batch, classes), or to what a loop of the user's own makes use of."""

    def __init__(self, network: Backbone, shape: Shape, make: Make) -> None:
        super().__init__()
        places(network, shape)  # what cannot be a network is told before it is made
        self.model = plain(network.target, shape)
        for name, attention in network.filled.items():
            for place, site in standing(network, name, shape):
                if isinstance(attention, Custom):
                    rehearse(attention, site.channels, site.height, site.width)
                module, there = make(attention, site, f"model.{place.path}.attention"), self.model.get_submodule(place.path)
                if attention.where == "conv":
                    _keep_filters(cast(nn.Conv2d, there), module)
                    self.model.set_submodule(place.path, module)
                else:
                    self.model.set_submodule(place.path, Behind(there, module, place.last))

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.model(x)
        return logits


class Behind(nn.Module):
    """A module and the attention on what it gives; whatever else is asked of it, the module answers."""

    def __init__(self, module: nn.Module, attention: nn.Module, last: bool) -> None:
        super().__init__()
        self.module, self.attention, self.last = module, attention, last

    def __getattr__(self, name: str) -> Any:
        try:
            return super().__getattr__(name)
        except AttributeError:
            if name.startswith("__"):
                raise
            return getattr(super().__getattr__("module"), name)

    def forward(self, *args: Any, **kwargs: Any) -> Tensor:
        x = self.module(*args, **kwargs)
        out: Tensor = self.attention(x.permute(0, 3, 1, 2)).permute(0, 2, 3, 1) if self.last else self.attention(x)
        return out


@torch.no_grad()
def _keep_filters(replaced: nn.Conv2d, module: nn.Module) -> None:
    """The filters that a convolution keeps beside attention start as the first of those it would have had."""
    kept = getattr(module, "kept", None)
    if isinstance(kept, nn.Conv2d) and kept.weight.shape[1:] == replaced.weight.shape[1:]:
        kept.weight.copy_(replaced.weight[: len(kept.weight)])


# -- the model itself -------------------------------------------------------------------------------------------------


def plain(target: str, shape: Shape) -> nn.Module:
    """The model for pictures and classes of `shape`, on torch's default device, from torch's own random numbers."""
    library, _, name = target.partition(":")
    make = {"timm": _from_timm, "torchvision": _from_torchvision}.get(library, _from_user)
    with torch.device("cpu"):  # what a library makes on import must not land on another device
        made = make(target if make is _from_user else name, shape)
    try:
        with warnings.catch_warnings(action="ignore"):
            model = made()
    except Exception as error:
        if torch.get_default_device().type == "cpu":
            raise CodeError(f"{target}: making it for {_words(shape)} raised {one_line(error)}") from error
        with torch.device("cpu"):
            model = plain(target, shape).to("meta")
    if not isinstance(model, nn.Module):
        raise CodeError(f"{target}: it gives {type(model).__name__}, no nn.Module")
    return model


def _from_timm(name: str, shape: Shape) -> Callable[[], Any]:
    import timm

    if not timm.is_model(name):
        raise CodeError(f"timm:{name}: timm {timm.__version__} has no such model{hint(name, timm.list_models())}")
    fixed = {"img_size": (shape.height, shape.width)} if timm.get_pretrained_cfg(name).fixed_input_size else {}
    return lambda: timm.create_model(name, pretrained=False, in_chans=shape.channels, num_classes=shape.classes, **fixed)


def _from_torchvision(name: str, shape: Shape) -> Callable[[], Any]:
    import torchvision

    known = torchvision.models.list_models(module=torchvision.models)
    if name not in known:
        version = torchvision.__version__.partition("+")[0]
        raise CodeError(f"torchvision:{name}: torchvision {version} has no such classifier{hint(name, known)}")

    def made() -> Any:
        model = torchvision.models.get_model(name, weights=None, num_classes=shape.classes)
        if shape.channels != 3:
            _take_channels(model, shape.channels)
        return model

    return made


@torch.no_grad()
def _take_channels(model: nn.Module, channels: int) -> None:
    """The first convolution for pictures of other than three channels, its filters repeated at the variance they had."""
    path, first = next((path, module) for path, module in model.named_modules() if isinstance(module, nn.Conv2d))
    again = {name: getattr(first, name) for name in ("kernel_size", "stride", "padding", "dilation", "padding_mode")}
    other = nn.Conv2d(channels, first.out_channels, bias=first.bias is not None, **again)
    other.weight.copy_(first.weight.repeat(1, -(-channels // 3), 1, 1)[:, :channels] * (3 / channels) ** 0.5)
    if first.bias is not None and other.bias is not None:
        other.bias.copy_(first.bias)
    model.set_submodule(path, other)


def _from_user(target: str, shape: Shape) -> Callable[[], Any]:
    make, given = load(target), {"channels": shape.channels} | ({"classes": shape.classes} if shape.classes else {})
    try:
        inspect.signature(make).bind(**given)
    except TypeError as error:
        name = target.partition(":")[2]
        raise CodeError(f"{target}: it is called as {name}({', '.join(f'{one}=...' for one in given)}): {error}") from None
    return lambda: make(**given)


# -- places -----------------------------------------------------------------------------------------------------------


def standing(network: Backbone, slot: str, shape: Shape) -> list[tuple[Place, Site]]:
    """The places of a filled slot and the site of its attention at each; raises where it does not fit."""
    attention, found = network.filled[slot], places(network, shape)
    try:
        return [(place, place.where(attention)) for place in found[network.slots[slot]]]
    except ConfigError as error:
        raise ConfigError(f"Backbone({network.target!r}), slot {slot}: {error}") from None


def places(network: Backbone, shape: Shape) -> dict[str, tuple[Place, ...]]:
    """The places that each slot's path names, filled or not; raises CodeError for a path that names none, a picture that
    the model refuses, and what is no grid of channels."""
    return _found(network.target, tuple(network.slots.values()), shape)[0]


def assert_classifies(network: Backbone, shape: Shape) -> None:
    """Raises CodeError for a model that gives something else than logits for each picture, which our own loop trains."""
    _, gives = _found(network.target, tuple(network.slots.values()), shape)
    if gives != (2, shape.classes):
        raise CodeError(
            f"{network.target}: for 2 pictures it must give logits {(2, shape.classes)}, it gives {gives}; anything else is"
            " trained by a loop of your own, Study(trial='module:function')"
        )


@lru_cache(maxsize=256)
def _found(target: str, patterns: tuple[str, ...], shape: Shape) -> tuple[dict[str, tuple[Place, ...]], Any]:
    """The places, and the shape of what two pictures give."""
    try:
        return _places(target, patterns, shape, "meta")
    except CodeError:
        raise
    except Exception:  # an operation without a meta version, or a picture that the model refuses: the CPU tells
        return _places(target, patterns, shape, "cpu")


def _places(target: str, patterns: tuple[str, ...], shape: Shape, device: str) -> tuple[dict[str, tuple[Place, ...]], Any]:
    with torch.random.fork_rng(devices=[]), torch.device(device), torch.no_grad():
        model = plain(target, shape)
        named = {pattern: matching(target, model, pattern) for pattern in patterns}
        _assert_apart(target, named)
        calls: dict[str, list[tuple[Any, Any]]] = {path: [] for paths in named.values() for path in paths}
        for path, seen in calls.items():
            model.get_submodule(path).register_forward_hook(lambda _, args, out, seen=seen: seen.append((args, out)))
        pictures = torch.zeros(2, *shape[:3])
        try:
            with warnings.catch_warnings(action="ignore"):
                out = model.train()(pictures)
        except Exception as error:
            if device == "meta":
                raise
            raise CodeError(f"{target}: {_words(shape)} raised {one_line(error)}") from error
    gives = tuple(out.shape) if isinstance(out, Tensor) else type(out).__name__
    if shape.classes and gives[:2] != (2, shape.classes):
        raise CodeError(f"{target}: for 2 pictures it must give logits {(2, shape.classes)}, it gives {gives}")
    found = {
        pattern: tuple(_place(target, path, model.get_submodule(path), calls[path], shape) for path in paths)
        for pattern, paths in named.items()
    }
    return found, gives


def matching(target: str, model: nn.Module, pattern: str) -> list[str]:
    """The paths that a pattern names, piece by piece, in the model's order; raises CodeError where there is none."""
    pieces, paths = pattern.split("."), [path.split(".") for path in dict(model.named_modules()) if path]

    def fit(path: list[str], depth: int) -> bool:
        return len(path) == depth and all(map(fnmatchcase, path, pieces))

    if found := [".".join(path) for path in paths if fit(path, len(pieces))]:
        return found
    depth = next(depth for depth in range(len(pieces) - 1, -1, -1) if depth == 0 or any(fit(path, depth) for path in paths))
    below = dict.fromkeys(path[depth] for path in paths if len(path) > depth and fit(path[:depth], depth))
    names = ", ".join([*list(below)[:12], *(["..."] if len(below) > 12 else [])]) or "nothing"
    above = ".".join(pieces[:depth]) or "the model"
    raise CodeError(f"{target}: {pattern!r} names no module; {above} holds {names}{hint(pieces[depth], below)}")


def _assert_apart(target: str, named: dict[str, list[str]]) -> None:
    owner: dict[str, str] = {}
    for pattern, paths in named.items():
        for path in paths:
            if (other := owner.setdefault(path, pattern)) != pattern:
                raise CodeError(f"{target}: {other!r} and {pattern!r} both name {path}; a place has one slot")


def _place(target: str, path: str, module: nn.Module, calls: list[tuple[Any, Any]], shape: Shape) -> Place:
    if len(calls) != 1:
        often = f"is called {len(calls)} times" if calls else "is not called"
        raise CodeError(
            f"{target}: {path} ({type(module).__name__}) {often} in a forward pass; name one that is called once"
        )
    (args, out) = calls[0]
    if not isinstance(out, Tensor) or out.dim() != 4:
        gives = tuple(out.shape) if isinstance(out, Tensor) else type(out).__name__
        raise CodeError(
            f"{target}: {path} ({type(module).__name__}) gives {gives} for 2 pictures; attention needs a grid,"
            " (2, channels, height, width) or channels last"
        )
    last = channels_last(out.shape[1:], shape)
    height, width, channels = out.shape[1:] if last else (*out.shape[2:], out.shape[1])
    site, before, replaced = Site(channels, channels, height, width), None, Cost(0, 0)
    if isinstance(module, nn.Conv2d) and max(module.kernel_size) > 1 and module.stride in ((1, 1), (2, 2)):
        enters = Site(module.in_channels, channels, args[0].shape[2], args[0].shape[3], module.stride[0])
        before = enters if enters.grid == (height, width) else None
        params = sum(parameter.numel() for parameter in module.parameters() if parameter.requires_grad)
        replaced = Cost(params, module.weight.numel() * height * width)
    return Place(path, type(module).__name__, site, last, before, replaced, _first_convolution(module, path))


def _first_convolution(module: nn.Module, path: str) -> str:
    below = ((name, inner) for name, inner in module.named_modules() if name and isinstance(inner, nn.Conv2d))
    return next((f"{path}.{name}" for name, inner in below if max(inner.kernel_size) > 1), "")


def channels_last(sizes: tuple[int, ...], shape: Shape) -> bool:
    """Whether three sizes are (height, width, channels), by which pair has the proportions of the picture; channels come
    first where both have."""

    def off(height: int, width: int) -> float:
        return max(height * shape.width, width * shape.height) / min(height * shape.width, width * shape.height)

    return off(*sizes[:2]) < off(*sizes[1:])


def _words(shape: Shape) -> str:
    return f"pictures of {shape.channels}x{shape.height}x{shape.width}"
