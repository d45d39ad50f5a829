"""The arms of a design against its baseline: the facts behind the page's effects, in a table, a figure and a sentence."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import isfinite
from typing import TYPE_CHECKING, Any

from harness.analysis.arms import Arms, plan_of
from harness.analysis.effects import LEVEL, Effect
from harness.analysis.sequential import extended
from harness.design import Design, Exhaustive, changes
from harness.report.ablation import Ablation, ablation
from harness.report.facts import MANY, Facts
from harness.report.words import NOUNS, Unit, counted, listed

if TYPE_CHECKING:
    import plotly.graph_objects as go

HELPS, HURTS, OPEN = "#2a9d7c", "#b4441f", "#8a8a90"


@dataclass(frozen=True)
class Comparison:
    """What a design found: its arms and the table of their effects."""

    arms: Arms
    table: Ablation
    planned: str
    """The hash of the plan as it was before training; empty for a study that planned no comparison then."""
    later: tuple[str, ...] = ()
    """What was changed of the plan since, or declared only then."""

    @property
    def effects(self) -> list[Effect]:
        return [row.effect for row in self.table.rows if row.effect is not None]


def compared(facts: Facts) -> Comparison | None:
    """The comparison of a study that plans one and has something to compare, else None."""
    arms = facts.arms
    if arms is None or not arms.records[arms.baseline] or not any(arms.records[name] for name in arms.names[1:]):
        return None
    strategy = facts.study.strategy
    design = strategy if isinstance(strategy, Design | Exhaustive) else None
    lacking = lacking_words(arms)
    table = ablation(
        arms.values(facts.main.metric),
        arms.baseline,
        facts.main.metric,
        margin=design.margin if design else None,
        primary=design.primary if design else None,
        larger_is_better=facts.main.direction == "maximize",
        costs=arms.costs(),
        comment=origin(facts),
        unit=facts.main.unit,
        course=arms.course,
        beyond=arms.beyond,
        lacking=lacking and f"{lacking}; each comparison rests on the seeds that both arms have.",
    )
    return Comparison(arms, table, str(facts.attributes.get("plan", "")), _later(facts))


def foremost(found: Comparison) -> Comparison:
    """The comparison with its baseline and, of many arms, the primary one and those of the best means, the best first."""
    base, *others = found.table.rows
    if len(others) <= MANY:
        return found
    sign = -1 if found.table.larger_is_better else 1
    told = [row for row in others if isfinite(row.mean) or row.arm == found.table.primary]
    best = sorted(told, key=lambda row: (row.arm != found.table.primary, sign * row.mean))[:MANY]
    return replace(found, table=replace(found.table, rows=(base, *best)))


def _later(facts: Facts) -> tuple[str, ...]:
    """What the study's plan has become since it was stored."""
    before = facts.attributes.get("planned")
    now = plan_of(facts.study, facts.attributes.get("asked", {}).get("training"))
    if now is None:
        return ()
    if not isinstance(before, dict):
        what = "the comparison" if now["primary"] is None else f"the primary comparison {now['primary']!r}"
        return (f"{what} was declared after training had begun",)
    old, new = before.get("seeds"), now["seeds"]
    raised = isinstance(old, dict) and isinstance(new, dict) and old["first"] == new["first"] and old["most"] < new["most"]
    course = facts.arms.course if facts.arms is not None else None
    if not raised or course is None or not isinstance(old, dict):
        return tuple(changes(before, now))
    share = LEVEL / course.tested
    false = course.tested * extended(share, new["first"], old["most"], new["most"])
    words = f"a false claim has a chance of {100 * false:.1f} % where that was done after those looks, not {100 * LEVEL:g} %"
    return (*changes(before, now), words)


def origin(facts: Facts) -> str:
    """Where a table's numbers come from: study, commits, the last trial's date."""
    commits = ", ".join(str(commit)[:12] for commit in facts.origins("commit")) or "unknown"
    last = max((trial.record.ended for trial in facts.trials if trial.record.ended), default=None)
    return f"study {facts.study.name}, commit {commits}, {last.date() if last else 'no date'}"


# -- in words ---------------------------------------------------------------------------------------------------------


def verdicts(found: Comparison) -> str:
    """The answer of a comparison, in a sentence or two: what helps, what hurts, what makes no difference, what is open."""
    table, told = found.table, found.effects
    groups = {verdict: [effect for effect in told if effect.verdict == verdict] for verdict in ("helps", "hurts")}
    words = [
        f"{listed(_gain(table, effect) for effect in effects)} {verdict if len(effects) == 1 else verdict[:-1]}"
        for verdict, effects in groups.items()
        if effects
    ]
    if same := [effect for effect in told if effect.verdict == "no difference"]:
        words.append(f"{listed(_arm(effect) for effect in same)} {_make(same)} {table.verdict(same[0])}")
    if undecided := [effect for effect in told if effect.verdict == "undecided"]:
        words.append(
            f"{listed(_undecided(effect) for effect in undecided)} {'is' if len(undecided) == 1 else 'are'} undecided"
        )
    seeds = counted(len(found.arms.seeds), "seed")
    return f"Against {found.arms.baseline} in {NOUNS[table.metric]}, over {seeds}: {'; '.join(words)}."


