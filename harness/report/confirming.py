"""Ink for a confirmation: the search's front beside the confirmed one, and the table behind it."""

import math
from collections.abc import Mapping, Sequence
from html import escape
from typing import TYPE_CHECKING

from harness.analysis.effects import half_width
from harness.analysis.front import nondominated
from harness.report.comparison import compared, verdicts
from harness.report.confirmed import Again, Confirmed, confirmed, curse_words, front_words, how_words, order_words
from harness.report.facts import Facts
from harness.report.figures import ACCENT, INK, MUTED, layout
from harness.report.section import Block, Note, Plot, Section, Table
from harness.report.sheet import Cell, Column, Sheet, best_in_columns
from harness.report.words import NOUNS, TITLES, Unit, counted

if TYPE_CHECKING:
    import plotly.graph_objects as go


def confirmation(facts: Facts) -> Section | None:
    """The section of a search's page; None where nothing of its confirmation is complete."""
    found, again = confirmed(facts), facts.confirmed
    if found is None or again is None:
        return None
    views = {TITLES[cost]: figure(facts, found, cost) for cost in spread_costs(facts, found)}
    label = f"{TITLES[found.main.metric]} over cost, by the search and confirmed; the table below holds the same values"
    effects = compared(again)
    noun = NOUNS[found.main.metric]
    first = [curse_words(found), front_words(found)]
    words = [
        f"Promised: the {noun} that the search said, of its validation pictures. Again: the mean over the fresh seeds, of"
        " theirs. Test: the mean of the test part, each mean with half of its 95 % interval. Change: test less promised.",
        verdicts(effects) if effects is not None else "",
        effects.table.lacking if effects is not None else "",
        how_words(again),
        *order_words(facts),
        f"Its own page: harness report {again.study.name}.",
    ]
    plots: list[Block] = [Plot("promises", views, label, 480)] if views else []
    blocks = (*map(Note, filter(None, first)), *plots, Table(sheet(facts, found)), *map(Note, filter(None, words)))
    seeds = counted(len(again.study.seeds), "fresh seed")
    return Section("confirmed", f"Confirmed: the front with {seeds}, on the test part", blocks)


def spread_costs(facts: Facts, found: Confirmed) -> list[str]:
    """The costs that differ between the configs."""
    metrics = dict.fromkeys(cost.metric for cost in facts.costs)
    known = {metric: {one.costs[metric] for one in found.configs if metric in one.costs} for metric in metrics}
    return [metric for metric, values in known.items() if len(values) > 1]


def figure(facts: Facts, found: Confirmed, cost: str) -> "go.Figure":
    """Main metric over one cost: what the search said (open), joined with what the test part says (full, with the interval
    of the mean); the steps are the fronts of both over these two axes."""
    import plotly.graph_objects as go

    x, y = facts.units[cost], found.unit
    figure = go.Figure(layout=layout("front"))
    shown = [one for one in found.configs if one.tested and cost in one.costs]
    said = {one.name: one.promised for one in shown if one.promised is not None}
    for values, colour in ((said, MUTED), ({one.name: one.mean for one in shown}, ACCENT)):
        figure.add_scatter(**_steps(facts, [one for one in shown if one.name in values], values, cost, colour))
    for one in shown:
        if one.promised is not None:
            figure.add_scatter(
                x=[one.costs[cost] * x.scale] * 2,
                y=[one.promised * y.scale, one.mean * y.scale],
                mode="lines",
                line={"color": MUTED, "width": 1, "dash": "dot"},
                hoverinfo="skip",
                showlegend=False,
            )
    promised = [one for one in shown if one.promised is not None]
    figure.add_scatter(
        x=[one.costs[cost] * x.scale for one in promised],
        y=[(one.promised or 0) * y.scale for one in promised],
        mode="markers",
        marker={"symbol": "circle-open", "size": 10, "color": MUTED},
        text=[f"{escape(one.name)}<br>the search: {y.text(one.promised)}" for one in promised],
        hovertemplate="%{text}<extra></extra>",
        name="the search, on validation pictures",
    )
    groups = (("confirmed, on the test part", ACCENT, "circle", False), (escape(found.baseline), INK, "square", True))
    for name, colour, mark, baseline in groups:
        some = [one for one in shown if (one.name == found.baseline) is baseline]
        if some:
            figure.add_scatter(**_means(some, cost, x, y), marker={"symbol": mark, "size": 10, "color": colour}, name=name)
    figure.update_xaxes(title_text=x.heading)
    figure.update_yaxes(title_text=y.heading)
    return figure


