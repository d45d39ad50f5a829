"""Counts of a built network, by ptflops and by the operations it dispatches, that check the closed form of `cost`.

All counts are of one picture in eval mode, on a copy on the meta device (the CPU where a user's operation has no meta
version); the module itself is left as it was. A MAC is what `cost` says it is.
"""

import io
import json
import math
from collections.abc import Callable
from contextlib import redirect_stderr, redirect_stdout
from copy import deepcopy
from functools import lru_cache
from threading import Lock
from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from harness.config import Backbone, Custom, Network, name_of
from harness.cost import Cost, Shape
from harness.errors import CodeError, HarnessError, one_line
from harness.networks.custom import rehearse

T = TypeVar("T")
Hook = Callable[[Any, Any, Any], None]
_PTFLOPS = Lock()  # it replaces functions of torch and holds its hooks in globals


class CountError(HarnessError):
    """A network cannot be counted, or the counts disagree."""


def check(network: Network, module: nn.Module, shape: Shape, claimed: Cost) -> None:
    """Raise CountError unless ptflops finds the claimed parameters exactly and the claimed MACs within 1 %.

    A model of others is counted by what it dispatches: of its matrix products outside of layers ptflops sees nothing.
    """
    if isinstance(network, Backbone):
        counter, found, slots = "torch", count_dispatch(module, shape), tuple(network.at.values())
    else:
        counter, found, slots = "ptflops", count_ptflops(module, shape), network.stages
    if found.params == claimed.params and abs(found.macs - claimed.macs) <= 0.01 * claimed.macs:
        return
    raise CountError(
        f"{name_of(network)} with {name_of(slots)} at {tuple(shape)}: the closed form says {claimed.params:,} params"
        f" and {claimed.macs:,} MACs, {counter} {found.params:,} and {found.macs:,}; mend harness/cost.py, or the"
        " `macs` of your module"
    )


def count_custom(slot: Custom, channels: int, height: int, width: int) -> Cost:
    """A `cost.Counter`: a user's module by its own `macs(height, width)` if it has one, else by what it dispatches."""
    return _counted(slot.target, json.dumps(slot.knobs, sort_keys=True), channels, height, width)


@lru_cache(maxsize=4096)
def _counted(target: str, knobs: str, channels: int, height: int, width: int) -> Cost:
    module = rehearse(Custom(target, **json.loads(knobs)), channels, height, width)
    return Cost(_params(module), _own_macs(module, channels, height, width))


def count_dispatch(module: nn.Module, shape: Shape) -> Cost:
    """Convolutions, matrix products, fused attention and distances among the operations that torch dispatches."""

    def count(twin: nn.Module, picture: Tensor) -> int:
        # With gradients, torch's fast paths, which fuse a whole layer into one operation, stay off.
        with torch.enable_grad(), DispatchCounter() as counter:
            twin(picture)
        return int(counter.macs)

    return Cost(_params(module), _on_copy(module, shape, count))


def count_ptflops(module: nn.Module, shape: Shape) -> Cost:
    """ptflops' `pytorch` backend, on our definition: norms, activations, pooling and biases are no MACs.

    ptflops sees nothing of a matrix product outside a layer, so `DistanceMap` and a user's modules bring their totals.
    """

    def count(twin: nn.Module, picture: Tensor) -> int:
        from ptflops import get_model_complexity_info  # brings torchvision, seconds

        said, originals = io.StringIO(), {id(copy): original for copy, original in zip(twin.modules(), module.modules())}
        with _PTFLOPS, redirect_stdout(said), redirect_stderr(said):
            macs, _ = get_model_complexity_info(
                twin,
                tuple(picture.shape[1:]),
                print_per_layer_stat=False,
                as_strings=False,
                input_constructor=lambda _: picture,
                custom_modules_hooks=_hooks(originals),
                backend="pytorch",
                backend_specific_config={"count_functional": False},
            )
        if macs is None:
            raise CountError(f"ptflops failed: {' '.join(said.getvalue().split())[:400]}")
        return int(macs)

    return Cost(_params(module), _on_copy(module, shape, count))


