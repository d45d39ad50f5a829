"""Modules adopted from timm, with every size given explicitly: its rounding would make ratios the same network.

timm is imported on first use (it brings torchvision, seconds), and always on the CPU: what a library makes on import
must not land on the device that a network is being built on.
"""

from typing import Any

import torch
from torch import nn

from harness.config import CBAM, ECA, Site, SqueezeExcite


def squeeze_excite(slot: SqueezeExcite, site: Site) -> nn.Module:
    """SE (arXiv 1709.01507, section 3): two 1x1 convolutions with biases, ReLU between, sigmoid after."""
    return _made(_layers().SEModule(site.channels, rd_channels=slot.squeezed(site.channels)))


def eca(slot: ECA, site: Site) -> nn.Module:
    """ECA (arXiv 1910.03151): one 1-D convolution without bias, sigmoid after."""
    return _made(_layers().EcaModule(kernel_size=slot.kernel_size(site.channels)))


def cbam(slot: CBAM, site: Site) -> nn.Module:
    """CBAM (arXiv 1807.06521): with biases in the shared bottleneck, which gives the published 28.09 M at ResNet-50."""
    layers, squeezed = _layers(), slot.squeezed(site.channels)
    return _made(layers.cbam.CbamModule(site.channels, rd_channels=squeezed, spatial_kernel_size=slot.size, mlp_bias=True))


def _layers() -> Any:
    with torch.device("cpu"):
        import timm.layers
    return timm.layers


def _made(module: Any) -> nn.Module:
    assert isinstance(module, nn.Module)
    return module
