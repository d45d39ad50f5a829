"""Trials that another study of the database has finished: looked up by key, so that nothing is trained twice."""

import time
from datetime import UTC, datetime, timedelta
from typing import Any

from harness.record import Record
from harness.storage.store import Store
from harness.storage.tables import DatabaseAway

FRESH = 1.0
"""Seconds for which what was read of the other studies is good enough."""
SLACK = timedelta(minutes=10)
"""By how much the clocks of two machines may differ."""


class Elsewhere:
    """The complete trials of the other studies, read when first asked for; then only those that ended since."""

    def __init__(self, store: Store, study_id: int) -> None:
        self._store, self._study_id = store, study_id
        self._known: dict[str, int] = {}
        self._until: datetime | None = None
        self._read = -FRESH

    def find(self, key: str) -> tuple[str, Record] | None:
        """The finished trial of a key with the name of its study; None where there is none, or none can be read now."""
        try:
            if time.monotonic() - self._read >= FRESH:
                self._renew()
            return self._store.trial(self._known[key]) if key in self._known else None
        except DatabaseAway:
            return None

    def _renew(self) -> None:
        now = datetime.now(UTC)
        self._known |= self._store.finished_elsewhere(self._study_id, self._until)
        self._until, self._read = now - SLACK, time.monotonic()


def origin(study: str, record: Record) -> dict[str, Any]:
    """Where a trial was trained: the first study that had it, however often it was taken over since."""
    return record.reused or {"study": study, "number": record.number, "commit": record.provenance.get("commit", "")}
