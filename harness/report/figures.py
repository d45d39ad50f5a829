"""Ink for the facts: plotly figures, SVG alone, so that a strict content-security policy and export leave them as they are.

Colours are for white paper; the page recolours text, grid and front line for its dark scheme.
"""

import math
from collections.abc import Iterator, Sequence
from html import escape
from typing import TYPE_CHECKING, Any

from harness.config import Scalar
from harness.report.facts import Facts, Trial
from harness.report.views import Axis, Curves, Grouping, thinned
from harness.report.words import KINDS, Unit

if TYPE_CHECKING:
    import plotly.graph_objects as go

INK, MUTED, LINE, ACCENT = "#1d1d1f", "#6b6b70", "#e6e4df", "#b4441f"
GROUPS = (
    ("#8a8a90", "circle"),
    ("#2f7fc1", "square"),
    ("#d9622b", "diamond"),
    ("#2a9d7c", "triangle-up"),
    ("#9a6fc4", "pentagon"),
    ("#c2900c", "cross"),
)
"""A colour and a symbol per option, so that neither print nor colour-blind eyes lose one; the first is often 'none'."""
MAX_BEATEN = 2000
"""Dominated points drawn; beyond, an even sample by cost."""
FONT = "system-ui, -apple-system, 'Segoe UI', Roboto, 'Helvetica Neue', Arial, sans-serif"


def front_figure(facts: Facts, axis: Axis, grouping: Grouping | None) -> "go.Figure":
    """The main metric over a cost: the front as steps with markers, beaten trials faint, and ringed those of them that are
    on the study's front over all objectives."""
    import plotly.graph_objects as go

    x, y = facts.units[axis.cost.metric], facts.units[facts.main.metric]
    figure = go.Figure(layout=_layout(escape(grouping.title) if grouping else ""))
    figure.add_scatter(
        x=_drawn(axis.front, x),
        y=_drawn(axis.front, y),
        mode="lines",
        line={"shape": "hv" if axis.cost.sign > 0 else "vh", "color": INK, "width": 1.5},
        hoverinfo="skip",
        showlegend=False,
    )
    looks: list[tuple[Sequence[Trial], dict[str, Any]]] = [
        (thinned([trial for trial in axis.beaten if not trial.on_front], MAX_BEATEN), {"size": 6, "opacity": 0.35}),
        ([trial for trial in axis.beaten if trial.on_front], {"size": 9, "opacity": 1, "ring": True}),
        (axis.front, {"size": 10, "opacity": 1}),
    ]
    for trials, look in looks:
        for trials_of, option in _split(trials, grouping):
            colour, symbol = _group_look(grouping, option)
            figure.add_scatter(
                x=_drawn(trials_of, x),
                y=_drawn(trials_of, y),
                mode="markers",
                marker={
                    "color": colour,
                    "symbol": f"{symbol}-open" if "ring" in look else symbol,
                    "size": look["size"],
                    "opacity": look["opacity"],
                },
                customdata=[trial.number for trial in trials_of],
                text=[_hover(facts, trial) for trial in trials_of],
                hovertemplate="%{text}<extra></extra>",
                legendgroup=str(option),
                showlegend=False,
            )
    for option in grouping.options if grouping else ():  # legend entries of their own: the first of a group may be faint
        colour, symbol = _group_look(grouping, option)
        name = escape(KINDS.get(str(option), str(option)))
        marker = {"color": colour, "symbol": symbol, "size": 9}
        figure.add_scatter(x=[None], y=[None], mode="markers", marker=marker, name=name, legendgroup=str(option))
    figure.update_xaxes(title_text=x.heading, **(_magnitudes(axis, x) if axis.wide else {}))
    figure.update_yaxes(title_text=y.heading)
    return figure


def _magnitudes(axis: Axis, unit: Unit) -> dict[str, Any]:
    """A logarithmic axis with a mark at 1, 2 and 5 of each magnitude, written out."""
    drawn = _drawn(axis.front + axis.beaten, unit)
    powers = range(math.floor(math.log10(min(drawn))), math.ceil(math.log10(max(drawn))) + 1)
    marks = [digit * 10.0**power for power in powers for digit in (1, 2, 5)]
    return {"type": "log", "tickvals": marks, "ticktext": [f"{mark:.12g}" for mark in marks]}


