"""What the facts say, in sentences: the answer, what was done, what it does not show, where it comes from."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from math import isfinite
from typing import Any

from harness.analysis.effects import Effect
from harness.design import Design, Sequential, arms
from harness.record import State
from harness.report.ablation import Ablation, Row
from harness.report.comparison import Comparison, compared
from harness.report.confirmed import looks_words
from harness.report.facts import Facts, Trial
from harness.report.words import DATASETS, NOUNS, SPACE, Difference, counted, day, duration, listed, percent, spelled, unit
from harness.strategies.auto import MANY, resolved
from harness.strategies.stopping import ranked_by
from harness.study import Constraint, Evolution, Exhaustive, Search, Study

STRATEGIES = {
    "random": "Random search",
    "tpe": "A TPE search",
    "bayesian": "A search by a Gaussian process",
    "exhaustive": "Every config",
}
DESIGNS = {
    "leave-one-out": "Leave one out",
    "add-one-in": "Add one in",
    "one-at-a-time": "One at a time",
    "factorial": "A factorial design",
    "fractional-factorial": "A fractional factorial design",
    "listed": "Confirmed",
}
LEFT = {"stopped": "stopped early", "failed": "failed", "running": "still running"}
MOST_ARMS, ENOUGH = 3, 50
"""Arms of one kind that the answer names, and more seeds than it speaks of."""
HALVINGS = {"halving": "successive halving", "asha": "ASHA"}


def told(facts: Facts) -> str:
    """The answer in a sentence or two: of a comparison what its arms gain, else the best trial."""
    found = compared(facts)
    if found is None:
        return answer(facts)
    return ranking(facts, found) if facts.ranked else gains(found)


def ranking(facts: Facts, found: Comparison) -> str:
    """Of the many configs of a space the one with the best mean, and the cheapest about as good."""
    best, cheap = _top(facts, found)
    unit, seeds = facts.units[facts.main.metric], counted(best.seeds, "seed")
    half = f" ± {unit.figure(best.half)}" if isfinite(best.half) else ""
    words = (
        f"The best of {counted(len(found.arms.names), 'config')} is {quoted(best.arm)}, with {unit.figure(best.mean)}{half}"
    )
    words = f"{words}{SPACE}{unit.symbol} {NOUNS[unit.metric]} over {seeds}.".replace(f"{SPACE} ", " ")
    noun = NOUNS[facts.thrift.metric]
    if cheap is best:
        return f"{words} No other within {near(facts)} of it is cheaper in {noun}."
    saved = share(cheap.costs[facts.thrift.metric], best.costs[facts.thrift.metric])
    return f"{words} Within {near(facts)} of it, {quoted(cheap.arm)} needs {saved} {noun}."


def _top(facts: Facts, found: Comparison) -> tuple[Row, Row]:
    """The arm with the best mean, and the cheapest with one about as good."""
    metric, rows = facts.thrift.metric, [row for row in found.table.rows if isfinite(row.mean)]
    best = next(row for row in rows if row.arm == found.table.best)
    tolerance = 0.01 if facts.in_points else 0.05 * abs(best.mean)
    close = [row for row in rows if facts.main.sign * (row.mean - best.mean) <= tolerance + 1e-12 and metric in row.costs]
    thrifty = min(close, key=lambda row: (facts.thrift.sign * row.costs[metric], facts.main.sign * row.mean), default=best)
    return best, thrifty


def gains(found: Comparison) -> str:
    """What each arm gains over the baseline, those that differ first; of many arms those that gain or lose most."""
    table, base = found.table, found.arms.baseline
    arms = sorted((effect for effect in found.effects if effect.seeds), key=lambda effect: -abs(effect.difference))
    decided = [effect for effect in arms if effect.verdict in ("helps", "hurts")]
    same = [effect for effect in arms if effect.verdict == "no difference"]
    still_open = [effect for effect in arms if effect.verdict == "undecided"]
    words = []
    if decided and not table.primary and not any(effect.verdict == "helps" for effect in decided):
        words.append(f"No arm is shown to gain over {base}")
    if decided:
        parts = [f"{quoted(effect.arm)} {_gained(table, effect)}" for effect in decided[:MOST_ARMS]]
        parts[0] += f" {'over' if decided[0].difference > 0 else 'against'} {base}"
        more = len(decided) - MOST_ARMS
        others = [f"{counted(more, 'more arm')} {'differs' if more == 1 else 'differ'} from it"] if more > 0 else []
        words.append("; ".join([*parts, *others]))
    if same:
        against_it = "" if decided else f" against {base}"
        words.append(f"{_few(same)}: {table.verdict(same[0])}{against_it}")
    if still_open:
        whole = "No arm is decided against" if not decided and not same else "Undecided against"
        shown = f" {base}: {_few(still_open)}" if whole.startswith("Und") else f" {base} yet"
        if table.primary:
            whole, shown = f"{quoted(table.primary)} is undecided against", f" {base}"
        least = min((effect.more for effect in still_open if effect.more), default=None)
        enough = f"; {counted(least, 'more seed')} would tell the first" if least is not None and least <= ENOUGH else ""
        words.append(f"{whole}{shown}{enough}")
    seeds = sorted({len(effect.seeds) for effect in arms}) or [0]
    over = f"over {span(seeds)} of {counted(len(found.arms.seeds), 'seed')}" if seeds[0] < len(found.arms.seeds) else ""
    over = over or f"over {counted(len(found.arms.seeds), 'seed')}"
    alone = f"; {quoted(table.primary)} is the primary comparison, the others are not tested" if table.primary else ""
    tested = ". ".join(words) or "Nothing was tested"
    return f"{tested}. In {NOUNS[table.metric]}, {over}, with 95{SPACE}% intervals{alone}."


def _gained(table: Ablation, effect: Effect) -> str:
    """gains 0.9 ± 0.3 points: the verdict as a verb where more is better, else as it is."""
    size, half = abs(effect.difference), effect.high - effect.difference
    amount = f"{table.number(size)} ± {table.number(half)}{table.unit}"
    if table.larger_is_better:
        return f"{'gains' if effect.difference > 0 else 'loses'} {amount}"
    return f"{effect.verdict}, by {amount}"


def _few(effects: Sequence[Effect]) -> str:
    shown = [quoted(effect.arm) for effect in effects[:MOST_ARMS]]
    return listed([*shown, *([f"{len(effects) - MOST_ARMS} more"] if len(effects) > MOST_ARMS else [])])


def quoted(name: str) -> str:
    return f"\N{LEFT DOUBLE QUOTATION MARK}{name}\N{RIGHT DOUBLE QUOTATION MARK}"


def against(facts: Facts) -> str:
    """What a trial's choices are told against."""
    if facts.arms is not None and isinstance(facts.study.strategy, Design):
        return f"the baseline {facts.arms.baseline}"
    return "what most trials have"


