"""Designs: which arms an ablation compares, planned before anything is trained.

An arm is one config of the study's space; every arm is trained with every seed of the study. The first arm is the
baseline. Choices that a design does not touch stay as they are in it; inside an option that an arm switches on, choices
take their first value (a span its middle).
"""

import hashlib
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import combinations, product
from typing import Annotated, Any, Literal, Self, cast

from pydantic import Field, model_validator

from harness.config import Config, Network, Part, Scalar
from harness.errors import ConfigError, SpaceError, StudyError, hint
from harness.key import canonical
from harness.report.words import differences
from harness.space import Domain, Params, Space, Span

MOST_ARMS = 10_000
"""Arms that a design may have."""
CONTROLS = {"params": "plain, as many params", "macs": "plain, as many MACs", "uniform": "uniform attention"}
"""Controls that a design may ask for: the names of their networks in the space, which are those of their arms."""


class Design(Part):
    """What every design may say of its comparisons."""

    primary: str | None = None
    """The one arm that is to be decided, by its name in the plan: tested alone, without correction for the others."""
    margin: Annotated[float, Field(gt=0)] | None = None
    """The smallest difference that matters, in the first objective's own unit (0.005 is half a point of accuracy)."""
    controls: tuple[Literal["params", "macs", "uniform"], ...] = ()
    """Arms beside those of the design: a plain network of as many params, one of as many MACs, and uniform maps in place of
    ExpAtt's, each like the full config, else the primary arm, else the arm with the most MACs (with ExpAtt, of the maps)."""
    within: Annotated[float, Field(gt=0, lt=1)] = 0.02
    """How near a control has to come to what it is matched to, as a share."""

    @model_validator(mode="after")
    def _controls_differ(self) -> Self:
        if len(set(self.controls)) < len(self.controls):
            raise ConfigError(f"{type(self).__name__}.controls = {self.controls}: name each control once")
        return self


class LeaveOneOut(Design):
    """The full config, and each of its parts switched off alone."""

    kind: Literal["leave-one-out"] = "leave-one-out"
    full: Network


class AddOneIn(Design):
    """A bare config, and each part that it lacks switched on alone."""

    kind: Literal["add-one-in"] = "add-one-in"
    base: Network | None = None
    """None: every choice at its first option."""


class OneAtATime(Design):
    """A config, and each of its choices moved alone to each other value."""

    kind: Literal["one-at-a-time"] = "one-at-a-time"
    base: Network | None = None
    levels: Annotated[int, Field(ge=2)] = 3
    """Values of a span, its ends among them."""


class Factorial(Design):
    """Every combination of the values of some choices: what tells interactions."""

    kind: Literal["factorial"] = "factorial"
    axes: tuple[str, ...] = ()
    """Names of choices as the plan shows them; empty: all that the base has."""
    base: Network | None = None
    levels: Annotated[int, Field(ge=2)] = 2


class FractionalFactorial(Design):
    """A part of a two-level factorial in which main effects stay apart from what the resolution says (Box and Hunter 1961):
    III: from each other; IV: from two-way interactions too; V: these from each other too."""

    kind: Literal["fractional-factorial"] = "fractional-factorial"
    axes: tuple[str, ...]
    resolution: Literal[3, 4, 5] = 4
    base: Network | None = None


class Exhaustive(Part):
    """Every config of the space, each with every seed of the study: with several seeds a comparison with one of them."""

    kind: Literal["exhaustive"] = "exhaustive"
    base: Network | None = None
    """What the others are compared with; None: every choice at its first option, a span at its lowest value."""
    primary: str | None = None
    """The one config that is to be decided, by its name in the plan: tested alone, without correction for the others."""
    margin: Annotated[float, Field(gt=0)] | None = None
    """The smallest difference that matters, in the first objective's own unit (0.005 is half a point of accuracy)."""

    @property
    def declared(self) -> bool:
        """Whether the comparison was said beforehand: with what, or which one."""
        return self.base is not None or self.primary is not None


