"""GSA: global self-attention in place of convolutions."""

from typing import Annotated, Any, Literal, Self

from pydantic import Field, model_validator

from harness.cost import Cost, Counter, conv, norm
from harness.errors import ConfigError
from harness.parts.attention import Attention, Place, Site


class GSA(Attention):
    """Global self-attention (Shen et al., arXiv 2010.03019, section 3) in place of a 3x3 convolution: the sum of a content
    branch, linear in the positions, and a positional branch along columns and then rows, from one set of 1x1 queries, keys
    and values.

    Where the convolution has a stride of two, a 2x2 average pooling follows. The positional branch has no use for keys of
    the content: alone it has none.
    """

    kind: Literal["gsa"] = "gsa"
    heads: Annotated[int, Field(ge=1)] = 8
    content: bool = True
    """The branch Q (softmax over positions of K)^T V."""
    position: bool = True
    """The branch of learned relative keys, without softmax."""
    softmax_query: bool = False
    """Also normalise the queries of the content branch, over the channels of a head."""
    norm: bool = True
    """A batch norm between columns and rows."""

    @model_validator(mode="after")
    def _has_a_branch(self) -> Self:
        if not (self.content or self.position):
            raise ConfigError("GSA.content = GSA.position = False: no branch is left; keep one, or leave the slot empty")
        return self

    @property
    def where(self) -> Place:
        return "conv"

    def projections(self) -> int:
        """Queries and values, and the keys of the content branch."""
        return 3 if self.content else 2

    def check(self, channels: int) -> None:
        if channels % self.heads:
            fit = [count for count in range(1, channels + 1) if channels % count == 0]
            raise ConfigError(f"GSA.heads = {self.heads}: must divide the {channels} channels; use one of {fit}")

    def effective(self, channels: int) -> dict[str, Any]:
        found: dict[str, Any] = {"heads": self.heads, "content": self.content, "position": self.position}
        if self.content:
            found["softmax_query"] = self.softmax_query
        if self.position:
            found["norm"] = self.norm
        return found

    def cost(self, site: Site, counter: Counter | None = None) -> Cost:
        """1x1 queries, keys and values without biases and both branches, all on the grid before the pooling."""
        channels, (height, width) = site.channels, (site.height, site.width)
        a_head, positions = channels // self.heads, height * width
        total = conv(site.inputs, self.projections() * channels, 1, height, width)
        if self.content:
            total += Cost(0, 2 * positions * channels * a_head)
        if self.position:
            tables = 2 * (2 * max(height, width) - 1) * a_head
            products = min(a_head, 2)  # of one channel a head the weights are no product
            total += Cost(tables, products * positions * (height + width) * channels)
            total += norm(channels) if self.norm else Cost(0, 0)
        return total
