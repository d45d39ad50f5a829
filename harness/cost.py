"""Params and MACs of a network in closed form, from shapes alone: exact, torch-free and known before training.

A MAC is one multiply-accumulate of convolutions, linear maps and matrix products for one picture, as the built network
executes them; norms, activations, pooling and element-wise scaling are not counted. A common "FLOPs" is 2 x MACs.
"""

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

from harness.config import CBAM, ECA, Attention, Custom, ExpAtt, Network, ResNet, SqueezeExcite
from harness.errors import ConfigError


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


Counter = Callable[[Custom, int, int, int], Cost]
"""Counts a user's module at (channels, height, width)."""


def conv(inputs: int, outputs: int, size: int, height: int, width: int, *, bias: bool = False) -> Cost:
    """A size x size convolution with an output of height x width."""
    weights = size * size * inputs * outputs
    return Cost(weights + bias * outputs, weights * height * width)


def norm(channels: int) -> Cost:
    """Scale and shift of a batch norm."""
    return Cost(2 * channels, 0)


def half(side: int) -> int:
    """The side after a stride of 2 with 'same' padding."""
    return (side + 1) // 2


def network_cost(network: Network, shape: Shape, counter: Counter | None = None) -> Cost:
    """The whole network's cost; `counter` counts the modules of the user's, which have no closed form here."""
    total = Cost(0, 0)
    for _, part in parts(network, shape, counter):
        total += part
    return total


def parts(network: ResNet, shape: Shape, counter: Counter | None = None) -> Iterator[tuple[str, Cost]]:
    """The cost of the stem, of each stage and of the head, in order."""
    height, width, channels = shape.height, shape.width, network.widths[0]
    if network.small_stem:
        yield "stem", conv(shape.channels, channels, 3, height, width) + norm(channels)
    else:
        height, width = half(height), half(width)
        yield "stem", conv(shape.channels, channels, 7, height, width) + norm(channels)
        height, width = half(height), half(width)
    for stage, blocks in enumerate(network.blocks, start=1):
        total = Cost(0, 0)
        for block in range(blocks):
            stride = 2 if stage > 1 and block == 0 else 1
            total += _block(network, stage, channels, height, width, stride, counter)
            if stride == 2:
                height, width = half(height), half(width)
            channels = network.outputs[stage - 1]
        slot = network.stages[stage - 1]
        if slot is not None and slot.where == "stage":
            total += attention_cost(slot, channels, height, width, counter)
        yield f"stage {stage}", total
    yield "head", Cost(channels * shape.classes + shape.classes, channels * shape.classes)


def _block(network: ResNet, stage: int, inputs: int, high: int, wide: int, stride: int, counter: Counter | None) -> Cost:
    width, outputs, slot = network.widths[stage - 1], network.outputs[stage - 1], network.stages[stage - 1]
    height, across = (half(high), half(wide)) if stride == 2 else (high, wide)
    if network.bottleneck:
        total = conv(inputs, width, 1, high, wide) + norm(width)
        total += _three(slot, width, width, height, across) + norm(width)
        total += conv(width, outputs, 1, height, across) + norm(outputs)
    else:
        total = _three(slot, inputs, width, height, across) + norm(width)
        total += conv(width, outputs, 3, height, across) + norm(outputs)
    if network.imagenet and (stride == 2 or inputs != outputs):
        total += conv(inputs, outputs, 1, height, across) + norm(outputs)
    if slot is not None and slot.where in ("branch", "block"):
        total += attention_cost(slot, outputs, height, across, counter)
    return total


def _three(slot: Attention | None, inputs: int, outputs: int, height: int, width: int) -> Cost:
    """The block's 3x3 convolution, or what stands in its place."""
    if isinstance(slot, ExpAtt):
        return _augmented(slot, inputs, outputs, height, width)
    return conv(inputs, outputs, 3, height, width)


def _augmented(slot: ExpAtt, inputs: int, outputs: int, height: int, width: int) -> Cost:
    """3x3 for the rest, 1x1 values and 1x1 output projection, both without bias; the map times the values."""
    values, positions = slot.values(outputs), height * width
    reach = height + width if slot.factorises(height, width) else positions
    total = conv(inputs, outputs - values, 3, height, width) + conv(inputs, values, 1, height, width)
    return total + conv(values, values, 1, height, width) + Cost(slot.radii(), positions * reach * values)


def attention_cost(slot: Attention, channels: int, height: int, width: int, counter: Counter | None = None) -> Cost:
    """A module that stands behind convolutions, on (channels, height, width)."""
    if isinstance(slot, SqueezeExcite):
        squeezed = slot.squeezed(channels)
        return conv(channels, squeezed, 1, 1, 1, bias=True) + conv(squeezed, channels, 1, 1, 1, bias=True)
    if isinstance(slot, ECA):
        size = slot.kernel_size(channels)
        return Cost(size, size * channels)
    if isinstance(slot, CBAM):
        down = conv(channels, slot.squeezed(channels), 1, 1, 1, bias=True)
        mlp = down + conv(slot.squeezed(channels), channels, 1, 1, 1, bias=True)
        return Cost(mlp.params, 2 * mlp.macs) + conv(2, 1, slot.size, height, width) + norm(1)
    if isinstance(slot, Custom) and counter is not None:
        return counter(slot, channels, height, width)
    raise ConfigError(f"{type(slot).__name__}: no closed form of its cost is known here")
