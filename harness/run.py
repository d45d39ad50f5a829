"""The main path: space --draw--> config --screen--> network --train, measure--> record --> store.

`run_study` starts a study, or goes on with what is missing; `resume_study` does so from the database alone.
"""

import contextlib
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

from harness.analysis.arms import plan_of
from harness.config import Config
from harness.cost import Shape
from harness.data.cache import Progress
from harness.data.pictures import DataInfo
from harness.depot import Depot, Folder, depot
from harness.design import digest
from harness.errors import Interrupted, StorageError, StudyError
from harness.execution.backend import Backend, LocalBackend, Resources
from harness.execution.cluster import prepare, sweep
from harness.execution.ledger import Ledger, Places, Rules, Watcher
from harness.execution.reuse import may_stand, on_the_same_pictures
from harness.execution.tracking import Tracking, assert_trackable
from harness.gpus import Gpu, only
from harness.hardware import Hardware, hardware_here
from harness.parts.part import is_target
from harness.preflight import Checked, assert_possible, checked, grown, known, long_enough
from harness.provenance import provenance
from harness.shard import Shard, agreed
from harness.sharing import AUTO, assert_sensible, measure, packed, settled
from harness.storage.lease import Lease, LeaseError
from harness.storage.reader import Stored, read_studies, revision
from harness.storage.store import Store
from harness.storage.tables import database_file, is_there, lasting, runs_beside, shown
from harness.study import Study, differences