class Listed(Design):
    """Configs that another study found, to be trained again with fresh seeds and scored on the test part, once each."""

    kind: Literal["listed"] = "listed"
    of: str
    """The study that found them, with its revision."""
    rule: str
    """How they were chosen, in words: the front, the 3 best, trials 3 and 17."""
    top: int | None = None
    named: tuple[int, ...] = ()
    """The rule again, as it was asked for: the best, trials by number, or neither, which is the front."""
    baseline: str
    """What the first config is called, which the others are compared with."""
    numbers: tuple[tuple[int, ...], ...]
    """The trials of that study that each config was found by, none for one that it did not train."""
    configs: tuple[dict[str, Scalar], ...]
    """As flat parameters of the space, the baseline first."""
    epochs: Annotated[int, Field(ge=1)] | None = None
    """Of a training, where they are not that study's."""


DESIGNS: tuple[type[Design], ...] = (LeaveOneOut, AddOneIn, OneAtATime, Factorial, FractionalFactorial, Listed)


class Sequential(tuple[int, ...]):
    """The seeds 0, 1, 2, ... of a design, one after the other, for the arms whose comparison is still undecided.

    Every arm has the `first`; from there on it is looked at each seed at what is decided (`harness.analysis.sequential`), up
    to `most`, which the looks are paid for by. `smallest_effect` is the smallest difference that matters, in the compared
    metric's own unit (0.003 is 0.3 points of accuracy): what is shown to be smaller gets no more seeds; without it the
    design's margin counts. With a primary comparison the other arms have the first seeds alone. As a tuple it is every seed
    that an arm may have. Raises ConfigError."""

    first: int
    most: int
    smallest_effect: float | None

    def __new__(cls, *, first: int = 3, most: int = 10, smallest_effect: float | None = None) -> "Sequential":
        for name, value in (("first", first), ("most", most)):
            if type(value) is not int or not 2 <= value <= MOST_SEEDS:
                raise ConfigError(f"Sequential.{name} = {value!r}: give a whole number from 2 to {MOST_SEEDS}")
        if first > most:
            raise ConfigError(f"Sequential.first = {first} is more than most = {most}: give first <= most")
        number = type(smallest_effect) in (int, float)
        if smallest_effect is not None and not (number and 0 < smallest_effect < math.inf):
            raise ConfigError(f"Sequential.smallest_effect = {smallest_effect!r}: give a positive number, or leave it out")
        made = super().__new__(cls, range(most))
        made.__dict__.update(first=first, most=most, smallest_effect=smallest_effect)
        return made

    def __setattr__(self, name: str, value: object) -> None:
        raise AttributeError(f"Sequential.{name}: a value does not change; make another")

    def __getnewargs_ex__(self) -> tuple[tuple[()], dict[str, Any]]:
        return (), dict(self.__dict__)

    def __repr__(self) -> str:
        return f"Sequential({', '.join(f'{name}={value!r}' for name, value in self.__dict__.items())})"

    def to_json(self) -> dict[str, Any]:
        return {"kind": "sequential", **self.__dict__}


MOST_SEEDS = 100
"""Seeds in sequence that an arm may have."""


@dataclass(frozen=True)
class Arm:
    """A config of a design: its name says only what differs from the baseline."""

    name: str
    params: Params


BASELINE: dict[str, str] = {"leave-one-out": "full"}
"""What the baseline is called, where it is not `base`."""


def arms(design: Design | Exhaustive, space: Space) -> list[Arm]:
    """The arms of a design, the baseline first; raises StudyError where the design does not fit the space."""
    if isinstance(design, Listed):
        return _listed(design, space)
    if isinstance(design, Exhaustive):
        return _every(design, space)
    start = _start(design, space)
    name = BASELINE.get(str(type(design).model_fields["kind"].default), "base")
    found = [Arm(name, space.active(start))]
    seen = {_frozen(found[0].params)}
    for changed in _changes(design, space, start):
        params = space.active(start | changed)
        if _frozen(params) not in seen and _is_network(space, params):
            seen.add(_frozen(params))
            told = {name: value for name, value in changed.items() if name in params and start.get(name) != value}
            found.append(Arm("; ".join(map(str, differences(told, space.parameters))), params))
            if len(found) > MOST_ARMS:
                raise StudyError(f"{type(design).__name__}: more than {MOST_ARMS:,} arms; name fewer axes, or use a search")
    if len(found) == 1 and not design.controls:
        raise StudyError(f"{type(design).__name__}: nothing differs from {name!r}; give the space more choices around it")
    known_networks = space.parameters.get("network", ())
    for control in map(CONTROLS.__getitem__, design.controls):
        if isinstance(known_networks, tuple) and control in known_networks:
            found.append(Arm(control, space.active(start | {"network": control})))
    _has_primary(design, [*(arm.name for arm in found), *map(CONTROLS.__getitem__, design.controls)])
    return found


