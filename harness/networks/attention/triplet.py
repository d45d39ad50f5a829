"""Triplet attention (Misra et al., arXiv 2010.03045): gates over pairs of channels, rows and columns."""

from collections import OrderedDict

import torch
from torch import Tensor, nn

from harness.config import Site, TripletAttention


class TripletGate(nn.Module):
    """The mean of three gated pictures, (batch, channels, height, width) to the same.

    Each gate pools one of channels, rows and columns to its maximum and its mean and convolves over the other two.
    """

    def __init__(self, slot: TripletAttention, site: Site) -> None:
        super().__init__()
        self.gates = nn.ModuleList(_gate(slot.size) for _ in range(3))

    def forward(self, x: Tensor) -> Tensor:
        total = torch.zeros_like(x)
        for pooled, gate in enumerate(self.gates, start=1):
            plane = torch.stack((x.amax(pooled), x.mean(pooled)), dim=1)
            total = total + x * gate(plane).squeeze(1).unsqueeze(pooled)
        return total / 3


def _gate(size: int) -> nn.Sequential:
    convolution = nn.Conv2d(2, 1, size, padding=size // 2, bias=False)
    return nn.Sequential(OrderedDict(conv=convolution, norm=nn.BatchNorm2d(1), sigmoid=nn.Sigmoid()))
