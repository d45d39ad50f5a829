"""`harness measure`: latency and memory of the networks of finished trials, measured here or brought as a CSV.

Networks are built anew from their configs, without weights, which change no latency; trials of one network share a
measurement. A row gains attributes and nothing else: its state, values and key stay. What is written is written at once for
all trials of a network, of a CSV for all of it, so that an interrupted measurement goes on with what is missing.
"""

import csv
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

from harness.analysis.front import front
from harness.code import add_paths, source_hash
from harness.cost import Shape
from harness.data.pictures import DataInfo
from harness.errors import HarnessError, StudyError, hint, one_line
from harness.key import canonical, network_identity, trial_key
from harness.latency import HERE, MEASURED, Latency
from harness.parts.part import is_target
from harness.record import Measurement, Record
from harness.storage.reader import Stored, read_records, read_studies
from harness.storage.store import Store
from harness.study import Study

QUIET = 0.5
"""Cores that others may keep busy while a measurement still counts as undisturbed."""
COLUMNS = ("trial", "key", "device", "batch", "latency_ms", "spread_ms", "peak_memory_mb")
TOLD = 20
"""Bad rows of a CSV that are named one by one."""


@dataclass(frozen=True)
class Opened:
    """A stored study and its trials."""

    stored: Stored
    study: Study
    records: list[Record]

    @property
    def shape(self) -> Shape:
        return DataInfo.from_json(self.stored.attributes["data"]).shape

    @property
    def complete(self) -> list[Record]:
        return [record for record in self.records if record.state == "complete"]

    def standing(self, record: Record) -> Latency:
        """What `latency` means for a trial: the first of the study's measures, else one picture where it was trained."""
        trained_on = "cpu" if not record.device or record.device.endswith("(cpu)") else "cuda"
        return next(iter(self.study.measures), Latency()).resolved(trained_on, self.study.threads)

    def added(self, record: Record, new: Sequence[Measurement]) -> dict[str, Any]:
        """The attributes of a row with measurements added; the newest takes the place of its like by the same means. An
        objective's value, which the row was judged by, stays as it was."""
        placed = {(one.place, one.source == "trial"): one for one in new}
        kept = [one for one in record.measured if (one.place, one.source == "trial") not in placed]
        metrics = dict(record.metrics)
        judged = {objective.metric for objective in self.study.objectives}
        for one in filter(self.standing(record).answered_by, placed.values()):
            metrics |= {name: value for name, value in one.metrics().items() if name not in judged}
        return {"measured": [one.to_json() for one in (*kept, *placed.values())], "metrics": metrics}


def opened(name: str, storage: str) -> Opened:
    """A study by name; raises StudyError where it has no complete trial."""
    stored = read_studies(storage, name)[0]
    found = Opened(stored, Study.from_json(stored.attributes["definition"]), read_records(storage, stored.study_id))
    if not found.complete:
        raise StudyError(f"study {stored.name!r} has no complete trial yet: `harness resume {stored.name}` goes on")
    return found


# -- measured here ----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Asked:
    """What to measure, on this machine."""

    device: str
    batches: tuple[int, ...] = (1,)
    threads: int | None = None
    """None: as many as the study's trials have."""
    trials: tuple[int, ...] = ()
    """Numbers; none: all complete ones."""
    front: bool = False
    """Only those on the front."""
    again: bool = False
    """Also what was measured already."""


@dataclass(frozen=True)
class Step:
    """One network, measured or not, and the trials that it belongs to."""

    numbers: tuple[int, ...]
    measured: tuple[Measurement, ...] = ()
    problem: str = ""

    @property
    def words(self) -> str:
        """trials 0, 3 and 6"""
        from harness.report.words import listed

        return f"trial{'s' if len(self.numbers) > 1 else ''} {listed(self.numbers)}"


@dataclass
class Done:
    """What a measurement came to."""

    study: str
    steps: list[Step] = field(default_factory=list)
    skipped: int = 0
    """Trials that were measured so before."""
    left: int = 0
    """Networks not measured yet when it was interrupted."""

    @property
    def busiest(self) -> float:
        """Cores that others kept busy meanwhile, at most."""
        return max((one.busy or 0.0 for step in self.steps for one in step.measured), default=0.0)

    @property
    def problems(self) -> list[Step]:
        return [step for step in self.steps if step.problem]

    def to_json(self) -> dict[str, Any]:
        return asdict(self) | {"busiest": self.busiest}


Progress = Callable[[int, int, Step], None]
"""Told of each network: its place from 1, how many there are, and what came of it."""


