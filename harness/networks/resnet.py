"""Residual networks (He et al., arXiv 1512.03385), built from their config, and what all residual networks share."""

from collections import OrderedDict
from collections.abc import Callable, Iterator

import torch.nn.functional as F
from torch import Tensor, nn

from harness.config import ResNet, Site, Slot
from harness.cost import Shape
from harness.networks.attention.catalog import attention
from harness.networks.layout import ordered
from harness.networks.trunk import TrunkNetwork, grids
from harness.parts.residual import Residual
from harness.parts.trunk import Grid


class ResidualNetwork(TrunkNetwork):
    """(batch, channels, height, width) to logits (batch, classes); depths 18 to 152 have torchvision's layers (v1.5)."""

    def __init__(self, network: ResNet, shape: Shape) -> None:
        stages = residual_stages(network, shape, Block)
        super().__init__(network, shape.classes, stem(network, shape.channels), stages)


def stem(network: ResNet, inputs: int) -> nn.Sequential:
    """3x3 for small pictures (section 4.2), else 7x7 and pooling, both with a stride of two (section 3.3)."""
    width = network.stem_width
    if network.small_stem:
        return nn.Sequential(
            OrderedDict(conv=convolution(inputs, width, 3), norm=nn.BatchNorm2d(width), relu=nn.ReLU(inplace=True))
        )
    layers = OrderedDict[str, nn.Module](conv=convolution(inputs, width, 7, 2), norm=nn.BatchNorm2d(width))
    layers |= {"relu": nn.ReLU(inplace=True), "pool": nn.MaxPool2d(3, 2, padding=1)}
    return nn.Sequential(layers)


def residual_stages(
    network: Residual, shape: Shape, block: Callable[[Residual, int, Grid, int], "ResidualBlock"]
) -> Iterator[nn.Sequential]:
    """The blocks of each stage, the first with a stride of two behind stage 1, and an attention that comes last."""
    grid = grids(network, shape)["stem"]
    for stage, (blocks, slot) in enumerate(zip(network.blocks, network.stages), start=1):
        layers = nn.Sequential()
        for number in range(blocks):
            layer = block(network, stage, grid, 2 if stage > 1 and number == 0 else 1)
            layers.add_module(str(number), layer)
            grid = layer.leaves
        if slot is not None and slot.where == "stage":
            layers.add_module("attention", attention(slot, Site(grid.channels, *grid)))
        yield layers


class ResidualBlock(nn.Module):
    """What blocks share: a chain of convolutions, and the attention on the residual branch or behind the addition."""

    def __init__(self, network: Residual, stage: int, grid: Grid, stride: int) -> None:
        super().__init__()
        site, slot = network.site(stage, grid, stride), network.stages[stage - 1]
        self.chain = network.chain(stage, grid.channels)
        self.leaves = Grid(self.chain[-1], *site.grid)
        self.reshapes = stride != 1 or grid.channels != self.leaves.channels
        self.lay(network, convolutions(network, stage, grid, stride), stride)
        self.where = slot.where if slot is not None else None
        if slot is not None and slot.where in ("branch", "block"):
            self.attention = attention(slot, Site(self.leaves.channels, *self.leaves))

    def lay(self, network: Residual, layers: list[nn.Module], stride: int) -> None:
        """Puts the convolutions of the residual branch, norms, and the shortcut in their places."""
        raise NotImplementedError

    def attended(self, x: Tensor, place: str) -> Tensor:
        """`x` through the attention, where it stands at this place of the block."""
        return self.attention(ordered(x)) if self.where == place else x


class Block(ResidualBlock):
    """A residual block: convolutions with their norms, a ReLU between and one after the addition."""

    def lay(self, network: Residual, layers: list[nn.Module], stride: int) -> None:
        self.branch = nn.Sequential()
        for place, (layer, channels) in enumerate(zip(layers, self.chain[1:]), start=1):
            if place > 1:
                self.branch.add_module(f"relu{place - 1}", nn.ReLU(inplace=True))
            self.branch.add_module(f"conv{place}", layer)
            self.branch.add_module(f"norm{place}", nn.BatchNorm2d(channels))
        self.shortcut: nn.Module = nn.Identity()
        if self.reshapes and network.projects:
            self.shortcut = _projection(self.chain[0], self.chain[-1], stride)
        elif self.reshapes:
            self.shortcut = PaddedShortcut(self.chain[-1], stride)

    def forward(self, x: Tensor) -> Tensor:
        residual = self.attended(self.branch(x), "branch")
        return self.attended(F.relu(residual + self.shortcut(x), inplace=True), "block")


class PaddedShortcut(nn.Module):
    """Option A (section 4.2): every `stride`-th position, zeros for the new channels, no parameters."""

    def __init__(self, outputs: int, stride: int) -> None:
        super().__init__()
        self.outputs, self.stride = outputs, stride

    def forward(self, x: Tensor) -> Tensor:
        x = F.avg_pool2d(x, 1, self.stride)  # as a slice, but with gradients in the order of the map
        return F.pad(x, (0, 0, 0, 0, 0, self.outputs - x.shape[1]))


def convolutions(network: Residual, stage: int, grid: Grid, stride: int) -> list[nn.Module]:
    """Those of a block's residual branch, in order: two 3x3, or 1x1, 3x3 and 1x1; the stride is the first 3x3's."""
    chain, first = network.chain(stage, grid.channels), three(network.stages[stage - 1], network.site(stage, grid, stride))
    if network.bottleneck:
        return [convolution(chain[0], chain[1], 1), first, convolution(chain[2], chain[3], 1)]
    return [first, convolution(chain[1], chain[2], 3)]


def three(slot: Slot, site: Site, *, bias: bool = False) -> nn.Module:
    """The 3x3 convolution of a site, or what a slot puts in its place."""
    if slot is not None and slot.where == "conv":
        return attention(slot, site)
    return convolution(site.inputs, site.channels, 3, site.stride, bias=bias)


def convolution(inputs: int, outputs: int, size: int, stride: int = 1, *, bias: bool = False) -> nn.Conv2d:
    """A size x size convolution with 'same' padding."""
    return nn.Conv2d(inputs, outputs, size, stride, padding=size // 2, bias=bias)


def _projection(inputs: int, outputs: int, stride: int) -> nn.Sequential:
    return nn.Sequential(OrderedDict(conv=convolution(inputs, outputs, 1, stride), norm=nn.BatchNorm2d(outputs)))
