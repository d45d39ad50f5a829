"""Which cells of a study have a row: a row's whole config is read only where what is proposed may be the same."""

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence

from harness.config import Scalar
from harness.record import Record
from harness.space import Params

Mark = tuple[int, frozenset[tuple[str, Scalar]]]
"""A seed with exact costs, which equal cells share, or with choices, of which equal ones are of one cell."""


class Filled:
    """The cells that have a row."""

    def __init__(
        self, rows: Iterable[Record], read: Callable[[Sequence[int]], Iterable[Record]], tell: Callable[[Record], str]
    ) -> None:
        """`read` gives rows by their numbers, `tell` the cell of one."""
        self._read, self._tell = read, tell
        self._cells: set[str] = set()
        self._untold: dict[Mark, list[int]] = defaultdict(list)
        self._choices: set[Mark] = set()
        for row in rows:
            self._untold[_mark(row.seed, row.costs)].append(row.number)
            self._choices.add(_mark(row.seed, row.params))

    def add(self, cell: str, params: Params, seed: int) -> None:
        """A row of this cell is written, with these choices."""
        self._cells.add(cell)
        self._choices.add(_mark(seed, params))

    def chose(self, params: Params, seed: int) -> bool:
        """Whether a row has just these choices; other choices may be of the same cell, which `has` tells."""
        return _mark(seed, params) in self._choices

    def has(self, cell: str, seed: int, costs: Mapping[str, int]) -> bool:
        """Whether there is a row of this cell, whose seed and costs are these."""
        self._look(self._untold.pop(_mark(seed, costs), []))
        return cell in self._cells

    def __len__(self) -> int:
        """How many cells have rows."""
        self._look([number for numbers in self._untold.values() for number in numbers])
        self._untold.clear()
        return len(self._cells)

    def _look(self, numbers: Sequence[int]) -> None:
        self._cells.update(map(self._tell, self._read(numbers)))


def _mark(seed: int, said: Mapping[str, Scalar]) -> Mark:
    return seed, frozenset(said.items())
