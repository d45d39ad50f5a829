"""What every network answers about itself: its stages and their slots, its structure and its cost."""

from collections.abc import Iterator
from typing import Annotated, Any, NamedTuple, Self

from pydantic import Field, model_validator

from harness.cost import Cost, Counter, Shape, conv, linear
from harness.errors import ConfigError
from harness.parts.attention import Site
from harness.parts.custom import Custom
from harness.parts.expatt import ExpAtt
from harness.parts.gates import Gate
from harness.parts.mixers import Mixer
from harness.parts.part import Part

Slot = Annotated[Gate | Mixer | ExpAtt | Custom, Field(discriminator="kind")] | None
"""What a stage may hold."""


class Grid(NamedTuple):
    """What leaves a part of a network."""

    channels: int
    height: int
    width: int


class Trunk(Part):
    """A network as stages of convolutions with one attention slot each, and a classifying head."""

    label: str | None = None
    depth: int = 0
    stages: tuple[Slot, ...] = ()

    @model_validator(mode="after")
    def _slots_fit(self) -> Self:
        for stage, attention in enumerate(self.stages, start=1):
            if attention is not None:
                try:
                    attention.check(self.slot_channels(stage))
                except ConfigError as error:
                    raise ConfigError(f"stage {stage}: {error}") from None
        return self

    def slot_channels(self, stage: int) -> int:
        """The channels that the attention of this stage (from 1) is asked to work on."""
        raise NotImplementedError

    def structure(self) -> dict[str, Any]:
        """What the network is without its slots: equal networks have equal values here."""
        raise NotImplementedError

    def pieces(self, shape: Shape, counter: Counter | None = None) -> Iterator[tuple[str, Cost, Grid]]:
        """The cost of the stem and of each stage, in order, and what leaves it."""
        raise NotImplementedError

    def parts(self, shape: Shape, counter: Counter | None = None) -> Iterator[tuple[str, Cost]]:
        """The cost of the stem, of each stage and of the head, in order."""
        leaves = []
        for name, cost, grid in self.pieces(shape, counter):
            leaves.append(grid)
            yield name, cost
        yield "head", linear(leaves[-1].channels, shape.classes)

    def three(self, stage: int, site: Site, counter: Counter | None = None) -> Cost:
        """A 3x3 convolution, or what the slot of this stage puts in its place."""
        slot = self.stages[stage - 1]
        if slot is not None and slot.where == "conv":
            return slot.cost(site, counter)
        return conv(site.inputs, site.channels, 3, *site.grid)

    def behind(self, stage: int, place: str, grid: Grid, counter: Counter | None = None) -> Cost:
        """The slot of this stage where it stands at `place`, else nothing."""
        slot = self.stages[stage - 1]
        if slot is None or slot.where != place:
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
