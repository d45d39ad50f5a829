"""A table for a paper, a README or a terminal: cells that know their numbers, and their ink in LaTeX and Markdown."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.table import Table as RichTable

MARKS = {"*": r"$^{*}$", "=": r"$^{=}$"}
"""Marks of a cell as LaTeX writes them."""


@dataclass(frozen=True)
class Cell:
    """What a reader sees at one place, and what its numbers are before they were rounded."""

    text: str
    values: tuple[float, ...] = ()
    """In the unit of the column, in the order in which the text has them."""
    mark: str = ""
    """What LaTeX puts behind it, in place of the columns it leaves out."""
    best: bool = False
    look: str = ""
    """Colour in a terminal."""


@dataclass(frozen=True)
class Column:
    """A heading, its unit, and where it is shown."""

    title: str
    unit: str = ""
    words: bool = False
    """Words are set to the left, numbers to the right."""
    papers: bool = True
    """Whether LaTeX shows it: marks say what the others would."""
    narrow: bool = True
    """Whether a terminal of less than 110 columns shows it."""

    @property
    def heading(self) -> str:
        return f"{self.title} ({self.unit})" if self.unit else self.title


@dataclass(frozen=True)
class Sheet:
    """A table whose rows are labelled by their first cell."""

    columns: tuple[Column, ...]
    rows: tuple[tuple[Cell, ...], ...]
    notes: tuple[str, ...] = ()
    marks: tuple[str, ...] = ()
    """What the marks mean, a sentence each."""
    comment: str = ""
    """Where the numbers come from: study, commit, date."""

    @property
    def head(self) -> list[str]:
        return [column.heading for column in self.columns]

    def texts(self) -> list[list[str]]:
        """The rows as a reader sees them."""
        return [[cell.text for cell in row] for row in self.rows]


def best_in_columns(rows: Sequence[Sequence[Cell]], signs: dict[int, int]) -> tuple[tuple[Cell, ...], ...]:
    """The rows with the best cells of some columns marked: of sign 1 the smallest, of -1 the largest; none where all tie."""
    from dataclasses import replace

    found = [list(row) for row in rows]
    for place, sign in signs.items():
        known = {sign * row[place].values[0] for row in found if row[place].values}
        for row in found if len(known) > 1 else ():
            if row[place].values and sign * row[place].values[0] == min(known):
                row[place] = replace(row[place], best=True)
    return tuple(map(tuple, found))


# -- ink --------------------------------------------------------------------------------------------------------------


def markdown(sheet: Sheet) -> str:
    """A table of GitHub's Markdown, the best of each column in bold, with its notes."""
    lines = [f"<!-- {sheet.comment.replace('--', '- -')} -->"] if sheet.comment else []
    rule = "|".join("---" if column.words else "--:" for column in sheet.columns)
    lines += [_piped(sheet.head), f"|{rule}|"]
    lines += [
        _piped([f"**{_barred(cell.text)}**" if cell.best else _barred(cell.text) for cell in row]) for row in sheet.rows
    ]
    return "\n".join([*lines, "", *sheet.notes]) + "\n"


def _barred(text: str) -> str:
    return text.replace("|", r"\|")


def _piped(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def latex(sheet: Sheet) -> str:
    """A booktabs table, the best of each column in bold, its marks explained in a note."""
    keep = [place for place, column in enumerate(sheet.columns) if column.papers]
    lines = [f"% {line}" for line in sheet.comment.splitlines()]
    aligned = "".join("l" if sheet.columns[place].words else "r" for place in keep)
    lines += [rf"\begin{{tabular}}{{{aligned}}}", r"\toprule"]
    lines += [" & ".join(tex(sheet.head[place]) for place in keep) + r" \\", r"\midrule"]
    lines += [" & ".join(_tex_cell(row[place]) for place in keep) + r" \\" for row in sheet.rows]
    lines += [r"\bottomrule", r"\end{tabular}"]
    return "\n".join([*lines, *(rf"\par\footnotesize {tex(note)}" for note in (*sheet.marks, *sheet.notes))]) + "\n"


def _tex_cell(cell: Cell) -> str:
    text = tex(cell.text)
    if cell.values:
        text = re.sub(r"(?<!\w)-(?=\d)", "$-$", text)  # a minus, not a hyphen
    return (rf"\textbf{{{text}}}" if cell.best else text) + MARKS.get(cell.mark, "")


_TEX = {"\\": r"\textbackslash{}", "±": r"$\pm$", "·": r"$\cdot$", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}"}
_TEX |= {char: f"\\{char}" for char in "&%$#_{}"} | {"<": "$<$", ">": "$>$", "*": "$*$", "=": "$=$"}


def tex(text: str) -> str:
    """Plain text as LaTeX shows it."""
    return "".join(_TEX.get(char, char) for char in text)


def untex(text: str) -> str:
    """What `tex` made of a text, and people's edits of it, as plain text."""
    for plain, written in sorted(_TEX.items(), key=lambda pair: -len(pair[1])):
        text = text.replace(written, plain)
    return text


def drawn(sheet: Sheet, width: int = 120) -> "RichTable":
    """The table for a terminal of so many columns; a narrow one leaves out what the notes and --as tell."""
    from rich.table import Table
    from rich.text import Text

    found = Table(box=None, pad_edge=False, header_style="dim")
    shown = [place for place, column in enumerate(sheet.columns) if width >= 110 or column.narrow]
    for place in shown:
        column = sheet.columns[place]
        found.add_column(
            column.heading, justify="left" if column.words else "right", overflow="fold", no_wrap=not column.words
        )
    for row in sheet.rows:
        found.add_row(*(Text(row[place].text, style=row[place].look) for place in shown))
    return found