def measure_study(
    name: str,
    storage: str,
    asked: Asked,
    *,
    code: Sequence[str] = (),
    progress: Progress = lambda *_: None,
    stop: Callable[[], bool] = lambda: False,
) -> Done:
    """Measures the networks of finished trials one after the other, each written before the next begins.

    Raises a HarnessError where there is nothing to measure, or no such device."""
    found = opened(name, storage)
    add_paths([*code, *found.stored.attributes.get("places", {}).get("code", ())])
    threads = asked.threads or found.study.threads
    chosen = _chosen(found, asked)
    assert_device(asked.device, threads)
    waiting = [(batches, records) for records in _by_network(chosen) if (batches := _missing(records, asked, threads))]
    done = Done(found.stored.name, skipped=len(chosen) - sum(len(records) for _, records in waiting))
    with Store(storage) as store:
        for place, (batches, records) in enumerate(waiting, start=1):
            if stop():
                done.left = len(waiting) - place + 1
                break
            step = _measured(found, records, batches, asked.device, threads)
            if step.measured:
                store.amend(found.stored.study_id, step.numbers, partial(found.added, new=step.measured))
            done.steps.append(step)
            progress(place, len(waiting), step)
    return done


def _chosen(found: Opened, asked: Asked) -> list[Record]:
    best = front(found.records, found.study.objectives) if asked.front else found.complete
    if not asked.trials:
        return best
    states = {record.number: record.state for record in found.records}
    for number in asked.trials:
        if states.get(number) != "complete":
            state = f"is {states[number]}" if number in states else f"is not one of the {len(states)}"
            raise StudyError(
                f"--trials {number}: trial {number} of {found.stored.name} {state}; only complete ones are measured"
            )
    return [record for record in best if record.number in asked.trials]


def assert_device(device: str, threads: int) -> None:
    """Raises HarnessError for a device that is not here."""
    from harness.trial import prepare_process

    prepare_process(threads)
    from harness.training.device import best_device

    if device not in HERE:
        raise HarnessError(
            f"--device {device}: this machine measures on {' or '.join(HERE)}; numbers of another come by --from FILE.csv"
        )
    if device == "cuda" and best_device() != "cuda":
        raise HarnessError("--device cuda: no GPU is visible here; use --device cpu")


def _by_network(records: Sequence[Record]) -> list[list[Record]]:
    """The trials of each network and precision, in the order of their numbers."""
    groups: dict[str, list[Record]] = {}
    for record in records:
        name = canonical([network_identity(record.config.network), record.config.training.precision])
        groups.setdefault(name, []).append(record)
    return list(groups.values())


def _missing(records: Sequence[Record], asked: Asked, threads: int) -> tuple[int, ...]:
    """The batch sizes that one of the trials was not measured at yet, undisturbed or by this command."""

    def has(record: Record, batch: int) -> bool:
        wanted = Latency(batch=batch, device=asked.device, threads=threads)
        return any(
            wanted.answered_by(one) and (one.source != "trial" or (one.busy or 0.0) < QUIET) for one in record.measured
        )

    return tuple(batch for batch in asked.batches if asked.again or not all(has(record, batch) for record in records))


def _measured(found: Opened, records: Sequence[Record], batches: Sequence[int], device: str, threads: int) -> Step:
    """Builds a network and measures it; what fails is said, and the others go on."""
    from harness.measure.latency import measure
    from harness.networks.build import build

    numbers, config = tuple(record.number for record in records), records[0].config
    try:
        _assert_same_code(found, records[0])
        network = build(config.network, found.shape, records[0].seed)
        measured = tuple(
            measure(
                network,
                found.shape,
                config.training,
                batch=batch,
                device=device,
                threads=threads,
                source="harness measure",
            )
            for batch in batches
        )
    except (HarnessError, MemoryError, RuntimeError) as error:
        return Step(numbers, problem=one_line(error))
    return Step(numbers, measured)


def _assert_same_code(found: Opened, record: Record) -> None:
    """Raises StudyError where the user's modules are no longer those that the trial was trained with."""
    named: set[str] = set()

    def note(target: str) -> str:
        named.add(target)
        return ""

    network_identity(record.config.network, note)
    if not any(map(is_target, named)):
        return
    kept = found.stored.attributes.get("sources", {})
    data = found.stored.attributes["data"]

    def source(target: str) -> str:
        return source_hash(target) if is_target(target) else str(kept.get(target, ""))

    test = data.get("scored_on", "")
    key = trial_key(record.config, record.seed, data["fingerprint"], source, trial=found.study.trial, test=test)
    if key != record.key:
        raise StudyError(f"the source of {' or '.join(sorted(named))} has changed since: its network is another one now")


# -- brought from elsewhere -------------------------------------------------------------------------------------------


class CsvError(HarnessError):
    """A CSV of measurements cannot be read, or has rows that fit no trial."""


def bring(name: str, storage: str, file: Path) -> Done:
    """Adds the measurements of a CSV to the trials it names, all of them or none.

    Raises CsvError, which names every bad row."""
    found = opened(name, storage)
    by_number = _read(file, found)
    with Store(storage) as store:
        store.amend(found.stored.study_id, tuple(by_number), lambda row: found.added(row, by_number[row.number]))
    return Done(found.stored.name, [Step((number,), tuple(new)) for number, new in by_number.items()])


