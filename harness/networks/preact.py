"""Pre-activation residual networks (He et al., arXiv 1603.05027) and wide ones (arXiv 1605.07146), built from config."""

from collections import OrderedDict

from torch import Tensor, nn

from harness.config import WideResNet
from harness.cost import Shape
from harness.networks.resnet import ResidualBlock, convolution, residual_stages
from harness.networks.trunk import TrunkNetwork
from harness.parts.preact import Preactivated
from harness.parts.residual import Residual


class PreactivatedNetwork(TrunkNetwork):
    """(batch, channels, height, width) to logits (batch, classes)."""

    def __init__(self, network: Preactivated, shape: Shape) -> None:
        stem = nn.Sequential(OrderedDict(conv=convolution(shape.channels, network.stem_width, 3)))
        stages = residual_stages(network, shape, PreactivatedBlock)
        super().__init__(network, shape.classes, stem, stages, end=_activation(network.outputs[-1]))


class PreactivatedBlock(ResidualBlock):
    """Norm and ReLU before each convolution, nothing after the addition (figure 4e).

    Where the shape changes, the shortcut is a 1x1 convolution of what the first norm and ReLU give.
    """

    def lay(self, network: Residual, layers: list[nn.Module], stride: int) -> None:
        self.enter = _activation(self.chain[0])
        self.branch = nn.Sequential()
        for place, (layer, channels) in enumerate(zip(layers, self.chain), start=1):
            if place > 1:
                self.branch.add_module(f"norm{place}", nn.BatchNorm2d(channels))
                self.branch.add_module(f"relu{place}", nn.ReLU(inplace=True))
                if isinstance(network, WideResNet) and network.dropout:
                    self.branch.add_module("drop", nn.Dropout(network.dropout))
            self.branch.add_module(f"conv{place}", layer)
        if self.reshapes:
            self.shortcut = convolution(self.chain[0], self.chain[-1], 1, stride)

    def forward(self, x: Tensor) -> Tensor:
        activated = self.enter(x)
        residual = self.attended(self.branch(activated), "branch")
        return self.attended(residual + (self.shortcut(activated) if self.reshapes else x), "block")


def _activation(channels: int) -> nn.Sequential:
    return nn.Sequential(OrderedDict(norm=nn.BatchNorm2d(channels), relu=nn.ReLU(inplace=True)))
