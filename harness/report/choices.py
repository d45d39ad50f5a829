"""Which choices matter: importance over the trials of a study, and the maps of a factorial design."""

import csv
import io
from collections.abc import Sequence
from html import escape
from typing import TYPE_CHECKING, Any

from harness.analysis.effects import EffectError
from harness.analysis.factors import Factor, factors
from harness.design import CONTROLS, Factorial, FractionalFactorial
from harness.report.facts import Facts
from harness.report.section import Map
from harness.report.sheet import Cell, Column, Sheet
from harness.report.words import KINDS, NOUNS, choice_title, counted, percent
from harness.space import Span
from harness.study import Exhaustive, Search

if TYPE_CHECKING:
    import plotly.graph_objects as go

    from harness.strategies.importance import Importance

FEWEST = 20
"""Complete trials below which importance is not told."""
SHOWN = 12
"""Choices drawn."""
BAR, DOT = "#2f7fc1", "#d9622b"
Names = tuple[str, ...]
Means = tuple[tuple[float | None, ...], ...]


# -- importance -------------------------------------------------------------------------------------------------------


def importance_of(facts: Facts) -> "Importance | None":
    """The importance of the choices for the main metric; None where too few trials are complete."""
    if len(facts.complete) < FEWEST:
        return None
    from harness.strategies.importance import importance  # Optuna, which takes a while to load

    complete = sorted(facts.complete, key=lambda trial: trial.number)
    trials = [(trial.record.params, value) for trial in complete if (value := trial.value(facts.main.metric)) is not None]
    return importance(facts.space, trials, maximize=facts.main.direction == "maximize")


def importance_words(facts: Facts, found: "Importance") -> str:
    """What the bars mean, and on how few trials they rest."""
    noun = NOUNS[facts.main.metric]
    words = (
        f"Bars: the share of the spread in {noun} over the space that a choice explains alone (fANOVA, a forest of trees); a"
        " choice that a trial does not have counts at its default there. "
    )
    if found.ped:
        words += (
            f"Dots: the share of what tells the best {percent(found.quantile)} of trials from all (PED-ANOVA), among the"
            " choices that every trial has. "
        )
    tried = ", and a search tries some values more than others" if isinstance(facts.study.strategy, Search) else ""
    return words + (
        f"Lines hold {found.inside} of {found.resamples} resamples of the trials. All of it rests on"
        f" {counted(found.trials, 'trial')}{tried}: small differences prove nothing."
    )


def importance_figure(found: "Importance", layout: dict[str, Any]) -> "go.Figure":
    """A bar for each choice, those that explain most above."""
    import plotly.graph_objects as go

    figure = go.Figure(layout=layout)
    shown = list(reversed(found.fanova[:SHOWN]))
    place = {share.name: index for index, share in enumerate(shown)}
    dots = [share for share in found.ped if share.name in place]
    for name, shares, offset, colour in (("fANOVA", shown, 0.0, BAR), ("PED-ANOVA", dots, -0.32, DOT)):
        hover = [
            f"{escape(choice_title(one.name))}: {percent(one.share)} ({percent(one.low)} to {percent(one.high)})"
            for one in shares
        ]
        spread = {
            "type": "data",
            "symmetric": False,
            "array": [max(100 * (one.high - one.share), 0) for one in shares],
            "arrayminus": [max(100 * (one.share - one.low), 0) for one in shares],
            "color": colour if offset else "#6b6b70",
            "thickness": 1.5,
            "width": 4,
        }
        given: dict[str, Any] = {
            "x": [100 * one.share for one in shares],
            "y": [place[one.name] + offset for one in shares],
            "error_x": spread,
            "text": hover,
            "hovertemplate": "%{text}<extra></extra>",
            "name": name,
        }
        if offset:
            figure.add_scatter(**given, mode="markers", marker={"color": colour, "size": 8})
        else:
            figure.add_bar(
                **given, orientation="h", marker={"color": colour, "opacity": 0.55}, textposition="none", width=0.5
            )
    names = [escape(choice_title(one.name)) for one in shown]
    figure.update_yaxes(tickvals=list(range(len(shown))), ticktext=names, range=(-0.7, len(shown) - 0.3), showgrid=False)
    figure.update_xaxes(title_text="Share (%)", range=(0, 100))
    figure.update_layout(showlegend=False, height=80 + 34 * len(shown))
    return figure


# -- the maps of a factorial design ------------------------------------------------------------------------------------


def maps(facts: Facts) -> list[Map]:
    """Stage by attention, and the strongest interaction of two choices; nothing where the design crosses none."""
    crossed = _factors(facts)
    mains = [factor for factor in crossed if len(factor.names) == 1]
    placed = [factor for factor in mains if factor.names[0].endswith(".attention")]
    found = [_mains(facts, placed)] if placed else []
    pairs = [factor for factor in crossed if len(factor.names) == 2]
    if pairs:
        found.append(_pair(facts, max(pairs, key=lambda factor: (factor.share, factor.names))))
    return found


