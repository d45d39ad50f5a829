"""LTPA: attention over local features of chosen stages, as the head of any trunk."""

from collections.abc import Sequence
from typing import Annotated, Any, Literal, Self

from pydantic import Field, model_validator

from harness.cost import Cost, conv, linear, norm
from harness.errors import ConfigError
from harness.parts.attention import Site
from harness.parts.part import Part


class LTPA(Part):
    """Learn to pay attention (Jetley et al., arXiv 1804.02391): only attended sums of local features are classified.

    Local features l_i are the outputs of the stages in `taps`; the global feature g is a linear map of the pooled end of
    the trunk, as wide as that end: 512 in VGG, 256 in ResNet-164 (as in the official code). Scores are softmaxed over
    positions; each level's sum of a_i l_i goes through BN, ReLU and dropout to the classifier.

    "pc" scores <u, l_i + g>, as published. Softmax cancels <u, g>, so that pc looks at local features alone: g changes no
    logit, and what only g depends on (a quarter of the paper's VGG, the end of any trunk behind its last tap) gets no
    gradient and never learns. Nor does the bias of u, kept for the published counts. "dp", <l_i, g>, uses g.
    """

    kind: Literal["ltpa"] = "ltpa"
    label: str | None = None
    taps: tuple[int, ...]
    """Numbers of stages, as the trunk names them."""
    score: Literal["pc", "dp"] = "pc"
    combine: Literal["concat", "indep"] = "concat"
    """concat: one linear map of all levels; indep: one a level, their predictions combined."""
    average: Literal["log", "probability"] = "log"
    """What indep combines: log-probabilities, added (official code), or probabilities, averaged."""
    projection: Literal["g", "l"] = "g"
    """Where widths differ: g is mapped down to the level's, or the level's features up to that of g by a 1x1."""
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.5
    """Before every linear map of the head (official code: 0.5; on ResNet 0.3 before the classifier)."""

    @model_validator(mode="after")
    def _has_levels(self) -> Self:
        if not self.taps:
            raise ConfigError("LTPA.taps = (): nothing would be classified; name one stage or more, as in taps=(3, 4)")
        if len(set(self.taps)) < len(self.taps):
            raise ConfigError(f"LTPA.taps = {self.taps}: a stage is one level; name each once")
        return self

    @property
    def levels(self) -> tuple[int, ...]:
        """The tapped stages in order: their order in `taps` changes nothing."""
        return tuple(sorted(self.taps))

    @property
    def independent(self) -> bool:
        """Whether levels are classified on their own; a single one is its own concatenation."""
        return self.combine == "indep" and len(self.taps) > 1

    def check(self, stages: int) -> None:
        """Raise ConfigError unless every tap is one of so many stages."""
        for tap in self.taps:
            if not 1 <= tap <= stages:
                raise ConfigError(f"LTPA.taps = {self.taps}: there is no stage {tap}; use numbers from 1 to {stages}")

    def effective(self, widths: Sequence[int], trunk: int) -> dict[str, Any]:
        """What makes the head what it is on stages of such channels and a trunk that ends in so many."""
        found: dict[str, Any] = {"taps": self.levels, "score": self.score, "dropout": self.dropout}
        if any(width != trunk for width in widths):
            found["projection"] = self.projection
        return found | {"combine": self.average if self.independent else "concat"}

    def cost(self, taps: Sequence[Site], trunk: int, classes: int) -> Cost:
        """Of g, of the scores and sums of each level, and of the classifier; `taps` are the sites of `levels`."""
        total, joined = linear(trunk, trunk), 0
        for site in taps:
            level, channels = self.level_cost(site, trunk)
            total += level
            joined += channels
            if self.independent:
                total += linear(channels, classes)
        return total if self.independent else total + linear(joined, classes)

    def level_cost(self, site: Site, trunk: int) -> tuple[Cost, int]:
        """The cost of one level without its classifier, and the channels that it gives."""
        total, channels, (height, width) = Cost(0, 0), site.channels, site.grid
        if channels != trunk:
            total += norm(trunk)
            if self.projection == "g":
                total += linear(trunk, channels)
            else:
                total += conv(channels, trunk, 1, height, width, bias=True)
                channels = trunk
        products = height * width * channels
        scores = Cost(channels + 1, products + channels) if self.score == "pc" else Cost(0, products)
        return total + scores + Cost(0, products) + norm(channels), channels
