"""The grammar is typed: mypy --strict accepts spaces as they are written and finds the mistakes in them."""

import re
from pathlib import Path

import pytest
from mypy import api

ROOT = Path(__file__).parents[1]
FILES = ["tests/typing/accepted.py", "tests/typing/rejected.py"]


def test_mypy_accepts_right_use_and_finds_each_mistake(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    lines = [
        (file, number, line) for file in FILES for number, line in enumerate(Path(file).read_text().splitlines(), start=1)
    ]
    expected = [(file, number, code) for file, number, line in lines for code in re.findall(r"\)  # ([a-z-]+)$", line)]
    assert len(expected) > 10
    output, problems, _ = api.run([*FILES, "--strict", "--show-error-codes", "--no-pretty"])
    found = re.findall(r"^(.+?):(\d+): error: .*\[([a-z-]+)\]$", output, re.MULTILINE)
    assert problems == ""
    assert [(file, int(number), code) for file, number, code in found] == expected, output
