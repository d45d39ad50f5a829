"""Tables found in a paper's source, held against what the study says now."""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate

from harness.errors import HarnessError
from harness.report.sheet import Cell, Column, Sheet, untex

PREFIXES = {"k": 1e3, "M": 1e6, "G": 1e9}
NUMBER = re.compile(r"[+-]?(?:\d{1,3}(?:,\d{3})+|\d+)(?:\.\d+)?(?:e[+-]?\d+)?")
BETWEEN = re.compile(r"(?:[\s\[\](),;±%kMG]|to|points)*")
"""What may stand between and behind the numbers of a cell."""


class PaperError(HarnessError):
    """A file in which no table of the study can be found."""


@dataclass(frozen=True)
class Disagreement:
    """A cell of the paper that no longer says what the study says."""

    line: int
    row: str
    column: str
    there: str
    now: str

    def __str__(self) -> str:
        return f"line {self.line}: row {self.row!r}, column {self.column!r}: there {self.there!r}, now {self.now!r}"


@dataclass(frozen=True)
class Found:
    """A table as its source has it, in plain text but for marks."""

    line: int
    rows: tuple[tuple[int, tuple[str, ...]], ...]
    """With the line of each, the heading first."""
    marked: bool
    """Whether its form marks cells, so that one without a mark says something."""
    study: str = ""
    """The study that the comment above it names; empty where none does."""

    @property
    def labels(self) -> set[str]:
        return {_plain(cells[0]) for _, cells in self.rows}


@dataclass(frozen=True)
class Verdict:
    """What a check found."""

    tables: tuple[int, ...]
    """Lines at which the tables of the study begin."""
    cells: int
    """How many were compared."""
    wrong: tuple[Disagreement, ...]
    notes: tuple[str, ...]
    """What was not compared."""

    def lines(self, where: str) -> list[str]:
        """What there is to say: a line for each cell that does not agree, then what was compared."""
        at = ", ".join(map(str, self.tables))
        many = f"{'table' if len(self.tables) == 1 else 'tables'} at line {at}: {self.cells} cells compared"
        said = f"{len(self.wrong)} no longer agree" if self.wrong else "all agree"
        return [f"{where}: {line}" for line in (*map(str, self.wrong), *self.notes, f"{many}, {said}")]


def check(text: str, sheet: Sheet, name: str, where: str) -> Verdict:
    """Every table of the study `name` in a LaTeX or Markdown source against the sheet; `where` names the source.

    A table is the study's where the comment above it says so or, without one, two of its rows (or its only one) are labelled
    as the study's. A number agrees where today's, rounded as it is rounded there, is what is there. Raises PaperError."""
    known = {_plain(row[0].text) for row in sheet.rows}
    found = [table for table in tables_in(text) if _owned(table, name, known)]
    if not found:
        few = ", ".join(repr(row[0].text) for row in sheet.rows[:3])
        raise PaperError(
            f"{where}: no table of study {name!r}: none has a comment `study {name}, ...` above it or rows labelled as its"
            f" ({few}, ...); `harness export {name} --as latex` writes one"
        )
    told = [_compared(table, sheet) for table in found]
    wrong = tuple(one for verdict in told for one in verdict.wrong)
    notes = tuple(note for verdict in told for note in verdict.notes)
    return Verdict(tuple(table.line for table in found), sum(verdict.cells for verdict in told), wrong, notes)


def _owned(table: Found, name: str, known: set[str]) -> bool:
    if table.study:
        return table.study == name
    return len(table.labels & known) >= min(2, len(table.rows) - 1, len(known))


