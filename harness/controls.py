"""Controls of an ablation: what a gain has to be compared with before attention may take the credit.

ours = ResNet(depth=50, stages=(None, *[ExpAtt()] * 3))
choose(ours, matched(ResNet(depth=50), to=ours, shape=Shape(3, 224, 224, 1000), by="macs").network)
choose(ExpAtt(), uniform(like=ExpAtt()))
"""

import math
from collections.abc import Callable
from typing import Literal, NamedTuple

from harness.config import Config, ExpAtt, Network, name_of
from harness.cost import Cost, Counter, Shape, network_cost
from harness.errors import ConfigError

WIDTHS = ("width", "factor")
"""The fields by which a network of ours says how wide it is."""


def uniform(like: ExpAtt) -> ExpAtt:
    """ExpAtt without a distance: the same layers and channels, every position listening to all others alike."""
    return ExpAtt(**like.model_dump() | {"kernel": "uniform", "label": "uniform"})


class Match(NamedTuple):
    """A plain network as dear as another."""

    network: Network
    cost: Cost
    wanted: Cost
    error: float
    """Relative, of what was matched: positive where this network is the dearer one."""


def matched(
    plain: Network,
    to: Network | Config,
    shape: Shape,
    *,
    by: Literal["params", "macs"] = "params",
    within: float = 0.01,
    counter: Counter | None = None,
) -> Match:
    """The plain network at the width whose params, or MACs, come nearest to those of `to` for pictures of `shape`.

    All widths are looked at: params and MACs grow with width, so that the nearest stand on either side of where they pass
    the target. Of widths that give one network the roundest is taken. `counter` counts modules of the user's in `to`.
    Raises ConfigError where none comes within a relative error of `within`.
    """
    other = to.network if isinstance(to, Config) else to
    field = next((name for name in WIDTHS if name in type(plain).model_fields), None)
    if field is None or any(plain.stages) or plain.head is not None:
        remedy = "has no width" if field is None else "holds attention; give its plain trunk"
        raise ConfigError(f"matched: {name_of(plain)} {remedy}")
    wanted = network_cost(other, shape, counter)
    target, widest = getattr(wanted, by), next(mark.le for mark in type(plain).model_fields[field].metadata if _bounds(mark))

    def at(width: float) -> Network:
        return plain.model_copy(update={field: width, "label": f"plain, as many {'MACs' if by == 'macs' else by}"})

    def count(width: float) -> int:
        return int(getattr(network_cost(at(width), shape), by))

    around = _around(lambda width: count(width) >= target, widest)
    width = min(around, key=lambda width: abs(count(width) - target))
    found = at(_roundest(width, lambda other: at(other).structure() == at(width).structure()))
    cost = network_cost(found, shape)
    error = getattr(cost, by) / target - 1
    if abs(error) > within:
        raise ConfigError(
            f"matched: no {field} of {name_of(plain)} comes within {100 * within:g} % of {target:,} {by} at"
            f" {shape.height}x{shape.width}; the nearest, {getattr(found, field):g}, gives {getattr(cost, by):,},"
            f" {100 * error:+.3g} %: try another depth, or say within="
        )
    return Match(found, cost, wanted, error)


def _bounds(mark: object) -> bool:
    """Whether a mark of a field says its largest value."""
    return hasattr(mark, "le")


def _around(enough: Callable[[float], bool], widest: float) -> tuple[float, float]:
    """The widths on either side of where there begins to be enough; the nearest end twice where that is nowhere."""
    low, high = 0.0, widest
    while low < (middle := (low + high) / 2) < high:
        low, high = (low, middle) if enough(middle) else (middle, high)
    return (low or high, high)


def _roundest(width: float, same: Callable[[float], bool]) -> float:
    """The width of fewest decimals that gives the same network."""
    for decimals in range(17):
        unit = 10.0**-decimals
        for near in (math.floor(width / unit), math.ceil(width / unit)):
            if near > 0 and same(candidate := round(near * unit, decimals)):
                return candidate
    return width
