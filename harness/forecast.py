"""What a design will cost and what it can show, before anything is trained.

Costs are exact. Time is that of past trials in the database on the same pictures. The smallest effect is the one that the
deciding test finds with 80 % power, for the deviation of a paired difference that was seen, or for assumed ones.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from statistics import median
from typing import Any, Protocol

from harness.analysis.arms import arms_of, compared_by, plan_of, rule_of
from harness.analysis.effects import LEVEL, effects, smallest_effect
from harness.analysis.sequential import Rule, boundary, expected, smallest_shown
from harness.config import Config
from harness.data.pictures import DataInfo
from harness.design import (
    Arm,
    Design,
    Exhaustive,
    Factorial,
    FractionalFactorial,
    Listed,
    Sequential,
    aliases,
    arms,
    axes_of,
    digest,
    fraction,
    resolution_of,
)
from harness.errors import ConfigError
from harness.execution.ledger import Price
from harness.key import canonical, network_identity
from harness.record import Record
from harness.report.words import choice_title, counted, duration, is_share, listed, unit
from harness.space import Space
from harness.storage.reader import read_records, read_studies, revision
from harness.study import Study

ASSUMED = (0.003, 0.005, 0.01)
"""Deviations of a paired difference of accuracy, where none was seen."""
SHOWN = 40
"""Arms that the words list."""


@dataclass(frozen=True)
class PlannedArm:
    """An arm with its exact costs, and the seconds of one of its trials where past ones tell."""

    name: str
    params: int
    macs: int
    epochs: int
    seconds: float | None


@dataclass(frozen=True)
class Power:
    """The smallest effect that is found with 80 % power, given the deviation of a paired difference."""

    deviation: float
    effect: float


@dataclass(frozen=True)
class Expected:
    """Trials of seeds in sequence in the mean, given the deviation of a paired difference."""

    deviation: float
    none: float
    """Where no arm differs from the baseline."""
    effect: float | None
    """The smallest that matters."""
    small: float
    """Where every tested arm has it; the same where none is stated."""


@dataclass(frozen=True)
class Forecast:
    """A design's arms, what it can tell apart, how small an effect it can show, and how long it takes."""

    arms: tuple[PlannedArm, ...]
    left_out: tuple[str, ...]
    """Arms that are no networks of the study: over a constraint."""
    seeds: tuple[int, ...]
    metric: str
    in_points: bool
    """Whether its differences are points of percent."""
    primary: str | None
    margin: float | None
    comparisons: int
    """That share the level: one where a primary comparison is declared."""
    tells: tuple[str, ...]
    """Which effects the design can separate, and which it cannot, in words."""
    aliases: tuple[tuple[str, ...], ...]
    """Groups of effects of a fraction that are one contrast."""
    power: tuple[Power, ...]
    pairs: int
    """Paired differences behind the deviation; 0 where it is assumed."""
    pace: str
    """What the times rest on."""
    hash: str
    """Of the plan as it is stored before training."""
    rule: Rule | None = None
    """Of seeds in sequence: when it is looked at what is decided."""
    expected: tuple[Expected, ...] = ()
    """Their trials in the mean, by deviation."""

    @property
    def cells(self) -> int:
        """Trials: where seeds come in sequence, at most."""
        return self._cells(len(self.seeds))

    def _cells(self, seeds: int) -> int:
        """Trials with so many seeds; arms that are not tested have the first ones alone."""
        if self.rule is None:
            return len(self.arms) * seeds
        return seeds * (self.comparisons + 1) + self.rule.first * (len(self.arms) - self.comparisons - 1)

    @property
    def round(self) -> float | None:
        """Seconds of all arms with one seed; None where unknown."""
        known = [arm.seconds for arm in self.arms if arm.seconds is not None]
        return math.fsum(known) if len(known) == len(self.arms) else None

    @property
    def seconds(self) -> float | None:
        """Seconds of all trials, one after another; where seeds come in sequence, at most."""
        return self._seconds(self.cells)

    def _seconds(self, cells: float) -> float | None:
        return None if self.round is None else self.round * cells / len(self.arms)

    def to_json(self) -> dict[str, Any]:
        power = [asdict(one) | {"effect": one.effect if math.isfinite(one.effect) else None} for one in self.power]
        return asdict(self) | {"cells": self.cells, "seconds": self.seconds, "power": power}

    def smallest(self, seeds: int) -> tuple[Power, ...]:
        """The smallest effects with another number of seeds."""
        rule = self.rule and replace(self.rule, first=min(self.rule.first, seeds), most=seeds)
        return powers([power.deviation for power in self.power], len(self.arms) - 1, seeds, self.comparisons, rule)

    def lines(self) -> Iterator[str]:
        """The forecast in words."""
        cells = f"{counted(len(self.arms), 'arm')} x {counted(len(self.seeds), 'seed')} = {counted(self.cells, 'cell')}"
        if self.rule is not None:
            cells = f"{counted(len(self.arms), 'arm')}, {self.rule.first} to {self.rule.most} seeds in sequence"
        primary = f"; primary: {self.primary}" if self.primary else ""
        margin = f"; margin: {self._difference(self.margin)}" if self.margin else ""
        yield f"design: {cells}, baseline {self.arms[0].name}{primary}{margin}; plan {self.hash}"
        width = max(len(arm.name) for arm in self.arms[:SHOWN])
        for arm in self.arms[:SHOWN]:
            costs = [_cost("params", arm.params), _cost("macs", arm.macs)]
            time = [f"{duration(arm.seconds)} a trial"] if arm.seconds is not None else []
            yield f"  {arm.name.ljust(width)}  {', '.join(costs + time)}"
        if len(self.arms) > SHOWN:
            yield f"  and {len(self.arms) - SHOWN} more arms (all of them with --json)"
        if self.left_out:
            yield f"  not trained, as they break a constraint: {listed(self.left_out)}"
        yield from (f"  {words}" for words in self.tells)
        if self.rule is not None:
            yield from self._sequence_words(self.rule)
        most = "at most " if self.rule is not None else ""
        yield (
            f"time: {most}{duration(self.seconds)} of trials, one after another ({self.pace})"
            if self.seconds is not None
            else (f"time: unknown ({self.pace})")
        )
        yield self._power_words()

    def _sequence_words(self, rule: Rule) -> Iterator[str]:
        """What seeds in sequence cost, at least, at most and in the mean."""
        nominal = boundary(LEVEL / self.comparisons, rule.first, rule.most)
        margin = f", or to be smaller than {self._difference(rule.margin)}" if rule.margin else ""
        yield (
            f"seeds in sequence: {self._cells(rule.first)} cells first, then a look at each seed, at p < {nominal:.2g}; an"
            f" arm shown to differ{margin} gets no more; {self.cells} cells at most"
        )
        for one in self.expected:
            size = "" if one.effect is None else f", {one.small:.0f} where each differs by {self._difference(one.effect)}"
            kind = "seen so far" if self.pairs else "assumed"
            spread = self._deviation(one.deviation)
            yield f"  expected, for a deviation of {spread} ({kind}): {one.none:.0f} cells where nothing differs{size}"

    def _deviation(self, value: float) -> str:
        return self._difference(value) if self.pairs or self.in_points else f"{value:g} (of a paired difference)"

    def _power_words(self) -> str:
        tested = f"{counted(self.comparisons, 'comparison')} at level {LEVEL / self.comparisons:.3g}"
        most = "at most " if self.rule is not None else ""
        head = f"smallest effect at 80 % power with {most}{counted(len(self.seeds), 'seed')}, {tested}"
        if len(self.seeds) < 2:
            return f"{head}: none, one seed tells no effect from chance"
        if self.pairs:
            (found,) = self.power
            seen = f"{self._difference(found.deviation)}, over {counted(self.pairs, 'pair')}"
            return f"{head}: {self._difference(found.effect)}, for the deviation of a paired difference seen so far ({seen})"
        if not self.in_points:
            return f"{head}: {self.power[0].effect:.2f} deviations of a paired difference, which was not measured yet"
        table = (f"{self._difference(one.effect)} if it is {self._difference(one.deviation)}" for one in self.power)
        return f"{head}, by the deviation of a paired difference (assumed, none was measured yet): {listed(table)}"

    def _difference(self, value: float) -> str:
        return f"{100 * value:.3g} points" if self.in_points else f"{value:.3g}"

    def fitting(self, deadline: float, at_once: int = 1) -> Iterator[str]:
        """Which of fewer seeds, epochs or arms fits into so many seconds, so many trials at once."""
        within, spent = f"deadline {duration(deadline)}", self.seconds
        if spent is None or self.round is None:
            yield f"{within}: cannot be planned for, as the time of a trial is unknown; run one: --trials 1"
            return
        together = "" if at_once == 1 else f", {at_once} trials at once"
        if spent <= deadline * at_once:
            yield f"{within}: fits, {duration(spent / at_once)}{together}"
            return
        yield f"{within}: does not fit, {duration(spent / at_once)}{together}; what would:"
        if self.rule is not None and (found := [self._seconds(one.none) or 0.0 for one in self.expected]):
            inside = sum(one <= deadline * at_once for one in found)
            if inside:
                yield f"  as it is, but for the worst case: fits in the mean for {inside} of {len(found)} deviations above"
        yield f"  fewer seeds: {self._fewer_seeds(int(deadline * at_once // self.round))}"
        yield f"  fewer epochs: {self._fewer_epochs(deadline * at_once / spent)}"
        yield f"  fewer arms: {self._fewer_arms(deadline * at_once / len(self.seeds))}"

    def _fewer_seeds(self, seeds: int) -> str:
        if seeds < (2 if self.rule is None else self.rule.first):
            return "not even two of each arm" if self.rule is None else "not even the first of each arm"
        effect = self._difference if self.in_points or self.pairs else "{:.2f} deviations".format
        found = listed([effect(one.effect) for one in self.smallest(seeds)], "or")
        most = "" if self.rule is None else "at most "
        return f"{most}{seeds} of {len(self.seeds)}; smallest effect then {found}"

    def _fewer_epochs(self, share: float) -> str:
        most = max(arm.epochs for arm in self.arms)
        epochs = int(most * share)
        return f"{epochs} of {most}; another recipe, another question" if epochs else "not even one"

    def _fewer_arms(self, seconds: float) -> str:
        """Leaves the dearest arms out, but for the baseline and the primary one."""
        kept = list(self.arms)
        for arm in sorted(self.arms[1:], key=lambda arm: -(arm.seconds or 0)):
            if math.fsum(other.seconds or 0 for other in kept) > seconds and arm.name != self.primary:
                kept.remove(arm)
        if len(kept) < 2 or math.fsum(other.seconds or 0 for other in kept) > seconds:
            return "not even two"
        left_out = [arm.name for arm in self.arms if arm not in kept]
        return f"{len(kept)} of {len(self.arms)}, without {listed(left_out)}"


