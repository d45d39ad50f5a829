"""What every attention kind answers about itself, and where it may stand."""

from typing import Any, Literal, NamedTuple

from harness.cost import Cost, Counter, half
from harness.parts.part import Part

Place = Literal["conv", "branch", "block", "stage"]
"""conv: in place of a block's 3x3 convolution; branch: on the residual branch before the addition; block: after the
addition; stage: after the last block of the stage."""


class Site(NamedTuple):
    """Where a module stands: the channels it takes and gives, the grid it reads, and the stride it must have.

    Behind convolutions a module keeps its channels and its stride is one.
    """

    inputs: int
    channels: int
    height: int
    width: int
    stride: int = 1

    @property
    def grid(self) -> tuple[int, int]:
        """Height and width of what leaves."""
        return (half(self.height), half(self.width)) if self.stride == 2 else (self.height, self.width)


class Attention(Part):
    """What every attention kind answers about itself at a slot of `channels` channels."""

    label: str | None = None

    @property
    def where(self) -> Place:
        """Where in the stage the module goes."""
        return "branch"

    def check(self, channels: int) -> None:
        """Raise ConfigError when the module cannot be built at this width."""

    def effective(self, channels: int) -> dict[str, Any]:
        """What makes the module what it is at this width: equal networks have equal values here."""
        return {name: value for name, value in self.model_dump().items() if name not in ("kind", "label")}

    def cost(self, site: Site, counter: Counter | None = None) -> Cost:
        """Params and MACs at a site, in closed form; `counter` counts modules of the user's, which have none here."""
        raise NotImplementedError(f"{type(self).__name__} does not say its cost")