def _steps(facts: Facts, configs: Sequence[Again], values: Mapping[str, float], cost: str, colour: str) -> dict[str, object]:
    """The front of values over one cost as steps."""
    x, main = facts.units[cost], facts.main
    sign = next((one.sign for one in facts.costs if one.metric == cost), 1)
    kept = nondominated([(sign * one.costs[cost], main.sign * values[one.name]) for one in configs])
    front = sorted((one.costs[cost], values[one.name]) for one, on in zip(configs, kept) if on)
    return {
        "x": [at * x.scale for at, _ in front],
        "y": [value * facts.units[main.metric].scale for _, value in front],
        "mode": "lines",
        "line": {"shape": "hv" if sign > 0 else "vh", "color": colour, "width": 1.5},
        "hoverinfo": "skip",
        "showlegend": False,
    }


def _means(configs: list[Again], cost: str, x: Unit, y: Unit) -> dict[str, object]:
    """Points of means on the test part, each with the 95 % interval over its seeds."""
    halves = [half_width(list(one.tested.values())) * y.scale for one in configs]
    return {
        "x": [one.costs[cost] * x.scale for one in configs],
        "y": [one.mean * y.scale for one in configs],
        "mode": "markers",
        "error_y": {"type": "data", "array": [half if math.isfinite(half) else 0 for half in halves], "thickness": 1.5},
        "text": [
            f"{escape(one.name)}<br>test: {y.text(one.mean)}, {counted(len(one.tested), 'seed')}"
            + ("<br>on the confirmed front" if one.on_front else "")
            for one in configs
        ],
        "hovertemplate": "%{text}<extra></extra>",
    }


def sheet(facts: Facts, found: Confirmed) -> Sheet:
    """A row for each config, the best on the test part first."""
    unit, sign = found.unit, found.main.sign
    costs = [facts.units[metric] for metric in spread_costs(facts, found)]
    columns = (
        Column("config", words=True),
        Column("trial"),
        Column("promised", unit.symbol),
        Column("again", unit.symbol),
        Column("test", unit.symbol),
        Column("change", "points" if unit.symbol == "%" else unit.symbol),
        Column("front", words=True),
        *(Column(cost.metric, cost.symbol) for cost in costs),
    )
    rows = [
        (
            Cell(f"{one.name} (baseline)" if one.name == found.baseline else one.name),
            Cell(str(one.trials[0]) if one.trials else ""),
            Cell("-" if one.promised is None else unit.figure(one.promised), _values(unit, one.promised)),
            _mean_cell(unit, list(one.validated.values())),
            _mean_cell(unit, list(one.tested.values())),
            _change(unit, one),
            Cell("yes" if one.on_front else "no"),
            *(Cell(cost.figure(one.costs[cost.metric])) if cost.metric in one.costs else Cell("-") for cost in costs),
        )
        for one in found.configs
    ]
    return Sheet(columns, best_in_columns(rows, {4: sign}))


def _values(unit: Unit, value: float | None) -> tuple[float, ...]:
    return () if value is None else (value * unit.scale,)


def _mean_cell(unit: Unit, values: list[float]) -> Cell:
    """A mean with half of its 95 % interval."""
    if not values:
        return Cell("-")
    mean, half = math.fsum(values) / len(values), half_width(values)
    around = f" ± {unit.figure(half)}" if math.isfinite(half) else ""
    return Cell(unit.figure(mean) + around, _values(unit, mean))


def _change(unit: Unit, one: Again) -> Cell:
    if one.promised is None or not one.tested:
        return Cell("-")
    change = (one.mean - one.promised) * unit.scale
    return Cell(f"{change:+.{unit.decimals}f}", (change,))
