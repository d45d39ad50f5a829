"""Stand-alone self-attention (Ramachandran et al., arXiv 1906.05909): each position attends to those around it."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from harness.config import Site, StandAlone
from harness.networks.attention.pooling import strided


class WindowAttention(nn.Module):
    """Softmax attention of each position to the size x size around it, queries, keys and values (batch, channels, H, W).

    Half of a head's key channels carry the learned offset of rows, half that of columns (section 3.2); logits are divided
    by the root of a head's channels. Beyond the edge keys and values are zero.
    """

    def __init__(self, slot: StandAlone, channels: int) -> None:
        super().__init__()
        self.heads, self.size = slot.heads, slot.size
        half = channels // slot.heads // 2
        self.rows = nn.Parameter(torch.empty(slot.heads, half, slot.size, 1))
        self.columns = nn.Parameter(torch.empty(slot.heads, half, 1, slot.size))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        for offsets in (self.rows, self.columns):
            nn.init.normal_(offsets, std=(2 * offsets.shape[1]) ** -0.5)

    def products(self, height: int, width: int, channels: int) -> int:
        """MACs of queries with the keys around them, and of the weights with the values."""
        return 2 * height * width * channels * self.size**2

    def forward(self, queries: Tensor, keys: Tensor, values: Tensor) -> Tensor:
        batch, channels, height, width = queries.shape
        side = (-1, -1, self.size, self.size)
        offsets = torch.cat((self.rows.expand(side), self.columns.expand(side)), dim=1).flatten(2)
        own = queries.reshape(batch, self.heads, -1, height * width) * (channels // self.heads) ** -0.5
        around = self._around(keys) + offsets.to(keys.dtype)[None, :, :, :, None]
        weights = torch.einsum("bhdn,bhdkn->bhkn", own, around).softmax(2)
        return torch.einsum("bhkn,bhdkn->bhdn", weights, self._around(values)).reshape(batch, channels, height, width)

    def _around(self, x: Tensor) -> Tensor:
        """(batch, heads, channels of a head, size * size, positions)"""
        unfolded = F.unfold(x, self.size, padding=self.size // 2)
        return unfolded.view(len(x), self.heads, -1, self.size**2, x.shape[2] * x.shape[3])


class StandAloneConv2d(nn.Module):
    """(batch, inputs, H, W) to (batch, channels, ceil(H / stride), ceil(W / stride)) in place of a 3x3 convolution."""

    def __init__(self, slot: StandAlone, site: Site) -> None:
        super().__init__()
        self.project = nn.Conv2d(site.inputs, 3 * site.channels, 1, bias=False)
        self.attend = WindowAttention(slot, site.channels)
        self.pool = strided(site.stride)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.pool(self.attend(*self.project(x).chunk(3, dim=1)))
        return out