def _compared(table: Found, sheet: Sheet) -> Verdict:
    titles = {_title(column.title): place for place, column in enumerate(sheet.columns)}
    at = next((at for at, (_, cells) in enumerate(table.rows[:3]) if {_title(cell) for cell in cells[1:]} & set(titles)), 0)
    first, heading = table.rows[at]
    head = [_plain(cell) for cell in heading]
    places = [None, *(titles.get(_title(title)) for title in head[1:])]
    notes = [
        f"line {first}: column {title!r} is none of the export's, which are {', '.join(sheet.head[1:])}: not compared"
        for title, place in zip(head[1:], places[1:])
        if place is None
    ]
    wrong: list[Disagreement] = []
    cells, seen = 0, set()
    for line, texts in table.rows[at + 1 :]:
        label = _plain(texts[0])
        seen.add(label)
        if not any(map(_plain, texts[1:])):  # a title over some rows
            continue
        rows = [row for row in sheet.rows if _plain(row[0].text) == label]
        if not rows:
            wrong.append(Disagreement(line, label, head[0], label, "no such row"))
            continue
        cells += sum(place is not None for place in places[1 : len(texts)])
        tries = (_differing(table, line, texts, head, places, sheet.columns, row) for row in rows)
        wrong += sorted(tries, key=len)[0]
    if missing := [row[0].text for row in sheet.rows if _plain(row[0].text) not in seen]:
        notes.append(f"line {table.line}: the study has rows that are not there: {', '.join(map(repr, missing))}")
    return Verdict((), cells, tuple(wrong), tuple(notes))


def _differing(
    table: Found,
    line: int,
    texts: Sequence[str],
    head: Sequence[str],
    places: Sequence[int | None],
    columns: Sequence[Column],
    row: Sequence[Cell],
) -> list[Disagreement]:
    found = []
    for text, title, place in zip(texts, head, places):
        if place is None:
            continue
        cell = row[place]
        if not agrees(text, cell, columns[place].unit, _unit(title), marked=table.marked):
            now = cell.text + (cell.mark if table.marked else "")
            found.append(Disagreement(line, _plain(texts[0]), title, _plain(text), now))
    return found


def _title(heading: str) -> str:
    return re.sub(r"\s*\([^()]*\)\s*$", "", _plain(heading)).lower()


def _unit(heading: str) -> str:
    found = re.search(r"\(([^()]*)\)\s*$", heading)
    return found[1].strip() if found else ""


def agrees(there: str, cell: Cell, unit: str = "", unit_there: str = "", *, marked: bool = False) -> bool:
    """Whether what is there is what the cell says, its numbers rounded as they are there; a mean agrees without its interval
    too. Signs count and, in a form that has them, marks."""
    text = _plain(there)
    mark = text[len(text.rstrip("*=")) :]
    if marked and mark != cell.mark:
        return False
    text = text.removesuffix(mark).strip()
    if text in (_plain(cell.text), "" if cell.text == "-" else None) and (unit_there or unit) == unit:
        return True
    suffix = re.search(r"[kMG]$", text)
    factor = PREFIXES.get(unit, 1.0) / PREFIXES.get(suffix[0] if suffix else unit_there or unit, 1.0)
    if text.startswith("<") and len(cell.values) == 1 and NUMBER.fullmatch(text[1:].strip()):
        return cell.values[0] * factor < float(text[1:].replace(",", ""))
    numbers = NUMBER.findall(text)
    fewest = 1 if "±" in cell.text else len(cell.values)
    if not 0 < fewest <= len(numbers) <= len(cell.values) or not BETWEEN.fullmatch(NUMBER.sub(" ", text)):
        return False
    return all(_rounds(number.replace(",", ""), value * factor) for number, value in zip(numbers, cell.values))


def _rounds(there: str, now: float) -> bool:
    digits, _, power = there.partition("e")
    step = 10.0 ** (int(power or 0) - len(digits.partition(".")[2]))
    return abs(float(there) - now) <= step / 2 * (1 + 1e-6)


# -- finding tables ---------------------------------------------------------------------------------------------------

_STUDY = re.compile(r"(?:%|<!--)\s*study ([A-Za-z0-9][A-Za-z0-9_.~=+,-]*?), ")
_TABULAR = re.compile(r"\\begin\{(tabular[*xy]?|tabulary|longtable|tblr)\}(.*?)\\end\{\1\}", re.DOTALL)
_RULES = re.compile(
    r"\\(?:toprule|midrule|bottomrule|hline|addlinespace|endhead|endfoot|endfirsthead|endlastfoot)(?:\[[^\]]*\])?"
    r"|\\(?:cmidrule|cline)(?:\([^)]*\))?\{[^{}]*\}"
)
_LOOK = re.compile(r"\\(?:textbf|textit|emph|underline|mathbf|textsc|textrm|mathrm|text|bm|uline)\s*\{([^{}]*)\}")
_SPACING = re.compile(r"(?<!\\)~|\\[,;:! ]|\\(?:phantom|hphantom|color|rowcolor|cellcolor)\{[^{}]*\}")


