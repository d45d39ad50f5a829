"""Trials finished in other studies, of this database or another: looked up by key, so that nothing is trained twice."""

import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any

from harness.data.pictures import DataInfo
from harness.record import Record
from harness.storage.reader import Stored, finished_by_key, trial_of
from harness.storage.store import Store
from harness.storage.tables import DatabaseAway, reading, shown
from harness.study import Study

FRESH = 1.0
"""Seconds for which what was read of the other studies is good enough."""
FAR = 60.0
"""The same for other databases."""
Found = tuple[str, Record] | None
"""A trial with the name of its study."""
SLACK = timedelta(minutes=10)
"""By how much the clocks of two machines may differ."""


class Elsewhere:
    """The complete trials of the other studies of a database, and of those of `others`, which are only read."""

    def __init__(self, store: Store, study_id: int, others: Sequence[str] = ()) -> None:
        here = Shelf(partial(store.finished_elsewhere, study_id), store.trial, FRESH)
        self._shelves = [here, *(Shelf(*_readers(url), FAR) for url in others)]

    def find(self, key: str) -> tuple[str, Record] | None:
        """The finished trial of a key with the name of its study; None where there is none, or none can be read now."""
        return next(filter(None, (shelf.find(key) for shelf in self._shelves)), None)


class Shelf:
    """The complete trials of one database, read when first asked for; then only those that ended since."""

    def __init__(
        self, finished: Callable[[datetime | None], dict[str, int]], trial: Callable[[int], Found], fresh: float
    ) -> None:
        self._finished, self._trial, self._fresh = finished, trial, fresh
        self._known: dict[str, int] = {}
        self._until: datetime | None = None
        self._read = -fresh

    def find(self, key: str) -> Found:
        try:
            if time.monotonic() - self._read >= self._fresh:
                self._renew()
            return self._trial(self._known[key]) if key in self._known else None
        except DatabaseAway:
            return None

    def _renew(self) -> None:
        now = datetime.now(UTC)
        self._known |= self._finished(self._until)
        self._until, self._read = now - SLACK, time.monotonic()


def _readers(url: str) -> tuple[Callable[[datetime | None], dict[str, int]], Callable[[int], Found]]:
    """How another database is read: what it has finished, and one trial of it."""

    def finished(since: datetime | None) -> dict[str, int]:
        with reading(url) as connection:
            return finished_by_key(connection, since)

    def trial(trial_id: int) -> Found:
        with reading(url) as connection:
            found = trial_of(connection, trial_id)
        return None if found is None else (f"{found[0]} of {shown(url)}", found[1])

    return finished, trial


def may_stand(study: Study) -> bool:
    """Whether trials of other studies may stand for this one's: not where time is an objective, for it tells of another
    machine or hour."""
    return all(objective.metric != "seconds" for objective in study.objectives)


def on_the_same_pictures(studies: Sequence[Stored], info: DataInfo) -> list[Stored]:
    """The studies whose finished trials may have the keys of one on these pictures: of those scored on the test part, the
    ones that are scored on it too."""
    wanted = (info.fingerprint, info.scored_on)
    known = [(one, one.attributes.get("data") or {}) for one in studies if one.counts.get("complete")]
    return [one for one, data in known if (data.get("fingerprint"), data.get("scored_on", "")) == wanted]


def origin(study: str, record: Record) -> dict[str, Any]:
    """Where a trial was trained: the first study that had it, however often it was taken over since."""
    return record.reused or {"study": study, "number": record.number, "commit": record.provenance.get("commit", "")}
