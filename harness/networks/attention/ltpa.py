"""LTPA (arXiv 1804.02391): a head that classifies attended sums of local features, and nothing else."""

from collections import OrderedDict
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from harness.config import LTPA
from harness.networks.layout import ordered


class AttendedHead(nn.Module):
    """Outputs of all stages, (batch, channels, height, width) each, and the pooled end of the trunk, (batch, width), to
    logits (batch, classes); with `indep`, to log-probabilities up to a constant, which cross-entropy takes as well."""

    def __init__(self, head: LTPA, outputs: Sequence[int], classes: int) -> None:
        super().__init__()
        self.spec, trunk = head, outputs[-1]
        self.g = nn.Sequential(OrderedDict(drop=nn.Dropout(head.dropout), linear=nn.Linear(trunk, trunk)))
        self.levels = nn.ModuleDict({str(tap): Level(head, outputs[tap - 1], trunk) for tap in head.levels})
        widths = {name: level.channels for name, level in self.levels.items() if isinstance(level, Level)}
        self.classifier: nn.Module
        if head.independent:
            self.classifier = nn.ModuleDict({name: nn.Linear(width, classes) for name, width in widths.items()})
        else:
            self.classifier = nn.Linear(sum(widths.values()), classes)

    def forward(self, outputs: Sequence[Tensor], pooled: Tensor) -> Tensor:
        g = self.g(pooled)
        attended = {tap: self.levels[str(tap)](outputs[tap - 1], g) for tap in self.spec.levels}
        if not isinstance(self.classifier, nn.ModuleDict):
            logits: Tensor = self.classifier(torch.cat(list(attended.values()), dim=1))
            return logits
        each = torch.stack([self.classifier[str(tap)](x).log_softmax(1) for tap, x in attended.items()])
        return each.sum(0) if self.spec.average == "log" else each.logsumexp(0)

    def maps(self, outputs: Sequence[Tensor], pooled: Tensor) -> dict[int, Tensor]:
        """The weights of each level by its stage, (batch, height, width), each picture's summing to one."""
        g = self.g(pooled)
        return {tap: self._level(tap).attend(outputs[tap - 1], g)[0].squeeze(1) for tap in self.spec.levels}

    def _level(self, tap: int) -> "Level":
        level = self.levels[str(tap)]
        assert isinstance(level, Level)
        return level


class Level(nn.Module):
    """One level: (batch, channels, height, width) and g, (batch, trunk), to an attended sum, (batch, self.channels)."""

    def __init__(self, head: LTPA, channels: int, trunk: int) -> None:
        super().__init__()
        self.mapped: nn.Module = nn.Identity()
        self.wider: nn.Module = nn.Identity()
        if channels != trunk:
            self.mapped = _rectified(trunk, head.dropout)
            if head.projection == "g":
                self.mapped.add_module("linear", nn.Linear(trunk, channels))
            else:
                self.wider, channels = nn.Conv2d(channels, trunk, 1), trunk
        self.channels = channels
        self.score: nn.Module = nn.Conv2d(channels, 1, 1) if head.score == "pc" else Similarity(channels)
        self.sum = WeightedSum()
        self.leave = _rectified(channels, head.dropout)

    def forward(self, local: Tensor, g: Tensor) -> Tensor:
        out: Tensor = self.leave(self.attend(local, g)[1])
        return out

    def attend(self, local: Tensor, g: Tensor) -> tuple[Tensor, Tensor]:
        """The map, (batch, 1, height, width), and the sum of local features under it."""
        local, g = ordered(self.wider(local)), self.mapped(g)
        if isinstance(self.score, Similarity):
            scores = self.score(local, g)
        else:  # <u, l + g> in two terms: no copy of all features, and no digits lost where g is large
            scores = self.score(local) + self.score(g[:, :, None, None])
        weights = scores.to(_precise(scores)).flatten(1).softmax(1).view(scores.shape)
        return weights, self.sum(local, weights)


class Similarity(nn.Module):
    """Inner products of local features, (batch, channels, height, width), with g, (batch, channels), in fp32 under
    autocast too: softmax over scores of the size of the width would feel the roundings of bf16."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.channels = channels

    def forward(self, local: Tensor, g: Tensor) -> Tensor:
        device = "cpu" if local.is_meta else local.device.type  # autocast knows no meta device
        with torch.autocast(device, enabled=False):
            scores = torch.bmm(g.to(_precise(g))[:, None], local.to(_precise(local)).flatten(2))
        return scores.view(local.shape[0], 1, *local.shape[2:])

    def products(self, height: int, width: int, _: int) -> int:
        """MACs of one picture."""
        return self.channels * height * width


class WeightedSum(nn.Module):
    """Local features, (batch, channels, height, width), under weights, (batch, 1, height, width), to (batch, channels)."""

    def forward(self, local: Tensor, weights: Tensor) -> Tensor:
        return torch.bmm(local.flatten(2), weights.to(local.dtype).flatten(1)[:, :, None]).squeeze(2)

    def products(self, height: int, width: int, channels: int) -> int:
        """MACs of one picture."""
        return channels * height * width


def _precise(x: Tensor) -> torch.dtype:
    return torch.promote_types(x.dtype, torch.float32)


def _rectified(channels: int, dropout: float) -> nn.Sequential:
    layers = OrderedDict[str, nn.Module](norm=nn.BatchNorm1d(channels), relu=nn.ReLU(inplace=True))
    return nn.Sequential(layers | {"drop": nn.Dropout(dropout)})
