"""Residual networks (He et al., arXiv 1512.03385), built from their config.

Layers have the same paths whatever attention stands between them, so that initial weights can be paired across arms.
"""

from collections import OrderedDict

import torch.nn.functional as F
from torch import Tensor, nn

from harness.config import ResNet, Site, Slot
from harness.cost import Cost, Shape
from harness.networks.attention.catalog import attention
from harness.parts.trunk import Grid


class ResidualNetwork(nn.Module):
    """(batch, channels, height, width) to logits (batch, classes); depths 18 to 152 have torchvision's layers (v1.5)."""

    def __init__(self, network: ResNet, shape: Shape) -> None:
        super().__init__()
        self.stem = stem(network, shape.channels)
        self.stages = nn.ModuleDict()
        grids = [grid for _, _, grid in network.pieces(shape, lambda *_: Cost(0, 0))]
        for stage, enters in enumerate(grids[:-1], start=1):
            self.stages[str(stage)] = residual_stage(network, stage, enters)
        self.head = nn.Linear(grids[-1].channels, shape.classes)

    def features(self, x: Tensor) -> Tensor:
        """The last stage's output, (batch, outputs, height, width)."""
        x = self.stem(x)
        for stage in self.stages.values():
            x = stage(x)
        return x

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.head(self.features(x).mean((2, 3)))
        return logits


def stem(network: ResNet, inputs: int) -> nn.Sequential:
    """3x3 for small pictures (section 4.2), else 7x7 and pooling, both with a stride of two (section 3.3)."""
    width = network.widths[0]
    if network.small_stem:
        return nn.Sequential(
            OrderedDict(conv=_conv(inputs, width, 3), norm=nn.BatchNorm2d(width), relu=nn.ReLU(inplace=True))
        )
    layers = OrderedDict[str, nn.Module](conv=_conv(inputs, width, 7, 2), norm=nn.BatchNorm2d(width))
    layers |= {"relu": nn.ReLU(inplace=True), "pool": nn.MaxPool2d(3, 2, padding=1)}
    return nn.Sequential(layers)


def residual_stage(network: ResNet, stage: int, grid: Grid) -> nn.Sequential:
    """The blocks of a stage (from 1), the first with a stride of two behind stage 1, and an attention that comes last."""
    layers = nn.Sequential()
    for number in range(network.blocks[stage - 1]):
        block = Block(network, stage, grid, stride=2 if stage > 1 and number == 0 else 1)
        layers.add_module(str(number), block)
        grid = block.leaves
    slot = network.stages[stage - 1]
    if slot is not None and slot.where == "stage":
        layers.add_module("attention", attention(slot, Site(grid.channels, *grid)))
    return layers


class Block(nn.Module):
    """A residual block: basic (two 3x3) or bottleneck (1x1, 3x3, 1x1), the stride on its first 3x3."""

    def __init__(self, network: ResNet, stage: int, grid: Grid, stride: int) -> None:
        super().__init__()
        inputs, width, outputs = grid.channels, network.widths[stage - 1], network.outputs[stage - 1]
        slot = network.stages[stage - 1]
        site = Site(width if network.bottleneck else inputs, width, grid.height, grid.width, stride)
        self.leaves = Grid(outputs, *site.grid)
        if network.bottleneck:
            self.branch = _branch(
                _conv(inputs, width, 1), three(slot, site), _conv(width, outputs, 1), widths=(width, width, outputs)
            )
        else:
            self.branch = _branch(three(slot, site), _conv(width, outputs, 3), widths=(width, outputs))
        self.shortcut: nn.Module = nn.Identity()
        if stride != 1 or inputs != outputs:
            self.shortcut = _projection(inputs, outputs, stride) if network.imagenet else PaddedShortcut(outputs, stride)
        self.where = slot.where if slot is not None else None
        if slot is not None and slot.where in ("branch", "block"):
            self.attention = attention(slot, Site(outputs, *self.leaves))

    @property
    def last_norm(self) -> nn.BatchNorm2d:
        """The norm that ends the residual branch."""
        last = self.branch[-1]
        assert isinstance(last, nn.BatchNorm2d)
        return last

    def forward(self, x: Tensor) -> Tensor:
        residual = self.branch(x)
        if self.where == "branch":
            residual = self.attention(residual)
        x = F.relu(residual + self.shortcut(x), inplace=True)
        return self.attention(x) if self.where == "block" else x


class PaddedShortcut(nn.Module):
    """Option A (section 4.2): every `stride`-th position, zeros for the new channels, no parameters."""

    def __init__(self, outputs: int, stride: int) -> None:
        super().__init__()
        self.outputs, self.stride = outputs, stride

    def forward(self, x: Tensor) -> Tensor:
        x = x[:, :, :: self.stride, :: self.stride]
        return F.pad(x, (0, 0, 0, 0, 0, self.outputs - x.shape[1]))


def _branch(*convolutions: nn.Module, widths: tuple[int, ...]) -> nn.Sequential:
    """Convolutions named from 1, each with its norm, a ReLU between."""
    layers: OrderedDict[str, nn.Module] = OrderedDict()
    for place, (convolution, width) in enumerate(zip(convolutions, widths), start=1):
        layers |= {f"conv{place}": convolution, f"norm{place}": nn.BatchNorm2d(width)}
        if place < len(widths):
            layers[f"relu{place}"] = nn.ReLU(inplace=True)
    return nn.Sequential(layers)


def three(slot: Slot, site: Site) -> nn.Module:
    """The 3x3 convolution of a site, or what a slot puts in its place."""
    if slot is not None and slot.where == "conv":
        return attention(slot, site)
    return _conv(site.inputs, site.channels, 3, site.stride)


def _projection(inputs: int, outputs: int, stride: int) -> nn.Sequential:
    return nn.Sequential(OrderedDict(conv=_conv(inputs, outputs, 1, stride), norm=nn.BatchNorm2d(outputs)))


def _conv(inputs: int, outputs: int, size: int, stride: int = 1) -> nn.Conv2d:
    return nn.Conv2d(inputs, outputs, size, stride, padding=size // 2, bias=False)