def names(studies: Sequence[Facts]) -> str:
    """The studies of a page."""
    return listed(facts.study.name for facts in studies)


@dataclass(frozen=True)
class Card:
    """A number to remember, and what it belongs to."""

    title: str
    number: str
    differs: tuple[Difference, ...]
    """What was chosen, in chips."""
    words: tuple[str, ...]
    """Further facts; `trial 17` in them opens that trial."""


def cards(facts: Facts) -> list[Card]:
    """The best and the thriftiest trial of a search; of a comparison the best mean and the baseline's."""
    found = compared(facts)
    if found is not None:
        if facts.ranked:
            best_row, cheap = _top(facts, found)
            shown = [("Best mean", best_row.arm)]
            shown += (
                [] if cheap is best_row else [(f"Fewest {NOUNS[facts.thrift.metric]} within {near(facts)}: mean", cheap.arm)]
            )
            return [_arm_card(facts, found, arm, title) for title, arm in shown]
        best = [found.table.best] if found.table.best not in ("", found.arms.baseline) else []
        shown = [("Best mean", arm) for arm in best] + [("Baseline", found.arms.baseline)]
        return [_arm_card(facts, found, arm, title) for title, arm in shown]
    if facts.best is None:
        return []
    top = [_trial_card(facts, f"Best {NOUNS[facts.main.metric]}", facts.best)]
    if facts.thrifty is None or facts.thrifty is facts.best:
        return top
    return [*top, _trial_card(facts, f"Fewest {NOUNS[facts.thrift.metric]} within {near(facts)}", facts.thrifty)]


