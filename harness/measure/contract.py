"""What every attention module keeps, whoever wrote it: a function a promise, for our kinds in the tests and for the user's
modules in `harness check`.

A promise returns what was seen and raises Broken, with a remedy, where it does not hold; what a module itself raises is let
through. Modules are made as a network makes them, by seed and path; where behaviour is looked at, their parameters are
stirred a little, so that a layer that starts at zero hides nothing.
"""

import copy
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from harness.config import Attention, Custom, ResNet, Site
from harness.cost import Cost, Shape, network_cost
from harness.errors import HarnessError
from harness.measure.complexity import count_custom, count_dispatch, count_ptflops
from harness.networks.build import build, seeded_attention

ODD = (7, 5)
STEPS = 3
"""Steps of training within which a gradient has to reach what starts behind a zero."""


class Broken(HarnessError):
    """A promise that does not hold: what was seen, and what mends it."""

    def __init__(self, seen: str, remedy: str) -> None:
        super().__init__(f"{seen}; {remedy}")
        self.seen, self.remedy = seen, remedy


@dataclass(frozen=True)
class Subject:
    """An attention slot and where it is tried: channels and a map's (height, width)."""

    slot: Attention
    channels: int = 16
    size: tuple[int, int] = (9, 12)

    def site(self, size: tuple[int, int] | None = None, stride: int = 1) -> Site:
        return Site(self.channels, self.channels, *(size or self.size), stride)

    def make(self, size: tuple[int, int] | None = None, stride: int = 1, seed: int = 0) -> nn.Module:
        """The module as a network starts with it."""
        return seeded_attention(self.slot, self.site(size, stride), seed, path="here")

    def stirred(self, size: tuple[int, int] | None = None) -> nn.Module:
        """The module with every parameter moved a little, in eval mode."""
        module, stream = self.make(size), _stream(7)
        with torch.no_grad():
            for parameter in module.parameters():
                parameter.add_(torch.randn(parameter.shape, generator=stream), alpha=0.05)
        return module.eval()

    def pictures(self, size: tuple[int, int] | None = None, batch: int = 4) -> Tensor:
        shape = (batch, self.channels, *(size or self.size))
        return torch.randn(shape, generator=_stream(3))

    @property
    def network(self) -> ResNet:
        """A small network with the slot in its middle stage, at these channels and this map."""
        stages: Any = (None, self.slot, None)
        return ResNet(depth=8, width=self.channels / 32, stages=stages)

    @property
    def plain(self) -> ResNet:
        """The same network without it."""
        return ResNet(depth=8, width=self.channels / 32)

    @property
    def shape(self) -> Shape:
        return Shape(3, 2 * self.size[0], 2 * self.size[1], 10)

    @property
    def strides(self) -> tuple[int, ...]:
        return (1, 2) if self.slot.where == "conv" else (1,)


# -- the promises -----------------------------------------------------------------------------------------------------


def constructs(subject: Subject) -> str:
    """By its class and knobs, at the channels of its slot."""
    module = subject.make()
    return f"{type(module).__name__}, {sum(parameter.numel() for parameter in module.parameters()):,} params"


def keeps_the_shape(subject: Subject) -> str:
    """Any size, odd ones and a single position too, a batch of one; a stride halves, rounding up."""
    sizes = (subject.size, ODD, (1, 1))
    for size in sizes:
        for stride in subject.strides:
            site, module, x = subject.site(size, stride), subject.make(size, stride), subject.pictures(size)
            for found, batch in ((module(x), len(x)), (module.eval()(x[:1]), 1)):
                wanted = (batch, subject.channels, *site.grid)
                if not isinstance(found, Tensor) or found.shape != wanted:
                    seen = tuple(found.shape) if isinstance(found, Tensor) else type(found).__name__
                    raise Broken(f"{tuple(x[:batch].shape)} gave {seen}", f"return a tensor of {wanted}")
    return f"{words(subject.size)}, {words(ODD)} and 1x1, batches of 4 and 1"


