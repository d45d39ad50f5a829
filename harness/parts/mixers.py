"""Modules that let positions look at each other by their content: behind a block, or in place of its 3x3 convolution.

In place of a convolution a stride of two is an average pooling after the attention, as in the papers.
"""

from typing import Annotated, Any, Literal

from pydantic import Field

from harness.cost import Cost, Counter, conv, norm
from harness.errors import ConfigError
from harness.parts.attention import Attention, Place, Site
from harness.parts.gates import Ratio, squeeze

Heads = Annotated[int, Field(ge=1)]


class NonLocal(Attention):
    """Non-local block (Wang et al., arXiv 1711.07971, section 3.2, embedded gaussian) behind each block of a stage: softmax
    over all positions in a bottleneck, a norm that starts at zero, added."""

    kind: Literal["nl"] = "nl"
    ratio: Ratio = 2

    @property
    def where(self) -> Place:
        return "block"

    def squeezed(self, channels: int) -> int:
        return squeeze(channels, self.ratio)

    def effective(self, channels: int) -> dict[str, Any]:
        return {"squeezed": self.squeezed(channels)}

    def cost(self, site: Site, counter: Counter | None = None) -> Cost:
        channels, height, width = site.channels, site.height, site.width
        squeezed, positions = self.squeezed(channels), site.height * site.width
        into = conv(channels, squeezed, 1, height, width, bias=True).times(3)
        back = conv(squeezed, channels, 1, height, width, bias=True) + norm(channels)
        return into + back + Cost(0, 2 * positions**2 * squeezed)


class MultiHead(Attention):
    """Attention of several heads in place of the 3x3 convolution."""

    heads: Heads

    @property
    def where(self) -> Place:
        return "conv"

    def check(self, channels: int) -> None:
        if channels % self.heads:
            fit = [heads for heads in range(1, channels + 1) if channels % heads == 0]
            raise ConfigError(
                f"{type(self).__name__}.heads = {self.heads}: must divide {channels} channels; use one of {fit}"
            )


class BottleneckAttention(MultiHead):
    """Global self-attention with relative positions in place of the 3x3 convolution (BoTNet, Srinivas et al., arXiv
    2101.11605, section 3): 20.852 M in stage 4 of ResNet-50."""

    kind: Literal["bottleneck"] = "bottleneck"
    heads: Heads = 4

    def cost(self, site: Site, counter: Counter | None = None) -> Cost:
        channels, height, width = site.channels, site.height, site.width
        positions, offsets = height * width, 2 * height - 1 + 2 * width - 1
        products = Cost(offsets * channels // self.heads, positions * channels * (2 * positions + offsets))
        return conv(site.inputs, 3 * channels, 1, height, width) + products


class Halo(MultiHead):
    """Self-attention of blocks of positions to themselves and a halo around them (Vaswani et al., arXiv 2103.12731, section
    2) in place of the 3x3 convolution. A map that `block` does not divide is padded with zeros, as the halo at its edge is,
    so the MACs are those of whole blocks."""

    kind: Literal["halo"] = "halo"
    heads: Heads = 8
    block: Annotated[int, Field(ge=1)] = 8
    halo: Annotated[int, Field(ge=1)] = 3

    def cost(self, site: Site, counter: Counter | None = None) -> Cost:
        channels, window = site.channels, self.block + 2 * self.halo
        blocks = -(-site.height // self.block) * -(-site.width // self.block)
        positions, offsets = blocks * self.block**2, 2 * (2 * window - 1)
        products = positions * channels * (2 * window**2 + offsets)
        projected = conv(site.inputs, 3 * channels, 1, positions, 1)
        return projected + Cost(offsets * channels // self.heads, products)


class StandAlone(MultiHead):
    """Stand-alone self-attention (Ramachandran et al., arXiv 1906.05909, section 3) of each position to the size x size
    around it, in place of the 3x3 convolution: 18.04 M in all stages of ResNet-50. Half of a head's keys carry a learned
    offset of rows, half one of columns."""

    kind: Literal["sasa"] = "sasa"
    heads: Heads = 8
    size: Annotated[int, Field(ge=3)] = 7

    def check(self, channels: int) -> None:
        super().check(channels)
        if self.size % 2 == 0:
            raise ConfigError(f"StandAlone.size = {self.size}: a centred window has an odd side; use {self.size + 1}")
        if channels // self.heads % 2:
            fit = [heads for heads in range(1, channels + 1) if channels % (2 * heads) == 0]
            raise ConfigError(
                f"StandAlone.heads = {self.heads}: a head of {channels // self.heads} of {channels} channels has no halves"
                f" for rows and columns; use one of {fit}"
            )

    def cost(self, site: Site, counter: Counter | None = None) -> Cost:
        channels, positions = site.channels, site.height * site.width
        products = Cost(self.size * channels, 2 * positions * self.size**2 * channels)
        return conv(site.inputs, 3 * channels, 1, site.height, site.width) + products


class LambdaLayer(MultiHead):
    """Lambda layer (Bello, arXiv 2102.08602, section 3.2, intra-depth 1) in place of the 3x3 convolution: a linear map for
    each position, of all content and of the positions within `reach`, that all heads share. 14.996 M in all stages of
    ResNet-50. On maps of less than half of `reach` the outer taps meet only the padding."""

    kind: Literal["lambda"] = "lambda"
    heads: Heads = 4
    keys: Annotated[int, Field(ge=1)] = 16
    """Channels of a query and of a key."""
    reach: Annotated[int, Field(ge=1)] = 23
    """Side of the positions around one that its lambda sees, odd."""

    def check(self, channels: int) -> None:
        super().check(channels)
        if self.reach % 2 == 0:
            raise ConfigError(
                f"LambdaLayer.reach = {self.reach}: a centred convolution has an odd side; use {self.reach + 1}"
            )

    def cost(self, site: Site, counter: Counter | None = None) -> Cost:
        queries, values, positions = self.heads * self.keys, site.channels // self.heads, site.height * site.width
        projected = conv(site.inputs, queries + self.keys + values, 1, site.height, site.width)
        near = Cost(self.keys * (self.reach**2 + 1), self.keys * values * positions * self.reach**2)
        lambdas = Cost(0, positions * self.keys * values)
        applied = Cost(0, positions * queries * values)
        return projected + norm(queries) + norm(values) + near + lambdas + applied


Mixer = NonLocal | BottleneckAttention | Halo | StandAlone | LambdaLayer
"""Every kind that lets positions look at each other by their content, adopted as published."""
