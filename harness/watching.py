"""A running study as another process sees it: its rows, its lease, and nothing of the run itself."""

import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cached_property

from harness.analysis.front import front
from harness.live import Row, View
from harness.record import Record
from harness.report.words import chosen_text, metric_text
from harness.storage.lease import Holder, holders
from harness.storage.reader import Stored, read_records, read_studies
from harness.storage.tables import DatabaseAway
from harness.study import Study
from harness.terminal import described, ended_text, followed, reached_text, remaining, results_text
from harness.trial import Outcome

EVERY = 1.0
"""Seconds between two looks."""
SHARE = 5
"""A look that takes long is followed by a rest so many times as long."""


@dataclass(frozen=True)
class Seen:
    """A study at a moment."""

    stored: Stored
    records: list[Record]
    holder: Holder | None
    now: datetime

    @cached_property
    def study(self) -> Study:
        return Study.from_json(self.stored.attributes["definition"])

    @property
    def alive(self) -> bool:
        """Whether somebody runs it."""
        return self.holder is not None and self.holder.alive

    @cached_property
    def running(self) -> list[Record]:
        return [record for record in self.records if record.state == "running"] if self.alive else []

    @cached_property
    def finished(self) -> list[Record]:
        """In the order they ended."""
        ended = (record for record in self.records if record.state != "running")
        return sorted(ended, key=lambda record: (record.ended or self.now, record.number))

    @property
    def planned(self) -> int:
        """As the run said when it began; rows that were added since count too."""
        return max(int(self.stored.attributes.get("expected", 0)), len(self.records))

    @cached_property
    def left(self) -> float | None:
        """Seconds until it has what was planned, as the present run went so far."""
        if self.holder is None or not self.alive:
            return None
        since = self.holder.since
        done = sum(record.reused is None and (record.ended or since) > since for record in self.finished)
        partial = sum(record.epochs / record.config.training.epochs for record in self.running)
        return remaining((self.now - since).total_seconds(), done + partial, self.planned - len(self.finished) - partial)

    @cached_property
    def view(self) -> View:
        study, own = self.study, self.study.units
        order = study.open_space(check=False).parameters
        best = front(self.finished, study.objectives)
        values = {
            objective.metric: min((record.value(objective.metric) for record in best), key=lambda v, o=objective: v * o.sign)  # type: ignore[misc]
            for objective in (study.objectives if best else ())
        }
        rows = (
            Row(
                number=record.number,
                done=record.epochs,
                epochs=record.config.training.epochs,
                value=reached_text(study, record.curve),
                pace=record.curve[-1].seconds if record.curve else 0.0,
                age=(self.now - record.started).total_seconds() if record.started else None,
                device=record.device,
                chosen=described(study, record.params, order, record.seed),
            )
            for record in self.running
        )
        began = self.holder.since if self.holder is not None and self.alive else self.now
        return View(
            name=self.stored.name,
            planned=self.planned,
            states=Counter(record.state for record in self.finished),
            reused=sum(record.reused is not None for record in self.finished),
            screened=self.stored.attributes.get("screened", {}).get("over", 0),
            seconds=(self.now - began).total_seconds(),
            left=self.left,
            best="  ".join(f"{name} {metric_text(name, value, own.get(name, ''))}" for name, value in values.items()),
            front=len(best),
            metric=followed(study),
            stopping=self.alive and self.holder is not None and self.holder.stop_asked,
            rows=tuple(rows),
        )

    def line(self, record: Record, count: int) -> str:
        """One finished trial for a log, the count-th to finish."""
        metrics = {"seconds": sum(point.seconds for point in record.curve), **record.metrics}
        state = "failed" if record.state == "running" else record.state
        result = results_text(self.study, record.costs, record.curve, Outcome(state, metrics, reason=record.remark))
        chosen = chosen_text(record.params, self.study.open_space(check=False).parameters)
        return ended_text(count, self.planned, record.number, result, chosen, self.left)


def look(name: str, storage: str) -> Seen:
    """The study as it is now; raises StorageError where there is none of that name."""
    (stored,) = read_studies(storage, name)
    holder = holders(storage).get(stored.study_id)  # before its rows: whoever has ended has written them all
    return Seen(stored, read_records(storage, stored.study_id), holder, datetime.now(UTC))


def watch(name: str, storage: str, show: Callable[[Seen], None], *, ended: Callable[[], bool] = lambda: False) -> Seen:
    """Shows the study again and again until nobody runs it, or `ended` says so; gives the last look."""
    while True:
        began = time.monotonic()
        try:
            seen = look(name, storage)
        except DatabaseAway:  # locked or away for a moment
            time.sleep(EVERY)
            continue
        show(seen)
        if not seen.alive or ended():
            return seen
        time.sleep(max(EVERY, SHARE * (time.monotonic() - began)))
