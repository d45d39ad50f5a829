"""A worker that is kept: its memory stays level, and its next trial begins at once."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "benchmarks"))
from soak import RECIPES, SLOTS, soak


def test_memory_is_level_and_trials_begin_at_once(tmp_path: Path) -> None:
    count = max(len(SLOTS), len(RECIPES))
    found = list(soak(3 * count, tmp_path, limit=6))
    memory = [held for held, _ in found]
    assert max(memory[-count:]) - max(memory[count : 2 * count]) < 12, memory
    assert min(seconds for _, seconds in found[count:]) < 0.5
