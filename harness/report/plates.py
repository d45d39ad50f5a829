"""Figures for papers: the facts of the page's figures in plain vector ink, as wide as a column, with their data beside them.

Facts are rows of a table; ink is matplotlib's, an extra. Nothing is drawn that is not in the rows.
"""

import csv
import io
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from textwrap import fill
from typing import Any, Literal

from harness.errors import HarnessError
from harness.report.comparison import HELPS, HURTS, OPEN, Comparison, compared
from harness.report.facts import Facts
from harness.report.figures import ACCENT, GROUPS, INK, LINE, MAX_BEATEN, MUTED
from harness.report.radii import MAX_LINES, Radius, radii
from harness.report.views import Axis, Grouping, Spot, axes, grouping, thinned
from harness.report.words import KINDS, NOUNS, Unit

Name = Literal["front", "effects", "radii"]
Ending = Literal["svg", "pdf", "png"]
COLUMN, PAGE = 3.3, 6.9
"""Inches: of one column and of both, as conferences and journals of this field have them."""
MARKS = {"circle": "o", "square": "s", "diamond": "D", "triangle-up": "^", "pentagon": "p", "cross": "X"}
STYLE: dict[str, Any] = {
    **{"font.family": "DejaVu Sans", "font.size": 7.5, "axes.labelsize": 7.5, "legend.fontsize": 6.5},
    **{"xtick.labelsize": 6.5, "ytick.labelsize": 6.5, "axes.linewidth": 0.6, "axes.edgecolor": MUTED},
    **{"axes.spines.top": False, "axes.spines.right": False, "axes.grid": True, "grid.color": LINE, "grid.linewidth": 0.5},
    **{"axes.axisbelow": True, "xtick.color": MUTED, "ytick.color": MUTED, "axes.labelcolor": INK, "text.color": INK},
    **{"xtick.major.width": 0.6, "ytick.major.width": 0.6, "legend.handletextpad": 0.3, "legend.edgecolor": "none"},
    **{"pdf.fonttype": 42, "svg.fonttype": "path", "svg.hashsalt": "harness", "figure.constrained_layout.use": True},
}
"""Fonts go along: as TrueType in a PDF, as outlines in an SVG."""


@dataclass(frozen=True)
class Plate:
    """One figure: its data, and how they are drawn."""

    name: str
    header: tuple[str, ...]
    rows: tuple[tuple[Any, ...], ...]
    draw: Callable[[Any, float], None]
    """Draws onto a matplotlib figure of so many inches across."""
    height: float
    """Inches, one column wide."""

    def csv(self) -> str:
        """The data, unrounded."""
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow(self.header)
        writer.writerows(self.rows)
        return text.getvalue()


def plates(facts: Facts, name: Name) -> list[Plate]:
    """The figures of a name: a front for each cost; raises HarnessError in one line where there is nothing to draw."""
    study = facts.study.name
    if name == "front":
        groups = grouping(facts)
        found = [_front(facts, axis, groups) for axis in axes(facts)]
        reason = f"study {study!r} has no two complete trials of different costs yet"
    elif name == "effects":
        comparison = compared(facts)
        found = [_effects(facts, comparison)] if comparison is not None and comparison.effects else []
        reason = f"study {study!r} compares no arms with a baseline, or has none of them complete: --figure front shows it"
    else:
        learned = radii(facts)
        found = [_radii(learned)] if learned else []
        reason = f"no trial of study {study!r} has a learned radius"
    if not found:
        raise HarnessError(f"--figure {name}: {reason}")
    return found


def write(found: Sequence[Plate], folder: Path, study: str, ending: Ending, width: float) -> list[Path]:
    """Draws each into a file, with its data as CSV beside it; raises HarnessError without matplotlib, or where it cannot
    write."""
    try:
        import matplotlib as mpl
        from matplotlib.figure import Figure
    except ModuleNotFoundError:
        remedy = "pip install 'attention-harness[figures]'"
        raise HarnessError(f"--figure: matplotlib is not installed, which draws them: {remedy}") from None
    written = []
    told = {"svg": {"Date": None}, "pdf": {"CreationDate": None}, "png": {}}[ending]
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for plate in found:
            path = folder / f"{study}-{plate.name}.{ending}"
            with mpl.rc_context(STYLE):
                figure = Figure(figsize=(width, plate.height if width <= COLUMN else plate.height * 1.25))
                plate.draw(figure, width)
                figure.savefig(path, format=ending, dpi=300, metadata={"Title": f"{study}: {plate.name}", **told})
            data = path.with_suffix(".csv")
            data.write_text(plate.csv(), "utf-8")
            written += [path, data]
    except OSError as error:
        raise HarnessError(f"--out {folder}: cannot be written ({error.strerror}); name another folder") from None
    return written


