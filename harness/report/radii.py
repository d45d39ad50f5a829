"""What became of learned radii: epoch by epoch, what starts meant for ends, and the kernels at their last radius."""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from html import escape
from typing import TYPE_CHECKING, Any

from harness.report.facts import Facts, Trial
from harness.report.figures import GROUPS, MUTED, epochs, layout, magnitudes
from harness.report.section import Block, Note, Plot, Section
from harness.report.views import thinned
from harness.report.words import NOUNS, counted

if TYPE_CHECKING:
    import numpy as np
    import plotly.graph_objects as go
    from numpy.typing import NDArray

MAX_LINES, MAX_STAGES, MAX_MAPS, A_LINE = 120, 4, 8, 4
"""Radii drawn a stage, stages drawn, maps drawn, and maps side by side."""
COLD, WARM = (47, 127, 193), (217, 98, 43)
"""The colours of the smallest and of the largest start."""
FEWEST = 5
"""Trials below which nothing is said of starts and ends."""
KERNELS: "dict[str, Callable[[NDArray[np.float64], NDArray[np.float64], float], NDArray[np.float64]]]" = {
    "gaussian": lambda rows, columns, radius: _exp(-(rows**2 + columns**2) / (2 * radius**2)),
    "laplacian": lambda rows, columns, radius: _exp(-(rows + columns) / radius),
    "laplacian_l2": lambda rows, columns, radius: _exp(-((rows**2 + columns**2) ** 0.5) / radius),
    "cauchy": lambda rows, columns, radius: 1 / (1 + (rows**2 + columns**2) / radius**2),
    "linear": lambda rows, columns, radius: (1 - (rows**2 + columns**2) ** 0.5 / radius).clip(0),
}
"""Weight of a position by its offsets, 1 at none: as `harness/networks/attention/kernels.py` has them, without torch."""


def _exp(values: "NDArray[np.float64]") -> "NDArray[np.float64]":
    import numpy as np

    return np.exp(values)


# -- facts --------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Radius:
    """One learned radius of one trial, in the unit of its module."""

    trial: Trial
    place: str
    """Stage and block as the curve names them."""
    head: int
    """From 1."""
    start: float | None
    """As the config has it; None where that does not say."""
    epochs: int
    """After how many it was looked at."""
    end: float
    low: float
    """The least of its values, and the greatest."""
    high: float

    @property
    def stage(self) -> str:
        stage = self.place.partition(".")[0]
        return f"stage {stage}" if stage.isdigit() else self.place

    @property
    def block(self) -> str:
        return self.place.partition(".")[2]

    @property
    def values(self) -> tuple[float, ...]:
        """After each epoch."""
        return _values(self.trial.record.learned, self.place, self.head)


@dataclass(frozen=True)
class Kept:
    """What is left of the starts of a stage in its ends: the slope of log(end) over log(start), trials as units."""

    stage: str
    trials: int
    slope: float
    half: float
    """Half of its 95 % interval."""
    correlation: float
    """Spearman's, of start and main metric."""
    p: float


def radii(facts: Facts) -> list[Radius]:
    """Every learned radius of every trial that has a curve."""
    return [radius for trial in facts.trials for radius in _of(trial)]


def _of(trial: Trial) -> list[Radius]:
    points = trial.record.learned
    config = trial.record.config_json if points else {}
    found = []
    for place, first in points[0].items() if points else ():
        start = _slot(config, place.partition(".")[0]).get("radius")
        known = float(start) if isinstance(start, int | float) else None
        for head in range(1, len(first) + 1):
            values = _values(points, place, head)
            found.append(Radius(trial, place, head, known, len(values), values[-1], min(values), max(values)))
    return found


def _values(points: Iterable[Mapping[str, Sequence[float]]], place: str, head: int) -> tuple[float, ...]:
    return tuple(point[place][head - 1] for point in points if len(point.get(place, ())) >= head)


def _slot(config: Mapping[str, Any], stage: str) -> dict[str, Any]:
    """The attention in a stage of a config, empty where there is none."""
    stages = (config.get("network") or {}).get("stages") or []
    slot = stages[int(stage) - 1] if stage.isdigit() and 0 < int(stage) <= len(stages) else None
    return slot if isinstance(slot, dict) else {}


