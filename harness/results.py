"""Reading studies from Python, without torch: `open_study("kernels").frame()`; and networks that were taken from them."""

import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.analysis.front import nondominated
from harness.record import Record
from harness.storage.reader import read_numbered, read_points, read_records, read_studies
from harness.study import Objective, Study

if TYPE_CHECKING:
    import pandas

    from harness.networks.taken import Taken


@dataclass(frozen=True)
class Results:
    """A study and everything its trials left behind."""

    study: Study
    attributes: dict[str, Any]
    storage: str = field(repr=False)  # which may hold a password
    study_id: int

    @cached_property
    def records(self) -> list[Record]:
        """Every trial, by number; read when first asked for."""
        return read_records(self.storage, self.study_id)

    def front(self) -> list[Record]:
        """The trials that no other trial beats on every objective of the study; of the others no more is read than their
        values."""
        return read_front(self.storage, self.study_id, self.study.objectives)

    def frame(self) -> "pandas.DataFrame":
        """A row for each trial, by number: state, seed, key, choices, costs and metrics, what was measured on devices, and
        whether it is on the front."""
        import pandas as pd

        best = {record.number for record in self.front()}
        rows = [
            {
                "number": record.number,
                "state": record.state,
                "seed": record.seed,
                "key": record.key,
                **record.params,
                **record.costs,
                **record.metrics,
                **{f"latency, {one.title}": one.latency for one in record.measured},
                **{f"inference_memory, {one.title}": one.memory for one in record.measured if one.memory is not None},
                "epochs": record.epochs,
                "front": record.number in best,
                "promotes": record.promotes,
                "reason": record.reason,
            }
            for record in self.records
        ]
        return pd.DataFrame(rows).set_index("number") if rows else pd.DataFrame()


def open_study(name: str, storage: str | None = None) -> Results:
    """A study by name; `storage` defaults to HARNESS_STORAGE, or harness.db in the working folder.

    Raises StorageError where the database or the study is not there."""
    url = storage or os.environ.get("HARNESS_STORAGE", "sqlite:///harness.db")
    stored = read_studies(url, name)[0]
    return Results(Study.from_json(stored.attributes["definition"]), stored.attributes, url, stored.study_id)


def read_front(url: str, study_id: int, objectives: Sequence[Objective]) -> list[Record]:
    """The complete trials of a study in a database that no other beats on every objective, by number; ties stay."""
    points = read_points(url, study_id, len(objectives))
    kept = nondominated(points[:, 1:] * [objective.sign for objective in objectives])
    return read_numbered(url, study_id, points[kept, 0].astype(int).tolist())


def load_network(folder: str | os.PathLike[str]) -> "Taken":
    """The network that `harness take` put into a folder, on the CPU, in evaluation mode: it maps pictures from 0 to 1
    (batch, channels, height, width) to scores (batch, classes). Needs torch, and neither Ray nor Optuna nor a database.

    Raises DataError where the folder holds none, CodeError where a module of your own is not found."""
    from harness.networks.taken import load

    return load(Path(folder))