class DispatchCounter(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Adds up the MACs of the operations inside it."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.macs = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        self.macs += operation_macs(func.overloadpacket.__name__, args, out)
        return out


def operation_macs(name: str, args: Any, out: Any) -> int:
    """MACs of one aten operation; 0 for what is none."""
    match name:
        case "convolution" | "_convolution":
            picture, weight, transposed = args[0], args[1], args[6]
            return int((picture if transposed else out).numel() * weight[0].numel())
        case "mm" | "bmm":
            return int(out.numel() * args[0].shape[-1])
        case "addmm" | "baddbmm":
            return int(out.numel() * args[1].shape[-1])
        case "mv" | "dot":
            return int(args[0].numel())
        case "addmv":
            return int(args[1].numel())
        case "_cdist_forward":
            return int(out.numel() * args[0].shape[-1])
        case "_native_multi_head_attention" | "_transformer_encoder_layer_fwd" | "_trilinear" | "mkldnn_rnn_layer":
            raise CountError(f"MACs of torch's fused operation {name} are not known; give your module `macs(height, width)`")
    if name.startswith("_scaled_dot_product"):
        query, key, value = args[:3]
        scores = math.prod(query.shape[:-1]) * key.shape[-2]
        return int(scores * (query.shape[-1] + value.shape[-1]))
    return 0


def _params(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters() if parameter.requires_grad)


def _own_macs(module: nn.Module, channels: int, height: int, width: int) -> int:
    formula = getattr(module, "macs", None)
    if not callable(formula):
        return count_dispatch(module, Shape(channels, height, width, 0)).macs
    try:
        return int(formula(height, width))
    except Exception as error:
        raise CodeError(f"{type(module).__name__}.macs({height}, {width}) raised {one_line(error)}") from error


@torch.inference_mode(False)
def _on_copy(module: nn.Module, shape: Shape, count: Callable[[nn.Module, Tensor], T]) -> T:
    """What `count` says of a copy in eval mode and one picture, on the meta device or else on the CPU."""
    picture = (1, shape.channels, shape.height, shape.width)
    try:
        return count(deepcopy(module).to("meta").eval(), torch.zeros(picture, device="meta"))
    except Exception:  # an operation of the user's without a meta version
        twin = deepcopy(module).eval()
        twin._apply(lambda tensor: torch.zeros_like(tensor, device="cpu") if tensor.is_meta else tensor.cpu())  # type: ignore[no-untyped-call]
    try:
        with torch.random.fork_rng(devices=[]):
            return count(twin, torch.zeros(picture))
    except CountError:
        raise
    except Exception as error:
        raise CountError(f"{type(module).__name__} cannot be counted at {picture}: {one_line(error)}") from error


def _hooks(originals: dict[int, nn.Module]) -> dict[type[nn.Module], Hook]:
    """ptflops' hooks where ours differ from its own, by module class."""
    from ptflops import pytorch_ops as ops

    def foreign(module: Any, inputs: Any, output: Any) -> None:
        channels, height, width = inputs[0].shape[1:]
        module.__flops__ += _own_macs(originals[id(module)], channels, height, width)

    hooks: dict[type[nn.Module], Hook] = dict.fromkeys(ops.MODULES_MAPPING, ops.empty_flops_counter_hook)
    for kind in (nn.Conv1d, nn.Conv2d, nn.Linear):
        hooks[kind] = _without_bias(ops.MODULES_MAPPING[kind])
    hooks |= {type(module): _products for module in originals.values() if hasattr(module, "products")}
    return hooks | {kind: foreign for kind in map(type, originals.values()) if _foreign(kind)}


def _foreign(kind: type[nn.Module]) -> bool:
    """Whether ptflops would miss what is done outside of layers: the user's, and those of timm with matrix products."""
    library = kind.__module__.partition(".")[0]
    products = ("GlobalContext", "NonLocalAttn", "BottleneckAttn", "HaloAttn")
    return kind.__name__ in products if library == "timm" else library not in ("torch", "harness")


def _without_bias(hook: Hook) -> Hook:
    def counted(module: Any, inputs: Any, output: Tensor) -> None:
        hook(module, inputs, output)
        if module.bias is not None:
            module.__flops__ -= output.numel()

    return counted


def _products(module: Any, inputs: Any, output: Tensor) -> None:
    """Our own matrix products outside of layers: a module of ours without layers says how many they are, at the map that
    leaves it, or where none does, at the one that enters."""
    batch, channels, height, width = (output if output.dim() == 4 else inputs[0]).shape
    module.__flops__ += batch * module.products(height, width, channels)