def _trial_card(facts: Facts, title: str, trial: Trial) -> Card:
    words = [f"Trial {trial.number}"]
    for metric in (cost.metric for cost in facts.costs if trial.value(cost.metric) is not None):
        saved = change(facts, trial, metric) if trial is not facts.best else ""
        words.append(facts.units[metric].noun(trial.value(metric)) + (f" ({saved})" if saved else ""))
    return Card(title, facts.units[facts.main.metric].text(trial.value(facts.main.metric)), trial.differs, tuple(words))


def _arm_card(facts: Facts, found: Comparison, arm: str, title: str) -> Card:
    row = next(row for row in found.table.rows if row.arm == arm)
    unit = facts.units[facts.main.metric]
    half = f" ± {unit.figure(row.half)}" if isfinite(row.half) else ""
    number = f"{unit.figure(row.mean)}{half}{SPACE}{unit.symbol}".rstrip()
    costs = (facts.units[metric].noun(value) for metric, value in row.costs.items())
    return Card(
        f"{title} {NOUNS[facts.main.metric]}", number, (Difference("", (arm,)),), (counted(row.seeds, "seed"), *costs)
    )


def answer(facts: Facts) -> str:
    """The best trial, the cheapest one about as good, and the size of the front."""
    if facts.best is None:
        return _no_answer(facts)
    tried = counted(len(facts.complete), "trial")
    if len(facts.complete) == 1:
        return f"One trial so far: {_score(facts, facts.best)}, with {_config(facts.best)}."
    best = f"The best of {tried} reaches {_score(facts, facts.best)} with {_config(facts.best)}."
    on_front = spelled(len(facts.front), "trial is", "trials are")
    single = len(facts.study.objectives) == 1
    return " ".join([best, _saving(facts)] + ([] if single else [f"{on_front} on the front of {aims(facts)}."]))


def _no_answer(facts: Facts) -> str:
    if not facts.trials:
        return "No answer yet: no trial has started."
    if "complete" in facts.states:
        return f"No answer: no complete trial has a number for its {NOUNS[facts.main.metric]}."
    if set(facts.states) == {"failed"}:
        return f"No answer: {'the only trial' if len(facts.trials) == 1 else f'all {len(facts.trials)} trials'} failed."
    return f"No answer yet: no trial is complete ({counts(facts.states, facts.untrained)})."


def counts(states: Mapping[State, int], untrained: int = 0) -> str:
    """How many trials ended how: 12 complete, 28 stopped early and 1 failed; so many stopped ones were over a constraint."""
    found = {"stopped early" if state == "stopped" else state: number for state, number in states.items()}
    if untrained:
        found |= {"stopped early": found["stopped early"] - untrained, "over a constraint": untrained}
    return listed(f"{number:,} {words}" for words, number in found.items() if number)


def _config(trial: Trial) -> str:
    return listed(difference.prose for difference in trial.differs) if trial.differs else "the only config"


def _score(facts: Facts, trial: Trial) -> str:
    return facts.units[facts.main.metric].noun(trial.value(facts.main.metric))


def near(facts: Facts) -> str:
    return "1 point" if facts.in_points else f"5{SPACE}%"


def _saving(facts: Facts) -> str:
    """How the cheapest trial about as good as the best compares with it."""
    if facts.thrifty is None or facts.best is None:
        return ""
    if facts.thrifty is facts.best:
        return f"No other within {near(facts)} of it is cheaper in {NOUNS[facts.thrift.metric]}."
    return (
        f"Within {near(facts)} of it, trial {facts.thrifty.number} needs {change(facts, facts.thrifty, facts.thrift.metric)}"
        f" {NOUNS[facts.thrift.metric]}."
    )


def change(facts: Facts, trial: Trial, metric: str) -> str:
    """A trial's cost against the best one's: `31 % fewer`."""
    own, best = trial.value(metric), facts.best.value(metric) if facts.best else None
    return "" if own is None or not best else share(own, best)


def share(own: float, best: float) -> str:
    """One cost against another, which is not 0: 31 % fewer."""
    more = 100 * (own - best) / best
    if own == best:
        return "as many"
    return f"{abs(more):.{0 if abs(more) >= 1.5 else 2}f}{SPACE}% {'fewer' if more < 0 else 'more'}"


def aims(facts: Facts) -> str:
    return listed(NOUNS[objective.metric] for objective in facts.study.objectives)


