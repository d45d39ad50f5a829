"""What a search found beside what is left of it: its front trained again with fresh seeds and scored on the test part.

Facts and words; `harness.report.confirming` draws them.
"""

import contextlib
import math
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime

from harness.analysis.confirmation import Loss, loss
from harness.analysis.front import front
from harness.design import Listed
from harness.record import Record
from harness.report.facts import Facts
from harness.report.words import NOUNS, Unit, counted, day, listed
from harness.study import Objective


@dataclass(frozen=True)
class Again:
    """One config: what the search said of it, and what it reaches with fresh seeds."""

    name: str
    trials: tuple[int, ...]
    """Of the search; none for a baseline that it did not train."""
    promised: float | None
    """The search's mean of its main metric."""
    validated: Mapping[int, float]
    """By fresh seed, on validation pictures."""
    tested: Mapping[int, float]
    """By fresh seed, on the test part."""
    costs: Mapping[str, float]
    on_front: bool
    """Of the confirmed means, over the objectives of the confirming study."""

    @property
    def mean(self) -> float:
        """On the test part."""
        return math.fsum(self.tested.values()) / len(self.tested) if self.tested else math.nan


@dataclass(frozen=True)
class Confirmed:
    """A search's findings and their confirmation, the best on the test part first."""

    configs: tuple[Again, ...]
    baseline: str
    main: Objective
    """On validation pictures, as the search had it."""
    unit: Unit
    aims: tuple[str, ...]
    """Metrics that the confirmed front is of."""
    by_validation: Loss | None
    by_test: Loss | None

    @property
    def found(self) -> list[Again]:
        """The configs of the search that were trained again."""
        return [one for one in self.configs if one.promised is not None and one.tested]


def confirmed(facts: Facts) -> Confirmed | None:
    """The confirmation of a search; None where there is none, or none of it is complete yet."""
    again = facts.confirmed
    if again is None or again.arms is None or not isinstance(design := again.study.strategy, Listed):
        return None
    metric, names, sign = facts.main.metric, again.arms.names, facts.main.sign
    validated, tested = again.arms.values(metric), again.arms.values(f"test_{metric}")
    numbers = dict(zip(names, design.numbers)) if design.of == facts.study.name else {}
    said = promises(facts, numbers)
    costs, best = again.arms.costs(), front_of_means(again)
    configs = [
        Again(
            name=name,
            trials=numbers.get(name, ()),
            promised=said.get(name),
            validated=finite(validated[name]),
            tested=finite(tested[name]),
            costs=costs.get(name, {}),
            on_front=name in best,
        )
        for name in names
    ]
    if not any(one.tested for one in configs):
        return None
    larger = facts.main.direction == "maximize"
    return Confirmed(
        configs=tuple(sorted(configs, key=lambda one: (math.isnan(one.mean), sign * one.mean))),
        baseline=again.arms.baseline,
        main=facts.main,
        unit=facts.units[metric],
        aims=tuple(objective.metric for objective in again.study.objectives),
        by_validation=loss(said, {one.name: one.validated for one in configs}, larger_is_better=larger),
        by_test=loss(said, {one.name: one.tested for one in configs}, larger_is_better=larger),
    )


def promises(facts: Facts, numbers: Mapping[str, tuple[int, ...]]) -> dict[str, float]:
    """What the search said of each config that it has trials of: the mean of its main metric."""
    known = {trial.number: value for trial in facts.trials if (value := trial.value(facts.main.metric)) is not None}
    values = {name: [known[number] for number in found if number in known] for name, found in numbers.items()}
    return {name: math.fsum(each) / len(each) for name, each in values.items() if each}


def finite(values: Mapping[int, float]) -> dict[int, float]:
    return {seed: value for seed, value in values.items() if math.isfinite(value)}


def front_of_means(facts: Facts) -> set[str]:
    """The arms on the front of the means over their seeds."""
    cells = {name: list(found.values()) for name, found in facts.arms.records.items() if found} if facts.arms else {}
    names, means = list(cells), []
    for number, trials in enumerate(cells.values()):
        shared = set.intersection(*(set(trial.metrics) for trial in trials))
        mean = {metric: math.fsum(trial.metrics[metric] for trial in trials) / len(trials) for metric in shared}
        means.append(Record(number, "complete", {}, "", 0, {}, trials[0].costs, mean))
    return {names[record.number] for record in front(means, facts.study.objectives)}


def looks(facts: Facts) -> int:
    """How often the test part was read for a study: once for each of its own trials that has a test score."""
    return sum(trial.record.test is not None and trial.record.reused is None for trial in facts.trials)


