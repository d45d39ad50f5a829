"""A user's own attention module: loaded by name, checked against its knobs, and tried once before it is trusted."""

import inspect
import json
from functools import lru_cache

import torch
from torch import Tensor, nn

from harness.code import load
from harness.config import Custom, Site
from harness.errors import CodeError, hint, one_line


def custom(slot: Custom, site: Site) -> nn.Module:
    """`cls(channels, **knobs)` on torch's default device, or on the CPU when its constructor cannot run there."""
    channels, cls = site.channels, module_class(slot, site.channels)
    try:
        return cls(channels, **slot.knobs)
    except (Exception, SystemExit) as error:
        if torch.get_default_device().type == "cpu":
            raise CodeError(f"{slot.target}: {_call(slot, channels)} raised {one_line(error)}") from error
    with torch.device("cpu"):
        return custom(slot, site)


def module_class(slot: Custom, channels: int) -> type[nn.Module]:
    """The class that a slot names; raises CodeError unless it is an nn.Module that takes (channels, **knobs)."""
    with torch.device("cpu"):
        cls = load(slot.target)
    if not (isinstance(cls, type) and issubclass(cls, nn.Module)):
        raise CodeError(
            f"{slot.target} is no nn.Module class; write class {slot.class_name}(nn.Module) with (channels, ...)"
        )
    signature = inspect.signature(cls)
    parameters = list(signature.parameters.values())
    named = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
    knobs = [parameter.name for parameter in parameters[1:] if parameter.kind in named]
    if not any(parameter.kind is inspect.Parameter.VAR_KEYWORD for parameter in parameters):
        for name in slot.knobs:
            if name not in knobs:
                has = ", ".join(knobs) or "none"
                raise CodeError(f"{slot.target} has no knob {name!r} (it has {has}){hint(name, knobs)}")
    try:
        signature.bind(channels, **slot.knobs)
    except TypeError as error:
        raise CodeError(
            f"{slot.target}: {_call(slot, channels)} does not fit {slot.class_name}{signature}: {error}"
        ) from None
    return cls


def rehearse(slot: Custom, channels: int, height: int, width: int) -> nn.Module:
    """The module in eval mode, on the meta device or else the CPU, after it has kept the shape of a batch of two.

    The caller's random numbers are left as they were; a second call with the same arguments returns the same module.
    """
    return _rehearsed(slot.target, json.dumps(slot.knobs, sort_keys=True), channels, height, width)


@lru_cache(maxsize=1024)
def _rehearsed(target: str, knobs: str, channels: int, height: int, width: int) -> nn.Module:
    slot = Custom(target, **json.loads(knobs))
    try:
        return _tried(slot, "meta", channels, height, width)
    except Exception:  # an operation without a meta version, or a wrong module: the CPU tells
        return _tried(slot, "cpu", channels, height, width)


def _tried(slot: Custom, device: str, channels: int, height: int, width: int) -> nn.Module:
    shape = (2, channels, height, width)
    with torch.random.fork_rng(devices=[]), torch.device(device):
        module = custom(slot, Site(channels, channels, height, width)).eval()
        try:
            out = module(torch.zeros(shape))
        except (Exception, SystemExit) as error:
            raise CodeError(f"{slot.target}: its forward raised {one_line(error)} at {shape}") from error
    if not isinstance(out, Tensor) or out.shape != shape:
        found = tuple(out.shape) if isinstance(out, Tensor) else type(out).__name__
        raise CodeError(f"{slot.target}: its forward must keep the shape {shape}, it returned {found}")
    return module


def _call(slot: Custom, channels: int) -> str:
    given = [str(channels), *(f"{name}={value!r}" for name, value in slot.knobs.items())]
    return f"{slot.class_name}({', '.join(given)})"
