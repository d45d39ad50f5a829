"""A running study as a terminal shows it: one picture, drawn by the run itself and by whoever watches from elsewhere."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Literal

from rich.console import Group, RenderableType
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from harness.report.words import counted, duration

WIDE = 120
"""Columns from which on devices are shown beside what was chosen; where that has a line of its own, wherever they fit."""
NARROW = 72
"""Columns below which bars are left out."""
ROOMY, FEW = 110, 8
"""Columns below which what was chosen gets a line of its own, where no more trials than so many run."""


@dataclass(frozen=True)
class Row:
    """A trial that runs."""

    number: int
    done: int
    """Epochs finished."""
    epochs: int
    value: str = ""
    """The metric that is followed, after the last epoch."""
    pace: float = 0.0
    """Seconds of the last epoch, 0 before the first."""
    age: float | None = None
    """Seconds since it began."""
    device: str = ""
    chosen: str = ""


@dataclass(frozen=True)
class View:
    """A study under way, in words and numbers."""

    name: str
    planned: int
    states: Mapping[Any, int]
    """Finished trials: complete, stopped, failed."""
    reused: int = 0
    screened: int = 0
    """Configs over a constraint, which were never trained."""
    seconds: float = 0.0
    left: float | None = None
    best: str = ""
    """The best value of each objective so far."""
    front: int = 0
    metric: str = "accuracy"
    standing: str = ""
    """What is decided, where seeds come in sequence."""
    stopping: bool = False
    rows: tuple[Row, ...] = ()

    @property
    def finished(self) -> int:
        return sum(self.states.values())

    def counts(self) -> list[tuple[str, str]]:
        """What became of trials beside being complete, with the style of each."""
        told = [
            (self.states.get("stopped", 0), "stopped early", "dim"),
            (self.states.get("failed", 0), "failed", "red"),
            (self.reused, "taken over", "dim"),
            (self.screened, "screened out", "dim"),
        ]
        return [(f"{number:,} {words}", style) for number, words, style in told if number]

    def line(self) -> str:
        """All of it but the running trials, in a line for a log."""
        words = [f"{self.finished} of {counted(self.planned, 'trial')}", *(words for words, _ in self.counts())]
        words += [f"{len(self.rows)} running"] if self.rows else []
        words += [f"about {duration(self.left)} left"] if self.left else []
        return f"{self.name}: {', '.join(words)}" + (f"; best {self.best}" if self.best else "")


def drawn(view: View, width: int) -> RenderableType:
    """The picture for a terminal of so many columns."""
    lines: list[RenderableType] = [_head(view, width), *_told(view, width)]
    if view.best:
        front = f"  front of {counted(view.front, 'trial')}" if view.front > 1 else ""
        lines.append(_line(Text.assemble(("best so far: ", "dim"), (view.best, "green"), (front, "dim"))))
    if view.standing:
        lines.append(_line(Text(view.standing)))
    return Group(*lines, _running(view, width), Text()) if view.rows else Group(*lines)


def _line(text: Text) -> Text:
    text.no_wrap, text.overflow = True, "ellipsis"
    return text


def _head(view: View, width: int) -> Table:
    """Name, bar, and how many of how many."""
    count = f"{view.finished} of {counted(view.planned, 'trial')}"
    room = max(width - len(count) - 4, 10)
    name = min(len(view.name), max(room - 12, 8))
    head = Table.grid(padding=(0, 2))
    head.add_column(no_wrap=True, overflow="ellipsis", width=name)
    head.add_column(width=max(min(40, room - name), 4))
    head.add_column(no_wrap=True)
    bar = ProgressBar(total=max(view.planned, 1), completed=view.finished)
    head.add_row(Text(view.name, style="bold"), bar, count)
    return head


def _told(view: View, width: int) -> list[Text]:
    """Time, and what became of trials, in one line or two."""
    time = [(f"{duration(view.seconds)} so far", "dim")]
    if view.stopping:
        time.append(("stopping ...", "yellow"))
    elif view.left is not None:
        time.append((f"about {duration(view.left)} left", "dim"))
    whole = _listed([*time, *view.counts()])
    return [whole] if whole.cell_len <= width or not view.counts() else [_listed(time), _listed(view.counts())]


def _listed(words: list[tuple[str, str]]) -> Text:
    return _line(Text(", ", style="dim").join(Text(text, style=style) for text, style in words))


def _running(view: View, width: int) -> RenderableType:
    """A line for each trial; what was chosen at its end, or below it where there is no room."""
    below = width < ROOMY and len(view.rows) <= FEW
    names = ["trial", "epoch", *([""] if width >= NARROW else []), view.metric, "s/epoch", "age"]
    cells = [_cells(row, view.metric) for row in view.rows]
    widths = {name: max(len(name), *(len(str(one[name])) for one in cells)) for name in (*cells[0],)} | {"": 10}
    with_device = sum(widths[name] + 2 for name in names) + widths["device"]
    devices = any(row.device for row in view.rows) and (with_device <= width if below else width >= WIDE)
    names += [*(["device"] if devices else []), *([] if below else ["chosen"])]
    header = {name: Text(name, style="dim") for name in names}
    if not below:
        return _table([header, *cells], names, widths)
    lines: list[RenderableType] = [_table([header], names, widths)]
    for row, one in zip(view.rows, cells, strict=True):
        lines += [_table([one], names, widths), _line(Text(f"{'':{widths['trial'] + 2}}{row.chosen}", style="dim"))]
    return Group(*lines)


def _cells(row: Row, metric: str) -> dict[str, RenderableType]:
    return {
        "trial": str(row.number),
        "epoch": f"{row.done}/{row.epochs}",
        "": ProgressBar(total=max(row.epochs, 1), completed=row.done, width=10),
        metric: row.value,
        "s/epoch": "" if not row.pace else f"{row.pace:.1f}" if row.pace >= 1 else f"{row.pace:.2f}",
        "age": "" if row.age is None else str(timedelta(seconds=int(row.age))),
        "device": Text(row.device),
        "chosen": Text(row.chosen),
    }


def _table(rows: Sequence[Mapping[str, RenderableType]], names: Sequence[str], widths: Mapping[str, int]) -> Table:
    table = Table.grid(padding=(0, 2), expand="chosen" in names)
    for name in names:
        last = name == "chosen"
        side: Literal["left", "right"] = "left" if name in ("", "device", "chosen") else "right"
        size = None if last else widths[name]
        table.add_column(justify=side, no_wrap=True, overflow="ellipsis", width=size, ratio=1 if last else None)
    for row in rows:
        table.add_row(*(row[name] for name in names))
    return table
