"""Modules adopted from timm, with every size given explicitly: its rounding would make ratios the same network.

timm is imported on first use (it brings torchvision, seconds), and always on the CPU: what a library makes on import
must not land on the device that a network is being built on.
"""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from harness.config import (
    CBAM,
    ECA,
    BottleneckAttention,
    CoordinateAttention,
    EffectiveSE,
    GlobalContext,
    Halo,
    NonLocal,
    Site,
    SqueezeExcite,
)
from harness.networks.attention.pooling import strided


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


def effective_se(slot: EffectiveSE, site: Site) -> nn.Module:
    """Effective SE (arXiv 1911.06667): one 1x1 convolution with a bias, hard sigmoid after."""
    return _made(_layers().EffectiveSEModule(site.channels))


def global_context(slot: GlobalContext, site: Site) -> nn.Module:
    """GC (arXiv 1904.11492, figure 4d): what is added starts at zero, its bias too, as in the official code."""
    add = slot.fuse == "add"
    sizes = {"rd_channels": slot.squeezed(site.channels), "fuse_add": add, "fuse_scale": not add}
    module = _made(_layers().GlobalContext(site.channels, **sizes))
    if add:
        nn.init.zeros_(module.get_submodule("mlp_add.fc2").get_parameter("bias"))
    return module


def coordinate(slot: CoordinateAttention, site: Site) -> nn.Module:
    """Coordinate attention (arXiv 2103.02907) with biases, hard swish and batch norm, as in the official code."""
    return _made(_layers().coord_attn.CoordAttn(site.channels, rd_channels=slot.squeezed(site.channels), bias=True))


def non_local(slot: NonLocal, site: Site) -> nn.Module:
    """Non-local block (arXiv 1711.07971), logits scaled; its norm starts at zero (section 4.1), which timm leaves out."""
    module = _made(_layers().non_local_attn.NonLocalAttn(site.channels, rd_channels=slot.squeezed(site.channels)))
    nn.init.zeros_(module.get_parameter("norm.weight"))
    return module


def bottleneck(slot: BottleneckAttention, site: Site) -> nn.Module:
    """BoTNet's attention (arXiv 2101.11605): queries scaled before content and positions, as in the authors' code; pooling
    that rounds odd sides up, where timm's drops a row."""
    module = _layers().bottleneck_attn.BottleneckAttn(
        site.inputs,
        site.channels,
        feat_size=(site.height, site.width),
        num_heads=slot.heads,
        dim_head=site.channels // slot.heads,
        scale_pos_embed=True,
    )
    module.pool = strided(site.stride)
    return _made(module)


class HaloConv2d(nn.Module):
    """Halo attention (arXiv 2103.12731) at any size, (batch, inputs, H, W) to (batch, channels, ceil(H / stride), ceil(W /
    stride)): padded with zeros to whole blocks, which timm's own refuses, and cut again before the stride's pooling."""

    def __init__(self, slot: Halo, site: Site) -> None:
        super().__init__()
        self.block = slot.block
        self.attend = _made(
            _layers().halo_attn.HaloAttn(
                site.inputs,
                site.channels,
                num_heads=slot.heads,
                dim_head=site.channels // slot.heads,
                block_size=slot.block,
                halo_size=slot.halo,
                scale_pos_embed=True,
            )
        )
        self.pool = strided(site.stride)

    def forward(self, x: Tensor) -> Tensor:
        height, width = x.shape[2:]
        whole = F.pad(x, (0, -width % self.block, 0, -height % self.block))
        out: Tensor = self.pool(self.attend(whole)[:, :, :height, :width])
        return out


def _layers() -> Any:
    with torch.device("cpu"):
        import timm.layers
    return timm.layers


def _made(module: Any) -> nn.Module:
    assert isinstance(module, nn.Module)
    return module