def follows_the_seed(subject: Subject) -> str:
    """Seed and path say the weights and, with the state of the random numbers, every output; eval mode draws none."""
    first, again, x = subject.make(), subject.make(), subject.pictures()
    for name, tensor in first.state_dict().items():
        if not torch.equal(tensor, again.state_dict()[name]):
            raise Broken(f"{name} differs between two modules of one seed", "draw initial weights by torch alone")
    if not torch.equal(_seeded(first, x), _seeded(again, x)):
        raise Broken("outputs in train mode differ at one seed", "draw random numbers by torch alone, from its default")
    if not torch.equal(first.eval()(x), first(x)):
        raise Broken("two passes in eval mode differ", "pass `self.training` to dropout, and draw nothing in eval mode")
    return "same weights, same outputs"


def leaves_its_input_alone(subject: Subject) -> str:
    """The shortcut around the module reads the same tensor."""
    x = subject.pictures()
    given = x.clone()
    subject.stirred()(given)
    if not torch.equal(given, x):
        raise Broken("the input was changed in place", "write `x = x * w` in place of `x *= w`, and no `inplace=True` on it")
    return "unchanged by a forward pass"


def is_finite(subject: Subject) -> str:
    """Values and gradients, on pictures, on zeros (with which every residual branch starts) and on large numbers."""
    module, x = subject.make(), subject.pictures()
    for name, given in (("pictures", x), ("zeros", torch.zeros_like(x)), ("values of 100", 100 * x)):
        out = module(given.requires_grad_())
        _backward(out.sum())
        gradients = [given.grad, *(parameter.grad for parameter in module.parameters())]
        for what, values in (("outputs", [out]), ("gradients", gradients)):
            if not all(tensor.isfinite().all() for tensor in values if tensor is not None):
                raise Broken(f"{what} that are not finite on {name}", "add a small number under a root, a log or a division")
    return "on pictures, zeros and large values, with gradients"


def does_not_mix_pictures(subject: Subject) -> str:
    """In eval mode what comes of a picture depends on no other of its batch."""
    module, x = subject.stirred(), subject.pictures()
    if not _close(module(x)[2:3], module(x[2:3])):
        far = (module(x)[2:3] - module(x[2:3])).abs().max().item()
        raise Broken(f"a picture alone differs by {far:.2g}", "take means and softmax over channels or positions, not dim 0")
    return "a picture alone gives the same"


def ignores_the_memory_format(subject: Subject) -> str:
    """Channels-last pictures, in which networks run fast, give the same."""
    for size in (subject.size, ODD):
        module, x = subject.stirred(size), subject.pictures(size)
        given = x.to(memory_format=torch.channels_last)
        if not _close(module(given), module(x)):
            raise Broken(f"channels-last gives other values at {words(size)}", "use reshape and flatten, not as_strided")
    return "channels-last gives the same"


def is_close_in_bf16(subject: Subject) -> str:
    """On bf16 pictures under autocast, as in a network, within 5 % of the largest value."""
    worst = 0.0
    for size in (subject.size, ODD):
        module, x = subject.stirred(size), subject.pictures(size).to(torch.bfloat16)
        with torch.autocast("cpu", torch.bfloat16):
            found = module(x)
        exact = module(x.float())
        worst = max(worst, ((found - exact).abs().max() / exact.abs().max().clamp(min=1e-9)).item())
    if not worst < 0.05:
        raise Broken(f"{worst:.1%} off under autocast", "compute sums, exponentials and differences of squares in fp32")
    return f"within {worst:.1%} under autocast"


