"""Residual networks."""

from collections.abc import Iterator
from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import Field, model_validator

from harness.cost import Cost, Counter, Shape, conv, half, norm
from harness.errors import ConfigError
from harness.parts.attention import Site
from harness.parts.trunk import Deep, Grid, Trunk, sized

CIFAR_DEPTHS = tuple(depth for depth in range(8, 111, 6) if depth != 50)
"""6n + 2 layers, three stages (He et al., section 4.2); 50 is the ImageNet depth."""
IMAGENET_BLOCKS = {18: (2, 2, 2, 2), 34: (3, 4, 6, 3), 50: (3, 4, 6, 3), 101: (3, 4, 23, 3), 152: (3, 8, 36, 3)}
SHALLOW = (2, 3, 5, 2)
"""The bottlenecks of depth 38 with `stem="imagenet"` (GSA, arXiv 2010.03019); without, 38 is a CIFAR depth."""


class Residual(Trunk, Deep):
    """What residual networks share: stages of blocks, the first of each stage but stage 1 with a stride of two.

    A block is basic (two 3x3 convolutions) or a bottleneck (1x1, 3x3, 1x1), its stride on the first 3x3.
    """

    preactivated: ClassVar[bool] = False
    """Norm and ReLU stand before each convolution of a block, and behind the last block (He et al., arXiv 1603.05027)."""

    @property
    def bottleneck(self) -> bool:
        raise NotImplementedError

    @property
    def blocks(self) -> tuple[int, ...]:
        """Blocks of each stage."""
        raise NotImplementedError

    @property
    def widths(self) -> tuple[int, ...]:
        """Channels of the 3x3 convolutions of each stage."""
        raise NotImplementedError

    @property
    def projects(self) -> bool:
        """Whether a shortcut that changes its shape is a 1x1 convolution; else it has no parameters."""
        return True

    @property
    def outputs(self) -> tuple[int, ...]:
        return tuple(4 * width for width in self.widths) if self.bottleneck else self.widths

    @property
    def stem_width(self) -> int:
        """Channels that the stem gives."""
        return self.widths[0]

    @property
    def small_stem(self) -> bool:
        """A 3x3 stem without pooling."""
        return True

    def slot_channels(self, stage: int) -> int:
        attention = self.stages[stage - 1]
        inner = attention is not None and attention.where == "conv"
        return (self.widths if inner else self.outputs)[stage - 1]

    def chain(self, stage: int, inputs: int) -> tuple[int, ...]:
        """Channels along a block's residual branch, from what enters to what leaves."""
        width, outputs = self.widths[stage - 1], self.outputs[stage - 1]
        return (inputs, width, width, outputs) if self.bottleneck else (inputs, width, outputs)

    def site(self, stage: int, grid: Grid, stride: int) -> Site:
        """Where the first 3x3 convolution of a block stands that `grid` enters."""
        width = self.widths[stage - 1]
        return Site(width if self.bottleneck else grid.channels, width, grid.height, grid.width, stride)

    def pieces(self, shape: Shape, counter: Counter | None = None) -> Iterator[tuple[str, Cost, Grid]]:
        height, width, channels = shape.height, shape.width, self.stem_width
        if not self.small_stem:
            height, width = half(height), half(width)
        stem = conv(shape.channels, channels, 3 if self.small_stem else 7, height, width)
        if not self.preactivated:
            stem += norm(channels)
        if not self.small_stem:
            height, width = half(height), half(width)
        grid = Grid(channels, height, width)
        yield "stem", stem, grid
        for stage, blocks in enumerate(self.blocks, start=1):
            first, grid = self._block(stage, grid, 2 if stage > 1 else 1, counter)
            rest = self._block(stage, grid, 1, counter)[0].times(blocks - 1) if blocks > 1 else Cost(0, 0)
            yield f"stage {stage}", first + rest + self.behind(stage, "stage", grid, counter), grid
        if self.preactivated:
            yield "end", norm(grid.channels), grid

    def _block(self, stage: int, grid: Grid, stride: int, counter: Counter | None) -> tuple[Cost, Grid]:
        """The cost of a block on a grid, and what leaves it."""
        chain, site = self.chain(stage, grid.channels), self.site(stage, grid, stride)
        total, leaves = self.three(stage, site, counter), Grid(chain[-1], *site.grid)
        total += conv(chain[-2], chain[-1], 1 if self.bottleneck else 3, *site.grid)
        if self.bottleneck:
            total += conv(chain[0], chain[1], 1, grid.height, grid.width)
        for channels in chain[:-1] if self.preactivated else chain[1:]:
            total += norm(channels)
        if self.projects and (stride == 2 or grid.channels != leaves.channels):
            total += conv(grid.channels, leaves.channels, 1, *site.grid)
            total += Cost(0, 0) if self.preactivated else norm(leaves.channels)
        total += self.behind(stage, "branch", leaves, counter) + self.behind(stage, "block", leaves, counter)
        return total, leaves


class ResNet(Residual):
    """Residual networks (He et al., arXiv 1512.03385): depths 18 to 152 as in torchvision (v1.5: stride on the 3x3), and
    the CIFAR depths 8 to 110 with three stages of 16, 32 and 64 channels and shortcuts without parameters.

    `stages` holds one attention slot per stage. `stem="cifar"` gives any depth a 3x3 stem without pooling for small
    pictures; None takes the family's own. `width` multiplies every channel count.
    """

    kind: Literal["resnet"] = "resnet"
    depth: int = 20
    stem: Literal["imagenet", "cifar"] | None = None
    width: Annotated[float, Field(gt=0, le=16)] = 1.0

    @model_validator(mode="before")
    @classmethod
    def _all_stages(cls, data: Any) -> Any:
        if not isinstance(data, dict) or type(depth := data.get("depth", 20)) is not int:
            return data
        allowed = sorted({*CIFAR_DEPTHS, *IMAGENET_BLOCKS})
        if depth not in allowed:
            raise ValueError(f"ResNet.depth = {depth!r}: use one of {', '.join(map(str, allowed))}")
        four = depth in IMAGENET_BLOCKS or (depth == 38 and data.get("stem") == "imagenet")
        return sized(data, 4 if four else 3, "ResNet", f"depth {depth}")

    @model_validator(mode="after")
    def _stem_fits(self) -> Self:
        if not self.imagenet and self.stem == "imagenet":
            raise ConfigError(f"ResNet.stem = 'imagenet': depth {self.depth} is a CIFAR depth; use 18, 34, 38, 50, 101, 152")
        return self

    @property
    def imagenet(self) -> bool:
        """Whether the depth is one of the four-stage family."""
        return self.depth in IMAGENET_BLOCKS or (self.depth == 38 and self.stem == "imagenet")

    @property
    def bottleneck(self) -> bool:
        return self.imagenet and self.depth >= 38

    @property
    def blocks(self) -> tuple[int, ...]:
        return IMAGENET_BLOCKS.get(self.depth, SHALLOW) if self.imagenet else ((self.depth - 2) // 6,) * 3

    @property
    def widths(self) -> tuple[int, ...]:
        base = (64, 128, 256, 512) if self.imagenet else (16, 32, 64)
        return tuple(max(1, round(self.width * channels)) for channels in base)

    @property
    def projects(self) -> bool:
        return self.imagenet

    @property
    def small_stem(self) -> bool:
        return self.stem == "cifar" or not self.imagenet

    def structure(self) -> dict[str, Any]:
        return {
            "bottleneck": self.bottleneck,
            "blocks": self.blocks,
            "widths": self.widths,
            "small_stem": self.small_stem,
            "shortcut": "projection" if self.imagenet else "padding",
        }