_COLUMNS = re.compile(r"\\multicolumn\{(\d+)\}\{[^{}]*\}\{([^{}]*)\}")
Rows = tuple[tuple[int, tuple[str, ...]], ...]


def tables_in(text: str) -> Iterator[Found]:
    """The tables of a source, from its beginning."""
    found = [(*place, True) for place in _latex_tables(text)] + [(*place, False) for place in _markdown_tables(text)]
    named = [(match.start(), match[1]) for match in _STUDY.finditer(text)]
    last = 0
    for start, end, rows, marked in sorted(found):
        above = [name for at, name in named if last <= at < start]
        if len(rows) > 1:
            yield Found(_line(text, start), rows, marked, above[-1] if above else "")
        last = end


def _line(text: str, offset: int) -> int:
    return text.count("\n", 0, offset) + 1


def _latex_tables(text: str) -> Iterator[tuple[int, int, Rows]]:
    for match in _TABULAR.finditer(text):
        body = re.sub(r"(?<!\\)((?:\\\\)*)%[^\n]*", r"\1", _without_arguments(match[2]))
        rows, line = [], _line(text, match.end()) - body.count("\n")
        for piece in re.split(r"(\\\\\*?(?:\[[^\]]*\])?|\\tabularnewline)", body):
            row = _COLUMNS.sub(lambda found: found[2] + "&" * (int(found[1]) - 1), _RULES.sub("", piece))
            if row.strip() and not piece.startswith((r"\\", r"\tabularnewline")):
                before = row[: len(row) - len(row.lstrip())].count("\n")
                rows.append((line + before, tuple(map(_untexed, re.split(r"(?<!\\)&", row)))))
            line += piece.count("\n")
        yield match.start(), match.end(), tuple(rows)


def _without_arguments(body: str) -> str:
    """The body behind the width and the columns, which may hold braces of their own."""
    while (body := body.lstrip(" "))[:1] in ("{", "["):
        depth = accumulate((char in "{[") - (char in "}]") for char in body)
        body = body[next((place for place, open_ in enumerate(depth) if open_ == 0), len(body)) + 1 :]
    return body


def _untexed(cell: str) -> str:
    before = None
    while cell != before:
        before, cell = cell, _LOOK.sub(r"\1", cell)
    cell = re.sub(r"\^\s*\{?\s*(\*+|=|\\ast)\s*\}?", lambda mark: mark[1].replace(r"\ast", "*"), cell)
    cell = _SPACING.sub(" ", cell).replace(r"\pm", "±").replace(r"\cdot", "·").replace("{,}", ",")
    return untex(re.sub(r"(?<!\\)\$", "", cell))


def _markdown_tables(text: str) -> Iterator[tuple[int, int, Rows]]:
    for match in re.finditer(r"^[ \t]*\|.*\|[ \t]*\n[ \t]*\|[ :|-]+\|[ \t]*\n(?:[ \t]*\|.*(?:\n|\Z))*", text, re.MULTILINE):
        first = _line(text, match.start())
        lines = enumerate(match[0].splitlines(), start=first)
        rows = tuple((line, tuple(map(_unmarked, _piped(row)))) for line, row in lines if line != first + 1)
        yield match.start(), match.end(), rows


def _piped(row: str) -> list[str]:
    return re.split(r"(?<!\\)\|", row.strip().removeprefix("|").removesuffix("|"))


def _unmarked(cell: str) -> str:
    """Without emphasis."""
    return re.sub(r"(\*\*|__)(.*?)\1", r"\2", cell.replace(r"\|", "|")).strip()


def _plain(text: str) -> str:
    """One space for any, and one minus for any."""
    return re.sub("[\N{MINUS SIGN}\N{EN DASH}\N{EM DASH}]|--+", "-", " ".join(text.split()))