def has_all_in_its_state_dict(subject: Subject) -> str:
    """A module of another seed that loads it gives the same outputs; so does one that trained."""
    module, x = subject.make(), subject.pictures()
    module(x)  # moves the statistics of norms
    for path, part in module.named_modules():
        for name, value in vars(part).items():
            if isinstance(value, Tensor) and not value.requires_grad:
                where = f"{path}.{name}".lstrip(".")
                raise Broken(
                    f"{where} is a plain tensor, neither saved nor moved", f'write self.register_buffer("{name}", ...)'
                )
    twin = subject.make(seed=1)
    twin.load_state_dict(module.state_dict())
    if not torch.equal(twin.eval()(x), module.eval()(x)):
        raise Broken("a module that loads it gives other outputs", "keep what changes in parameters and registered buffers")
    return f"{len(module.state_dict())} tensors"


def learns_by_all_its_parameters(subject: Subject) -> str:
    """A gradient that is not zero reaches the input and, within a few steps, every parameter."""
    module, x = subject.make(), subject.pictures().requires_grad_()
    waiting = dict(module.named_parameters())
    optimiser = torch.optim.Adam([*waiting.values()], lr=0.01) if waiting else None
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        for _ in range(STEPS):
            module.zero_grad()
            out = module(x)
            _backward((out * torch.randn(out.shape, generator=_stream(5))).sum())
            for name in [name for name, parameter in waiting.items() if parameter.grad is not None and parameter.grad.any()]:
                del waiting[name]
            if optimiser is None or not waiting:
                break
            optimiser.step()
    if x.grad is None or not x.grad.any():
        raise Broken("no gradient reaches the input", "use no `.detach()`, `.data` or `torch.no_grad()` on its way")
    if waiting:
        raise Broken(
            f"no gradient reaches {', '.join(waiting)}", "use it in `forward`, or drop it: it costs and never learns"
        )
    return f"{len(list(module.parameters()))} parameters and the input"


def lowers_the_loss(subject: Subject) -> str:
    """One step of gradient descent of a small network with it."""
    model, x = build(subject.network, subject.shape), torch.randn(32, *subject.shape[:3], generator=_stream(1))
    target = torch.arange(32) % subject.shape.classes
    optimiser = torch.optim.SGD(model.parameters(), lr=0.02)
    losses = []
    for _ in range(2):
        loss = F.cross_entropy(_seeded(model, x), target)
        losses.append(loss.item())
        optimiser.zero_grad()
        torch.autograd.backward(loss)
        optimiser.step()
    if not losses[1] < losses[0]:
        raise Broken(f"{losses[0]:.4f} became {losses[1]:.4f}", "look for wrong signs, huge outputs or a broken gradient")
    return f"{losses[0]:.4f} became {losses[1]:.4f} in a small network"


def leaves_the_rest_of_a_network(subject: Subject) -> str:
    """Beside it a network starts as without it, so that the arms of an ablation are paired."""
    plain, own = build(subject.plain, subject.shape).state_dict(), build(subject.network, subject.shape).state_dict()
    replaced = {"stages.2.0.branch.conv1.weight"} if subject.slot.where == "conv" else set()
    kept = [path for path in plain if path not in replaced]
    other = [path for path in kept if path not in own or not torch.equal(plain[path], own[path])]
    if other:
        raise Broken(f"{other[0]} starts otherwise with it than without", "make no layers outside of the module")
    return f"{len(kept)} tensors of a network start equal"


def can_be_copied(subject: Subject) -> str:
    """A deep copy, made between two steps of training, gives the same."""
    module, x = subject.make(), subject.pictures()
    _backward(module(x).sum())
    if not torch.equal(copy.deepcopy(module).eval()(x), module.eval()(x)):
        raise Broken("a copy gives other outputs", "keep what is learned in parameters and registered buffers")
    return "a deep copy gives the same"


