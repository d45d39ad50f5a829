"""What the page is made of: sections in order, each a title over figures, tables and notes.

A section of one study is a function from its facts to a Section, or None where it has nothing to show; `each` makes it one
of a page of several. The page's own list of them is `SECTIONS` in `harness/report/sections.py`.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, ClassVar

from harness.report.facts import Facts
from harness.report.sheet import Sheet

if TYPE_CHECKING:
    import plotly.graph_objects as go


@dataclass(frozen=True)
class Note:
    """A paragraph in small print; `trial 17` in it opens that trial."""

    kind: ClassVar[str] = "note"
    text: str


@dataclass(frozen=True)
class Plot:
    """A figure, or several among which a switch chooses."""

    kind: ClassVar[str] = "plot"
    name: str
    """Its address on the page, in small letters."""
    views: "dict[str, go.Figure]"
    """Figures by what the switch calls them; the first is shown."""
    label: str
    """What it shows, for whom does not see it."""
    height: int | None = None
    """Pixels; None: the page's own."""


@dataclass(frozen=True)
class Table:
    """A table of facts."""

    kind: ClassVar[str] = "table"
    sheet: Sheet


@dataclass(frozen=True)
class Map:
    """A grid of numbers, shaded by size: rows by columns; None where there is none."""

    kind: ClassVar[str] = "map"
    title: str
    rows: tuple[str, ...]
    columns: tuple[str, ...]
    means: tuple[tuple[float | None, ...], ...]
    words: str
    scale: float = 1.0
    decimals: int = 2

    def shade(self, mean: float | None) -> float:
        """How deep a cell's colour is: 0 for the smallest number, 1 for the largest."""
        known = [one for row in self.means for one in row if one is not None]
        reach = max(known) - min(known)
        return (mean - min(known)) / reach if mean is not None and reach else 0.0

    def text(self, mean: float | None) -> str:
        return "\N{EN DASH}" if mean is None else f"{mean * self.scale:,.{self.decimals}f}"


@dataclass(frozen=True)
class Listed:
    """Catchwords with a sentence each, and texts to unfold."""

    kind: ClassVar[str] = "listed"
    items: tuple[tuple[str, str], ...]
    folded: tuple[tuple[str, str], ...] = ()
    """Titles with what they unfold, as it was written."""


@dataclass(frozen=True)
class Commands:
    """Lines for a terminal."""

    kind: ClassVar[str] = "commands"
    lines: tuple[str, ...]


Block = Note | Plot | Table | Map | Listed | Commands


@dataclass(frozen=True)
class Section:
    """A part of the page."""

    name: str
    """Its address on the page."""
    title: str
    blocks: tuple[Block, ...]
    study: str = ""
    """Whose it is, on a page of several."""
    last: bool = False
    """Whether it comes behind the table of trials."""
    half: bool = False
    """Whether half of a wide page is enough for it."""

    @property
    def plots(self) -> list[Plot]:
        return [block for block in self.blocks if isinstance(block, Plot)]


Builder = Callable[[Sequence[Facts]], Iterable[Section]]
"""What makes sections of the studies of a page."""


def each(build: Callable[[Facts], Section | None]) -> Builder:
    """The section of every study that has one; on a page of several their addresses end in the study's place."""

    def built(studies: Sequence[Facts]) -> Iterator[Section]:
        for place, facts in enumerate(studies):
            if (found := build(facts)) is not None:
                yield found if len(studies) == 1 else _placed(found, place, facts.study.name)

    return built


def _placed(section: Section, place: int, study: str) -> Section:
    """A section as that of one study among several: its trials are of that study."""
    blocks = tuple(
        Plot(
            f"{block.name}-{place}", {name: _of(place, one) for name, one in block.views.items()}, block.label, block.height
        )
        if isinstance(block, Plot)
        else block
        for block in section.blocks
    )
    return replace(section, name=f"{section.name}-{place}", blocks=blocks, study=study)


def _of(place: int, figure: "go.Figure") -> "go.Figure":
    """The figure whose trials are those of the study at a place."""
    for trace in figure.data:
        trace.meta = {**(trace.meta or {}), "study": place}
    return figure