def _has_primary(design: Design | Exhaustive, given: Sequence[str]) -> None:
    """Raises StudyError where the primary comparison is none of the arms, of which the first is the baseline."""
    names = list(dict.fromkeys(given))
    if design.primary is not None and design.primary not in names[1:]:
        known = ", ".join(map(repr, names[1:6])) + (", ..." if len(names) > 6 else "")
        raise StudyError(
            f"{type(design).__name__}.primary = {design.primary!r}: no such arm; it has {known}{hint(design.primary, names)}"
        )


def _every(design: Exhaustive, space: Space) -> list[Arm]:
    """Every config of a space, named by all that is chosen."""
    found = [params for params in space.enumerate() if _is_network(space, params)]
    if design.base is not None:
        base = space.active(_start(design, space))
        found = [base, *(params for params in found if _frozen(params) != _frozen(base))]
    told = [Arm(chosen_words(params, space), params) for params in found]
    _has_primary(design, [arm.name for arm in told])
    return told


def chosen_words(params: Params, space: Space) -> str:
    """A config by all that is chosen of its space."""
    return "; ".join(map(str, differences(params, space.parameters))) or "nothing varies"


def _listed(design: Listed, space: Space) -> list[Arm]:
    """The configs of a list, each named by what it does not share with the first."""
    first, *others = (space.active(params) for params in design.configs)
    found = [Arm(design.baseline, first)]
    for params in others:
        told = {name: value for name, value in params.items() if name not in first or not _same(first[name], value)}
        found.append(Arm("; ".join(map(str, differences(told, space.parameters))), params))
    return found


def _frozen(params: Params) -> tuple[tuple[str, str], ...]:
    return tuple(sorted((name, repr(value)) for name, value in params.items()))


def _is_network(space: Space, params: Params) -> bool:
    try:
        space.config(params)
    except ConfigError:
        return False
    return True


def _start(design: Design | Exhaustive, space: Space) -> Params:
    """A value for every choice, active or not: the baseline's own where it has one."""
    first = {name: _first(domain) for name, domain in space.parameters.items()}
    network = getattr(design, "full", None) or getattr(design, "base", None)
    if network is None:
        return first
    training = space.config(first).training
    try:
        return first | space.params(Config(network=network, training=training))
    except SpaceError:
        field = "full" if hasattr(design, "full") else "base"
        raise StudyError(
            f"{type(design).__name__}.{field} is no config of the study's space: write it as one combination of its choices"
        ) from None


def _first(domain: Domain) -> Scalar:
    return levels(domain, 3)[1] if isinstance(domain, Span) else domain[0]


def levels(domain: Domain, count: int) -> tuple[Scalar, ...]:
    """The values of a choice, or so many of a span, evenly spread on its own scale with its ends."""
    if not isinstance(domain, Span):
        return domain
    if domain.size <= count:
        return tuple(domain.value(index) for index in range(int(domain.size)))
    shares = [index / (count - 1) for index in range(count)]
    if domain.log:
        low, high = math.log(domain.low), math.log(domain.high)
        found = [math.exp(low + share * (high - low)) for share in shares]
    else:
        found = [domain.low + share * (domain.high - domain.low) for share in shares]
    ends = [min(max(value, domain.low), domain.high) for value in found]
    return tuple(dict.fromkeys(round(value) if domain.whole else domain.nearest(value) for value in ends))


def off(domain: Domain) -> Scalar:
    """The value that switches a choice off (`none` or no), None where it has none."""
    if isinstance(domain, Span):
        return None
    return next((value for value in domain if value == "none" or value is False), None)


