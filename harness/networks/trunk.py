"""What the networks of all trunks share: a stem, stages, what ends the trunk, and a head over it."""

from collections.abc import Iterable

from torch import Tensor, nn

from harness.config import Trunk
from harness.cost import Cost, Shape
from harness.networks.attention.ltpa import AttendedHead
from harness.networks.layout import ordered
from harness.parts.trunk import Grid


class TrunkNetwork(nn.Module):
    """(batch, channels, height, width) to logits (batch, classes).

    Layers have the same paths whatever stands between them, so that initial weights can be paired across arms.
    """

    def __init__(
        self,
        network: Trunk,
        classes: int,
        stem: nn.Module,
        stages: Iterable[nn.Module],
        end: nn.Module | None = None,
        classifier: nn.Module | None = None,
    ) -> None:
        """`end` stands between the last stage and the pooling; `classifier` is the trunk's own head, else one linear map."""
        super().__init__()
        self.stem = stem
        self.stages = nn.ModuleDict({str(number): stage for number, stage in enumerate(stages, start=1)})
        self.end = end or nn.Identity()
        self.head: nn.Module
        if network.head is not None:
            self.head = AttendedHead(network.head, network.outputs, classes)
        else:
            self.head = classifier or nn.Linear(network.outputs[-1], classes)

    def outputs(self, x: Tensor) -> list[Tensor]:
        """What leaves each stage, (batch, channels, height, width)."""
        x, found = self.stem(x), []
        for stage in self.stages.values():
            x = stage(x)
            found.append(x)
        return found

    def features(self, x: Tensor) -> Tensor:
        """The trunk's end before it is pooled, (batch, channels, height, width)."""
        found: Tensor = self.end(self.outputs(x)[-1])
        return found

    def forward(self, x: Tensor) -> Tensor:
        outputs = self.outputs(x)
        pooled = ordered(self.end(outputs[-1])).mean((2, 3))
        logits: Tensor = self.head(outputs, pooled) if isinstance(self.head, AttendedHead) else self.head(pooled)
        return logits

    def maps(self, x: Tensor) -> dict[int, Tensor]:
        """Where the head looks: for each tapped stage, (batch, height, width) that sums to one; none without such a head."""
        if not isinstance(self.head, AttendedHead):
            return {}
        outputs = self.outputs(x)
        return self.head.maps(outputs, self.end(outputs[-1]).mean((2, 3)))


def grids(network: Trunk, shape: Shape) -> dict[str, Grid]:
    """What leaves the stem, each stage and the end, by the names of `pieces`; modules of the user's are not counted."""
    return {name: grid for name, _, grid in network.pieces(shape, lambda *_: Cost(0, 0))}