@dataclass(frozen=True)
class Options:
    """How a study is run, which changes none of its numbers."""

    storage: str = "sqlite:///harness.db"
    backend: Literal["ray", "local"] = "ray"
    resources: Resources = field(default_factory=Resources)
    data: Path = Path("data")
    runs: str | Path | None = None
    """Folder of checkpoints, or a store, as in s3://bucket/runs; None: `runs` beside an SQLite database, else in the working
    folder."""
    code: tuple[str, ...] = ()
    """Folders of the user's modules."""
    rules: Rules = field(default_factory=Rules)
    """How far to go."""
    take_over: bool = False
    """Take the study from a driver that seems to run it."""
    trackers: tuple[str, ...] = ()
    """Other tools that are told of the trials too: tensorboard, mlflow, wandb."""


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
    looked_at: int = 0
    """Configs priced in this run."""
    screened_out: int = 0
    """Those of them that broke a constraint and were never trained."""
    reused: int = 0
    """Trials of other studies taken over in this run."""
    untrained: int = 0
    """Trials whose network broke a measured constraint, in all."""
    spent: dict[str, float] = field(default_factory=dict)
    """Seconds of workers in the trials of this run: training, evaluation, the rest."""
    notes: tuple[str, ...] = ()
    changes: tuple[str, ...] = ()
    """What changed of the study since it was run last, and what followed."""
    trouble: str = ""
    """Why the run ended itself before it was done, if it did."""
    late: bool = False
    """Whether time was up before it was done."""
    shard: str = ""
    """Which part of the study this was: 3/32."""


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
    assert_trackable(options.trackers, options.backend)
    assert_sensible(options.resources)
    found = checked(study, options.storage, options.data, options.code, decoding)
    others, gone = known_elsewhere(found.stored, options.rules)
    options = replace(options, rules=replace(options.rules, shard=part(options.rules.shard, found), reuse_from=others))
    begun = found.stored or (found.older[-1] if found.older else None)
    runs = runs_place(options, begun.attributes.get("places", {}).get("runs") if begun is not None else None)
    runs.assert_writable()
    limit = options.rules.seconds if options.resources.address is not None else None

    def over() -> bool:  # a cluster may let its drivers wait for long
        return stop() or (limit is not None and time.monotonic() - started > limit)

    with contextlib.ExitStack() as stack:
        stack.enter_context(only(options.resources.gpus, here=options.backend == "local"))
        options = replace(options, resources=settled(options.resources, found.study))

        # what is auto is resolved once, when the study is created
        asked, study, backend = found.asked, found.study, None
        opening = stack.enter_context(contextlib.ExitStack())
        if found.stored is None:
            gpu, later = options.resources.gpus_per_trial != 0, may_begin_later(study, found, options)
            hardware = hardware_here(gpu=gpu) if later else None
            if hardware is None:
                backend = opening.enter_context(opened(options, found, watcher, over))
                hardware = backend.hardware()
            assert_possible(study, hardware)
            study, taken = resolved_as_first(study, hardware, found, options)
            assert_possible(study, hardware)
            gone += taken

        # become the one driver of the study, write it down, take up what an earlier run left
        store = stack.enter_context(Store(options.storage))
        left = [one for one in found.older if one.counts.get("running") or found.stored is None]
        for one in left:  # nobody goes on with an earlier revision
            stack.enter_context(Lease.take(store.engine, one.study_id, take_over=options.take_over))
        study_id = store.create(study.name, study.objectives)
        lease = stack.enter_context(Lease.take(store.engine, study_id, take_over=options.take_over))
        if found.stored is None:
            study = unless_quicker(study, asked, known(options.storage, found.written.name))
        places = Places(str(options.data.resolve()), str(runs), options.code)
        store.set_attributes(study_id, definition(study, asked, found, places, options.rules))
        for one in left:
            retire(store, one, study.name, runs)
        if isinstance(runs, Folder):
            sweep(runs.path / study.name)
        if watcher is not None and found.changes:
            watcher.changed(found.changes)
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
            earlier=store.records(found.older[-1].study_id) if found.older else (),
            memory=options.resources.memory_share,
            devices=options.resources.devices,
            cores=options.resources.cpus_per_trial,
        )

        # run what is missing
        store.set_attributes(study_id, {"expected": ledger.planned})
        before = sum(ledger.finished.values())
        wanted = not ledger.done and not ledger.stopping and ledger.anything_to_train()
        if wanted and options.resources.gpus_per_trial == "auto":
            options = replace(options, resources=measured(options, found, ledger))
            opening.close()  # what was opened to be asked has other shares
            backend = None
        if wanted and not (ledger.stopping or ledger.late):
            backend = backend or opening.enter_context(opened(options, found, watcher, over))
            with contextlib.ExitStack() as shown_elsewhere:  # which ends before what is said of the run
                if options.trackers:
                    ledger.watcher = shown_elsewhere.enter_context(Tracking(ledger.watcher, ledger, options.trackers))
                backend.run(ledger)
        if lease.must_stop:
            raise LeaseError(lease.must_stop)
        if ledger.screened_out:
            before_this = found.stored.attributes.get("screened", {}) if found.stored else {}
            seen = {"looked_at": ledger.looked_at, "over": ledger.screened_out}
            store.set_attributes(study_id, {"screened": dict(Counter(seen) + Counter(before_this))})
        notes = found.notes + gone
        return replace(summary(ledger, options, before, time.monotonic() - started, notes), changes=found.changes)


def resume_study(name: str, options: Options = Options(), **live: Any) -> Summary:
    """Goes on with a study from its database alone: definition, data folder and code folders are those it was started with,
    unless the options name others."""
    stored = read_studies(options.storage, name)[0]
    newest = read_studies(options.storage, revision(name)[0])[0]
    if newest.name != stored.name:
        base = revision(name)[0]
        raise StudyError(f"study {name!r} is an earlier revision: `harness resume {base}` goes on with {newest.name}")
    places = stored.attributes.get("places", {})
    kept = replace(
        options,
        data=options.data if options.data != Options().data else Path(places.get("data", options.data)),
        runs=options.runs or places.get("runs"),
        code=tuple(dict.fromkeys((*options.code, *places.get("code", ())))),
    )
    return run_study(Study.from_json(stored.attributes["asked"]), kept, **live)


