"""`harness confirm`: what a study found, trained again with fresh seeds on the full budget, scored on the test part once.

The confirming study is one like any other, `NAME~confirm`, with its own rows; its design lists the configs. It is made from
the search's stored definition alone, so that recipe, precision and augmentation are the search's own.
"""

import contextlib
import hashlib
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from harness.analysis.front import front, measured
from harness.config import Backbone, Network
from harness.design import Design, Listed, arms
from harness.errors import SpaceError, StudyError
from harness.latency import MEASURED
from harness.record import Record
from harness.report.words import listed
from harness.space import Params, Space
from harness.storage.reader import Stored, read_records, read_studies, revision, revisions
from harness.study import Objective, Study, maximize

SUFFIX = "~confirm"
SEEDS = 5
"""Fresh seeds, where nobody says how many."""
FIRST = 1_000
"""The first fresh seed: people count theirs from 0."""


@dataclass(frozen=True)
class Wanted:
    """What is to be confirmed, and how; None leaves it as it was the last time, or as it is by default."""

    seeds: int | None = None
    top: int | None = None
    """The best by the first objective."""
    trials: tuple[int, ...] = ()
    """Trials by their numbers."""
    epochs: int | None = None


@dataclass(frozen=True)
class Candidate:
    """A config that the search trained: its parameters, its trials, and their mean metrics in the place of one record."""

    params: Params
    numbers: tuple[int, ...]
    mean: Record


@dataclass(frozen=True)
class Confirmation:
    """A study that confirms another, and where that one's data and modules are."""

    study: Study
    data: Path
    code: tuple[str, ...]


def name_of(name: str, limit: int = 100) -> str:
    """What the study is called that confirms one, whichever of its revisions."""
    base = revision(name)[0]
    found = f"{base}{SUFFIX}"
    return found if len(found) <= limit else f"{base[: limit - 17]}-{hashlib.sha256(base.encode()).hexdigest()[:8]}{SUFFIX}"


def confirming(studies: Sequence[Stored], name: str) -> list[Stored]:
    """The revisions of the study that confirms one, the newest last."""
    return revisions(studies, name_of(name))


def confirmation(name: str, storage: str, wanted: Wanted = Wanted()) -> Confirmation:
    """The study that confirms one of the database, to be run; raises StudyError for what cannot be confirmed."""
    source = read_studies(storage, name)[0]
    every = read_studies(storage)
    study = Study.from_json(source.attributes["definition"])
    if study.scores_test:
        raise StudyError(f"{name}: it confirms another study already; name that one, or go on with `harness resume {name}`")
    records = read_records(storage, source.study_id)
    earlier = confirming(every, name)
    before = Study.from_json(earlier[-1].attributes["definition"]) if earlier else None
    wanted = remembered(wanted, before)
    own = [Study.from_json(one.attributes["definition"]) for one in revisions(every, revision(name)[0])]
    used = {seed for one in own for seed in one.seeds} | {record.seed for record in records}
    seeds = fresh_seeds(wanted.seeds or SEEDS, used, before.seeds if before else ())
    places = source.attributes.get("places", {})
    made = confirming_study(source.name, source.attributes["definition"], records, wanted, seeds)
    return Confirmation(made, Path(places.get("data", "data")), tuple(places.get("code", ())))


def remembered(wanted: Wanted, before: Study | None) -> Wanted:
    """What is wanted, with what the confirming study was begun with where nothing else is said."""
    if before is None or not isinstance(design := before.strategy, Listed):
        return wanted
    if wanted.seeds is not None and wanted.seeds < len(before.seeds):
        raise StudyError(
            f"--seeds {wanted.seeds}: {before.name} has {len(before.seeds)} seeds already, and more are added to them;"
            f" give at least {len(before.seeds)}"
        )
    kept = replace(wanted, seeds=wanted.seeds or len(before.seeds), epochs=wanted.epochs or design.epochs)
    if wanted.top is None and not wanted.trials:
        kept = replace(kept, top=design.top, trials=design.named)
    return kept


def fresh_seeds(count: int, used: Iterable[int], before: Sequence[int] = ()) -> tuple[int, ...]:
    """So many seeds that the search never used, those of before first."""
    taken = set(used)
    kept = [seed for seed in before if seed not in taken][:count]
    following = iter(range(FIRST, FIRST + count + len(taken) + len(kept)))
    while len(kept) < count:
        seed = next(following)
        if seed not in taken and seed not in kept:
            kept.append(seed)
    return tuple(kept)


def confirming_study(
    source: str, definition: dict[str, Any], records: Sequence[Record], wanted: Wanted, seeds: tuple[int, ...]
) -> Study:
    """The study of the configs that a search of this definition found; the plain baseline is among them where the space
    has one."""
    searched = Study.from_json(definition)
    space = searched.open_space(check=False)
    found = chosen(searched, candidates(searched, records), records, wanted)
    shortened = with_epochs(definition["training"], wanted.epochs)
    made = Study.from_json(definition | {"training": shortened}).open_space(check=False)
    baseline, first = baseline_of(searched, space, found)
    numbers: dict[str, tuple[Params, tuple[int, ...]]] = {}
    for given, found_by in [(first, ()), *((one.params, one.numbers) for one in found)]:
        params = made.active(given)  # those of a choice of epochs, which are given now, are gone
        known = numbers.get(spelled(params), (params, ()))[1]
        numbers[spelled(params)] = (params, tuple(dict.fromkeys((*known, *found_by))))
    strategy = Listed(
        of=source,
        rule=rule_words(wanted),
        top=wanted.top,
        named=wanted.trials,
        baseline=baseline,
        numbers=tuple(found_by for _, found_by in numbers.values()),
        configs=tuple(params for params, _ in numbers.values()),
        epochs=wanted.epochs,
    )
    plain = definition | {
        "name": name_of(source),
        "question": f"{searched.question or searched.name} (confirmed)",
        "strategy": strategy.model_dump(mode="json"),
        "stopping": None,
        "objectives": [objective.model_dump(mode="json") for objective in tested(searched)],
        "constraints": [],
        "seeds": list(seeds),
        "training": shortened,
    }
    return Study.from_json(plain)