def dates(facts: Facts) -> list[datetime]:
    """When the test part was read, the first time first."""
    found = []
    for trial in facts.trials:
        with contextlib.suppress(KeyError, ValueError):
            found.append(datetime.fromisoformat(str((trial.record.test or {})["read"])))
    return sorted(found)


# -- in words ---------------------------------------------------------------------------------------------------------


def how_words(facts: Facts) -> str:
    """What was trained again, in a sentence; of a study that confirms another."""
    design, seeds, epochs = facts.study.strategy, facts.study.seeds, facts.settings("epochs")
    assert isinstance(design, Listed)
    configs = sum(1 for numbers in design.numbers if numbers)
    beside = "" if all(design.numbers) else f", and {design.baseline} beside {'it,' if configs == 1 else 'them,'}"
    span = f" for {min(epochs)}{f' to {max(epochs)}' if len(epochs) > 1 else ''} epochs" if epochs else ""
    return (
        f"Trained again from the beginning{span}: {design.rule} of {design.of} ({counted(configs, 'config')}){beside} with"
        f" {counted(len(seeds), 'fresh seed')} ({listed(seeds)}) that the search never used; nothing was stopped early."
    )


def looks_words(facts: Facts) -> str:
    """How often, when and by what the test part was read for a study that confirms another."""
    read, moments = looks(facts), dates(facts)
    sizes = [test["pictures"] for trial in facts.trials if (test := trial.record.test) and "pictures" in test]
    size = f" ({counted(max(sizes), 'picture')})" if sizes else ""
    when = "" if not moments else f", on {day(moments[0])}"
    if moments and day(moments[-1]) != day(moments[0]):
        when = f", from {day(moments[0])} to {day(moments[-1])}"
    return f"The test part{size} was read {counted(read, 'time')}: once for each trial, after its last epoch{when}."


def order_words(facts: Facts) -> list[str]:
    """When the test part was read for a study that was confirmed, and which of its own trials ended only then."""
    if facts.confirmed is None:
        return []
    first = min(dates(facts.confirmed), default=None)
    late = [
        trial
        for trial in facts.trials
        if first is not None and trial.record.ended is not None and trial.record.ended > first
    ]
    after = f"{counted(len(late), 'trial')} of {facts.study.name} ended after it had been read for the first time."
    return [looks_words(facts.confirmed), *([after] if late else [])]


def curse_words(found: Confirmed) -> str:
    """The winner's curse in points: on the test part, and on validation pictures alone."""
    tested, validated = found.by_test, found.by_validation
    if tested is None:
        return "What the search said of these configs is not known any more, so that their loss cannot be told."
    who = "the config is" if tested.configs == 1 else f"the {tested.configs} configs are, on average,"
    words = f"On the test part {who} {apart(found, tested)} what the search promised: {meaning(tested)}."
    if validated is None:
        return words
    return f"{words} On validation pictures, with the same fresh seeds, {apart(found, validated)} it."


def meaning(found: Loss) -> str:
    """What a loss is taken for."""
    if found.low > 0:
        return "the winner's curse, for the best of many are partly the luckiest"
    return "better than promised" if found.high < 0 else "no more than seeds explain"


def apart(found: Confirmed, by: Loss) -> str:
    """1.20 points of accuracy (95 % interval 0.80 to 1.60) short of."""
    sign = 1 if by.mean >= 0 else -1
    low, high = sorted((sign * by.low, sign * by.high))
    scale, decimals = found.unit.scale, found.unit.decimals
    between = f" (95 % interval {low * scale:.{decimals}f} to {high * scale:.{decimals}f})" if math.isfinite(low) else ""
    amount = f"{abs(by.mean) * scale:.{decimals}f}{symbol(found.unit)}"
    return f"{amount} of {NOUNS[found.main.metric]}{between} {'short of' if sign > 0 else 'beyond'}"


def symbol(unit: Unit) -> str:
    """Of a difference: points where the values are shares in percent."""
    return " points" if unit.symbol == "%" else f" {unit.symbol}" if unit.symbol else ""


def front_words(found: Confirmed) -> str:
    """How many stay on the front, and where the search's best has come to; empty for a single config."""
    configs = found.found
    if len(configs) < 2:
        return ""
    kept, aims = sum(one.on_front for one in configs), listed(NOUNS[metric] for metric in found.aims)
    best = min(configs, key=lambda one: found.main.sign * (one.promised or 0))
    place = configs.index(best) + 1
    now = "is still the best of them" if place == 1 else f"is now number {place} of {len(configs)}"
    return (
        f"{kept} of the {len(configs)} {'is' if kept == 1 else 'are'} on the front of the means over {aims}. The one that"
        f" the search took for the best, {best.name}, {now}."
    )
