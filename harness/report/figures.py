"""Ink for the facts: plotly figures, SVG alone, so that a strict content-security policy and export leave them as they are.

Colours are for white paper; the page recolours text, grid and front line for its dark scheme. A trace of trials names them
in `customdata` and its metrics in `meta`: the page keeps their values once and fills them in.
"""

import math
from collections.abc import Iterator, Sequence
from html import escape
from typing import TYPE_CHECKING, Any

from harness.config import Scalar
from harness.report.facts import Facts
from harness.report.naming import ABOVE, BESIDE, sides
from harness.report.views import Axis, Curves, Grouping, Spot, thinned
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
MAX_NAMES, MAX_BARS = 8, 16
"""Arms on a front that are named in the picture; arms of which the beaten ones have their intervals drawn too."""
FONT = "system-ui, -apple-system, 'Segoe UI', Roboto, 'Helvetica Neue', Arial, sans-serif"


def front_figure(facts: Facts, axis: Axis, grouping: Grouping | None) -> "go.Figure":
    """The main metric over a cost: the front as steps with markers and intervals, beaten configs faint, ringed those of them
    that are on the study's front over all objectives; its knee, and marks to compare with."""
    import plotly.graph_objects as go

    x, y = facts.units[axis.cost.metric], facts.units[facts.main.metric]
    figure = go.Figure(layout=layout(escape(grouping.title) if grouping else ""))
    _add_references(figure, axis, x, y)
    figure.add_scatter(**_steps(axis, x, y), line={"shape": _shape(axis), "color": INK, "width": 1.5})
    looks: list[tuple[Sequence[Spot], dict[str, Any], bool]] = [
        (thinned([spot for spot in axis.beaten if not spot.on_front], MAX_BEATEN), {"size": 6, "opacity": 0.35}, False),
        ([spot for spot in axis.beaten if spot.on_front], {"size": 9, "opacity": 1}, True),
        (axis.front, {"size": 11, "opacity": 1}, False),
    ]
    for found, look, ring in looks:
        bars = found is axis.front or len(axis.front) + len(axis.beaten) <= MAX_BARS
        for some, option in _split(found, grouping):
            colour, symbol = _look(grouping, option)
            marker = look | {"color": colour, "symbol": f"{symbol}-open" if ring else symbol}
            figure.add_scatter(**_points(some, x, y, marker, bars=bars), legendgroup=str(option))
    for option in grouping.options if grouping else ():  # legend entries of their own: the first of a group may be faint
        colour, symbol = _look(grouping, option)
        _add_legend(figure, KINDS.get(str(option), str(option)), colour, symbol, str(option))
    _finish(figure, [axis], x, y)
    if axis.reach is not None:
        figure.update_yaxes(range=[end * y.scale for end in axis.reach])
    return figure