def factor_sheet(facts: Facts) -> Sheet | None:
    """Every main effect and two-way interaction of a factorial design, of a fraction the main effects; None of any other."""
    columns = (Column("effect", words=True), Column("df"), Column("F"), Column("p", "Holm"), Column("share", "%"))
    rows = tuple(
        (
            Cell(" x ".join(map(choice_title, one.names))),
            Cell(str(one.df), (one.df,)),
            Cell(f"{one.f:.2f}", (one.f,)),
            Cell(_p(one.adjusted), (one.adjusted,)),
            Cell(f"{100 * one.share:.0f}", (100 * one.share,)),
        )
        for one in _factors(facts)
    )
    return Sheet(columns, rows) if rows else None


def factors_csv(facts: Facts) -> str:
    """The same as plain numbers, unrounded; empty where there is nothing."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["effect", "df", "f", "p", "p_holm", "partial_eta_squared"])
    found = _factors(facts)
    writer.writerows((" x ".join(one.names), one.df, one.f, one.p, one.adjusted, one.share) for one in found)
    return text.getvalue() if found else ""


def factor_words(facts: Facts) -> str:
    """What the maps and the table of effects are."""
    fraction = isinstance(facts.study.strategy, FractionalFactorial)
    return MAPS_NOTE + (FRACTION_NOTE if fraction else "")


def _factors(facts: Facts) -> list[Factor]:
    """The factors of a factorial design, of an exhaustive one with seeds, or of a fraction, whose interactions are not told
    apart; over choices that all arms have, but for the controls, which are none of its cells."""
    strategy = facts.study.strategy
    if not isinstance(strategy, Factorial | FractionalFactorial | Exhaustive):
        return []
    arms = facts.arms
    if arms is None:
        return []
    values = arms.values(facts.main.metric)
    trained = [name for name in arms.names if values[name] and name not in CONTROLS.values()]
    whole = not isinstance(strategy, FractionalFactorial)
    always = [name for name in facts.space.parameters if all(name in arms.params[arm] for arm in trained)]
    try:
        cells = [({name: arms.params[arm][name] for name in always}, values[arm]) for arm in trained]
        return factors(cells, interactions=whole)
    except EffectError:
        return []


def _mains(facts: Facts, placed: Sequence[Factor]) -> Map:
    columns = list(dict.fromkeys(level for factor in placed for level in _levels(facts, factor, 0)))
    rows = tuple(choice_title(factor.names[0]).removesuffix(" attention") for factor in placed)
    means = tuple(tuple(factor.means.get((level,)) for level in columns) for factor in placed)
    told = "; ".join(
        f"{row}: p {_p(factor.adjusted)}, {percent(factor.share)} of what is left" for row, factor in zip(rows, placed)
    )
    return _map(facts, "Stage by attention", rows, tuple(map(_level, columns)), means, f"Main effects ({told}).")


def _map(facts: Facts, title: str, rows: Names, columns: Names, means: Means, words: str) -> Map:
    unit = facts.units[facts.main.metric]
    told = f"{title}: mean {NOUNS[unit.metric]}{f' ({unit.symbol})' if unit.symbol else ''}"
    return Map(told, rows, columns, means, words, unit.scale, unit.decimals)


def _pair(facts: Facts, factor: Factor) -> Map:
    rows, columns = _levels(facts, factor, 0), _levels(facts, factor, 1)
    means = tuple(tuple(factor.means.get((row, column)) for column in columns) for row in rows)
    one, other = map(choice_title, factor.names)
    words = (
        f"Of all pairs of choices these two interact most: p {_p(factor.adjusted)}, {percent(factor.share)} of what is left."
    )
    title = f"{one[:1].upper()}{one[1:]} by {other}"
    return _map(facts, title, tuple(map(_level, rows)), tuple(map(_level, columns)), means, words)


def _levels(facts: Facts, factor: Factor, side: int) -> list[str]:
    """The levels that a choice had among the arms, in the order of the space."""
    domain = facts.space.parameters[factor.names[side]]
    order = [] if isinstance(domain, Span) else [str(value) for value in domain]
    seen = dict.fromkeys(levels[side] for levels in factor.means)
    return sorted(seen, key=lambda level: order.index(level) if level in order else len(order))


def _level(level: str) -> str:
    return KINDS.get(level, level)


def _p(value: float) -> str:
    return "< 0.001" if value < 0.001 else f"{value:.3f}"


FRACTION_NOTE = " Of a fraction each main effect stands for all that is aliased with it, which `harness plan` names."
MAPS_NOTE = (
    "Each cell is the mean over all arms and seeds with that choice. Effects are of an analysis of variance with seeds as"
    " blocks (type II); p after Holm's correction over all effects; the share is partial eta squared."
)