def _changes(design: Design, space: Space, start: Params) -> Iterator[Params]:
    """What each arm changes of the baseline, in the order of the space."""
    active = space.active(start)
    domains = {name: _own(design, name, domain) for name, domain in space.parameters.items() if name in active}
    if isinstance(design, LeaveOneOut):
        for name, domain in domains.items():
            if (none := off(domain)) is not None and active[name] != none:
                yield {name: none}
    elif isinstance(design, AddOneIn):
        for name, domain in domains.items():
            if (none := off(domain)) is not None and active[name] == none:
                yield from ({name: value} for value in levels(domain, 2) if value != none)
    elif isinstance(design, OneAtATime):
        for name, domain in domains.items():
            for value in levels(domain, design.levels):
                if not _same(value, active[name]):
                    yield {name: value}
    elif isinstance(design, Factorial):
        axes = axes_of(design, space)
        for values in product(*(levels(domains[name], design.levels) for name in axes)):
            yield dict(zip(axes, values))
    else:
        yield from _fraction(cast(FractionalFactorial, design), domains, axes_of(design, space))


def _own(design: Design, name: str, domain: Domain) -> Domain:
    """What a design may choose from: the networks of its controls are arms of their own."""
    if name != "network" or not design.controls or isinstance(domain, Span):
        return domain
    return tuple(value for value in domain if value not in CONTROLS.values())


def axes_of(design: Design, space: Space) -> list[str]:
    """The choices that a factorial crosses, by their names in the space; a chosen network's name may be left out.

    Raises StudyError for an axis that the baseline does not have."""
    active = space.active(_start(design, space))
    inside = f"{active['network']}." if "network" in active else ""
    known = {name.removeprefix(inside): name for name in space.parameters if name in active}
    given: tuple[str, ...] = getattr(design, "axes", ())
    axes = [axis.removeprefix(inside) for axis in given] or list(known)
    return [known[axis] for axis in named(axes, list(known), type(design).__name__)]


def _same(one: Scalar, other: Scalar) -> bool:
    return type(one) is type(other) and one == other


def named(axes: Sequence[str], known: Sequence[str], design: str) -> list[str]:
    """The axes, each once and each a choice that the baseline has; raises StudyError with what there is."""
    for axis in axes:
        if axis not in known:
            raise StudyError(
                f"{design}.axes: {axis!r} is no choice of the base; it has {', '.join(known)}{hint(axis, known)}"
            )
    if len(set(axes)) < len(axes):
        raise StudyError(f"{design}.axes = {axes}: name each choice once")
    return list(axes)


def _fraction(design: FractionalFactorial, domains: dict[str, Domain], axes: list[str]) -> Iterator[Params]:
    two = {axis: levels(domains[axis], 2) for axis in axes}
    for axis, values in two.items():
        if len(values) != 2:
            raise StudyError(
                f"FractionalFactorial.axes: {axis} has {len(values)} values, a fraction needs two; use Factorial, or a space"
                " with two"
            )
    for row in fraction(len(axes), design.resolution):
        yield {axis: two[axis][side] for axis, side in zip(axes, row)}


GENERATORS = (
    "a b ab",
    "a b c abc",
    "a b c ab ac",
    "a b c ab ac bc",
    "a b c ab ac bc abc",
    "a b c d abcd",
    "a b c d abc bcd",
    "a b c d abc bcd acd",
    "a b c d bcd acd abc abd",
    "a b c d abc bcd acd abd abcd",
    "a b c d abc bcd acd abd abcd ab",
    "a b c d e abcde",
    "a b c d e bcde acde abde abce",
    "a b c d e abcd abce abde acde bcde",
    "a b c d e f abcdef",
    "a b c d e f abcd abef",
    "a b c d e f g acdfg bcefg",
    "a b c d e f g abcg bcde acdf",
)
"""Minimum-aberration fractions of up to 10 axes, the fewest runs first (Box, Hunter and Hunter 2005, table 6.22; Montgomery
2017, table 8.14). pyDOE3 can choose generators too, but misses some and gives others too high a resolution."""


def fraction(count: int, resolution: int) -> list[tuple[int, ...]]:
    """The runs of the smallest known two-level fraction, 0 and 1 for each axis; the first is all 0. Raises StudyError."""
    from pyDOE3 import fracfact

    for generator in GENERATORS:
        if len(generator.split()) == count:
            signs = fracfact(generator)
            # of the fractions of a generator, the one that holds the baseline: all axes at their first value
            runs = [tuple(int(value != first) for value, first in zip(row, signs[0])) for row in signs]
            if resolution_of(runs) >= resolution:
                return runs
    raise StudyError(
        f"FractionalFactorial: no fraction of {count} axes and resolution {resolution} is known; there are some for 3"
        " to 10 axes; use a smaller resolution, or Factorial"
    )


