"""Params and MACs in closed form, from shapes alone: exact, torch-free and known before training.

A MAC is one multiply-accumulate of convolutions, linear maps and matrix products for one picture, as the built network
executes them; norms, activations, pooling and element-wise scaling are not counted. A common "FLOPs" is 2 x MACs. Each
kind of attention and each network says its own cost, in `harness/parts`, with the terms defined here.
"""

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple, Protocol


class Shape(NamedTuple):
    """What a network sees and says: channels, height and width of a picture, and the number of classes."""

    channels: int
    height: int
    width: int
    classes: int


class Cost(NamedTuple):
    """Trainable parameters, and multiply-accumulates of one picture's forward pass."""

    params: int
    macs: int

    def __add__(self, other: Any) -> "Cost":
        return Cost(self.params + other[0], self.macs + other[1])

    def times(self, count: int) -> "Cost":
        """That of `count` modules alike."""
        return Cost(count * self.params, count * self.macs)


Counter = Callable[[Any, int, int, int], Cost]
"""Counts a user's module (a `Custom`) at (channels, height, width)."""


class Priced(Protocol):
    """A network that can say its cost."""

    def parts(self, shape: Shape, counter: Counter | None = None) -> Iterator[tuple[str, Cost]]: ...


def network_cost(network: Priced, shape: Shape, counter: Counter | None = None) -> Cost:
    """The whole network's cost; `counter` counts the modules of the user's, which have no closed form here."""
    total = Cost(0, 0)
    for _, part in network.parts(shape, counter):
        total += part
    return total


def conv(inputs: int, outputs: int, size: int, height: int, width: int, *, bias: bool = False) -> Cost:
    """A size x size convolution with an output of height x width."""
    weights = size * size * inputs * outputs
    return Cost(weights + bias * outputs, weights * height * width)


def linear(inputs: int, outputs: int) -> Cost:
    """A linear layer with a bias."""
    return Cost(inputs * outputs + outputs, inputs * outputs)


def norm(channels: int) -> Cost:
    """Scale and shift of a batch norm."""
    return Cost(2 * channels, 0)


def half(side: int) -> int:
    """The side after a stride of 2 with 'same' padding."""
    return (side + 1) // 2