def _cost(metric: str, value: int) -> str:
    words = unit(metric, [value]).text(value).replace("\N{NO-BREAK SPACE}", " ")
    return f"{words} {'params' if metric == 'params' else 'MACs'}"


def forecast(
    study: Study,
    space: Space,
    price: Price,
    info: DataInfo,
    storage: str | None,
    training: Any,
    timer: "Timer | None" = None,
) -> Forecast:
    """What is to be expected of a study of a design; `storage` is a database to learn from, `training` the recipe as its
    author wrote it, `timer` times steps where no past trial tells."""
    design = study.strategy
    assert isinstance(design, Design | Exhaustive)
    found, left_out = _priced(study, arms(design, space), space, price)
    past = list(past_trials(storage, info.fingerprint)) if storage else []
    clock = Clock([record for _, records in past for record in records])
    if timer is not None:
        clock.ask(timer, [(config, cost["macs"]) for _, config, cost in found], info.train)
    base = revision(study.name)[0]
    own = [record for name, records in past if revision(name)[0] == base for record in records]
    metric = compared_by(study)
    comparisons = 1 if design.primary else max(len(found) - 1, 1)
    seen, pairs = deviation_seen(study, space, own, metric)
    rule = None
    if isinstance(study.seeds, Sequential) and isinstance(design, Design):
        rule = rule_of(study.seeds, design)
    in_points = is_share(metric, study.units.get(metric, ""))
    assumed = ASSUMED if in_points else (1.0,)
    tells, confounded = separation(design, space, len(found))
    return Forecast(
        arms=tuple(
            PlannedArm(arm.name, cost["params"], cost["macs"], config.training.epochs, clock.seconds(config, cost["macs"]))
            for arm, config, cost in found
        ),
        left_out=tuple(left_out),
        seeds=study.seeds,
        metric=metric,
        in_points=in_points,
        primary=design.primary,
        margin=design.margin if rule is None else rule.margin,
        comparisons=comparisons,
        tells=tells,
        aliases=confounded,
        power=powers(assumed if seen is None else [seen], len(found) - 1, len(study.seeds), comparisons, rule),
        pairs=pairs,
        pace=clock.words([config for _, config, _ in found]),
        hash=digest(plan_of(study, training)),
        rule=rule,
        expected=tuple(
            _expected(rule, one, comparisons, len(found) - 1 - comparisons) for one in (assumed if seen is None else [seen])
        )
        if rule is not None
        else (),
    )