def may_begin_later(study: Study, found: Checked, options: Options) -> bool:
    """Whether Ray is started only once a trial of a new study has to be trained: where they may be found finished in the
    database, or it is measured first how many share a GPU; not on a cluster, whose devices only it knows."""
    if options.backend != "ray" or options.resources.address is not None:
        return False
    if options.resources.gpus_per_trial == "auto":
        return True
    if not options.rules.reuse or not may_stand(study):
        return False
    return is_there(options.storage) and bool(on_the_same_pictures(read_studies(options.storage), found.info))


def measured(options: Options, found: Checked, ledger: Ledger) -> Resources:
    """The resources with `auto` replaced by what it comes to, which the ledger is told; as they are where the run is to end
    before that is known."""

    def one(configs: Sequence[Config], shape: Shape, gpu: Gpu, threads: int) -> int | None:
        ledger.watcher.shares(f"{AUTO}: measures a training step of the largest configs on GPU {gpu.number}")
        return measure(configs, shape, gpu, threads, stop=lambda: ledger.stopping or ledger.out_of_time(0.0))

    try:
        resources, sharing = packed(options.resources, found, one, one_by_one=options.backend == "local")
    except Interrupted:
        ledger.stop()
        return options.resources
    if sharing.gpu:
        ledger.store.set_attributes(ledger.study_id, {"sharing": sharing.to_json()})
    ledger.watcher.shares(sharing.words)
    ledger.memory = resources.memory_share
    return resources


def unless_quicker(study: Study, asked: dict[str, Any], stored: list[Stored]) -> Study:
    """The study to be created, or as another driver has created it meanwhile."""
    if not stored or stored[-1].name != study.name:
        return study
    as_stored, _, goes_on = grown(Study.from_json(asked), stored[-1])
    if not goes_on:
        raise StudyError(f"another driver has just begun {study.name} with another definition: run it again")
    return as_stored


def retire(store: Store, older: Stored, name: str, runs: Depot) -> None:
    """Ends the rows that an earlier revision left running; their cells belong to the newer one."""
    for record in store.records(older.study_id):
        if record.state == "running":
            reason = f"left unfinished when {name} took the study's place"
            store.finish(older.study_id, record.number, "failed", curve=record.curve, attributes={"reason": reason})
            (runs / older.name / str(record.number)).clear()


# -- parts of the path ------------------------------------------------------------------------------------------------


def part(asked: Shard | None, found: Checked) -> Shard | None:
    """Which part of the study is run: the one asked for, or the one that its database is for."""
    stored = found.stored or (found.older[-1] if found.older else None)
    known = Shard.from_json(stored.attributes.get("shard")) if stored is not None else asked
    if asked is not None and asked != known:
        holds = f"shard {known} of it" if known is not None else "the whole of it"
        raise StudyError(f"--shard {asked}: the database holds {holds}; leave --storage out, and each shard gets its own")
    if known is not None:
        known.split(found.study)  # raises where there are not so many parts
    return known


def known_elsewhere(stored: Stored | None, rules: Rules) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """The other databases whose trials count: those given, raising where one cannot be read, and those that earlier runs of
    the study were given; a note on each of these that cannot be read now."""
    for url in rules.reuse_from:
        read_studies(url)
    found, gone = list(rules.reuse_from), []
    for url in given_before(stored) if rules.reuse else ():
        try:
            read_studies(url)
            found.append(url)
        except StorageError as error:
            gone.append(f"what an earlier run took from {shown(url)} cannot be read now ({error})")
    return tuple({lasting(url): url for url in found}.values()), tuple(gone)


def given_before(stored: Stored | None) -> list[str]:
    """The other databases whose trials counted in earlier runs of a study."""
    return list(stored.attributes.get("places", {}).get("reuse_from", ())) if stored is not None else []


def runs_place(options: Options, known: str | None = None) -> Depot:
    """Where checkpoints lie; shards in one place keep theirs apart, but for one begun at a named place (`known`) itself, as
    earlier versions did."""
    place, shard = depot(options.runs or runs_beside(options.storage)), options.rules.shard
    own = f"/{shard.name}" if shard is not None else ""
    begun_there = options.runs and known and not known.endswith(own)
    if shard is not None and not str(place).endswith(own) and not begun_there:
        place /= shard.name
    return Folder(place.path.resolve()) if isinstance(place, Folder) else place


