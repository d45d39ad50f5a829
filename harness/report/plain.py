"""The page of a study that plain Optuna made: its front and its trials, as far as they say."""

import csv
import io
import math
from collections import Counter
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from markupsafe import Markup

from harness.analysis.front import nondominated
from harness.report.page import HERE, environment, policy, replace
from harness.report.words import counted, listed
from harness.storage.plain import PlainStudy, PlainTrial

if TYPE_CHECKING:
    import plotly.graph_objects as go

WORDS = {"COMPLETE": "complete", "PRUNED": "stopped early", "FAIL": "failed", "RUNNING": "running", "WAITING": "waiting"}
SHOWN = 500
"""Trials in the page's table, the front first; the CSV beside it has all."""
SCRIPT = """
const figure = JSON.parse(document.getElementById("figure-data").textContent);
Plotly.newPlot("plot", figure.data, figure.layout, {responsive: true, displaylogo: false});
"""


def write_plain(study: PlainStudy, folder: Path) -> Path:
    """Writes index.html and trials.csv into the folder; returns the page's path."""
    page, text = render(study, datetime.now(UTC)), trials_csv(study)
    folder.mkdir(parents=True, exist_ok=True)
    replace(folder / "trials.csv", text)
    replace(folder / "index.html", page)
    return folder / "index.html"


def front(study: PlainStudy) -> list[PlainTrial]:
    """The complete trials that no other beats, best first by the first objective."""
    signs = [-1 if way == "maximize" else 1 for way in study.directions]
    complete = [one for one in study.trials if one.state == "COMPLETE" and len(one.values) == len(signs)]
    points = [[sign * value for sign, value in zip(signs, one.values)] for one in complete]
    kept = sorted((point, one.number, one) for point, one, on in zip(points, complete, nondominated(points)) if on)
    return [one for *_, one in kept]


def summary(study: PlainStudy) -> str:
    """How many trials ended how, and by what they were compared."""
    states = Counter(WORDS[one.state] for one in study.trials)
    ended = listed(f"{count:,} {state}" for state, count in states.items()) or "no trials"
    aims = listed(f"{way.removesuffix('e')}ing {metric}" for metric, way in zip(study.metrics, study.directions))
    best = counted(len(front(study)), "trial")
    return f"{ended}; {aims}: {best} on the front. Made with plain Optuna: it has parameters and values, and no networks."


def rows(study: PlainStudy) -> tuple[list[str], list[list[Any]]]:
    """Titles and cells of the table: every parameter that any trial has; None where one has none."""
    params = list(dict.fromkeys(name for one in study.trials for name in one.params))
    best = {one.number for one in front(study)}
    titles = ["trial", "state", "front", *study.metrics, *params]
    found = []
    for one in study.trials:
        values = [*one.values, *[None] * (len(study.metrics) - len(one.values))]
        told = [one.params.get(name) for name in params]
        found.append([one.number, WORDS[one.state], "yes" if one.number in best else "", *values, *told])
    return titles, found


def trials_csv(study: PlainStudy) -> str:
    text = io.StringIO()
    titles, cells = rows(study)
    csv.writer(text, lineterminator="\n").writerows([titles, *cells])
    return text.getvalue()


def figure(study: PlainStudy) -> "go.Figure | None":
    """Two objectives against each other, or the one by number; the front in another colour."""
    import plotly.graph_objects as go

    best = {one.number for one in front(study)}
    complete = [one for one in study.trials if one.state == "COMPLETE" and all(map(math.isfinite, one.values))]
    if not complete:
        return None
    several = len(study.metrics) > 1
    drawn = go.Figure()
    for name, some in (
        ("beaten", [one for one in complete if one.number not in best]),
        ("front", [one for one in complete if one.number in best]),
    ):
        x = [one.values[1] if several else one.number for one in some]
        text = [f"trial {one.number}" for one in some]
        marker = {"size": 9 if name == "front" else 6, "color": "#1f77b4" if name == "front" else "#b5bcc4"}
        drawn.add_scatter(x=x, y=[one.values[0] for one in some], mode="markers", name=name, text=text, marker=marker)
    drawn.update_layout(
        xaxis_title=study.metrics[1] if several else "trial",
        yaxis_title=study.metrics[0],
        template="plotly_white",
        margin={"t": 20, "r": 20},
        height=420,
    )
    return drawn


def render(study: PlainStudy, written: datetime) -> str:
    """The page as one HTML text; everything in it is escaped."""
    from plotly.offline import get_plotlyjs

    drawn, (titles, cells) = figure(study), rows(study)
    scripts = {"plotly": get_plotlyjs(), "page": SCRIPT} if drawn is not None else {}
    ordered = sorted(cells, key=lambda row: (not row[2], row[0]))
    return (
        environment()
        .get_template("plain.html")
        .render(
            name=study.name,
            summary=summary(study),
            titles=titles,
            rows=[["" if cell is None else _text(cell) for cell in row] for row in ordered[:SHOWN]],
            more=len(ordered) - SHOWN,
            figure=drawn.to_plotly_json() if drawn is not None else None,
            style=Markup((HERE / "page.css").read_text("utf-8")),
            scripts={name: Markup(script) for name, script in scripts.items()},
            policy=policy(scripts.values()),
            written=written,
        )
    )


def _text(cell: Any) -> str:
    return f"{cell:.6g}" if isinstance(cell, float) else str(cell)