def _split(trials: Sequence[Trial], grouping: Grouping | None) -> Iterator[tuple[list[Trial], Scalar]]:
    """The trials of each option that has some."""
    for option in grouping.options if grouping else (None,):
        found = [trial for trial in trials if grouping is None or grouping.of(trial) == option]
        if found:
            yield found, option


def _group_look(grouping: Grouping | None, option: Scalar) -> tuple[str, str]:
    return GROUPS[grouping.options.index(option)] if grouping else (ACCENT, "circle")


def curves_figure(facts: Facts, curves: Curves) -> "go.Figure":
    """The main metric on the validation part after each epoch; the front's trials stand out."""
    import plotly.graph_objects as go

    unit = facts.units[curves.metric]
    figure = go.Figure()
    for trial in curves.drawn:
        points = [(epoch.epoch, _number(getattr(epoch, curves.metric), unit)) for epoch in trial.record.curve]
        figure.add_scatter(
            x=[epoch for epoch, _ in points],
            y=[value for _, value in points],
            mode="lines" if len(points) > 1 else "markers",
            line={"color": ACCENT if trial.on_front else MUTED, "width": 1.75 if trial.on_front else 1},
            opacity=0.9 if trial.on_front else 0.3,
            customdata=[trial.number] * len(points),
            text=_differs(trial),
            hovertemplate=f"<b>Trial {trial.number}</b> · epoch %{{x}} · %{{y:.{unit.decimals}f}} {unit.symbol}<br>"
            "%{text}<extra></extra>",
            showlegend=False,
        )
    figure.update_layout(_layout())
    longest = max((len(trial.record.curve) for trial in curves.drawn), default=1)
    left_out = {} if curves.edge is None else {"range": (curves.since, longest + 0.2)}
    figure.update_xaxes(title_text="Epoch", tickformat="d", **left_out)
    figure.update_yaxes(title_text=unit.heading)
    if curves.edge is not None:
        figure.update_yaxes(range=_reach(curves, unit))
    return figure


def _reach(curves: Curves, unit: Unit) -> tuple[float, float]:
    """The picture from its edge to a little beyond the best value."""
    every = [getattr(epoch, curves.metric) for trial in curves.drawn for epoch in trial.record.curve]
    best = (min if curves.metric == "loss" else max)(filter(math.isfinite, every))
    worst = curves.edge if curves.edge is not None else best
    margin = 0.06 * ((best - worst) or 0.1)
    low, high = sorted(((worst - margin) * unit.scale, (best + margin) * unit.scale))
    return low, high


def _drawn(trials: Sequence[Trial], unit: Unit) -> list[float]:
    return [found for trial in trials if (found := _number(trial.value(unit.metric), unit)) is not None]


def _number(value: float | None, unit: Unit) -> float | None:
    """On the unit's scale and short; None for what cannot be drawn, as the loss of a training that diverged."""
    return float(f"{value * unit.scale:.6g}") if value is not None and math.isfinite(value) else None


def _hover(facts: Facts, trial: Trial) -> str:
    """Plotly reads its own small HTML in hover texts, so names are escaped."""
    metrics = dict.fromkeys((facts.main.metric, *(cost.metric for cost in facts.costs)))
    measured = " · ".join(facts.units[metric].noun(trial.value(metric)) for metric in metrics)
    return f"<b>Trial {trial.number}</b><br>{_differs(trial)}<br>{measured}"


def _differs(trial: Trial) -> str:
    return "<br>".join(escape(str(difference)) for difference in trial.differs) or "nothing varies"


def plain_layout() -> dict[str, Any]:
    """The look of every figure, without a legend."""
    return _layout()


def _layout(legend_title: str = "") -> dict[str, Any]:
    grid = {"gridcolor": LINE, "zeroline": False, "ticks": "", "title": {"standoff": 12}, "automargin": True}
    return {
        "template": {},
        "paper_bgcolor": "rgba(0,0,0,0)",
        "plot_bgcolor": "rgba(0,0,0,0)",
        "font": {"family": FONT, "size": 13, "color": MUTED},
        "margin": {"l": 8, "r": 8, "t": 44 if legend_title else 16, "b": 8},
        "xaxis": grid,
        "yaxis": grid,
        "hovermode": "closest",
        "hoverlabel": {"align": "left", "bgcolor": "#ffffff", "bordercolor": LINE, "font": {"color": INK, "size": 13}},
        "legend": {
            "title": {"text": legend_title, "side": "left"},
            "orientation": "h",
            "x": 0,
            "y": 1.02,
            "yanchor": "bottom",
        },
    }
