"""Modules that weigh channels or positions by a gate, behind convolutions."""

from typing import Annotated, Any, Literal

from pydantic import Field

from harness.cost import Cost, Counter, conv, half, norm
from harness.errors import ConfigError
from harness.parts.attention import Attention, Place, Site

Ratio = Annotated[int, Field(ge=1)]


def squeeze(channels: int, ratio: int, least: int = 1) -> int:
    """Channels of a bottleneck: no rounding, so that every ratio is the network it says."""
    return max(least, channels // ratio)


def pair(channels: int, squeezed: int, height: int = 1, width: int = 1) -> Cost:
    """Two 1x1 convolutions with biases, into a bottleneck and out of it."""
    into = conv(channels, squeezed, 1, height, width, bias=True)
    return into + conv(squeezed, channels, 1, height, width, bias=True)


class SqueezeExcite(Attention):
    """Squeeze-and-excitation (Hu et al., arXiv 1709.01507, section 3): channel weights from a pooled bottleneck."""

    kind: Literal["se"] = "se"
    ratio: Ratio = 16

    def squeezed(self, channels: int) -> int:
        return squeeze(channels, self.ratio)

    def effective(self, channels: int) -> dict[str, Any]:
        return {"squeezed": self.squeezed(channels)}

    def cost(self, site: Site, counter: Counter | None = None) -> Cost:
        return pair(site.channels, self.squeezed(site.channels))


class EffectiveSE(Attention):
    """Effective squeeze-and-excitation (Lee and Park, arXiv 1911.06667, section 3.3): one layer without a bottleneck, which
    has nothing to set."""

    kind: Literal["ese"] = "ese"

    def cost(self, site: Site, counter: Counter | None = None) -> Cost:
        return conv(site.channels, site.channels, 1, 1, 1, bias=True)


class ECA(Attention):
    """Efficient channel attention (Wang et al., arXiv 1910.03151): a 1-D convolution over the pooled channels."""

    kind: Literal["eca"] = "eca"
    size: Annotated[int, Field(ge=1)] | None = None
    """Width of the 1-D convolution, odd; None adapts it to the channels as the paper does (gamma 2, beta 1)."""

    def kernel_size(self, channels: int) -> int:
        """The odd width at this number of channels."""
        adapted = int(abs((channels.bit_length() - 1 + 1) / 2)) if self.size is None else self.size
        return max(adapted + 1 - adapted % 2, 3) if self.size is None else adapted

    def check(self, channels: int) -> None:
        if self.size is not None and self.size % 2 == 0:
            raise ConfigError(f"ECA.size = {self.size}: a centred 1-D convolution has an odd width; use {self.size + 1}")

    def effective(self, channels: int) -> dict[str, Any]:
        return {"size": self.kernel_size(channels)}

    def cost(self, site: Site, counter: Counter | None = None) -> Cost:
        size = self.kernel_size(site.channels)
        return Cost(size, size * site.channels)


class CBAM(Attention):
    """Convolutional block attention (Woo et al., arXiv 1807.06521): channel weights, then a spatial map."""

    kind: Literal["cbam"] = "cbam"
    ratio: Ratio = 16
    size: Literal[3, 5, 7] = 7
    """Side of the spatial convolution."""

    def squeezed(self, channels: int) -> int:
        return squeeze(channels, self.ratio)

    def effective(self, channels: int) -> dict[str, Any]:
        return {"squeezed": self.squeezed(channels), "size": self.size}

    def cost(self, site: Site, counter: Counter | None = None) -> Cost:
        mlp = pair(site.channels, self.squeezed(site.channels))
        return Cost(mlp.params, 2 * mlp.macs) + conv(2, 1, self.size, site.height, site.width) + norm(1)


class BAM(Attention):
    """Bottleneck attention module (Park et al., arXiv 1807.06514) behind a stage: one map from a channel gate and a spatial
    gate of two dilated 3x3 convolutions, added. The norms stand as in the official code (25.915 M at ResNet-50)."""

    kind: Literal["bam"] = "bam"
    ratio: Ratio = 16
    dilation: Annotated[int, Field(ge=1)] = 4
    """On a map of no more than so many rows and columns the dilated convolutions see their own position alone."""

    @property
    def where(self) -> Place:
        return "stage"

    def squeezed(self, channels: int) -> int:
        return squeeze(channels, self.ratio)

    def effective(self, channels: int) -> dict[str, Any]:
        return {"squeezed": self.squeezed(channels), "dilation": self.dilation}

    def cost(self, site: Site, counter: Counter | None = None) -> Cost:
        channels, height, width = site.channels, site.height, site.width
        squeezed = self.squeezed(channels)
        spatial = conv(channels, squeezed, 1, height, width, bias=True) + norm(squeezed).times(3)
        spatial += conv(squeezed, squeezed, 3, height, width, bias=True).times(2)
        return pair(channels, squeezed) + norm(squeezed) + spatial + conv(squeezed, 1, 1, height, width, bias=True)


class GlobalContext(Attention):
    """Global context (Cao et al., arXiv 1904.11492, section 4): one map for all positions, then a bottleneck whose output is
    added to every position (the paper's choice) or scales it."""

    kind: Literal["gc"] = "gc"
    ratio: Ratio = 16
    fuse: Literal["add", "scale"] = "add"

    def squeezed(self, channels: int) -> int:
        return squeeze(channels, self.ratio)

    def check(self, channels: int) -> None:
        if self.squeezed(channels) == 1:
            most = channels // 2
            raise ConfigError(
                f"GlobalContext.ratio = {self.ratio}: leaves 1 of {channels} channels, of which a layer norm keeps nothing;"
                + (f" use {most} or less" if most else " use a wider network")
            )

    def effective(self, channels: int) -> dict[str, Any]:
        return {"squeezed": self.squeezed(channels), "fuse": self.fuse}

    def cost(self, site: Site, counter: Counter | None = None) -> Cost:
        squeezed = self.squeezed(site.channels)
        weights = conv(site.channels, 1, 1, site.height, site.width, bias=True)
        pooled = Cost(0, site.channels * site.height * site.width)
        return weights + pooled + pair(site.channels, squeezed) + norm(squeezed)


class GatherExcite(Attention):
    """Gather-excite (Hu et al., arXiv 1810.12348): channel weights from a neighbourhood, pooled or convolved.

    Without `ratio` the gathered values are the gate (the paper's theta- with `gather="pool"`, theta with "conv"); with it
    they pass a bottleneck as in SE (theta+).
    """

    kind: Literal["ge"] = "ge"
    gather: Literal["pool", "conv"] = "conv"
    extent: Literal[2, 4, 8] | None = None
    """Side of what is gathered, in positions; None gathers the whole map."""
    ratio: Ratio | None = 16

    def squeezed(self, channels: int) -> int | None:
        return None if self.ratio is None else squeeze(channels, self.ratio)

    def check(self, channels: int) -> None:
        if self.gather == "pool" and self.extent is None and self.ratio is not None:
            raise ConfigError(
                "GatherExcite(gather='pool', extent=None) with a ratio is squeeze-and-excitation: use SqueezeExcite, an"
                " extent, or ratio=None"
            )

    def effective(self, channels: int) -> dict[str, Any]:
        return {"gather": self.gather, "extent": self.extent, "squeezed": self.squeezed(channels)}

    def cost(self, site: Site, counter: Counter | None = None) -> Cost:
        channels, (height, width), total = site.channels, (site.height, site.width), Cost(0, 0)
        if self.extent is None:
            window, height, width = height * width, 1, 1
            gathered = Cost(channels * window, channels * window) + norm(channels)
            total += gathered if self.gather == "conv" else Cost(0, 0)
        else:
            for _ in range(self.extent.bit_length() - 1):  # each 3x3 convolution of a channel by itself halves the map
                height, width = half(height), half(width)
                gathered = Cost(9 * channels, 9 * channels * height * width) + norm(channels)
                total += gathered if self.gather == "conv" else Cost(0, 0)
        squeezed = self.squeezed(channels)
        return total if squeezed is None else total + pair(channels, squeezed, height, width)


class CoordinateAttention(Attention):
    """Coordinate attention (Hou et al., arXiv 2103.02907): a gate for each row and one for each column, from a bottleneck of
    at least 8 channels. With biases, as in the official code (27.475 M at ResNet-50)."""

    kind: Literal["coord"] = "coord"
    ratio: Ratio = 32

    def squeezed(self, channels: int) -> int:
        return squeeze(channels, self.ratio, least=8)

    def effective(self, channels: int) -> dict[str, Any]:
        return {"squeezed": self.squeezed(channels)}

    def cost(self, site: Site, counter: Counter | None = None) -> Cost:
        channels, squeezed = site.channels, self.squeezed(site.channels)
        into = conv(channels, squeezed, 1, site.height + site.width, 1, bias=True) + norm(squeezed)
        rows = conv(squeezed, channels, 1, site.height, 1, bias=True)
        return into + rows + conv(squeezed, channels, 1, site.width, 1, bias=True)


class SimAM(Attention):
    """Parameter-free attention (Yang et al., ICML 2021, equation 5): a position weighs the more, the further it is from its
    channel's mean."""

    kind: Literal["simam"] = "simam"
    damping: Annotated[float, Field(gt=0)] = 1e-4
    """The paper's lambda, added to the variance."""

    def cost(self, site: Site, counter: Counter | None = None) -> Cost:
        return Cost(0, 0)


class TripletAttention(Attention):
    """Triplet attention (Misra et al., arXiv 2010.03045): three gates, each a convolution over two of channels, rows and
    columns with the third pooled; their mean."""

    kind: Literal["triplet"] = "triplet"
    size: Literal[3, 5, 7] = 7
    """Side of the three convolutions."""

    def cost(self, site: Site, counter: Counter | None = None) -> Cost:
        channels, height, width = site.channels, site.height, site.width
        planes = ((channels, width), (channels, height), (height, width))
        return sum((conv(2, 1, self.size, *plane) + norm(1) for plane in planes), Cost(0, 0))


Gate = (
    SqueezeExcite
    | EffectiveSE
    | ECA
    | CBAM
    | BAM
    | GlobalContext
    | GatherExcite
    | CoordinateAttention
    | SimAM
    | TripletAttention
)
"""Every kind that weighs by a gate."""
