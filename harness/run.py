"""The main path: space --draw--> config --screen--> network --train, measure--> record --> store.

`run_study` starts a study, or goes on with what is missing; `resume_study` does so from the database alone.
"""

import contextlib
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

from harness.analysis.arms import plan_of
from harness.data.cache import Progress
from harness.data.pictures import DataInfo
from harness.design import digest
from harness.execution.backend import Backend, LocalBackend, Resources
from harness.execution.ledger import Ledger, Places, Rules, Watcher
from harness.hardware import Hardware
from harness.preflight import Checked, assert_possible, assert_writable, checked, continued, find, long_enough
from harness.provenance import provenance
from harness.storage.lease import Lease, LeaseError
from harness.storage.reader import read_studies
from harness.storage.store import Store
from harness.storage.tables import database_file, shown
from harness.study import Study


@dataclass(frozen=True)
class Options:
    """How a study is run, which changes none of its numbers."""

    storage: str = "sqlite:///harness.db"
    backend: Literal["ray", "local"] = "ray"
    resources: Resources = field(default_factory=Resources)
    data: Path = Path("data")
    runs: Path | None = None
    """Folder of checkpoints; None: `runs` beside an SQLite database, else in the working folder."""
    code: tuple[str, ...] = ()
    """Folders of the user's modules."""
    rules: Rules = field(default_factory=Rules)
    """How far to go."""
    take_over: bool = False
    """Take the study from a driver that seems to run it."""


@dataclass(frozen=True)
class Summary:
    """What a run did and what there is now."""

    name: str
    storage: str
    planned: int
    trained: int
    """Trials finished in this run."""
    complete: int
    stopped: int
    """Trials that early stopping ended."""
    failed: int
    left: int
    """Planned trials that are not finished."""
    refused: dict[str, int]
    seconds: float
    best: dict[str, float]
    saved: int = 0
    """Epochs that early stopping saved."""
    reused: int = 0
    """Trials of other studies taken over in this run."""
    notes: tuple[str, ...] = ()
    trouble: str = ""
    """Why the run ended itself before it was done, if it did."""


def run_study(
    study: Study,
    options: Options = Options(),
    *,
    watcher: Watcher | None = None,
    stop: Callable[[], bool] = lambda: False,
    decoding: Progress | None = None,
) -> Summary:
    """Starts the study, or goes on with what is missing of it, until it has what was planned or `stop` says so.

    Raises a HarnessError, before anything is written, for whatever the user has to mend."""
    started = time.monotonic()
    found = checked(study, options.storage, options.data, options.code, decoding)
    runs = runs_folder(options)
    assert_writable(runs)
    with contextlib.ExitStack() as stack:
        # what is auto is resolved once, when the study is created
        asked, study, backend = found.asked, found.study, None
        if found.stored is None:
            backend = stack.enter_context(opened(options))
            hardware = backend.hardware()
            assert_possible(study, hardware)
            study = resolved(study, hardware, long_enough(found, hardware), found.info)

        # become the one driver of the study, write it down, take up what an earlier run left
        store = stack.enter_context(Store(options.storage))
        study_id = store.create(study.name, study.objectives)
        lease = stack.enter_context(Lease.take(store.engine, study_id, take_over=options.take_over))
        if found.stored is None and (quicker := find(options.storage, study.name)) is not None:
            study = continued(Study.from_json(asked), quicker)  # another driver has created it meanwhile
        places = Places(str(options.data.resolve()), str(runs), options.code)
        store.set_attributes(study_id, definition(study, asked, found, places))
        ledger = Ledger(
            store,
            study_id,
            study,
            found.info,
            places,
            found.price,
            sources=found.sources,
            rules=options.rules,
            lease=lease,
            watcher=watcher or Watcher(),
            asked_to_stop=stop,
        )

        # run what is missing
        before = sum(ledger.finished.values())
        if not ledger.done and not ledger.stopping:
            backend = backend or stack.enter_context(opened(options))
            backend.run(ledger)
        if lease.must_stop:
            raise LeaseError(lease.must_stop)
        return summary(ledger, options, before, time.monotonic() - started, found.notes)


def resume_study(name: str, options: Options = Options(), **live: Any) -> Summary:
    """Goes on with a study from its database alone: definition, data folder and code folders are those it was started with,
    unless the options name others."""
    stored = read_studies(options.storage, name)[0]
    places = stored.attributes.get("places", {})
    kept = replace(
        options,
        data=options.data if options.data != Options().data else Path(places.get("data", options.data)),
        runs=options.runs or Path(places.get("runs", "runs")),
        code=tuple(dict.fromkeys((*options.code, *places.get("code", ())))),
    )
    return run_study(Study.from_json(stored.attributes["asked"]), kept, **live)


# -- parts of the path ------------------------------------------------------------------------------------------------


def runs_folder(options: Options) -> Path:
    """Where checkpoints lie."""
    file = database_file(options.storage)
    return (options.runs or (file.parent / "runs" if file is not None else Path("runs"))).resolve()


def definition(study: Study, asked: dict[str, Any], found: Checked, places: Places) -> dict[str, Any]:
    """What the database keeps of a study, enough to resume it without its file; of a known study, what may change."""
    changing = {
        "definition": study.to_json(),
        "asked": asked,
        "places": {"data": places.data, "runs": places.runs, "code": list(places.code)},
        "counted": list(found.counted),
    }
    if found.stored is not None:
        return changing
    plan = plan_of(study, asked["training"])
    return changing | {
        **({} if plan is None else {"plan": digest(plan), "planned": plan}),
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "data": found.info.to_json(),
        "sources": found.sources,
        "provenance": provenance(),
    }


def resolved(study: Study, hardware: Hardware, compiles: bool, info: DataInfo) -> Study:
    """The study with every `auto` of its training replaced by what it comes to here."""
    answers: dict[str, Any] = {
        "precision": hardware.precision,
        "compile": compiles,
        "augment": "crop" if info.dataset == "digits" else "crop+flip",
        "loading": "stream" if info.streamed else "resident",
    }

    def settle(plain: Any, field: str = "") -> Any:
        if isinstance(plain, dict):
            return {name: settle(value, name if name in answers else field) for name, value in plain.items()}
        if isinstance(plain, list):
            return [settle(item, field) for item in plain]
        return answers[field] if plain == "auto" and field in answers else plain

    plain = study.to_json()
    return Study.from_json(plain | {"training": settle(plain["training"])})


@contextlib.contextmanager
def opened(options: Options) -> Iterator[Backend]:
    """The backend by name, closed at the end whatever happens."""
    backend: Backend
    if options.backend == "local":
        backend = LocalBackend()
    else:
        from harness.execution.ray_backend import RayBackend

        backend = RayBackend(options.resources)
    try:
        yield backend
    finally:
        backend.close()


def summary(ledger: Ledger, options: Options, before: int, seconds: float, notes: tuple[str, ...]) -> Summary:
    """What this run did."""
    finished = ledger.finished
    return Summary(
        name=ledger.study.name,
        storage=shown(options.storage),
        planned=ledger.planned,
        trained=sum(finished.values()) - before - ledger.reused,
        complete=finished["complete"],
        stopped=finished["stopped"],
        failed=finished["failed"],
        left=ledger.planned - sum(finished.values()),
        refused=dict(ledger.refused),
        seconds=seconds,
        best=dict(ledger.best),
        saved=ledger.ladder.saved,
        reused=ledger.reused,
        notes=(*notes, *ledger.notes),
        trouble=ledger.trouble,
    )
