"""SimAM (Yang et al., ICML 2021): weights from how far a position is from its channel's mean, without parameters."""

from torch import Tensor, nn

from harness.config import SimAM, Site


class EnergyGate(nn.Module):
    """Scales by sigmoid((x - mean)^2 / 4(variance + damping) + 1/2), (batch, channels, height, width) to the same."""

    def __init__(self, slot: SimAM, site: Site) -> None:
        super().__init__()
        self.damping = slot.damping

    def forward(self, x: Tensor) -> Tensor:
        distances = (x - x.mean((2, 3), keepdim=True)).square()
        others = max(x.shape[2] * x.shape[3] - 1, 1)  # a map of one position has no others, and no variance
        variance = distances.sum((2, 3), keepdim=True) / others
        return x * (distances / (4 * (variance + self.damping)) + 0.5).sigmoid()
