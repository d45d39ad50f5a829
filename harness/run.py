"""The main path: space --draw--> config --screen--> network --train, measure--> record --> store.

`run_study` starts a study, or goes on with what is missing; `resume_study` does so from the database alone.
"""

import contextlib
import os
import random
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

from harness.code import add_paths, source_hash
from harness.config import Config, Custom, Training
from harness.cost import Cost, Shape, network_cost
from harness.data.sources import DataInfo, Progress, open_data
from harness.errors import ConfigError, StorageError, StudyError
from harness.execution.backend import Backend, LocalBackend, Resources
from harness.execution.ledger import Ledger, Places, Price, Rules, Watcher
from harness.key import canonical, network_identity
from harness.provenance import provenance
from harness.space import Choice, Same, Space, Span, Vary
from harness.storage.lease import Lease, LeaseError
from harness.storage.reader import Stored, read_studies
from harness.storage.store import Store
from harness.storage.tables import database_file, shown
from harness.strategies.proposers import proposer
from harness.study import Study, differences


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
    failed: int
    left: int
    """Planned trials that are not finished."""
    refused: dict[str, int]
    seconds: float
    best: dict[str, float]
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

    # check everything that can be checked before anything is written
    add_paths(list(options.code))
    stored = find(options.storage, study.name)
    if stored is not None:
        study = continued(study, stored)
    pictures = pictures_of(study)
    space = study.open_space()
    proposer(study, space, rows=0)  # raises where the strategy does not fit the space
    sources = user_sources(study)
    _, info = open_data(pictures, options.data, decoding)
    notes = () if stored is None else checked_against(stored, info, sources)
    price = pricing(info.shape)
    if sources:
        rehearse(space, price)
    assert_trainable(study, space, price)
    asked = study.to_json() if stored is None else Study.from_json(stored.attributes["asked"]).to_json() | budget_of(study)
    assert_writable(runs_folder(options))

    with contextlib.ExitStack() as stack:
        # what is auto is resolved once, when the study is created
        backend: Backend | None = None
        if stored is None:
            backend = stack.enter_context(opened(options))
            study = resolved(study, backend.precision(), info)

        # become the one driver of the study, write it down, take up what an earlier run left
        store = stack.enter_context(Store(options.storage))
        study_id = store.create(study.name, study.objectives)
        lease = stack.enter_context(Lease.take(store.engine, study_id, take_over=options.take_over))
        places = Places(str(options.data.resolve()), str(runs_folder(options)), options.code)
        if stored is None and (stored := find(options.storage, study.name)) is not None:  # another driver was quicker
            study = continued(Study.from_json(asked), stored)
            notes = checked_against(stored, info, sources)
        whole = definition(study, asked, info, sources, places)
        kept = whole if stored is None else {name: whole[name] for name in ("definition", "asked", "places")}
        store.set_attributes(study_id, kept)
        watcher = watcher or Watcher()
        ledger = Ledger(
            store, study_id, study, info, places, price, sources, options.rules, lease, watcher, asked_to_stop=stop
        )

        # run what is missing
        before = sum(ledger.finished.values())
        if not ledger.done and not ledger.stopping:
            backend = backend or stack.enter_context(opened(options))
            backend.run(ledger)
        if lease.must_stop:
            raise LeaseError(lease.must_stop)
        return summary(ledger, options, before, time.monotonic() - started, notes)


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


# -- before a run -----------------------------------------------------------------------------------------------------


def find(storage: str, name: str) -> Stored | None:
    """The study of this name, if the database is there and has it."""
    file = database_file(storage)
    if file is not None and not file.exists():
        return None
    return next((stored for stored in read_studies(storage) if stored.name == name), None)


def continued(study: Study, stored: Stored) -> Study:
    """The stored study, resolved as it was, with the wording and the budget of the new one; raises where more changed."""
    old, new = Study.from_json(stored.attributes["asked"]).to_json(), study.to_json()
    budget = {"question": new["question"], "strategy": old["strategy"] | {"trials": new["strategy"].get("trials")}}
    same_kind = old["strategy"]["kind"] == new["strategy"]["kind"] and "trials" in new["strategy"]
    accepted = old | (budget if same_kind else {"question": new["question"]})
    if changes := differences(accepted, new):
        shown_changes = "; ".join(changes[:4]) + (f"; and {len(changes) - 4} more" if len(changes) > 4 else "")
        raise StudyError(
            f"study {study.name!r} is in the database with another definition ({shown_changes}): give the new one a name of"
            f" its own, or go on with the stored one by `harness resume {study.name}`"
        )
    definition = dict(stored.attributes["definition"])
    return Study.from_json(definition | {name: accepted[name] for name in ("question", "strategy")})


def user_sources(study: Study) -> dict[str, str]:
    """Source hashes of the user's modules in the space; raises CodeError for one that cannot be found."""
    targets: set[str] = set()

    def visit(node: Any) -> None:
        if isinstance(node, Custom):
            targets.add(node.target)
        elif isinstance(node, Vary):
            if node.part is Custom and isinstance(node.fields["target"], str):
                targets.add(node.fields["target"])
            visit(list(node.fields.values()))
        elif isinstance(node, Same):
            visit(node.of)
        elif isinstance(node, Choice):
            visit(list(node.options))
        elif isinstance(node, Config | tuple | list):
            for item in node:
                visit(item)
        elif hasattr(node, "stages"):
            visit(node.stages)

    visit(study.space)
    if study.trial is not None:
        targets.add(study.trial)
    return {target: source_hash(target) for target in sorted(targets)}


