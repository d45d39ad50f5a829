"""Which cells of a study have a row: a row's whole config is read only where what is proposed may be the same."""

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence

from harness.record import Record

Mark = tuple[object, ...]
"""What equal cells share and a row tells at once: its seed and its exact costs."""


class Filled:
    """The cells that have a row."""

    def __init__(
        self, rows: Iterable[Record], read: Callable[[Sequence[int]], Iterable[Record]], tell: Callable[[Record], str]
    ) -> None:
        """`read` gives rows by their numbers, `tell` the cell of one."""
        self._read, self._tell = read, tell
        self._cells: set[str] = set()
        self._untold: dict[Mark, list[int]] = defaultdict(list)
        for row in rows:
            self._untold[_mark(row.seed, row.costs)].append(row.number)

    def add(self, cell: str) -> None:
        """A row of this cell is written."""
        self._cells.add(cell)

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


def _mark(seed: int, costs: Mapping[str, int]) -> Mark:
    return seed, *sorted(costs.items())