def definition(study: Study, asked: dict[str, Any], found: Checked, places: Places, rules: Rules) -> dict[str, Any]:
    """What the database keeps of a study, enough to resume it without its file; of a known study, what may change."""
    others = list(dict.fromkeys([*given_before(found.stored), *map(lasting, rules.reuse_from)]))
    changing = {
        "definition": study.to_json(),
        "asked": asked,
        "places": {"data": places.data, "runs": places.runs, "code": list(places.code)}
        | ({"reuse_from": others} if others else {}),
        "counted": list(found.counted),
    }
    if found.stored is not None:
        return changing
    first = found.older[0].attributes if found.older else {}
    begun = any(sum(one.counts.values()) for one in found.older)  # then what is declared now is no plan before training
    plan = first.get("planned") or (None if begun else plan_of(study, asked["training"]))
    return changing | {
        **({} if plan is None else {"plan": digest(plan), "planned": plan}),
        **({"changes": list(found.changes)} if found.older else {}),
        **({} if rules.shard is None else {"shard": rules.shard.to_json()}),
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
    measure = [latency.resolved(hardware.device, study.threads).model_dump() for latency in study.measures]
    return Study.from_json(study.settled(answers).to_json() | {"measure": measure})


def resolved_as_first(study: Study, hardware: Hardware, found: Checked, options: Options) -> tuple[Study, tuple[str, ...]]:
    """The study resolved, a shard as the first of its siblings was, wherever that ran, for they are one study; and a note
    where it would be another here."""
    compiles, file = long_enough(found, hardware), database_file(options.storage)
    own = resolved(study, hardware, compiles, found.info)
    if options.rules.shard is None or file is None:
        return own, ()
    name = digest({field: found.asked[field] for field in ("network", "training", "measure")})
    place = file.with_name(f"{found.written.name}.{name}.json")
    mine = {"device": hardware.device, "precision": hardware.precision, "compile": compiles}
    first = agreed(place, mine)
    there = hardware._replace(device=first["device"], precision=first["precision"])
    study = resolved(study, there, first["compile"], found.info)
    if not (changes := differences(own.to_json(), study.to_json())):
        return study, ()
    return study, (
        f"what is `auto` is as the first shard settled it ({place}), not as it would be here: {'; '.join(changes)}",
    )


@contextlib.contextmanager
def opened(options: Options, found: Checked, watcher: Watcher | None, stop: Callable[[], bool]) -> Iterator[Backend]:
    """The backend by name, closed at the end whatever happens."""
    backend: Backend
    if options.backend == "local":
        backend = LocalBackend()
    else:
        if options.resources.address is not None:
            prepare(options.resources.address)
        from harness.execution.ray_backend import RayBackend

        say = watcher.waits if watcher is not None and options.resources.address is not None else lambda _: None
        backend = RayBackend(options.resources, list(filter(is_target, found.sources)), say=say, stop=stop)
    try:
        yield backend
    finally:
        backend.close()


def disturbed(ledger: Ledger) -> tuple[str, ...]:
    """What is to be said of latencies that were measured beside other work."""
    if ledger.beside < 0.5:
        return ()
    device = ledger.study.measures[0].device
    return (
        f"latency was measured while others kept up to {ledger.beside:.1f} cores busy: on an idle machine"
        f" `harness measure {ledger.study.name} --device {device}` measures it again, or run with --concurrency 1",
    )


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
        looked_at=ledger.looked_at,
        screened_out=ledger.screened_out,
        reused=ledger.reused,
        untrained=ledger.untrained,
        spent={name: round(seconds, 3) for name, seconds in ledger.spent.items()},
        notes=(*notes, *ledger.notes, *disturbed(ledger)),
        trouble=ledger.trouble,
        late=ledger.late,
        shard=str(ledger.rules.shard or ""),
    )