def _expected(rule: Rule, deviation: float, comparisons: int, others: int) -> Expected:
    """What to expect where so many arms are tested, and others have the first seeds alone."""
    none = expected(rule, comparisons, deviation, 0.0) + others * rule.first
    small = none if rule.margin is None else expected(rule, comparisons, deviation, rule.margin) + others * rule.first
    return Expected(deviation, none, rule.margin, small)


def _priced(
    study: Study, found: Sequence[Arm], space: Space, price: Price
) -> tuple[list[tuple[Arm, Config, dict[str, int]]], list[str]]:
    """The arms with their configs and costs, and the names of those that a constraint or the network leaves out."""
    kept, left_out = [], []
    for arm in found:
        try:
            config = space.config(arm.params)
            cost = price(config)._asdict()
        except ConfigError:
            left_out.append(arm.name)
            continue
        if all(constraint.holds(cost) for constraint in study.constraints):
            kept.append((arm, config, cost))
        else:
            left_out.append(arm.name)
    return kept, left_out


# -- what it can show -------------------------------------------------------------------------------------------------


def powers(
    deviations: Sequence[float], others: int, seeds: int, comparisons: int, rule: Rule | None = None
) -> tuple[Power, ...]:
    """The smallest effect for each deviation; arms beside the baseline (`others`) share one variance where there are two,
    but not where seeds come in sequence (`rule`)."""
    if rule is not None:
        return tuple(Power(one, smallest_shown(rule, comparisons, one)) for one in deviations)
    df = others * (seeds - 1) if others > 1 else None
    return tuple(
        Power(deviation, smallest_effect(deviation, seeds, LEVEL / comparisons, df=df) if seeds > 1 else math.inf)
        for deviation in deviations
    )


