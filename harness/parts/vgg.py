"""VGG: the trunk of LTPA, and its plain twin."""

from collections.abc import Iterator
from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from harness.cost import Cost, Counter, Shape, conv, half, linear, norm
from harness.parts.attention import Attention, Place, Site
from harness.parts.trunk import Grid, Trunk, sized

CONVOLUTIONS = (2, 2, 3, 3, 3)
"""Of each stage."""
POOLED = {"plain": (2, 3, 4, 5), "attention": (4, 5)}
"""Stages that begin with 2x2 pooling, which rounds up, so that pictures of any size do."""
TAIL = {"plain": 0, "attention": 2}
"""Convolutions behind the last stage, each behind a pooling."""


class VGG(Trunk):
    """VGG-16 for small pictures, with norms and dropout (the baseline of LTPA, arXiv 1804.02391), and LTPA's own trunk.

    "plain": stages of 64, 128, 256, 512 and 512 channels, a pooling behind each, and a head of two linear maps.
    "attention": the same stages, pooled only from the third on, so that taps are larger maps, then two convolutions more.

    What attention gains over "plain" is confounded with resolution: the attention trunk costs twelve times as much (3.79
    against 0.31 GMAC at 32x32). Its fair control is the same trunk without attention, `VGG(trunk="attention")`, which the
    official log gives 95.46 % on CIFAR-10, against 95.26 % (pc) and 94.90 % (dp).

    A module in place of a convolution takes the last 3x3 of its stage; all others stand behind the stage's last ReLU.
    `width` multiplies every channel count.
    """

    kind: Literal["vgg"] = "vgg"
    trunk: Literal["plain", "attention"] = "plain"
    width: Annotated[float, Field(gt=0, le=16)] = 1.0
    dropout: Annotated[float, Field(ge=0, le=1)] = 1.0
    """Times the published rates: 0.3 behind the first convolution, 0.4 behind all others but a stage's last, 0.5 before
    linear maps. Narrow networks and short trainings want less."""

    @model_validator(mode="before")
    @classmethod
    def _all_stages(cls, data: Any) -> Any:
        return sized(data, len(CONVOLUTIONS), "VGG", "each trunk") if isinstance(data, dict) else data

    @property
    def outputs(self) -> tuple[int, ...]:
        return tuple(max(1, round(self.width * channels)) for channels in (64, 128, 256, 512, 512))

    @property
    def tail(self) -> int:
        """Convolutions behind the last stage, each behind a pooling."""
        return TAIL[self.trunk]

    def pools(self, stage: int) -> bool:
        """Whether a stage begins with a pooling."""
        return stage in POOLED[self.trunk]

    def standing(self, slot: Attention) -> Place:
        return "conv" if slot.where == "conv" else "stage"

    def slot_channels(self, stage: int) -> int:
        return self.outputs[stage - 1]

    def structure(self) -> dict[str, Any]:
        return {"trunk": self.trunk, "widths": self.outputs, "dropout": self.dropout}

    def pieces(self, shape: Shape, counter: Counter | None = None) -> Iterator[tuple[str, Cost, Grid]]:
        grid = Grid(*shape[:3])
        for stage, channels in enumerate(self.outputs, start=1):
            sides = (half(grid.height), half(grid.width)) if self.pools(stage) else grid[1:]
            total = conv(grid.channels, channels, 3, *sides, bias=True) + norm(channels)
            grid = Grid(channels, *sides)
            total += self._unit(grid).times(CONVOLUTIONS[stage - 1] - 2)
            total += self.three(stage, Site(channels, *grid), counter, bias=True) + norm(channels)
            yield f"stage {stage}", total + self.behind(stage, "stage", grid, counter), grid
        total = Cost(0, 0)
        for _ in range(self.tail):
            grid = Grid(grid.channels, half(grid.height), half(grid.width))
            total += self._unit(grid)
        yield "end", total, Grid(grid.channels, half(grid.height), half(grid.width))

    def _unit(self, grid: Grid) -> Cost:
        """A convolution that keeps its channels, and its norm."""
        return conv(grid.channels, grid.channels, 3, *grid[1:], bias=True) + norm(grid.channels)

    def classifier(self, classes: int) -> Cost:
        return linear(self.outputs[-1], self.outputs[-1]) + norm(self.outputs[-1]) + linear(self.outputs[-1], classes)
