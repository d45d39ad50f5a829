"""Presets as tables for a terminal."""

from collections.abc import Iterable, Iterator

from rich.table import Table
from rich.text import Text

from harness.config import name_of
from harness.cost import Shape
from harness.presets import Preset, Printed, stages
from harness.report.words import KINDS, unit

LEGEND = (
    "FLOPs are 2 x MACs. paper: the number as printed, - where it prints none. error: computed against printed, red above"
    " 2 % of FLOPs, or where rounding leaves more than 0.05 % of params unexplained"
)
ROOMY = 84
"""Columns of a terminal from which on the papers are named."""


def listing(presets: Iterable[Preset], width: int) -> Table:
    """All presets: counts beside the published ones; the paper where `width` columns have room for it."""
    table = Table(box=None, padding=(0, 1), header_style="dim", pad_edge=False)
    table.add_column("preset", no_wrap=True)
    for heading in ("params", "paper", "error", "GFLOPs", "paper", "error"):
        table.add_column(heading, justify="right", no_wrap=True)
    if width >= ROOMY:
        table.add_column("arXiv", style="dim", no_wrap=True)
    shape: Shape | None = None
    for preset in presets:
        if preset.shape != shape:
            shape = preset.shape
            table.add_row(Text(shape_words(shape), style="dim"))
        table.add_row(*_row(preset), *([preset.paper] if width >= ROOMY else []))
    return table


def shape_words(shape: Shape) -> str:
    return f"{shape.channels}x{shape.height}x{shape.width}, {shape.classes:,} classes"


def _row(preset: Preset) -> Iterator[str | Text]:
    cost, errors = preset.cost, preset.errors()
    yield preset.name
    counts: tuple[tuple[str, str, Printed | None], ...] = (
        ("params", f"{cost.params / 1e6:.3f} M", preset.params),
        ("gflops", f"{2 * cost.macs / 1e9:.2f}", preset.gflops),
    )
    for name, text, printed in counts:
        yield text
        yield printed.text if printed else "-"
        if name in errors:
            error, trusted = errors[name]
            yield Text(f"{100 * error:+.2f} %", style="" if trusted else "red")
        else:
            yield "-"


def staged(preset: Preset) -> Table:
    """A preset part by part: what leaves it, its attention, its cost and its share of the whole."""
    whole = preset.cost
    table = Table(box=None, padding=(0, 1), header_style="dim", pad_edge=False)
    for heading in ("part", "leaves", "attention"):
        table.add_column(heading, no_wrap=True)
    for heading in ("params", "share", "MACs", "share"):
        table.add_column(heading, justify="right", no_wrap=True)
    units = [unit("params", [whole.params]), unit("macs", [whole.macs])]
    for name, leaves, attention, cost in stages(preset):
        grid = "x".join(map(str, leaves)) if leaves else f"{preset.shape.classes:,} classes"
        kind = name_of(attention.model_copy(update={"label": None})) if attention else ""
        shares = [part / all_ for part, all_ in zip(cost, whole)]
        cells = [
            word for one, value, share in zip(units, cost, shares) for word in (one.text(value), f"{100 * share:.1f} %")
        ]
        table.add_row(name, grid, KINDS.get(kind, kind), *cells)
    table.add_row("whole", "", "", units[0].text(whole.params), "", units[1].text(whole.macs), "", style="bold")
    return table