def deviation_seen(study: Study, space: Space, records: Sequence[Record], metric: str) -> tuple[float | None, int]:
    """The median deviation of a paired difference over the arms of the study so far, and how many pairs it rests on."""
    seen = arms_of(study, space, records)
    if seen is None:
        return None, 0
    measured = [effect for effect in effects(seen.values(metric), seen.baseline) if effect.test.df >= 1]
    if not measured:
        return None, 0
    deviation = median(effect.test.error * math.sqrt(len(effect.seeds)) for effect in measured)
    if not 1e-12 <= deviation < math.inf:  # equal but for rounding: too few pictures, or epochs, to tell anything
        return None, 0
    return deviation, sum(len(effect.seeds) for effect in measured)


def separation(design: Design | Exhaustive, space: Space, count: int) -> tuple[tuple[str, ...], tuple[tuple[str, ...], ...]]:
    """Which effects a design of so many arms can tell apart, in words, and the groups that it cannot."""
    if isinstance(design, FractionalFactorial):
        axes = _titles(design, space)
        runs = fraction(len(axes), design.resolution)
        groups = tuple(tuple(" x ".join(word) for word in group) for group in aliases(axes, runs))
        tells = [f"{len(runs)} of {2 ** len(axes)} combinations: {_resolved(resolution_of(runs))}"]
        tells += [f"cannot separate: {' = '.join(group)}" for group in groups]
        if count < len(runs):
            tells.append(f"only {count} of the {len(runs)} runs are networks: effects are not balanced any more")
        return tuple(tells), groups
    if isinstance(design, Factorial):
        axes = _titles(design, space)
        return (f"separates the effects of {listed(axes)} and all their interactions",), ()
    if isinstance(design, Exhaustive):
        axes = list(map(choice_title, space.parameters))
        return (f"separates the effects of {listed(axes)} and their interactions, where every config has these choices",), ()
    if isinstance(design, Listed):
        return (f"confirms {design.rule} of {design.of}: fresh seeds, the test part scored once a trial",), ()
    return ("separates the effect of each change alone; cannot say how changes act together (Factorial could)",), ()