# -- the front --------------------------------------------------------------------------------------------------------


def _front(facts: Facts, axis: Axis, groups: Grouping | None) -> Plate:
    x, y = facts.units[axis.cost.metric], facts.units[facts.main.metric]
    on = [(spot, True) for spot in axis.front] + [(spot, False) for spot in axis.beaten]
    rows = [
        (
            spot.name or spot.trials[0].label,
            " ".join(str(trial.number) for trial in spot.trials),
            *([str(groups.of(spot.trials[0]))] if groups else []),
            spot.cost,
            spot.value,
            spot.half if len(spot.trials) > 1 else "",
            "front" if first else "beaten",
        )
        for spot, first in on
    ]
    by = (groups.title,) if groups else ()
    header = ("config", "trials", *by, axis.cost.metric, facts.main.metric, "half of 95 % interval", "place")

    def draw(figure: Any, width: float) -> None:
        ax = figure.add_subplot()
        _marks(ax, axis, x, y)
        style = "steps-post" if axis.cost.sign > 0 else "steps-pre"
        ax.plot(*_at(axis.front, x, y), drawstyle=style, color=INK, linewidth=0.8, zorder=2)
        for spots, faint in ((thinned(axis.beaten, MAX_BEATEN), True), (axis.front, False)):
            for own, option in _split(spots, groups):
                colour, symbol = GROUPS[groups.options.index(option)] if groups else (ACCENT, "circle")
                look = {"color": colour, "marker": MARKS[symbol], "linestyle": "none", "markeredgewidth": 0}
                look |= {"markersize": 2.6, "alpha": 0.35, "zorder": 1} if faint else {"markersize": 4.4, "zorder": 3}
                halves = [spot.half * y.scale for spot in own]
                bars = {"yerr": halves, "elinewidth": 0.7, "capsize": 1.8} if any(halves) else {}
                ax.errorbar(*_at(own, x, y), **look, **bars)
        for place, option in enumerate(groups.options if groups else ()):
            colour, symbol = GROUPS[place]
            words = KINDS.get(str(option), str(option))
            ax.plot([], [], color=colour, marker=MARKS[symbol], linestyle="none", markersize=4, label=words)
        if groups:
            _legend(figure, groups.title, len(groups.options))
        if axis.wide and axis.positive:
            ax.set_xscale("log")
        ax.set(xlabel=x.heading, ylabel=y.heading)

    return Plate(f"front-{_slug(axis.cost.metric)}", header, tuple(rows), draw, 2.6)


def _marks(ax: Any, axis: Axis, x: Unit, y: Unit) -> None:
    """What there is to compare with: a level for the baseline, a line for each published network."""
    for one in axis.references:
        look = {"color": MUTED, "linewidth": 0.6, "linestyle": (0, (1, 2)), "zorder": 0}
        words = {"color": MUTED, "fontsize": 5.5}
        if one.value is not None:
            ax.axhline(one.value * y.scale, **look)
            at = {"xy": (1, one.value * y.scale), "xycoords": ("axes fraction", "data"), "xytext": (-2, 1)}
            ax.annotate(one.name, **at, textcoords="offset points", ha="right", va="bottom", **words)
        elif one.cost is not None:
            ax.axvline(one.cost * x.scale, **look)
            at = {"xy": (one.cost * x.scale, 0), "xycoords": ("data", "axes fraction"), "xytext": (1, 2)}
            ax.annotate(one.name, **at, textcoords="offset points", rotation=90, ha="left", va="bottom", **words)


def _at(spots: Sequence[Spot], x: Unit, y: Unit) -> tuple[list[float], list[float]]:
    return [spot.cost * x.scale for spot in spots], [spot.value * y.scale for spot in spots]


def _split(spots: Sequence[Spot], groups: Grouping | None) -> Iterator[tuple[list[Spot], Any]]:
    """The configs of each option, of those that have any."""
    if groups is None:
        yield list(spots), None
        return
    for option in groups.options:
        if own := [spot for spot in spots if groups.of(spot.trials[0]) == option]:
            yield own, option


# -- effects ----------------------------------------------------------------------------------------------------------


