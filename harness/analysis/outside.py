"""Results that came from elsewhere: a CSV of arm, seed and metric, as a hand or a tracker wrote it."""

import math
import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from harness.analysis.effects import EffectError
from harness.errors import hint, one_line

if TYPE_CHECKING:
    import pandas

ARMS = ("arm", "name", "model", "config", "method", "variant", "run", "group")
SEEDS = ("seed", "random_seed", "rng", "repeat", "trial")
METRICS = (
    "accuracy",
    "acc",
    "top1",
    "top-1",
    "val_acc",
    "val_accuracy",
    "test_acc",
    "test_accuracy",
    "metric",
    "value",
    "score",
)
"""What columns are usually called, most telling first."""


@dataclass(frozen=True)
class Outside:
    """Arms by seed, and which columns they came from."""

    values: dict[str, dict[int, float]]
    arm: str
    seed: str
    metric: str


def read_table(file: Path, arm: str | None = None, seed: str | None = None, metric: str | None = None) -> Outside:
    """The values of a CSV file; columns that are not named are found by what they are usually called.

    Raises EffectError for a cell that is no number, a seed twice, a column that is not there."""
    import pandas as pd

    try:
        frame = pd.read_csv(file, sep=None, engine="python", dtype=str, keep_default_na=False)
    except OSError as error:
        raise EffectError(f"{file} cannot be read: {error.strerror}") from None
    except Exception as error:
        raise EffectError(f"{file} is no table of columns: {one_line(error)}; give a CSV of arm, seed, metric") from None
    seed_column = _column(file, frame, "seed", seed, SEEDS)
    arm_column = _column(file, frame, "arm", arm, ARMS, repeated=frame[seed_column].nunique() > 1)
    metric_column = _column(file, frame, "metric", metric, METRICS)
    values: dict[str, dict[int, float]] = {}
    if (short := frame[[arm_column, seed_column, metric_column]].isna().any(axis=1)).any():
        raise EffectError(f"{file}, line {int(short.argmax()) + 2}: the row is too short; give it a cell for each column")
    for line, (name, number, measured) in enumerate(
        zip(frame[arm_column], frame[seed_column], frame[metric_column]), start=2
    ):
        cells, place = values.setdefault(str(name).strip(), {}), f"{file}, line {line}"
        key = _seed(place, seed_column, number)
        if key in cells:
            raise EffectError(
                f"{place}: arm {name!r} has seed {key} twice; keep one row for each, or name the arm's column by --arm"
            )
        if measured.strip():  # an empty cell is a missing seed
            cells[key] = _number(place, metric_column, measured)
    return Outside(values, arm_column, seed_column, metric_column)


ROWS = "a row for each arm and seed is needed, so turn a table with a column for each around"


def _column(
    file: Path, frame: "pandas.DataFrame", role: str, given: str | None, usual: tuple[str, ...], *, repeated: bool = False
) -> str:
    """The column of a role: the one given, else by what it is usually called, with a tracker's prefix or without; where
    values have to be `repeated`, a column that names each row is none."""
    columns = [str(column) for column in frame.columns]
    if given is not None:
        if given not in columns:
            raise EffectError(f"{file} has no column {given!r} (it has {', '.join(columns)}){hint(given, columns)}")
        return given
    exact: dict[str, list[str]] = {column.strip().lower(): [column] for column in reversed(columns)}
    called = {name: [column for column in columns if _last(column) == name] for name in map(_last, columns)} | exact
    found = [column for name in usual for column in called.get(name, ())]
    fit = [column for column in found if not repeated or frame[column].nunique() < len(frame)]
    alike = [column for column in fit if _last(column) == _last(fit[0])]
    if len(alike) > 1:
        raise EffectError(f"{file}: which column is the {role}? {', '.join(alike)} are alike; name it by --{role}")
    if not fit:
        alone = f"{found[0]} has another value in each row; " if found else ""
        rows = "" if role == "metric" or found else f"; {ROWS}"
        raise EffectError(
            f"{file}: which column is the {role}? {alone}It has {', '.join(columns)}; name it by --{role}{rows}"
        )
    return fit[0]


def _last(column: str) -> str:
    """A column's name without a tracker's prefix."""
    return re.split(r"[./]", column.strip().lower())[-1]


def _seed(place: str, column: str, text: str) -> int:
    if not re.fullmatch(r"\d+(\.0*)?", text.strip()):
        raise EffectError(f"{place}: {column} = {text!r} is no whole number; number the repeats of an arm")
    return int(text.partition(".")[0])


def _number(place: str, column: str, text: str) -> float:
    plain = str(text).strip().removesuffix("%").strip()
    try:
        found = float(plain)
    except ValueError:
        comma = re.fullmatch(r"[-+]?\d+,\d+", plain)
        remedy = "; write a decimal point" if comma else ""
        raise EffectError(f"{place}: {column} = {text!r} is no number{remedy}") from None
    if not math.isfinite(found):
        raise EffectError(f"{place}: {column} = {text!r} is not finite; leave a failed run's cell empty")
    return found