def spelled(params: Params) -> str:
    """Parameters as one string."""
    return repr(sorted(params.items()))


def rule_words(wanted: Wanted) -> str:
    """How the configs were chosen."""
    if wanted.trials:
        return f"trial{'s' if len(wanted.trials) > 1 else ''} {listed(wanted.trials)}"
    return "the front" if wanted.top is None else f"the best {wanted.top}" if wanted.top > 1 else "the best"


def tested(study: Study) -> list[Objective]:
    """The objectives of the search, those that are learned on the test part."""
    found = [
        objective.model_copy(update={"metric": f"test_{objective.metric}"})
        if objective.metric in study.learned
        else objective
        for objective in study.objectives
        if not (study.needs_elsewhere and objective.metric in MEASURED)  # of new trials nobody here can measure it
    ]
    return found if any(one.metric.startswith("test_") for one in found) else [maximize("test_accuracy"), *found]


# -- which configs ----------------------------------------------------------------------------------------------------


def candidates(study: Study, records: Sequence[Record]) -> list[Candidate]:
    """Every config with complete trials, each as the mean over its seeds; of a study with several, those that have most."""
    groups: dict[str, list[Record]] = {}
    for record in records:
        whole = all(math.isfinite(measured(record, objective.metric)) for objective in study.objectives)
        if record.state == "complete" and whole:
            groups.setdefault(spelled(record.params), []).append(record)
    most = max((len({record.seed for record in group}) for group in groups.values()), default=0)
    return [_candidate(group) for group in groups.values() if len({record.seed for record in group}) == most]


def _candidate(group: Sequence[Record]) -> Candidate:
    first = group[0]
    shared = set.intersection(*(set(record.metrics) for record in group))
    means = {name: math.fsum(record.metrics[name] for record in group) / len(group) for name in shared}
    return Candidate(first.params, tuple(record.number for record in group), replace(first, metrics=means))


def chosen(study: Study, found: Sequence[Candidate], records: Sequence[Record], wanted: Wanted) -> list[Candidate]:
    """The candidates that are to be confirmed, the best by the first learned objective first."""
    if wanted.trials:
        return _named(study, found, records, wanted.trials)
    if not found:
        raise StudyError(
            f"study {study.name!r} has no complete trial yet, so there is nothing to confirm; `harness resume {study.name}`"
            " goes on"
        )
    first = study.objectives[0]
    if wanted.top is not None:
        kept = sorted(found, key=lambda one: first.sign * measured(one.mean, first.metric))[: wanted.top]
    else:
        best = {id(record) for record in front([one.mean for one in found], study.objectives)}
        kept = [one for one in found if id(one.mean) in best]
    return sorted(kept, key=lambda one: _worth(study, one))


def _worth(study: Study, candidate: Candidate) -> float:
    """Sorts the best first, by the first objective that has to be trained for."""
    main = next((one for one in study.objectives if one.metric in study.learned), maximize("accuracy"))
    found = main.sign * measured(candidate.mean, main.metric)
    return found if math.isfinite(found) else math.inf


def _named(study: Study, found: Sequence[Candidate], records: Sequence[Record], numbers: Sequence[int]) -> list[Candidate]:
    """The configs of trials by number: complete ones, and such as were stopped early and deserve a second chance."""
    by_number = {record.number: record for record in records}
    kept: dict[tuple[int, ...], Candidate] = {}
    for number in numbers:
        record = by_number.get(number)
        if record is None:
            last = f"its last is {max(by_number)}" if by_number else "it has none yet"
            raise StudyError(f"--trials {number}: study {study.name!r} has no such trial ({last})")
        if record.state not in ("complete", "stopped"):
            raise StudyError(f"--trials {number}: it is {record.state}; only trials that have a result can be confirmed")
        candidate = next((one for one in found if number in one.numbers), Candidate(record.params, (number,), record))
        kept[candidate.numbers] = candidate
    return sorted(kept.values(), key=lambda one: _worth(study, one))


def baseline_of(study: Study, space: Space, found: Sequence[Candidate]) -> tuple[str, Params]:
    """What every config is compared with, by name: the best one without its attention where the space has that, else the
    baseline of the search's design, else the best one itself."""
    best = found[0].params
    config = space.config(best)
    with contextlib.suppress(SpaceError):
        return "plain", space.params(config.model_copy(update={"network": without_attention(config.network)}))
    if isinstance(study.strategy, Design):
        arm = arms(study.strategy, space)[0]
        return arm.name, arm.params
    return "the search's best", best


def without_attention(network: Network) -> Network:
    """The same network with every slot empty."""
    if isinstance(network, Backbone):
        return network.model_copy(update={"at": dict.fromkeys(network.at)})
    return network.model_copy(update={"stages": (None,) * len(network.stages), "head": None})


def with_epochs(training: Any, epochs: int | None) -> Any:
    """A training, or the choices in its place, in plain JSON, with other epochs."""
    if epochs is None:
        return training
    if isinstance(training, list):
        return [with_epochs(option, epochs) for option in training]
    if not isinstance(training, dict):
        return training
    if "vary" in training:
        return training | {"fields": training["fields"] | {"epochs": epochs}}
    if "kind" in training:
        return training | {"epochs": epochs}
    return {name: with_epochs(value, epochs) if name in ("choose", "of") else value for name, value in training.items()}