def _titles(design: Design, space: Space) -> list[str]:
    """The choices that a factorial crosses, in words, without the network's name where controls stand beside it."""
    networks = space.parameters.get("network", ())
    known = networks if isinstance(networks, tuple) else ()
    first = [axis.partition(".") for axis in axes_of(design, space)]
    return [choice_title(rest if name in known else name + dot + rest) for name, dot, rest in first]


def _resolved(resolution: int) -> str:
    """What a fraction of a resolution tells apart (Box and Hunter 1961)."""
    pairs = {3: "", 4: " and from two-way interactions"}.get(
        resolution, ", from two-way interactions, and these from each other"
    )
    name = {3: "III", 4: "IV", 5: "V", 6: "VI", 7: "VII", 8: "VIII"}.get(resolution, str(resolution))
    return f"resolution {name}, which tells main effects from each other{pairs}"


# -- how long it takes ------------------------------------------------------------------------------------------------


def past_trials(storage: str, fingerprint: str) -> Iterator[tuple[str, list[Record]]]:
    """The records of every study on the same pictures."""
    for stored in read_studies(storage):
        if stored.attributes.get("data", {}).get("fingerprint") == fingerprint:
            yield stored.name, read_records(storage, stored.study_id)


class Timer(Protocol):
    """Times steps of training."""

    problem: str
    """Why it could not, in one line."""

    def __call__(self, config: Config, macs: int) -> float | None:
        """Seconds of training a picture, None where that cannot be told."""


class Clock:
    """Seconds of a trial, by past ones on the same pictures: of the same network where there are some, else by MACs."""

    def __init__(self, records: Sequence[Record]) -> None:
        exact: dict[str, list[float]] = {}
        per_mac: list[float] = []
        for record in records:
            if not record.curve or record.reused is not None:
                continue
            epoch = math.fsum(point.seconds for point in record.curve) / len(record.curve)
            exact.setdefault(_same_pace(record.config), []).append(epoch)
            per_mac.append(epoch / max(record.costs.get("macs", 0), 1))
        self._exact: Mapping[str, float] = {name: median(found) for name, found in exact.items()}
        self._per_mac = median(per_mac) if per_mac else None
        self._trials = len(per_mac)
        self._timed: list[tuple[int, float]] = []
        """MACs and seconds a picture of the cheapest and of the dearest network."""
        self._pictures = 0
        self._problem = ""

    def ask(self, timer: Timer, priced: Sequence[tuple[Config, int]], pictures: int) -> None:
        """Times the cheapest and the dearest config here, where no past trial tells; `pictures` are those of the data."""
        if self._trials or not priced:
            return
        ends = [min(priced, key=lambda one: one[1]), max(priced, key=lambda one: one[1])]
        points = [(macs, found) for config, macs in ends if (found := timer(config, macs)) is not None]
        if len(points) == 2:
            self._timed, self._pictures = points, pictures
        self._problem = timer.problem

    def _estimate(self, config: Config, macs: int) -> float | None:
        """Seconds of an epoch by the steps that were timed, on a straight line between the two: the pictures trained on, and
        those validated on, which are only passed forward, for a third each."""
        if not self._timed:
            return None
        (low, quick), (high, slow) = self._timed
        pace = quick if high == low else quick + (slow - quick) * (macs - low) / (high - low)
        share = config.training.validation
        return pace * self._pictures * (1 - share + share / 3)

    def seconds(self, config: Config, macs: int) -> float | None:
        """Of a whole trial."""
        epoch = self._exact.get(_same_pace(config))
        if epoch is None and self._per_mac is not None:
            epoch = self._per_mac * macs
        if epoch is None:
            epoch = self._estimate(config, macs)
        return None if epoch is None else epoch * config.training.epochs

    def words(self, configs: Sequence[Config]) -> str:
        """What the times rest on."""
        if self._timed:
            return "an estimate: steps of the cheapest and of the dearest network timed here, the others by MACs"
        if not self._trials:
            untimed = f"; a step could not be timed: {self._problem}" if self._problem else ""
            return f"no past trial in the database on these pictures{untimed}"
        known = sum(_same_pace(config) in self._exact for config in configs)
        scaled = "" if known == len(configs) else f", {len(configs) - known} of {len(configs)} arms scaled by their MACs"
        return f"by {counted(self._trials, 'past trial')} on these pictures{scaled}"


def _same_pace(config: Config) -> str:
    """What two trials share whose epochs take equally long."""
    return canonical([network_identity(config.network), config.training.batch_size])