def _read(file: Path, found: Opened) -> dict[int, list[Measurement]]:
    """The measurements of a CSV by the number of the trial they belong to."""
    try:
        with file.open(newline="", encoding="utf-8-sig") as opened_file:
            reader = csv.DictReader(opened_file, restkey="", strict=True)
            names, lines = list(reader.fieldnames or ()), list(reader)
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        reason = error.strerror if isinstance(error, OSError) else f"it is no CSV in UTF-8: {error}"
        raise CsvError(f"--from {file}: cannot be read ({reason})") from None
    _assert_columns(file, names, lines)
    now = datetime.now(UTC).isoformat(timespec="seconds")
    by_number: dict[int, list[Measurement]] = {}
    bad: list[str] = []
    for line, row in enumerate(lines, start=2):
        try:
            one = _measurement(row, file.name, now)
            for number in _numbers(row, found):
                if any(one.place == other.place for other in by_number.get(number, ())):
                    raise ValueError(f"trial {number} at {one.title} is there twice")
                by_number.setdefault(number, []).append(one)
        except ValueError as error:
            bad.append(f"line {line}: {error}")
    if bad:
        more = f"; and {len(bad) - TOLD:,} more" if len(bad) > TOLD else ""
        count = f"{len(bad):,} of {len(lines):,} rows {'is' if len(bad) == 1 else 'are'} wrong"
        raise CsvError(f"--from {file}: {count}, nothing was written: {'; '.join(bad[:TOLD])}{more}")
    return by_number


def _assert_columns(file: Path, names: Sequence[str], lines: Sequence[Any]) -> None:
    wanted = "trial (or key), device, batch, latency_ms; spread_ms and peak_memory_mb may be there too"
    if not lines:
        raise CsvError(f"--from {file}: it has no rows; write {wanted}")
    for name in names:
        if name not in COLUMNS or names.count(name) > 1:
            wrong = f"is unknown{hint(name, COLUMNS)}" if name not in COLUMNS else "is there twice"
            raise CsvError(f"--from {file}: column {name!r} {wrong}; write {wanted}")
    missing = [name for name in ("device", "batch", "latency_ms") if name not in names]
    if missing or not {"trial", "key"} & set(names):
        raise CsvError(f"--from {file}: column {(missing or ['trial'])[0]!r} is missing; write {wanted}")


def _measurement(row: Mapping[str, str | None], source: str, now: str) -> Measurement:
    """One row as a measurement; raises ValueError, in words, for what it cannot be."""
    if None in row.values() or "" in row:
        raise ValueError("it has not as many cells as there are columns")
    device = (row["device"] or "").strip()
    if not device or device in (*HERE, "auto"):
        raise ValueError(f"device = {device!r}: write the device's own name, as in 'Pixel 7'")
    if len(device) > 80:
        raise ValueError(f"device = {device[:20]!r}...: 80 characters at most")
    batch, latency = _number(row, "batch"), _number(row, "latency_ms")
    if batch is None or batch != int(batch) or batch < 1:
        raise ValueError(f"batch = {row['batch']!r}: a whole number from 1")
    if not latency:
        raise ValueError(f"latency_ms = {row['latency_ms']!r}: a number of milliseconds above 0")
    spread, memory = _number(row, "spread_ms"), _number(row, "peak_memory_mb")
    return Measurement(
        device=device,
        batch=int(batch),
        latency=latency / 1e3,
        spread=None if spread is None else spread / 1e3,
        memory=None if memory is None else memory * 1e6,
        source=source,
        measured=now,
    )


def _number(row: Mapping[str, str | None], name: str) -> float | None:
    """A cell as a number of 0 or more; None where it is empty or there is no such column."""
    text = (row.get(name) or "").strip()
    if not text:
        return None
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not (math.isfinite(value) and value >= 0):
        raise ValueError(f"{name} = {text!r}: a number, 0 or more")
    return value


def _numbers(row: Mapping[str, str | None], found: Opened) -> Iterator[int]:
    """The trials that a row is about: one by its number, all of a key."""
    number, key = (row.get("trial") or "").strip(), (row.get("key") or "").strip()
    if not number and not key:
        raise ValueError("it names no trial: fill in trial or key")
    if number and not number.isdecimal():
        raise ValueError(f"trial = {number!r}: the number of a trial")
    records = [record for record in found.records if number in ("", str(record.number)) and key in ("", record.key)]
    complete = [record.number for record in records if record.state == "complete"]
    if not complete:
        name = " and ".join(filter(None, (number and f"number {number}", key and f"key {key[:40]}")))
        state = f"is {records[0].state}, not complete" if records else f"is not in {found.stored.name}"
        raise ValueError(f"the trial of {name} {state}")
    yield from complete


def judged_by(study: Study) -> list[str]:
    """The objectives that were measured on a device: what is measured later stands beside them."""
    return [objective.metric for objective in study.objectives if objective.metric in MEASURED]
