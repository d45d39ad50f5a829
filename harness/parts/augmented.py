"""AA: attention augmented convolution."""

from typing import Annotated, Any, Literal

from pydantic import Field

from harness.cost import Cost, Counter, conv, half
from harness.errors import ConfigError
from harness.parts.attention import Attention, Place, Site


class AA(Attention):
    """Attention augmented convolution (Bello et al., arXiv 1904.09925, section 3): a share of a 3x3 convolution's output
    channels comes from multi-head self-attention over all positions, with relative positions.

    Stands for the 3x3 of a bottleneck and the first 3x3 of a basic block. The defaults are those of ResNet-50 to 152; at
    depth 34 the paper has kappa = upsilon = 0.25. MACs are those of the mathematics: q.k, q.r for every row and column of
    the grid, and the weights times the values.
    """

    kind: Literal["aa"] = "aa"
    kappa: Annotated[float, Field(gt=0)] = 0.2
    """Key dimensions as a share of the output channels."""
    upsilon: Annotated[float, Field(gt=0, le=1)] = 0.1
    """Attention's share of the output channels, floored to a multiple of 8, at least 8; at 1 no convolution is left."""
    heads: Annotated[int, Field(ge=1)] = 8
    min_keys: Annotated[int, Field(ge=1)] = 20
    """Key dimensions that a head has at least."""
    position: Literal["relative", "none"] = "relative"
    largest: Annotated[int, Field(ge=1)] | None = 16
    """Longest side of a map that is attended in full; a larger one is average-pooled (3x3, stride 2) before and upsampled
    after, which gives the published FLOPs (ResNet-50's 28-pixel stage is pooled); None pools none."""
    pooled: Literal["input", "qkv"] = "input"
    """What is averaged of a map that is pooled, which the paper leaves open: the input, as the published FLOPs of ResNets
    have it, or queries, keys and values, as that of WRN-28-10 has it. At a stride of one the function is the same, since a
    1x1 convolution and an average commute; "qkv" has more MACs."""

    @property
    def where(self) -> Place:
        return "conv"

    def values(self, channels: int) -> int:
        """dv: the channels that attention gives, of `channels` output channels."""
        return max(8, int(self.upsilon * channels + 1e-9) // 8 * 8)

    def keys(self, channels: int) -> int:
        """Key dimensions of a head, dk / heads."""
        return max(self.min_keys, int(self.kappa * channels + 1e-9) // self.heads)

    def pools(self, site: Site) -> bool:
        """Whether the map of a site is pooled before attention."""
        return self.largest is not None and max(site.grid) > self.largest

    def attended(self, site: Site) -> tuple[int, int]:
        """Height and width of the grid on which positions attend to each other."""
        height, width = site.grid
        return (half(height), half(width)) if self.pools(site) else (height, width)

    @property
    def projects_whole(self) -> bool:
        """Whether a map is projected before it is pooled."""
        return self.pooled == "qkv"

    def check(self, channels: int) -> None:
        values = self.values(channels)
        if values > channels:
            raise ConfigError(
                f"AA.upsilon = {self.upsilon}: takes at least 8 channels, here are {channels}; use a wider network"
            )
        if values % self.heads:
            fit = [count for count in range(1, values + 1) if values % count == 0]
            raise ConfigError(f"AA.heads = {self.heads}: must divide the {values} attention channels; use one of {fit}")

    def effective(self, channels: int) -> dict[str, Any]:
        own: dict[str, Any] = {"values": self.values(channels), "keys": self.keys(channels)}
        own |= {"heads": self.heads, "position": self.position, "largest": self.largest}
        return own | {"pooled": "qkv"} if self.projects_whole and self.largest is not None else own

    def cost(self, site: Site, counter: Counter | None = None) -> Cost:
        """3x3 for the rest, a 1x1 for queries, keys and values, a 1x1 output projection, no biases, and two tables of
        relative positions on the site's own grid; q.k, q.r and the weighted values on the attended grid."""
        values, keys = self.values(site.channels), self.keys(site.channels)
        height, width = self.attended(site)
        positions, inner = height * width, self.heads * keys
        total = conv(site.inputs, 2 * inner + values, 1, *(site.grid if self.projects_whole else (height, width)))
        total += conv(values, values, 1, height, width)
        total += Cost(0, positions**2 * (inner + values))
        if values < site.channels:
            total += conv(site.inputs, site.channels - values, 3, *site.grid)
        if self.position == "relative":
            total += Cost((2 * sum(site.grid) - 2) * keys, positions * (height + width) * inner)
        return total
