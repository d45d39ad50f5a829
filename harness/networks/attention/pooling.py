"""The stride of what stands in place of a convolution and attends at full resolution."""

from torch import nn


def strided(stride: int) -> nn.Module:
    """Average pooling that halves a map, rounding odd sides up as a 3x3 convolution does; nothing at a stride of one."""
    return nn.Identity() if stride == 1 else nn.AvgPool2d(stride, stride, ceil_mode=True)
