"""ExpAtt: explicitly modelled attention maps."""

from typing import Annotated, Any, Literal

from pydantic import Field

from harness.cost import Cost, Counter, conv
from harness.errors import ConfigError
from harness.parts.attention import Attention, Place, Site

Kernel = Literal["gaussian", "laplacian", "laplacian_l2", "cauchy", "linear", "uniform"]


class ExpAtt(Attention):
    """Explicitly modelled attention maps (arXiv 2006.07872): weights are a kernel of distance with a learnable radius.

    Augments the 3x3 convolution of a bottleneck (the first 3x3 of a basic block) as AA does: a share of its output channels
    comes from `A V`, where V is a 1x1 projection of the input and row i of a head's map A is k(|p_i - p_j| / radius)
    normalised to one. The defaults are the reading that gives the published counts (24,650,165 parameters at depth 50).
    With one radius a layer all heads share one map, so `heads` matters only with `radius_per="head"`.
    """

    kind: Literal["expatt"] = "expatt"
    kernel: Kernel = "gaussian"
    radius: Annotated[float, Field(gt=0)] = 2.0
    """Initial radius in positions of the slot's own grid."""
    radius_per: Literal["layer", "head"] = "layer"
    heads: Annotated[int, Field(ge=1)] = 8
    share: Annotated[float, Field(gt=0, lt=1)] = 0.1
    """Share of the convolution's output channels, floored to a multiple of 8, at least 8."""

    @property
    def where(self) -> Place:
        return "conv"

    def values(self, channels: int) -> int:
        """dv: the channels that attention gives, of `channels` output channels of the 3x3."""
        return max(8, int(self.share * channels + 1e-9) // 8 * 8)

    def factorises(self, height: int, width: int) -> bool:
        """Whether the map is applied as a kernel over rows times a kernel over columns, which is exact for a gaussian of
        squared L2, a laplacian of L1 and the uniform map; on small maps the dense product is faster."""
        return self.kernel in ("gaussian", "laplacian", "uniform") and height * width > 64

    def radii(self) -> int:
        """Learnable radii of a layer."""
        return 0 if self.kernel == "uniform" else self.heads if self.radius_per == "head" else 1

    def check(self, channels: int) -> None:
        dv = self.values(channels)
        if self.kernel == "linear" and self.radius <= 1:
            raise ConfigError(
                f"ExpAtt.radius = {self.radius:g}: a linear kernel of radius 1 or less sees only its own position and never"
                " learns; use more than 1"
            )
        if dv >= channels:
            raise ConfigError(
                f"ExpAtt.share = {self.share}: takes {dv} of {channels} channels and leaves none to the convolution;"
                " use a wider network or a smaller share"
            )
        if dv % self.heads:
            fit = [n for n in range(1, dv + 1) if dv % n == 0]
            raise ConfigError(f"ExpAtt.heads = {self.heads}: must divide the {dv} attention channels; use one of {fit}")

    def effective(self, channels: int) -> dict[str, Any]:
        found: dict[str, Any] = {"kernel": self.kernel, "values": self.values(channels)}
        if self.kernel != "uniform":
            found |= {"radius": self.radius, "radii": self.radii()}
        return found

    def cost(self, site: Site, counter: Counter | None = None) -> Cost:
        """3x3 for the rest, 1x1 values and 1x1 output projection, both without bias; the map times the values."""
        values, (height, width) = self.values(site.channels), site.grid
        positions = height * width
        reach = height + width if self.factorises(height, width) else positions
        total = conv(site.inputs, site.channels - values, 3, height, width) + conv(site.inputs, values, 1, height, width)
        return total + conv(values, values, 1, height, width) + Cost(self.radii(), positions * reach * values)