def _effects(facts: Facts, found: Comparison) -> Plate:
    table, values = found.table, found.arms.values(facts.main.metric)
    base, shown = values[found.arms.baseline], [effect for effect in found.effects if effect.seeds]
    rows: list[tuple[Any, ...]] = []
    for effect in shown:
        bounds = (effect.low, effect.high) if effect.test.df >= 1 else ("", "")
        rows.append((effect.arm, "mean", effect.difference, *bounds, table.verdict(effect)))
        rows += [(effect.arm, seed, values[effect.arm][seed] - base[seed], "", "", "") for seed in effect.seeds]
    scale, unit = table.scale, facts.units[facts.main.metric]
    symbol = f" ({unit.symbol.replace('%', 'points')})" if unit.symbol else ""

    def draw(figure: Any, width: float) -> None:
        ax = figure.add_subplot()
        if margin := next((effect.margin for effect in shown if effect.margin), None):
            ax.axvspan(-margin * scale, margin * scale, color=OPEN, alpha=0.15, linewidth=0)
        ax.axvline(0, color=MUTED, linewidth=0.7)
        for place, effect in enumerate(reversed(shown)):
            colour = {"helps": HELPS, "hurts": HURTS}.get(effect.verdict, OPEN)
            single = [(values[effect.arm][seed] - base[seed]) * scale for seed in effect.seeds]
            ax.plot(single, [place - 0.22] * len(single), "|", color=OPEN, markersize=4, markeredgewidth=0.6)
            half = (effect.high - effect.difference) * scale if effect.test.df >= 1 else 0
            look = {"color": colour, "marker": "s", "markersize": 3.6, "elinewidth": 1, "capsize": 2}
            ax.errorbar([effect.difference * scale], [place], xerr=[half], **look)
        ax.set_yticks(range(len(shown)), [fill(effect.arm, round(8 * width)) for effect in reversed(shown)])
        ax.set_ylim(-0.6, len(shown) - 0.4)
        ax.grid(visible=False, axis="y")
        ax.set_xlabel(f"Difference in {NOUNS[table.metric]}{symbol}\n{fill(f'to {found.arms.baseline}', round(11 * width))}")

    header = ("arm", "seed", "difference", "low", "high", "verdict")
    return Plate("effects", header, tuple(rows), draw, 0.85 + 0.26 * len(shown))


# -- radii ------------------------------------------------------------------------------------------------------------


def _radii(found: Sequence[Radius]) -> Plate:
    rows = tuple(
        (one.trial.number, one.stage, one.block, one.head, "" if one.start is None else one.start, epoch, value)
        for one in found
        for epoch, value in enumerate(one.values, start=1)
    )

    def draw(figure: Any, width: float) -> None:
        from matplotlib.ticker import LogLocator, NullLocator

        stages = sorted({one.stage for one in found})[: 4 if width > COLUMN else 3]
        panes = figure.subplots(1, len(stages), sharey=True, squeeze=False)[0]
        starts = sorted({one.start for one in found if one.start})
        for pane, stage in zip(panes, stages, strict=True):
            own = sorted((one for one in found if one.stage == stage), key=lambda one: one.start or 0)
            for one in thinned(own, MAX_LINES):
                begins = [] if one.start is None else [one.start]
                line = [*begins, *one.values]
                colour = GROUPS[one.head % len(GROUPS)][0] if len(starts) < 2 else _shade(starts, one.start)
                pane.plot(range(1 - len(begins), one.epochs + 1), line, color=colour, linewidth=0.6, alpha=0.75)
            pane.set_yscale("log")
            pane.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
            pane.yaxis.set_minor_locator(NullLocator())
            pane.set_title(stage, fontsize=7, color=MUTED)
            pane.set_xlabel("Epoch")
            pane.xaxis.get_major_locator().set_params(integer=True, nbins=4)
            pane.yaxis.set_major_formatter("{x:g}")
        for start in (starts[0], starts[-1]) if len(starts) > 1 else ():
            panes[0].plot([], [], color=_shade(starts, start), linewidth=1.2, label=f"{start:.2g}")
        if len(starts) > 1:
            _legend(figure, "start", 2)
        panes[0].set_ylabel("Learned radius")

    return Plate("radii", ("trial", "stage", "block", "head", "start", "epoch", "radius"), rows, draw, 2.3)


def _shade(starts: Sequence[float], start: float | None) -> str:
    """Blue for the smallest start, orange for the largest."""
    import math

    from harness.report.radii import COLD, WARM

    share = math.log((start or starts[0]) / starts[0]) / math.log(starts[-1] / starts[0])
    return "#" + "".join(f"{round(cold + share * (warm - cold)):02x}" for cold, warm in zip(COLD, WARM))


def _legend(figure: Any, title: str, count: int) -> None:
    """Above the axes, so that it covers nothing."""
    columns = min(count, 4)
    figure.legend(title=title, title_fontsize=6.5, loc="outside upper right", ncols=columns, columnspacing=1, borderpad=0)


def _slug(metric: str) -> str:
    """A metric's name as part of a file's."""
    return "-".join("".join(letter if letter.isalnum() else " " for letter in metric).split())
