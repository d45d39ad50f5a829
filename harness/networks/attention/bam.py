"""BAM (Park et al., arXiv 1807.06514): a channel gate and a dilated spatial gate, added into one map."""

from collections import OrderedDict

from torch import Tensor, nn

from harness.config import BAM, Site


class BottleneckGate(nn.Module):
    """x + x * sigmoid(channel gate + spatial gate), (batch, channels, height, width) to the same (section 3)."""

    def __init__(self, slot: BAM, site: Site) -> None:
        super().__init__()
        channels, squeezed = site.channels, slot.squeezed(site.channels)
        self.channel = nn.Sequential(
            OrderedDict(
                pool=nn.AdaptiveAvgPool2d(1), squeeze=_step(channels, squeezed), widen=nn.Conv2d(squeezed, channels, 1)
            )
        )
        self.spatial = nn.Sequential(
            OrderedDict(
                squeeze=_step(channels, squeezed),
                first=_step(squeezed, squeezed, 3, slot.dilation),
                second=_step(squeezed, squeezed, 3, slot.dilation),
                map=nn.Conv2d(squeezed, 1, 1),
            )
        )

    def forward(self, x: Tensor) -> Tensor:
        weights: Tensor = (self.channel(x) + self.spatial(x)).sigmoid()
        return x + x * weights


def _step(inputs: int, outputs: int, size: int = 1, dilation: int = 1) -> nn.Sequential:
    """A convolution with a bias, as in the official code, its norm and a ReLU."""
    convolution = nn.Conv2d(inputs, outputs, size, padding=dilation * (size // 2), dilation=dilation)
    return nn.Sequential(OrderedDict(conv=convolution, norm=nn.BatchNorm2d(outputs), relu=nn.ReLU(inplace=True)))