def runs_on_meta(subject: Subject) -> str:
    """Shapes alone, by which networks are counted without memory; a user's module that cannot is counted on the CPU."""
    x = torch.empty(2, subject.channels, *subject.size, device="meta")
    try:
        out = subject.make().to("meta")(x)
    except Exception as error:
        if isinstance(subject.slot, Custom):
            return "no: it looks at values, so it is counted on the CPU"
        raise Broken(f"{type(error).__name__} on the meta device", "look at no values of tensors") from error
    if not out.is_meta or out.shape != x.shape:
        raise Broken(f"gave {tuple(out.shape)} on {out.device}", "make new tensors on the device of the input")
    return "counted without memory"


def survives_export(subject: Subject) -> str:
    """`torch.export`, whose program gives the same."""
    module, x = subject.stirred(), subject.pictures()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            program = torch.export.export(module, (x,))
        except Exception as error:
            said = " ".join(str(error).split())[:120]
            raise Broken(f"torch.export: {said}", "let no `if` and no Python number depend on values of a tensor") from error
        if not _close(program.module()(x), module(x)):
            raise Broken(
                "the exported program gives other values", "compute all from the input, nothing from Python's state"
            )
    return f"a graph of {len(program.graph.nodes)} nodes, same outputs"


def counts_agree(subject: Subject) -> str:
    """Params exactly, and MACs by its own word, by the operations it dispatches, and by ptflops in a network."""
    for size in (subject.size, ODD):
        for stride in subject.strides:
            module, site = subject.make(size, stride), subject.site(size, stride)
            said = subject.slot.cost(site, count_custom)
            found = count_dispatch(module, Shape(subject.channels, *size, 0))
            if not _agree(subject, said, found):
                raise Broken(f"says {counted(said)} at {words(size)}, does {counted(found)}", _mend(subject))
    network, model = subject.network, build(subject.network, subject.shape, device="meta")
    said = network_cost(network, subject.shape, count_custom)
    for name, count in (("ptflops", count_ptflops), ("dispatch", count_dispatch)):
        if not _agree(subject, said, found := count(model, subject.shape)):
            raise Broken(f"a network with it says {counted(said)}, {name} finds {counted(found)}", _mend(subject))
    own = subject.slot.cost(subject.site(), count_custom)
    return f"{counted(own)} at {words(subject.size)}"


Promise = Callable[[Subject], str]
CONTRACT: tuple[Promise, ...] = (
    constructs,
    keeps_the_shape,
    follows_the_seed,
    leaves_its_input_alone,
    is_finite,
    does_not_mix_pictures,
    ignores_the_memory_format,
    is_close_in_bf16,
    has_all_in_its_state_dict,
    learns_by_all_its_parameters,
    lowers_the_loss,
    leaves_the_rest_of_a_network,
    can_be_copied,
    runs_on_meta,
    survives_export,
    counts_agree,
)
"""Every promise, those that the others build on first."""
FIRST = 3
"""Promises without which the others say nothing."""


# -- helpers ----------------------------------------------------------------------------------------------------------


def words(size: tuple[int, int]) -> str:
    return f"{size[0]}x{size[1]}"


def counted(cost: Cost) -> str:
    return f"{cost.params:,} params and {cost.macs:,} MACs"


def _mend(subject: Subject) -> str:
    if isinstance(subject.slot, Custom):
        return "let `macs(height, width)` give the multiply-accumulates of convolutions and products, or leave it out"
    return "mend the `cost` of its config"


def _stream(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def _close(found: Tensor, wanted: Tensor) -> bool:
    return torch.allclose(found, wanted, rtol=1e-4, atol=1e-5)


def _backward(value: Tensor) -> None:
    if value.requires_grad:
        torch.autograd.backward(value)


def _agree(subject: Subject, said: Cost, found: Cost) -> bool:
    """Our own closed forms are exact; what a user's module says of its MACs may be 1 % off."""
    slack = 0.01 * found.macs if isinstance(subject.slot, Custom) else 0
    return found.params == said.params and abs(found.macs - said.macs) <= slack


def _seeded(module: nn.Module, x: Tensor) -> Any:
    """A pass with the same random numbers each time; the caller's are left alone."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return module(x)
