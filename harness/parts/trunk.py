"""What every network answers about itself: its stages and their slots, its structure and its cost."""

from collections.abc import Iterator
from typing import Annotated, Any, NamedTuple, Self

from pydantic import Field, model_validator

from harness.cost import Cost, Counter, Shape, conv, linear
from harness.errors import ConfigError
from harness.parts.attention import Attention, Place, Site
from harness.parts.augmented import AA
from harness.parts.custom import Custom
from harness.parts.expatt import ExpAtt
from harness.parts.gates import Gate
from harness.parts.gsa import GSA
from harness.parts.ltpa import LTPA
from harness.parts.mixers import Mixer
from harness.parts.part import Part

Slot = Annotated[Gate | Mixer | ExpAtt | AA | GSA | Custom, Field(discriminator="kind")] | None
"""What a stage may hold."""


class Grid(NamedTuple):
    """What leaves a part of a network."""

    channels: int
    height: int
    width: int


class Deep(Part):
    """A network known by its depth, which stands before the stages wherever fields are listed."""

    label: str | None = None
    depth: int


class Trunk(Part):
    """A network as stages of convolutions with one attention slot each, and a classifying head."""

    label: str | None = None
    stages: tuple[Slot, ...] = ()
    head: LTPA | None = None
    """What classifies; None: the trunk's own linear map of its pooled end."""

    @model_validator(mode="after")
    def _slots_fit(self) -> Self:
        for stage, attention in enumerate(self.stages, start=1):
            if attention is not None:
                try:
                    attention.check(self.slot_channels(stage))
                except ConfigError as error:
                    raise ConfigError(f"stage {stage}: {error}") from None
        if self.head is not None:
            self.head.check(len(self.stages))
        return self

    @property
    def outputs(self) -> tuple[int, ...]:
        """Output channels of each stage; the end of the trunk is as wide as its last."""
        raise NotImplementedError

    def standing(self, slot: Attention) -> Place:
        """Where in its stage a module stands in this network."""
        return slot.where

    def slot_channels(self, stage: int) -> int:
        """The channels that the attention of this stage (from 1) is asked to work on."""
        raise NotImplementedError

    def structure(self) -> dict[str, Any]:
        """What the network is without its slots and its head: equal networks have equal values here."""
        raise NotImplementedError

    def pieces(self, shape: Shape, counter: Counter | None = None) -> Iterator[tuple[str, Cost, Grid]]:
        """The cost of the stem, of each stage and of what ends the trunk, in order, and what leaves it."""
        raise NotImplementedError

    def classifier(self, classes: int) -> Cost:
        """The cost of the trunk's own head."""
        return linear(self.outputs[-1], classes)

    def parts(self, shape: Shape, counter: Counter | None = None) -> Iterator[tuple[str, Cost]]:
        """The cost of the stem, of each stage, of what ends the trunk and of the head, in order."""
        leaves = {}
        for name, cost, grid in self.pieces(shape, counter):
            leaves[name] = grid
            yield name, cost
        if self.head is None:
            yield "head", self.classifier(shape.classes)
        else:
            taps = [leaves[f"stage {tap}"] for tap in self.head.levels]
            sites = [Site(grid.channels, *grid) for grid in taps]
            yield "head", self.head.cost(sites, self.outputs[-1], shape.classes)

    def three(self, stage: int, site: Site, counter: Counter | None = None, *, bias: bool = False) -> Cost:
        """A 3x3 convolution, or what the slot of this stage puts in its place."""
        slot = self.stages[stage - 1]
        if slot is not None and slot.where == "conv":
            return slot.cost(site, counter)
        return conv(site.inputs, site.channels, 3, *site.grid, bias=bias)

    def behind(self, stage: int, place: Place, grid: Grid, counter: Counter | None = None) -> Cost:
        """The slot of this stage where it stands at `place`, else nothing."""
        slot = self.stages[stage - 1]
        if slot is None or self.standing(slot) != place:
            return Cost(0, 0)
        return slot.cost(Site(grid.channels, *grid), counter)


def sized(data: Any, count: int, network: str, member: str) -> Any:
    """The fields of a network with one slot for each of its `count` stages; raises ValueError when they are others."""
    stages = data.get("stages", ())
    if not isinstance(stages, (tuple, list)):
        raise ValueError(f"{network}.stages = {stages!r}: give a tuple with one slot per stage, {count} at {member}")
    stages = tuple(stages) or (None,) * count
    if len(stages) != count:
        raise ValueError(f"{network}.stages has {len(stages)} slots: {member} has {count} stages, give one slot each")
    return data | {"stages": stages}