def fronts_figure(studies: Sequence[tuple[int, Facts, Axis]], x: Unit, y: Unit) -> "go.Figure":
    """The fronts of several studies, each with its place on the page, over one cost, on common axes; a colour each."""
    import plotly.graph_objects as go

    figure = go.Figure(layout=layout("study"))
    for place, facts, axis in studies:
        colour, symbol = GROUPS[(place + 1) % len(GROUPS)]
        meta, group = {"study": place}, facts.study.name
        faint, full = {"size": 6, "opacity": 0.3}, {"size": 11, "opacity": 1}
        line = {"shape": _shape(axis), "color": colour, "width": 1.5}
        figure.add_scatter(**_steps(axis, x, y), line=line, legendgroup=group)
        for found, look in ((thinned(axis.beaten, MAX_BEATEN // len(studies)), faint), (axis.front, full)):
            drawn = _points(found, x, y, look | {"color": colour, "symbol": symbol})
            figure.add_scatter(**drawn | {"meta": drawn["meta"] | meta}, legendgroup=group)
        _add_legend(figure, group, colour, symbol, group)
    _finish(figure, [axis for *_, axis in studies], x, y)
    return figure


def _look(grouping: Grouping | None, option: Scalar) -> tuple[str, str]:
    return GROUPS[grouping.options.index(option)] if grouping else (ACCENT, "circle")


def _shape(axis: Axis) -> str:
    return "hv" if axis.cost.sign > 0 else "vh"


def _steps(axis: Axis, x: Unit, y: Unit) -> dict[str, Any]:
    values = {"x": [number(spot.cost, x) for spot in axis.front], "y": [number(spot.value, y) for spot in axis.front]}
    return values | {"mode": "lines", "hoverinfo": "skip", "showlegend": False}


def _points(found: Sequence[Spot], x: Unit, y: Unit, marker: dict[str, Any], *, bars: bool = True) -> dict[str, Any]:
    """A trace of configs: what single trials say the page fills in; means say it here."""
    single = all(len(spot.trials) == 1 and not spot.name for spot in found)
    drawn: dict[str, Any] = {
        "x": [number(spot.cost, x) for spot in found],
        "y": [number(spot.value, y) for spot in found],
        "mode": "markers",
        "marker": marker,
        "customdata": [spot.trials[0].number if single else [trial.number for trial in spot.trials] for spot in found],
        "meta": {"x": x.metric, "y": y.metric} if single else {},
        "hovertemplate": "%{text}<extra></extra>",
        "showlegend": False,
    }
    if not single:
        drawn["text"] = [_told(spot, x, y) for spot in found]
        halves = [y.scale * spot.half for spot in found] if bars else []
        drawn["error_y"] = {"type": "data", "array": halves, "color": marker["color"], "thickness": 1.2, "width": 4}
    return drawn


def _told(spot: Spot, x: Unit, y: Unit) -> str:
    """What a mean says; plotly reads its own small HTML in hover texts, so names are escaped."""
    half = f" ± {y.figure(spot.half)}" if spot.half else ""
    seeds = f"{len(spot.trials)} seeds" if len(spot.trials) > 1 else "one seed"
    value = f"{y.figure(spot.value)}{half} {y.symbol} {y.title.lower()}, {seeds}"
    return f"<b>{escape(spot.name)}</b><br>{value}<br>{x.noun(spot.cost)}"


def _add_references(figure: "go.Figure", axis: Axis, x: Unit, y: Unit) -> None:
    """Dotted lines: what the baseline reaches, and what published networks cost."""
    for mark in axis.references:
        line = {"color": MUTED, "width": 1, "dash": "dot"}
        font = {"color": MUTED, "size": 11}
        if mark.value is not None:
            where = {"annotation_position": "bottom left", "annotation_font": font}
            figure.add_hline(y=number(mark.value, y), line=line, annotation_text=escape(mark.name), **where)
        elif mark.cost is not None:
            place = number(mark.cost, x) or 0
            figure.add_vline(x=place, line=line)  # its words apart: plotly does not put those of a line on a log axis
            at = math.log10(place) if axis.wide else place
            label = {"text": escape(mark.name), "textangle": -90, "showarrow": False, "font": font}
            figure.add_annotation(x=at, y=0, yref="paper", xanchor="right", yanchor="bottom", **label)


def _add_legend(figure: "go.Figure", name: str, colour: str, symbol: str, group: str) -> None:
    marker = {"color": colour, "symbol": symbol, "size": 9}
    figure.add_scatter(x=[None], y=[None], mode="markers", marker=marker, name=escape(name), legendgroup=group)


def _finish(figure: "go.Figure", axes: Sequence[Axis], x: Unit, y: Unit) -> None:
    """Titles, the kinds of axis to switch between, and the knee where there is one front."""
    scales = {"linear": {"type": "linear", "tickvals": None, "ticktext": None}}
    if all(axis.positive for axis in axes):
        scales["log"] = magnitudes([spot.cost * x.scale for axis in axes for spot in axis.front + axis.beaten])
    wide = any(axis.wide for axis in axes) and "log" in scales
    figure.update_xaxes(title_text=x.heading, **(scales["log"] if wide else {}))
    figure.update_yaxes(title_text=y.heading)
    figure.update_layout(meta={"scales": scales, "scale": "log" if wide else "linear"})
    if len(axes) == 1 and len(axes[0].front) <= MAX_NAMES and all(spot.name for spot in axes[0].front):
        _add_names(figure, axes[0], x, y, wide)
    elif len(axes) == 1 and (turn := axes[0].knee) is not None:
        place, height = number(turn.cost, x) or 0, number(turn.value, y)
        arrow = {"showarrow": True, "arrowhead": 0, "arrowcolor": MUTED, "ax": 34, "ay": 38, "name": "knee"}
        at = math.log10(place) if wide else place
        figure.add_annotation(x=at, y=height, text="knee", standoff=8, font={"color": MUTED, "size": 12}, **arrow)


def _add_names(figure: "go.Figure", axis: Axis, x: Unit, y: Unit, wide: bool) -> None:
    """The names of the arms on the front, beside them."""
    across = _shares([math.log10(spot.cost) if wide else spot.cost for spot in axis.front + axis.beaten])
    up = _shares([spot.value for spot in axis.front + axis.beaten])
    names = [f"{spot.name} (knee)" if spot is axis.knee else spot.name for spot in axis.front]
    for spot, name, (right, above) in zip(axis.front, names, sides(list(zip(across, up))[: len(names)], names)):
        place = number(spot.cost, x) or 0
        at = {"x": math.log10(place) if wide else place, "y": number(spot.value, y)}
        at |= {"xshift": BESIDE * right, "yshift": ABOVE * above}
        mark = "knee" if spot is axis.knee else "arm"
        anchors = {"xanchor": "left" if right > 0 else "right", "yanchor": "bottom" if above > 0 else "top"}
        figure.add_annotation(text=escape(name), showarrow=False, font={"size": 12}, name=mark, **anchors, **at)


def _shares(values: Sequence[float]) -> list[float]:
    """Where on an axis values are, from 0 to 1, with a little room at its ends."""
    low, reach = min(values), (max(values) - min(values)) or 1.0
    return [0.05 + 0.9 * (value - low) / reach for value in values]


DIGITS: tuple[tuple[float, tuple[float, ...]], ...] = (
    (10, (1, 2, 5)),
    (2, (1, 1.5, 2, 3, 4, 5, 7)),
    (0, (1, 1.2, 1.5, 1.8, 2, 2.2, 2.5, 3, 3.5, 4, 4.5, 5, 6, 7, 8, 9)),
)
"""Marks of each magnitude where a logarithmic axis reaches more than so many times its beginning."""


def epochs(longest: int) -> dict[str, Any]:
    """An axis of epochs, so many at most: a mark at each where there are few, never between two."""
    return {"title_text": "Epoch", "tickformat": "d"} | ({"dtick": 1} if longest < 10 else {})


def magnitudes(drawn: Sequence[float]) -> dict[str, Any]:
    """A logarithmic axis with a mark at 1, 2 and 5 of each magnitude, more over a short reach, written out."""
    low, high = min(drawn), max(drawn)
    digits = next(digits for reach, digits in DIGITS if high > reach * low or not reach)
    powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    marks = [digit * 10.0**power for power in powers for digit in digits]
    return {"type": "log", "tickvals": marks, "ticktext": [f"{mark:.12g}" for mark in marks]}


def _split(found: Sequence[Spot], grouping: Grouping | None) -> Iterator[tuple[list[Spot], Scalar]]:
    """The configs of each option that has some."""
    for option in grouping.options if grouping else (None,):
        some = [spot for spot in found if grouping is None or grouping.of(spot.trials[0]) == option]
        if some:
            yield some, option


def curves_figure(facts: Facts, curves: Curves) -> "go.Figure":
    """The main metric on the validation part after each epoch; the front's trials stand out."""
    import plotly.graph_objects as go

    unit = facts.units[curves.metric]
    figure = go.Figure()
    for trial in curves.drawn:
        points = [(epoch.epoch, number(epoch.value(curves.metric), unit)) for epoch in trial.record.curve]
        figure.add_scatter(
            x=[epoch for epoch, _ in points],
            y=[value for _, value in points],
            mode="lines" if len(points) > 1 else "markers",
            line={"color": ACCENT if trial.on_front else MUTED, "width": 1.75 if trial.on_front else 1},
            opacity=0.9 if trial.on_front else 0.3,
            meta={"trial": trial.number},
            hovertemplate=f"%{{text}}<br>epoch %{{x}}: %{{y:.{unit.decimals}f}} {unit.symbol}<extra></extra>",
            showlegend=False,
        )
    figure.update_layout(layout())
    longest = max((len(trial.record.curve) for trial in curves.drawn), default=1)
    left_out = {} if curves.edge is None else {"range": (curves.since, longest + 0.2)}
    figure.update_xaxes(**epochs(longest), **left_out)
    figure.update_yaxes(title_text=unit.heading)
    if curves.edge is not None:
        figure.update_yaxes(range=_reach(curves, unit))
    return figure


def _reach(curves: Curves, unit: Unit) -> tuple[float, float]:
    """The picture from its edge to a little beyond the best value."""
    every = [epoch.value(curves.metric) for trial in curves.drawn for epoch in trial.record.curve]
    best = (min if curves.sign > 0 else max)(filter(math.isfinite, every))
    worst = curves.edge if curves.edge is not None else best
    margin = 0.06 * ((best - worst) or 0.1)
    low, high = sorted(((worst - margin) * unit.scale, (best + margin) * unit.scale))
    return low, high


def number(value: float | None, unit: Unit) -> float | None:
    """On the unit's scale and short; None for what cannot be drawn, as the loss of a training that diverged."""
    return float(f"{value * unit.scale:.6g}") if value is not None and math.isfinite(value) else None


def layout(legend_title: str = "") -> dict[str, Any]:
    """The look of every figure."""
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