def kept(facts: Facts, found: Sequence[Radius]) -> list[Kept]:
    """Of each stage with different starts what its ends have kept of them, from complete trials."""
    return [one for stage in _stages(found) if (one := _kept(facts, stage, [r for r in found if r.stage == stage]))]


def _kept(facts: Facts, stage: str, found: Sequence[Radius]) -> Kept | None:
    from scipy.stats import linregress, spearmanr, t

    points = []
    for own in _by_trial(found):
        trial = own[0].trial
        value = trial.value(facts.main.metric)
        if trial.record.state == "complete" and value is not None and own[0].start:
            end = math.exp(sum(math.log(radius.end) for radius in own) / len(own))
            points.append((math.log(own[0].start), math.log(end), value))
    starts, ends, values = (list(column) for column in zip(*points)) if points else ([], [], [])
    if len(points) < FEWEST or len(set(starts)) < 3:
        return None
    line = linregress(starts, ends)
    rank = spearmanr(starts, values) if len(set(values)) > 1 else None
    half = float(t.ppf(0.975, len(points) - 2) * line.stderr)
    correlation, p = (float(rank.statistic), float(rank.pvalue)) if rank else (0.0, 1.0)
    return Kept(stage, len(points), float(line.slope), half, correlation, p)


def _by_trial(found: Sequence[Radius]) -> list[list[Radius]]:
    groups: dict[int, list[Radius]] = {}
    for radius in found:
        groups.setdefault(radius.trial.number, []).append(radius)
    return list(groups.values())


def _stages(found: Sequence[Radius]) -> list[str]:
    return sorted({radius.stage for radius in found})[:MAX_STAGES]


