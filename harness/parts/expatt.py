"""ExpAtt: explicitly modelled attention maps."""

import re
from typing import Annotated, Any, ClassVar, Literal, Self, get_args

from pydantic import Field, model_validator

from harness.code import load
from harness.cost import Cost, Counter, conv, half
from harness.errors import ConfigError, hint
from harness.parts.attention import Attention, Place, Site
from harness.parts.part import is_target

Kernel = Literal["gaussian", "laplacian", "laplacian_l2", "cauchy", "linear", "uniform"]
DENSE = 100
"""Positions of a grid up to which the dense map is the faster one, as measured."""
FACTORISE: tuple[Kernel, ...] = ("gaussian", "laplacian")
"""Kernels of ours that are a function of rows times one of columns: exp of a squared L2, and of an L1 distance."""


class ExpAtt(Attention):
    """Explicitly modelled attention maps (arXiv 2006.07872): weights are a kernel of distance with a learnable radius.

    Augments the 3x3 convolution of a bottleneck (the first 3x3 of a basic block) as AA does: a share of its output channels
    comes from `A V`, where V is a 1x1 projection of the input and row i of a head's map A is k(|p_i - p_j| / radius)
    normalised to one. The defaults are the reading that gives the published counts (24,650,165 parameters at depth 50);
    the other reading is `heads=1, multiple=1, largest=14`. With one radius a layer all heads share one map, so `heads`
    matters only with `radius_per="head"`.
    """

    code: ClassVar[tuple[str, ...]] = ("kernel",)
    kind: Literal["expatt"] = "expatt"
    kernel: Kernel | str = "gaussian"
    """How weight falls with distance: gaussian exp(-d^2 / 2r^2), laplacian exp(-d / r) in L1 or in L2, cauchy
    1 / (1 + d^2 / r^2), linear max(0, 1 - d / r), uniform (all alike, no radius), or a function of your own by
    `package.module:function`, (rows, columns, radius) to weights, as in `harness/networks/attention/kernels.py`."""
    radius: Annotated[float, Field(gt=0)] = 2.0
    """Initial radius."""
    radius_per: Literal["layer", "head"] = "layer"
    unit: Literal["positions", "share"] = "positions"
    """Of radii: positions of the attended grid, or a share of its longer side."""
    learned: bool = True
    """Whether radii are learned; else all stay at `radius`, so that heads share one."""
    parametrisation: Literal["exp", "softplus"] = "exp"
    """What keeps a learned radius positive."""
    heads: Annotated[int, Field(ge=1)] = 8
    share: Annotated[float, Field(gt=0, lt=1)] = 0.1
    """Share of the convolution's output channels, floored to a multiple of `multiple`, at least that."""
    multiple: Annotated[int, Field(ge=1)] = 8
    projection: bool = True
    """A 1x1 convolution of what was attended, before it is concatenated."""
    largest: Annotated[int, Field(ge=1)] | None = None
    """Longest side of a grid that is attended in full; a larger one is attended at half its size, as in AA (average-pooled
    before, upsampled after)."""

    @model_validator(mode="after")
    def _knows_its_kernel(self) -> Self:
        names = get_args(Kernel)
        if self.kernel in names or re.fullmatch(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*:[A-Za-z_]\w*", self.kernel):
            return self
        raise ConfigError(
            f"ExpAtt.kernel = {self.kernel!r}: input should be {', '.join(map(repr, names))}, or a function of your own as"
            f" 'package.module:function'{hint(self.kernel, names)}"
        )

    @property
    def where(self) -> Place:
        return "conv"

    def values(self, channels: int) -> int:
        """dv: the channels that attention gives, of `channels` output channels of the 3x3."""
        return max(self.multiple, int(self.share * channels + 1e-9) // self.multiple * self.multiple)

    def pools(self, height: int, width: int) -> bool:
        """Whether attention on a grid works at half its side."""
        return self.largest is not None and max(height, width) > self.largest

    def separable(self) -> bool:
        """Whether the kernel is a function of rows times one of columns; asks the function where it is the user's."""
        if is_target(self.kernel):
            return getattr(load(self.kernel), "factorises", False) is True
        return self.kernel in FACTORISE

    def factorises(self, height: int, width: int) -> bool:
        """Whether the map of a grid is applied as one over rows times one over columns, which is exact where the kernel is
        separable; on small grids one dense product is faster."""
        return height * width > DENSE and self.separable()

    def products(self, height: int, width: int) -> int:
        """MACs of the map for one channel: a sum over all positions, or over rows and then columns; the uniform map is a
        mean, which multiplies nothing."""
        if self.kernel == "uniform":
            return 0
        return height * width * (height + width if self.factorises(height, width) else height * width)

    def radii(self) -> int:
        """Radii of a layer that may differ."""
        return 0 if self.kernel == "uniform" else self.heads if self.radius_per == "head" and self.learned else 1

    def check(self, channels: int) -> None:
        dv = self.values(channels)
        if self.kernel == "linear" and self.unit == "positions" and self.radius <= 1:
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
        if self.radii():
            found |= {"radius": self.radius, "radii": self.radii()}
            # Fields that came later are named where they are not what all was before them, so that old keys stay.
            found |= {} if self.unit == "positions" else {"unit": self.unit}
            if not self.learned:
                found["learned"] = False
            elif self.parametrisation != "exp":
                found["parametrisation"] = self.parametrisation
        found |= {} if self.projection else {"projection": False}
        return found | ({} if self.largest is None else {"largest": self.largest})

    def cost(self, site: Site, counter: Counter | None = None) -> Cost:
        """3x3 for the rest, 1x1 values and 1x1 output projection, both without bias; the map times the values. Raises
        ConfigError for a kernel of the user's without a counter: only its code says whether it factorises."""
        if counter is None and is_target(self.kernel):
            raise ConfigError(f"ExpAtt.kernel = {self.kernel!r}: no closed form of its cost is known here")
        values, (height, width) = self.values(site.channels), site.grid
        total = conv(site.inputs, site.channels - values, 3, height, width)
        if self.pools(height, width):
            height, width = half(height), half(width)
        total += conv(site.inputs, values, 1, height, width)
        if self.projection:
            total += conv(values, values, 1, height, width)
        return total + Cost(self.radii() if self.learned else 0, self.products(height, width) * values)
