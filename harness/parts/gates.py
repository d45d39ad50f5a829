"""Modules that weigh channels or positions by a gate, behind convolutions."""

from typing import Annotated, Any, Literal

from pydantic import Field

from harness.cost import Cost, Counter, conv, norm
from harness.errors import ConfigError
from harness.parts.attention import Attention, Site


class SqueezeExcite(Attention):
    """Squeeze-and-excitation (Hu et al., arXiv 1709.01507, section 3): channel weights from a pooled bottleneck."""

    kind: Literal["se"] = "se"
    ratio: Annotated[int, Field(ge=1)] = 16

    def squeezed(self, channels: int) -> int:
        """Channels of the bottleneck: no rounding, so that every ratio is the network it says."""
        return max(1, channels // self.ratio)

    def effective(self, channels: int) -> dict[str, Any]:
        return {"squeezed": self.squeezed(channels)}

    def cost(self, site: Site, counter: Counter | None = None) -> Cost:
        squeezed = self.squeezed(site.channels)
        return conv(site.channels, squeezed, 1, 1, 1, bias=True) + conv(squeezed, site.channels, 1, 1, 1, bias=True)


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
    ratio: Annotated[int, Field(ge=1)] = 16
    size: Literal[3, 5, 7] = 7
    """Side of the spatial convolution."""

    def squeezed(self, channels: int) -> int:
        """Channels of the shared bottleneck."""
        return max(1, channels // self.ratio)

    def effective(self, channels: int) -> dict[str, Any]:
        return {"squeezed": self.squeezed(channels), "size": self.size}

    def cost(self, site: Site, counter: Counter | None = None) -> Cost:
        squeezed = self.squeezed(site.channels)
        mlp = conv(site.channels, squeezed, 1, 1, 1, bias=True) + conv(squeezed, site.channels, 1, 1, 1, bias=True)
        return Cost(mlp.params, 2 * mlp.macs) + conv(2, 1, self.size, site.height, site.width) + norm(1)