def resolution_of(runs: Sequence[Sequence[int]]) -> int:
    """The length of the shortest effect that the runs hold constant."""
    count = len(runs[0])
    for size in range(1, count + 1):
        for word in combinations(range(count), size):
            if len({math.prod(2 * run[axis] - 1 for axis in word) for run in runs}) == 1:
                return size
    return count + 1


Word = tuple[str, ...]
"""An effect: the axes whose product it is."""


def aliases(axes: Sequence[str], runs: Sequence[Sequence[int]], order: int = 2) -> list[tuple[Word, ...]]:
    """Groups of effects up to `order` that the runs cannot tell apart, each the same contrast or its opposite."""
    groups: dict[tuple[int, ...], list[Word]] = {}
    for size in range(1, order + 1):
        for word in combinations(range(len(axes)), size):
            contrast = tuple(math.prod(2 * run[axis] - 1 for axis in word) for run in runs)
            key = max(contrast, tuple(-side for side in contrast))
            groups.setdefault(key, []).append(tuple(axes[axis] for axis in word))
    return [tuple(words) for words in groups.values() if len(words) > 1]


# -- the plan as it was before training -------------------------------------------------------------------------------


def planned(design: Design | Exhaustive, space: Space, seeds: Sequence[int], metric: str, training: Any) -> dict[str, Any]:
    """What a comparison was to be, in plain JSON: a hash for each arm, seeds, primary comparison, margin, metric, and the
    recipe as its author wrote it (`training`, plain)."""

    def content(arm: Arm) -> dict[str, Any]:
        recipe = {name: value for name, value in arm.params.items() if name.startswith("training.")}
        return {"network": space.config(arm.params).network.model_dump(mode="json"), "training": recipe}

    return {
        "arms": {arm.name: digest(content(arm)) for arm in arms(design, space)},
        "seeds": seeds.to_json() if isinstance(seeds, Sequential) else list(seeds),
        "primary": design.primary,
        "margin": design.margin,
        "metric": metric,
        "training": training,
    }


def digest(content: Any) -> str:
    """16 hex digits for plain JSON."""
    return hashlib.sha256(canonical(content).encode()).hexdigest()[:16]


def changes(before: dict[str, Any], now: dict[str, Any]) -> list[str]:
    """What differs between two plans, in words."""
    old, new = before["arms"], now["arms"]
    groups = {
        "added": [name for name in new if name not in old],
        "dropped": [name for name in old if name not in new],
        "changed": [name for name in new if name in old and new[name] != old[name]],
    }
    found = [f"{'arm' if len(names) == 1 else 'arms'} {_few(names)} {how}" for how, names in groups.items() if names]
    found += _seed_changes(before["seeds"], now["seeds"])
    for field in ("primary", "margin", "metric"):
        if before[field] != now[field]:
            found.append(f"{field} {before[field]} -> {now[field]}")
    return found + (["the recipe changed"] if before["training"] != now["training"] else [])


def more_seeds(before: Any, now: Any) -> bool:
    """Whether seeds, in plain JSON, are those from before and perhaps more: of a sequence, more at most."""
    if isinstance(before, dict) and isinstance(now, dict):
        return bool(now["first"] == before["first"] and now["most"] >= before["most"])
    return not isinstance(before, dict) and not isinstance(now, dict) and set(now) >= set(before)


def _seed_changes(before: Any, now: Any) -> list[str]:
    if isinstance(before, dict) and isinstance(now, dict):
        names = [name for name in now if before.get(name) != now[name]]
        return [f"{name.replace('_', ' ')} {before.get(name)} -> {now[name]}" for name in names]
    if isinstance(before, dict) or isinstance(now, dict):
        return [f"seeds {'in sequence' if isinstance(now, dict) else 'fixed'}"]
    found = []
    for how, one, other in (("added", now, before), ("dropped", before, now)):
        if seeds := [seed for seed in one if seed not in other]:
            found.append(f"{'seed' if len(seeds) == 1 else 'seeds'} {_few(seeds)} {how}")
    return found


def _few(items: Sequence[object], most: int = 6) -> str:
    shown = ", ".join(map(repr, items[:most]))
    return shown if len(items) <= most else f"{shown} and {len(items) - most} more"