def pictures_of(study: Study) -> Training:
    """Which pictures the study is about: one set, of which no choice may be made."""
    node: Any = study.training.of if isinstance(study.training, Same) else study.training
    trainings = node.options if isinstance(node, Choice) else (node,)
    found = []
    for option in trainings:
        fields = option.fields if isinstance(option, Vary) else option.model_dump()
        found.append({name: fields[name] for name in ("dataset", "limit", "image_size")})
    choices = (Choice, Same, Span)
    if any(other != found[0] for other in found) or any(isinstance(value, choices) for value in found[0].values()):
        raise StudyError("Study.training: dataset, limit and image_size are one for a whole study; make a study for each")
    return Training(**found[0])


def rehearse(space: Space, price: Price) -> None:
    """Builds every option once on the meta device, so that a module of the user's that does not fit is known at once."""
    forced = [
        space.conditions[name] | {name: value}
        for name, domain in space.parameters.items()
        for value in ((domain.low, domain.high) if isinstance(domain, Span) else domain)
    ]
    for context in [{}, *forced]:
        for attempt in range(20):
            with contextlib.suppress(ConfigError):
                price(space.config(space.draw(random.Random(attempt), context)))
                break


def assert_trainable(study: Study, space: Space, price: Price, draws: int = 2_000) -> None:
    """Raises StudyError where no config drawn is a network within the constraints."""
    if not study.constraints:
        return
    for attempt in range(draws):
        with contextlib.suppress(ConfigError):
            cost = price(space.config(space.draw(random.Random(attempt))))._asdict()
            if all(constraint.holds(cost) for constraint in study.constraints):
                return
    bounds = " and ".join(map(str, study.constraints))
    raise StudyError(f"study {study.name!r} has nothing to train: none of {draws:,} configs drawn has {bounds}")


def checked_against(stored: Stored, info: DataInfo, sources: dict[str, str]) -> tuple[str, ...]:
    """Notes on what differs from when the study was begun; raises StudyError when its data do."""
    known = DataInfo.from_json(stored.attributes["data"])
    if known.fingerprint != info.fingerprint:
        raise StudyError(
            f"study {stored.name!r} was begun on other pictures ({known.train} of {known.dataset}, fingerprint"
            f" {known.fingerprint}; now {info.train}, {info.fingerprint}): name the old folder by --data, or the study anew"
        )
    changed = [target for target, source in sources.items() if stored.attributes["sources"].get(target) != source]
    return tuple(
        f"the source of {target} has changed since the study was begun: new trials use it as it is now" for target in changed
    )


def pricing(shape: Shape) -> Price:
    """The exact cost of a config, remembered by what the network is."""
    known: dict[str, Cost] = {}

    def price(config: Config) -> Cost:
        name = canonical(network_identity(config.network))
        if name not in known:
            known[name] = network_cost(config.network, shape, _counted)
        return known[name]

    return price


def _counted(slot: Custom, channels: int, height: int, width: int) -> Cost:
    """A module of the user's, which has no closed form: counted, with torch, where there is one."""
    from harness.measure.complexity import count_custom

    return count_custom(slot, channels, height, width)


def budget_of(study: Study) -> dict[str, Any]:
    """What may change from run to run: the wording and the budget."""
    plain = study.to_json()
    return {name: plain[name] for name in ("question", "strategy")}


def assert_writable(folder: Path) -> None:
    """Raises StorageError where checkpoints could not be written, which no trial is to find out."""
    there = next(place for place in (folder, *folder.parents) if place.exists())
    if not (there.is_dir() and os.access(there, os.W_OK | os.X_OK)):
        raise StorageError(f"--runs {folder}: {there} cannot be written; mend it, or name another place")


def runs_folder(options: Options) -> Path:
    """Where checkpoints lie."""
    file = database_file(options.storage)
    return (options.runs or (file.parent / "runs" if file is not None else Path("runs"))).resolve()


def definition(
    study: Study, asked: dict[str, Any], info: DataInfo, sources: dict[str, str], places: Places
) -> dict[str, Any]:
    """What the database keeps of a study, enough to resume it without its file."""
    return {
        "definition": study.to_json(),
        "asked": asked,
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "data": info.to_json(),
        "sources": sources,
        "places": {"data": places.data, "runs": places.runs, "code": list(places.code)},
        "provenance": provenance(),
    }


def resolved(study: Study, precision: str, info: DataInfo) -> Study:
    """The study with every `auto` of its training replaced by what it comes to here."""
    answers = {"precision": precision, "augment": "crop" if info.dataset == "digits" else "crop+flip"}

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
        trained=sum(finished.values()) - before,
        complete=finished["complete"],
        stopped=finished["stopped"],
        failed=finished["failed"],
        left=ledger.planned - sum(finished.values()),
        refused=dict(ledger.refused),
        seconds=seconds,
        best=dict(ledger.best),
        notes=notes,
        trouble=ledger.trouble,
    )