def done(facts: Facts) -> list[tuple[str, str]]:
    """What was done, a line each."""
    longest = max(map(int, facts.settings("epochs")), default=0)
    how = early_stopping(facts.study, longest)
    stopping = [("Stopped", f"{how[0].upper()}{how[1:]}.")] if facts.study.stopping and longest else []
    return [("Searched", _searched(facts)), ("Trained", _trained(facts)), *stopping, ("Ran", _ran(facts))]


def _searched(facts: Facts) -> str:
    size = facts.space.size
    strategy = resolved(facts.study, facts.space)
    among = "a continuous space" if size == float("inf") else f"a space of {counted(size, 'config')}"
    choices = counted(len(facts.space.parameters), "choice")
    if isinstance(strategy, Design):
        planned = arms(strategy, facts.space)
        seeds = facts.study.seeds
        several = f"{seeds.first} to {seeds.most} seeds" if isinstance(seeds, Sequential) else counted(len(seeds), "seed")
        how = f"{DESIGNS[strategy.kind]}: {counted(len(planned), 'arm')} with {several} each"
        how += f", against {planned[0].name}"
    elif isinstance(strategy, Exhaustive):
        how = f"Every config of {among} ({choices})"
    elif isinstance(strategy, Evolution):
        bred = f"the most promising of {strategy.children} children each" if strategy.children > 1 else "NSGA-II"
        kind = "NSGA-III" if len(facts.study.objectives) > MANY else bred
        how = f"Evolution ({kind}, population {strategy.population}) in {among} ({choices})"
    else:
        how = f"{STRATEGIES[strategy.kind]} in {among} ({choices})"
    bounds = "".join(f"; {bound(constraint)}" for constraint in facts.study.constraints)
    if (seen := facts.attributes.get("screened", {})) and seen["over"]:
        share = percent(seen["over"] / seen["looked_at"])
        bounds += f", which {share} of {counted(seen['looked_at'], 'config')} looked at had not: none was trained"
    return f"{how}, {_aim(facts)}{bounds}."


def early_stopping(study: Study, epochs: int) -> str:
    """Who is stopped early, of trials of so many epochs."""
    rule = study.stopping
    if rule is None or not rule.rungs(epochs):
        return "no trial is stopped early"
    rungs = rule.rungs(epochs)
    by = listed(NOUNS[objective.metric] for objective in ranked_by(rule, study.objectives))
    where = f"after epoch{'s' if len(rungs) > 1 else ''} {listed(rungs)} of {epochs}"
    return f"{HALVINGS[rule.kind]} by {by} {where}: one in {rule.reduction_factor} goes on, once {rule.quorum} are there"


def _aim(facts: Facts) -> str:
    """maximising accuracy, minimising parameters and MACs"""
    ways: dict[str, list[str]] = {}
    for objective in facts.study.objectives:
        ways.setdefault(f"{objective.direction[:-2]}sing", []).append(NOUNS[objective.metric])
    return ", ".join(f"{way} {listed(nouns)}" for way, nouns in ways.items())


def bound(constraint: Constraint) -> str:
    """A constraint with a readable number: at most 60 M MACs."""
    limit = constraint.at_most or constraint.at_least or 0
    scale = unit(constraint.metric, [limit])
    words = [f"{limit * scale.scale:,.4g}", scale.symbol, NOUNS[constraint.metric]]
    return f"at {'most' if constraint.at_least is None else 'least'} {SPACE.join(filter(None, words))}"


def _trained(facts: Facts) -> str:
    data = facts.attributes.get("data") or {}
    names = facts.settings("dataset") or [name for name in [data.get("dataset")] if name]
    if not names:
        return "Nothing yet."
    about = [counted(data["train"], "training picture")] if data.get("train") else []
    about += [counted(data["classes"], "class", "classes")] if data.get("classes") else []
    about += [" x ".join(str(side) for side in data["shape"][1:])] if len(data.get("shape") or ()) == 3 else []
    parts = [listed(DATASETS.get(str(name), str(name)) for name in names) + (f" ({', '.join(about)})" if about else "")]
    if facts.settings("epochs"):
        parts.append(f"{span(facts.settings('epochs'))} epochs a trial")
    if facts.settings("batch_size"):
        parts.append(f"batches of {span(facts.settings('batch_size'))}")
    return f"{', '.join(parts)}, {_seeds(facts)}."