def kernel_map(kernel: str, radius: float, height: int, width: int) -> "NDArray[np.float64] | None":
    """The weights of a grid as its middle sees it, 1 there; None for a kernel that is not ours."""
    import numpy as np

    if kernel not in KERNELS:
        return None
    rows, columns = (np.abs(np.arange(side, dtype=float) - side // 2) for side in (height, width))
    return KERNELS[kernel](rows[:, None], columns[None, :], radius) * np.ones((height, width))


@dataclass(frozen=True)
class Drawn:
    """A kernel at its last radius over the map of its stage."""

    title: str
    weights: "NDArray[np.float64]"
    radius: float
    """In positions."""


def drawn_kernels(facts: Facts, found: Sequence[Radius]) -> tuple[Trial | None, list[Drawn]]:
    """The maps that the best trial with radii has learned."""
    having = {radius.trial.number for radius in found}
    best = next((trial for trial in facts.complete if trial.number in having), None)
    own = [radius for radius in found if best is not None and radius.trial.number == best.number]
    maps = [drawn for radius in thinned(own, MAX_MAPS) if (drawn := _drawn(facts, radius))]
    return best, maps


def _drawn(facts: Facts, radius: Radius) -> Drawn | None:
    number = radius.stage.removeprefix("stage ")
    grid, slot = facts.grids.get(number), _slot(radius.trial.record.config_json, number)
    if grid is None:
        return None
    pooled = slot.get("largest") and max(grid) > slot["largest"]
    height, width = ((side + 1) // 2 for side in grid) if pooled else grid
    reach = radius.end * max(height, width) if slot.get("unit") == "share" else radius.end
    weights = kernel_map(str(slot.get("kernel")), reach, height, width)
    heads = slot.get("radius_per") == "head"
    title = f"{radius.stage}.{radius.block}{f', head {radius.head}' if heads else ''}"
    return None if weights is None else Drawn(title, weights, reach)


# -- words and ink --------------------------------------------------------------------------------------------------------


def radii_section(facts: Facts) -> Section | None:
    """Learned radii by stage, head and start; what the starts meant; the kernels drawn at their radius."""
    found = radii(facts)
    if not found:
        return None
    starts = kept(facts, found)
    blocks: list[Block] = [
        Plot("radii", {"": radii_figure(found)}, "Learned radius after each epoch, a line each", 420),
        Note(radii_note(found)),
        *(Note(kept_words(facts, one)) for one in starts),
    ]
    if starts:
        blocks.insert(2, Plot("starts", {"": starts_figure(found)}, "Radius at the end over radius at the start", 420))
    best, maps = drawn_kernels(facts, found)
    if best is not None and maps:
        label = "Kernels at their learned radius over the map"
        words = (
            f"The maps of trial {best.number}, the best with learned radii: what the middle of each map listens to, from 1"
        )
        drawn = kernels_figure(maps)
        blocks.append(Plot("kernels", {"": drawn}, label, drawn.layout.height))
        blocks.append(Note(f"{words}; the dotted circle is the radius."))
    return Section("learned-radii", "Learned radii", tuple(blocks))


def radii_note(found: Sequence[Radius]) -> str:
    """How to read the lines, and how many are drawn."""
    starts = {radius.start for radius in found}
    by = "start" if len(starts) > 1 else "head" if any(radius.head > 1 for radius in found) else "block"
    words = f"Each line is a learned radius, in the unit of its module, on a logarithmic axis; colour tells its {by}."
    most = max(sum(radius.stage == stage for radius in found) for stage in _stages(found))
    return words + (f" Of {len(found):,} radii at most {MAX_LINES} a stage are drawn, evenly." if most > MAX_LINES else "")


def kept_words(facts: Facts, one: Kept) -> str:
    """Does the start matter? In words."""
    times = 2**one.slope
    shows = abs(one.slope) > one.half
    lasting = "the start still shows at the end" if shows else "the start is forgotten, as far as these tell"
    found = f"a radius that starts twice as large ends {times:.2g} times as large (slope {one.slope:.2f} ± {one.half:.2f}"
    tells = "has no relation to" if one.p > 0.05 else "is related to"
    return (
        f"{one.stage[:1].upper()}{one.stage[1:]}: {found}, {counted(one.trials, 'trial')}): {lasting}. The start {tells}"
        f" {NOUNS[facts.main.metric]} (rank correlation {one.correlation:+.2f}, p {one.p:.2g}; other choices vary, too)."
    )


def radii_figure(found: Sequence[Radius]) -> "go.Figure":
    """A pane for each stage, a line for each radius."""
    from plotly.subplots import make_subplots

    stages = _stages(found)
    figure = make_subplots(cols=len(stages), shared_yaxes=True, horizontal_spacing=0.03, subplot_titles=stages)
    known = sorted({radius.start for radius in found if radius.start})
    for column, stage in enumerate(stages, start=1):
        own = sorted((radius for radius in found if radius.stage == stage), key=lambda radius: radius.start or 0)
        for radius in thinned(own, MAX_LINES):
            begins = [] if radius.start is None else [radius.start]
            figure.add_scatter(
                x=list(range(1 - len(begins), radius.epochs + 1)),
                y=[*begins, *radius.values],
                mode="lines",
                line={"color": _colour(radius, known), "width": 1.3},
                opacity=0.75,
                meta={"trial": radius.trial.number},
                hovertemplate=f"{escape(stage)}, block {escape(radius.block)}, head {radius.head}, epoch %{{x}}: %{{y:.3g}}"
                "<br>%{text}<extra></extra>",
                showlegend=False,
                row=1,
                col=column,
            )
    if len(known) > 1:
        figure.add_scatter(x=[None], y=[None], mode="markers", marker=_scale(known), showlegend=False, hoverinfo="skip")
    _styled(figure)
    figure.update_xaxes(**epochs(max((radius.epochs for radius in found), default=1)))
    every = [value for radius in found for value in (radius.start, radius.low, radius.high) if value]
    figure.update_yaxes(**magnitudes(every))
    figure.update_yaxes(title_text="Radius", col=1)
    return figure


def _scale(known: Sequence[float]) -> dict[str, Any]:
    low, high = math.log10(known[0]), math.log10(known[-1])
    ticks = [known[0], 10 ** ((low + high) / 2), known[-1]]
    colours = [[0, _mixed(0)], [1, _mixed(1)]]
    bar = {"title": {"text": "start"}, "tickvals": [math.log10(tick) for tick in ticks], "thickness": 10, "outlinewidth": 0}
    bar["ticktext"] = [f"{tick:.2g}" for tick in ticks]
    return {"color": [low], "cmin": low, "cmax": high, "colorscale": colours, "showscale": True, "colorbar": bar}


def _colour(radius: Radius, known: Sequence[float]) -> str:
    if len(known) > 1 and radius.start:
        return _mixed(math.log(radius.start / known[0]) / math.log(known[-1] / known[0]))
    return GROUPS[radius.head % len(GROUPS)][0]


def _mixed(share: float) -> str:
    return f"rgb({', '.join(str(round(cold + share * (warm - cold))) for cold, warm in zip(COLD, WARM))})"


def starts_figure(found: Sequence[Radius]) -> "go.Figure":
    """End over start, a point for each radius; on the dotted line nothing was learned."""
    import plotly.graph_objects as go

    figure = go.Figure(layout=layout("stage"))
    known = [radius for radius in found if radius.start and radius.trial.record.state == "complete"]
    ends = [value for radius in known for value in (radius.start or 1.0, radius.end)]
    reach = [min(ends) / 1.1, max(ends) * 1.1]
    figure.add_scatter(
        x=reach, y=reach, mode="lines", line={"color": MUTED, "dash": "dot", "width": 1}, hoverinfo="skip", showlegend=False
    )
    for place, stage in enumerate(_stages(known)):
        own = thinned([radius for radius in known if radius.stage == stage], 5 * MAX_LINES)
        colour, symbol = GROUPS[(place + 1) % len(GROUPS)]
        figure.add_scatter(
            x=[radius.start for radius in own],
            y=[radius.end for radius in own],
            mode="markers",
            marker={"color": colour, "symbol": symbol, "size": 7, "opacity": 0.6},
            customdata=[radius.trial.number for radius in own],
            hovertemplate="%{x:.3g} at the start, %{y:.3g} at the end<br>%{text}<extra></extra>",
            name=escape(stage),
        )
    figure.update_xaxes(**magnitudes(ends), title_text="Radius at the start")
    figure.update_yaxes(**magnitudes(ends), title_text="Radius at the end")
    return figure


def kernels_figure(maps: Sequence[Drawn]) -> "go.Figure":
    """A pane for each map: rings of weight around its middle, and the radius."""
    from plotly.subplots import make_subplots

    titles = [f"{escape(one.title)}<br>radius {one.radius:.3g}" for one in maps]
    lines = -(-len(maps) // A_LINE)
    spacing = {"horizontal_spacing": 0.02, "vertical_spacing": 0.16}
    figure = make_subplots(rows=lines, cols=A_LINE, subplot_titles=titles, **spacing)
    for place, one in enumerate(maps):
        (height, width), suffix = one.weights.shape, "" if place == 0 else str(place + 1)
        at = {"row": place // A_LINE + 1, "col": place % A_LINE + 1}
        figure.add_contour(
            z=[[round(float(weight), 4) for weight in row] for row in one.weights],
            contours={"start": 0.0, "end": 1.0, "size": 0.1, "coloring": "fill"},
            line={"width": 0},
            colorscale=[[0, "rgba(47,127,193,0)"], [1, "rgba(47,127,193,1)"]],
            showscale=False,
            zmin=0,
            zmax=1,
            hovertemplate="row %{y}, column %{x}: %{z:.3f}<extra></extra>",
            **at,
        )
        middle, centre = height // 2, width // 2
        edges = {"x0": centre - one.radius, "x1": centre + one.radius, "y0": middle - one.radius, "y1": middle + one.radius}
        figure.add_shape(type="circle", **edges, line={"color": MUTED, "dash": "dot", "width": 1.2}, **at)
        figure.update_xaxes(range=(-0.5, width - 0.5), constrain="domain", **at)
        figure.update_yaxes(range=(height - 0.5, -0.5), scaleanchor=f"x{suffix}", constrain="domain", **at)
    _styled(figure)
    figure.update_xaxes(showgrid=False, showticklabels=False)
    figure.update_yaxes(showgrid=False, showticklabels=False)
    figure.update_annotations(font={"size": 11, "color": MUTED})
    figure.update_layout(margin={"t": 44}, height=60 + 230 * lines)
    return figure


def _styled(figure: "go.Figure") -> None:
    """The look of the other figures for one of several panes."""
    own = layout()
    axis = own.pop("xaxis"), own.pop("yaxis")
    figure.update_layout(**own | {"margin": {"l": 8, "r": 8, "t": 36, "b": 8}})
    figure.update_xaxes(**axis[0])
    figure.update_yaxes(**axis[1])
    figure.update_annotations(font={"size": 13, "color": MUTED})