def _arm(effect: Effect) -> str:
    return f"\N{LEFT DOUBLE QUOTATION MARK}{effect.arm}\N{RIGHT DOUBLE QUOTATION MARK}"


def _make(effects: list[Effect]) -> str:
    return "makes" if len(effects) == 1 else "make"


def _gain(table: Ablation, effect: Effect) -> str:
    interval = table.interval(effect)[1:-1].replace(", ", " to ")
    return f"{_arm(effect)} ({table.signed(effect.difference)}{table.unit}, {interval})"


def _undecided(effect: Effect) -> str:
    more = effect.more
    return _arm(effect) + (f" ({more} more seed{'s' * (more > 1)})" if more else "")


def lacking_words(arms: Arms) -> str:
    """The cells of a plan without a complete trial: seeds that no arm has, then arms with the seeds that they lack."""
    lacking = arms.missing
    if not lacking:
        return ""
    nobody = [seed for seed in arms.seeds if all(seed in lacking.get(name, ()) for name in arms.names)]
    own = {name: [seed for seed in seeds if seed not in nobody] for name, seeds in lacking.items()}
    own = {name: seeds for name, seeds in own.items() if seeds}
    parts = [f"{_seeds(nobody)} of all {len(arms.names)} arms"] if nobody else []
    parts += [f"{name} ({_seeds(seeds)})" for name, seeds in list(own.items())[:6]]
    more = f"; and {len(own) - 6} more arms" if len(own) > 6 else ""
    return f"{counted(sum(map(len, lacking.values())), 'cell')} of the plan missing: {listed(parts)}{more}"


def _seeds(seeds: Sequence[int]) -> str:
    return f"seed{'s' if len(seeds) > 1 else ''} {listed(seeds)}"


def plan_words(found: Comparison) -> str:
    """Whether the comparison is the one that was planned before training; empty where none is planned."""
    if not found.planned:
        return f"Not planned before training: {'; '.join(found.later)}." if found.later else ""
    if not found.later:
        return f"As planned before training (plan {found.planned})."
    return f"Not as planned before training (plan {found.planned}): {'; '.join(found.later)}."


# -- ink --------------------------------------------------------------------------------------------------------------


def forest(found: Comparison, unit: Unit, layout: dict[str, Any]) -> "go.Figure":
    """Each arm's difference to the baseline with its 95 % interval, over the paired differences of the single seeds; the
    band is the margin within which a difference does not matter."""
    from html import escape

    import plotly.graph_objects as go

    figure = go.Figure(layout=layout)
    scale, values = found.table.scale, found.arms.values(found.table.metric)
    base = values[found.arms.baseline]
    shown = [effect for effect in reversed(found.effects) if effect.seeds]
    for place, effect in enumerate(shown):
        seeds = effect.seeds
        figure.add_scatter(
            x=[(values[effect.arm][seed] - base[seed]) * scale for seed in seeds],
            y=[place - 0.18] * len(seeds),
            mode="markers",
            marker={"symbol": "line-ns-open", "size": 8, "color": OPEN},
            customdata=[found.arms.records[effect.arm][seed].number for seed in seeds],
            text=[f"seed {seed}" for seed in seeds],
            hovertemplate="<b>Trial %{customdata}</b> · %{text} · %{x:+.4g}<extra></extra>",
            showlegend=False,
        )
        colour = {"helps": HELPS, "hurts": HURTS}.get(effect.verdict, OPEN)
        bounded = isfinite(effect.high)
        figure.add_scatter(
            x=[effect.difference * scale],
            y=[place],
            mode="markers",
            marker={"size": 10, "color": colour, "symbol": "square"},
            error_x={
                "type": "data",
                "symmetric": True,
                "array": [(effect.high - effect.difference) * scale if bounded else 0],
                "color": colour,
                "thickness": 2,
                "width": 5,
            },
            text=[f"{escape(effect.arm)}: {escape(found.table.verdict(effect))}"],
            hovertemplate="%{text}<br>%{x:+.4g}<extra></extra>",
            showlegend=False,
        )
    figure.add_vline(x=0, line={"color": OPEN, "width": 1})
    if margin := next((effect.margin for effect in shown if effect.margin), None):
        figure.add_vrect(x0=-margin * scale, x1=margin * scale, fillcolor=OPEN, opacity=0.12, line_width=0)
    names = [escape(effect.arm) for effect in shown]
    figure.update_yaxes(tickvals=list(range(len(shown))), ticktext=names, range=(-0.6, len(shown) - 0.4), showgrid=False)
    symbol = f" ({unit.symbol.replace('%', 'points')})" if unit.symbol else ""
    reach = 1.08 * max((abs(x) for trace in figure.data for x in trace.x), default=1.0)
    wide = max(
        [reach, *(1.05 * scale * abs(end) for effect in shown if isfinite(effect.high) for end in (effect.low, effect.high))]
    )
    figure.update_xaxes(range=(-wide, wide))
    figure.update_xaxes(title_text=f"Difference in {NOUNS[found.table.metric]} to {escape(found.arms.baseline)}{symbol}")
    figure.update_layout(height=90 + 46 * len(shown))
    return figure