def span(found: list[Any]) -> str:
    """One value, or the least and the greatest."""
    return f"{min(found):,}" if len(found) == 1 else f"{min(found):,} to {max(found):,}"


def _seeds(facts: Facts) -> str:
    seeds = facts.study.seeds
    return f"one seed ({seeds[0]})" if len(seeds) == 1 else f"{len(seeds)} seeds ({listed(seeds)})"


def _ran(facts: Facts) -> str:
    if not facts.trials:
        return f"No trial of {facts.planned:,} planned." if facts.planned else "No trial."
    most = "at most " if isinstance(facts.study.strategy, Exhaustive) and facts.study.constraints else ""
    plan = f" of {most}{facts.planned:,} planned" if facts.planned else ""
    spent = counted(facts.epochs, "epoch") + (f" in {duration(facts.seconds)} of training" if facts.seconds else "")
    spent += f" ({counted(facts.saved, 'epoch')} saved by early stopping)" if facts.saved else ""
    on = f" on {listed(facts.devices)}" if facts.devices else ""
    taken = f", {sum(facts.reused.values()):,} of them taken over from {listed(facts.reused)}" if facts.reused else ""
    return f"{counts(facts.states, facts.untrained)}{plan}{taken}; {spent}{on}{_dates(facts)}."


def _dates(facts: Facts) -> str:
    moments = [moment for trial in facts.trials for moment in (trial.record.started, trial.record.ended) if moment]
    days = sorted({moment.date() for moment in moments})
    if not days:
        return ""
    return f", {day(moments[0])}" if len(days) == 1 else f", {days[0]:%d %B} to {days[-1]:%d %B %Y}".replace(" 0", " ")


def _untouched(facts: Facts) -> str:
    """Which pictures the scores are of."""
    if facts.study.scores_test:
        return looks_words(facts)
    if facts.confirmed is not None:
        return "Scores are of the validation part, but for what was confirmed: that is of the test part."
    return (
        f"Every score is of the validation part; the test part stays untouched until `harness confirm {facts.study.name}`."
    )


def limits(facts: Facts) -> list[tuple[str, str]]:
    """What the study does not show: a catchword and a sentence each."""
    return list(_limits(facts))


def _limits(facts: Facts) -> Iterator[tuple[str, str]]:
    names, seeds, size = facts.settings("dataset"), len(facts.study.seeds), facts.space.size
    if len(names) == 1:
        known = DATASETS.get(str(names[0]), str(names[0]))
        yield "Other data", f"All of this is {known}; another data set may rank the configs otherwise."
    if epochs := facts.settings("epochs"):
        yield "Longer training", f"Trials had {span(epochs)} epochs; what learns slowly may overtake later."
    if facts.states.get("stopped", 0) > facts.untrained:
        yield (
            "Late starters",
            f"Whoever was stopped early might have caught up: `harness run {facts.study.name} --promote 10` finds out.",
        )
    if seeds == 1:
        yield (
            "Chance",
            "One seed a config gives no intervals, and the best of many is partly luck: small gaps prove nothing.",
        )
    else:
        few = "; intervals of so few seeds are wide" if seeds < 10 else ""
        yield "Chance", f"Means rest on {seeds} seeds a config{few}; a single trial of it may be far from them."
    yield "Test accuracy", _untouched(facts)
    if isinstance(facts.study.strategy, Search):
        seen = f"{len(facts.trials):,} of {size:,.0f} configs" if size < float("inf") else "a sample"
        yield "All configs", f"The search saw {seen}, in the order in which results arrived; another run may see others."
    elif facts.planned and len(facts.complete) < facts.planned:
        yield "All configs", f"{len(facts.complete):,} of {facts.planned:,} combinations of config and seed are complete."
    ended = {str(state): number for state, number in facts.states.items()}
    ended["stopped"] = ended.get("stopped", 0) - facts.untrained
    left = [f"{ended[state]:,} {words}" for state, words in LEFT.items() if ended.get(state)]
    left += [f"{facts.untrained:,} over a constraint"] if facts.untrained else []
    if left:
        yield "Unfinished trials", f"{listed(left)}: none of them is on a front."
