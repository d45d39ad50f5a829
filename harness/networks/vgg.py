"""VGG (the trunks of LTPA, arXiv 1804.02391), built from its config."""

from collections import OrderedDict
from collections.abc import Iterator

from torch import nn

from harness.config import VGG, Site
from harness.cost import Shape
from harness.networks.attention.catalog import attention
from harness.networks.resnet import convolution, three
from harness.networks.trunk import TrunkNetwork, grids
from harness.parts.vgg import CONVOLUTIONS


class VGGNetwork(TrunkNetwork):
    """(batch, channels, height, width) to logits (batch, classes); convolutions with biases and norms."""

    def __init__(self, network: VGG, shape: Shape) -> None:
        width = network.outputs[-1]
        rate = 0.5 * network.dropout
        layers = OrderedDict[str, nn.Module](drop1=nn.Dropout(rate), linear=nn.Linear(width, width))
        layers |= {"norm": nn.BatchNorm1d(width), "relu": nn.ReLU(inplace=True), "drop2": nn.Dropout(rate)}
        classifier = nn.Sequential(layers | {"classes": nn.Linear(width, shape.classes)})
        stages = vgg_stages(network, shape)
        super().__init__(network, shape.classes, nn.Identity(), stages, vgg_end(network), classifier)


def vgg_stages(network: VGG, shape: Shape) -> Iterator[nn.Sequential]:
    """A pooling where the stage begins with one, its convolutions, and an attention that comes last.

    Dropout stands behind every convolution but a stage's last.
    """
    leaves, inputs = grids(network, shape), shape.channels
    for stage, slot in enumerate(network.stages, start=1):
        grid, layers = leaves[f"stage {stage}"], nn.Sequential()
        if network.pools(stage):
            layers.add_module("pool", _pool())
        last = CONVOLUTIONS[stage - 1]
        for place in range(1, last):
            drop = network.dropout * (0.3 if stage == place == 1 else 0.4)
            layers.add_module(str(place), _unit(convolution(inputs, grid.channels, 3, bias=True), grid.channels, drop))
            inputs = grid.channels
        site = Site(grid.channels, *grid)
        layers.add_module(str(last), _unit(three(slot, site, bias=True), grid.channels))
        if slot is not None and network.standing(slot) == "stage":
            layers.add_module("attention", attention(slot, site))
        yield layers


def vgg_end(network: VGG) -> nn.Sequential:
    """The poolings and convolutions behind the last stage."""
    layers, width = nn.Sequential(), network.outputs[-1]
    for place in range(1, network.tail + 1):
        layers.add_module(f"pool{place}", _pool())
        layers.add_module(str(place), _unit(convolution(width, width, 3, bias=True), width, 0.4 * network.dropout))
    layers.add_module("pool", _pool())
    return layers


def _unit(layer: nn.Module, channels: int, drop: float = 0.0) -> nn.Sequential:
    layers = OrderedDict[str, nn.Module](conv=layer, norm=nn.BatchNorm2d(channels), relu=nn.ReLU(inplace=True))
    return nn.Sequential(layers | ({"drop": nn.Dropout(drop)} if drop else {}))


def _pool() -> nn.MaxPool2d:
    return nn.MaxPool2d(2, 2, ceil_mode=True)
