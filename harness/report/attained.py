"""What the fronts of single seeds attain, over one cost: a band from the best of them to what all reach, and the median."""

from dataclasses import dataclass
from html import escape
from typing import TYPE_CHECKING, Any

from harness.analysis.certainty import Cells, attainment
from harness.report.certain import whole_cells
from harness.report.facts import Facts
from harness.report.figures import ACCENT, INK, MUTED, layout
from harness.report.section import Note, Plot, Section
from harness.report.words import NOUNS, TITLES, Unit, counted
from harness.study import Objective

if TYPE_CHECKING:
    import plotly.graph_objects as go

Surface = list[tuple[float, float]]
"""Points of a staircase: cost and main metric, in their own units, the cheapest first."""


@dataclass(frozen=True)
class Attained:
    """Over one cost: what the front of at least one seed reaches, of half of them, and of every one."""

    cost: Objective
    best: Surface
    median: Surface
    worst: Surface
    means: dict[str, tuple[float, float]]
    """Cost and main metric of each config, the mean over the seeds."""
    seeds: int


def attained_over(facts: Facts, cost: Objective) -> Attained | None:
    """The surfaces over one cost; None where fewer than two configs share two seeds, or all cost the same."""
    cells = whole_cells(facts, (cost, facts.main))
    if cells is None or len({values[0] for seeds in cells.values() for values in seeds.values()}) < 2:
        return None
    shared = sorted(set.intersection(*(set(seeds) for seeds in cells.values())))
    cells = {name: {seed: seeds[seed] for seed in shared} for name, seeds in cells.items()}
    one = 100 // len(shared)  # percent of the seeds that a single one is at least
    found = attainment(cells, sorted({one, 50, 100}))
    signs = (cost.sign, facts.main.sign)
    best, median, worst = (sorted((signs[0] * x, signs[1] * y) for x, y in found[level]) for level in (one, 50, 100))
    return Attained(cost, best, median, worst, _means(cells, signs), len(shared))


def _means(cells: Cells, signs: tuple[int, int]) -> dict[str, tuple[float, float]]:
    def mean(name: str, place: int) -> float:
        return signs[place] * sum(values[place] for values in cells[name].values()) / len(cells[name])

    return {name: (mean(name, 0), mean(name, 1)) for name in cells}


def attained(facts: Facts) -> Section | None:
    """The section of a study whose configs have several seeds in common."""
    found = [one for cost in facts.costs if (one := attained_over(facts, cost)) is not None]
    if not found:
        return None
    views = {TITLES.get(one.cost.metric, one.cost.metric): figure(facts, one) for one in found}
    noun, seeds = NOUNS.get(facts.main.metric, facts.main.metric), counted(found[0].seeds, "seed")
    label = f"{noun} that the fronts of single seeds attain over cost, as a band"
    words = (
        f"Each of the {seeds} alone has a front. The band reaches from what every one of them attains to what at least one"
        " does; the line within is attained by half of them (empirical attainment). Points are means over the seeds: where"
        " the band is wide, a single seed says little."
    )
    return Section(
        "attained", "What the front of a single seed attains", (Plot("attainment", views, label, 460), Note(words))
    )


def figure(facts: Facts, found: Attained) -> "go.Figure":
    """The three surfaces as steps, the band between the outer ones, and the means."""
    import plotly.graph_objects as go

    x, y = facts.units[found.cost.metric], facts.units[facts.main.metric]
    shape = "hv" if found.cost.sign > 0 else "vh"
    end = found.cost.sign * max(found.cost.sign * cost for cost, _ in found.means.values())
    figure = go.Figure(layout=layout("seeds"))
    faint = {"shape": shape, "color": MUTED, "width": 1}
    figure.add_scatter(**_steps(found.worst, end, x, y), line=faint, name="all attain", showlegend=True)
    band = {"fill": "tonexty", "fillcolor": "rgba(138, 138, 144, 0.18)"}
    figure.add_scatter(**_steps(found.best, end, x, y), line=faint, name="one attains", showlegend=True, **band)
    strong = {"shape": shape, "color": INK, "width": 2}
    figure.add_scatter(**_steps(found.median, end, x, y), line=strong, name="half attain", showlegend=True)
    figure.add_scatter(
        x=[cost * x.scale for cost, _ in found.means.values()],
        y=[value * y.scale for _, value in found.means.values()],
        mode="markers",
        marker={"color": ACCENT, "size": 8},
        text=[escape(name) for name in found.means],
        hovertemplate="%{text}<br>mean %{y:.4g}<extra></extra>",
        name="mean of a config",
    )
    figure.update_xaxes(title_text=x.heading)
    figure.update_yaxes(title_text=y.heading)
    return figure


def _steps(surface: Surface, end: float, x: Unit, y: Unit) -> dict[str, Any]:
    """A staircase, held level to the dearest config."""
    dearest = surface[0] if end < surface[0][0] else surface[-1]
    points = sorted([*surface, *([] if end in dict(surface) else [(end, dearest[1])])])
    return {
        "x": [cost * x.scale for cost, _ in points],
        "y": [value * y.scale for _, value in points],
        "mode": "lines",
        "hoverinfo": "skip",
    }
