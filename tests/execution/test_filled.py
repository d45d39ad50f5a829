"""Which cells have a row: whole rows are read where seed and costs agree, each once."""

from harness.execution.filled import Filled
from harness.record import Record


def row(number: int, size: int, seed: int = 0) -> Record:
    costs = {"params": size, "macs": 10 * size}
    return Record(number, "complete", {"width": size, "lr": number / 10}, f"k{number}", seed, {}, costs)


ROWS = [row(0, 1), row(1, 1), row(2, 2), row(3, 1, seed=1)]


def test_rows_are_read_only_where_what_is_proposed_may_be_the_same() -> None:
    read: list[int] = []
    filled = Filled(ROWS, lambda numbers: read.extend(numbers) or [ROWS[n] for n in numbers], lambda one: one.key)  # type: ignore[func-returns-value]
    assert not filled.has("k9", 0, row(9, 3).costs) and read == []
    assert filled.has("k1", 0, row(9, 1).costs) and read == [0, 1]
    assert not filled.has("k9", 0, row(9, 1).costs) and filled.has("k0", 0, row(9, 1).costs) and read == [0, 1]
    assert filled.chose({"lr": 0.2, "width": 2}, 0) and not filled.chose({"lr": 0.2, "width": 2}, 1) and read == [0, 1]
    filled.add("k7", {"width": 7, "lr": 0.7}, 0)
    assert filled.has("k7", 0, row(7, 7).costs) and filled.chose({"width": 7, "lr": 0.7}, 0)
    assert len(filled) == 5 and read == [0, 1, 2, 3]
