"""Everything that can be checked of a study before anything is written: definition, space, strategy, data, user code."""

import contextlib
import random
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from harness.code import add_paths, load, source_hash
from harness.config import Backbone, Config, Custom, ExpAtt, Part, Training
from harness.control_arms import with_controls
from harness.cost import Cost, Shape, network_cost
from harness.data.cache import Progress
from harness.data.own import own_info
from harness.data.pictures import DataInfo
from harness.data.sources import open_data, open_test
from harness.design import Arm, Design, Factorial, FractionalFactorial, LeaveOneOut, Listed, Sequential, arms, more_seeds
from harness.errors import ConfigError, StudyError
from harness.execution.ledger import Price
from harness.hardware import Hardware, worth_compiling
from harness.key import canonical, identity, network_identity
from harness.own_loop import loop_of
from harness.parts.part import is_target
from harness.space import Choice, Params, Same, Space, Span, Vary
from harness.storage.reader import Stored, read_studies, revision, revisions
from harness.storage.tables import is_there
from harness.strategies import auto
from harness.strategies.proposers import assert_fits
from harness.study import STRATEGIES, Exhaustive, Search, Study, differences, held_in
from harness.weights import weights_source

PICTURES = ("dataset", "limit", "image_size", "loading", "skip_bad_images")
"""Fields of Training that say which pictures a study is about."""
CROSSED = (Factorial, FractionalFactorial)
"""Designs whose effects are of choices, over all arms that are trained: they compare with no baseline."""


@dataclass(frozen=True)
class Checked:
    """A study that can be run: resolved as stored where it is in the database already."""

    study: Study
    stored: Stored | None
    space: Space
    info: DataInfo
    sources: dict[str, str]
    """Hashes of the user's modules, and of the files of weights that training begins with."""
    price: Price
    notes: tuple[str, ...]
    """What is left out of the data, and what differs from when the study was begun."""
    counted: tuple[str, ...]
    """The user's modules whose MACs are counted from the operations they dispatch, for want of their own word."""
    written: Study
    """As its author wrote it."""
    older: tuple[Stored, ...] = ()
    """Earlier revisions, the newest last."""
    changes: tuple[str, ...] = ()
    """What differs from the study as it was in the database, and what follows."""

    @property
    def asked(self) -> dict[str, Any]:
        """The definition as its author wrote it, with what is `auto` left open and the budget of today."""
        if self.stored is None:
            return self.written.to_json()
        plain = self.study.to_json()
        budget = {name: plain[name] for name in ("question", "strategy", "seeds")}
        return Study.from_json(self.stored.attributes["asked"]).to_json() | budget


def checked(study: Study, storage: str, data: Path, code: tuple[str, ...] = (), decoding: Progress | None = None) -> Checked:
    """The study with all that a run or a plan has to know of it; raises a HarnessError for whatever the user has to mend."""
    add_paths(list(code))
    if "@" in study.name:
        raise StudyError(f"Study.name = {study.name!r}: @ counts the revisions of a study; leave it out")
    written, older = study, known(storage, study.name)
    changes: tuple[str, ...] = ()
    stored = older.pop() if older else None
    if stored is not None:
        study, changes, goes_on = grown(study, stored)
        if not goes_on:
            older, stored = [*older, stored], None
    pictures = pictures_of(study)
    space = study.open_space()
    assert_fits(study, space)
    sources = user_sources(study)
    initial = {init: weights_source(init) for init in sorted(filter(None, values_of(study, "init")))}
    info = data_of(study, pictures, data, decoding)
    assert_runnable(study, info.shape)
    if study.scores_test:
        own = study.data is not None
        info = replace(info, scored_on=info.fingerprint if own else open_test(pictures, data, decoding)[1].fingerprint)
    notes = info.notes + (() if stored is None else differing(stored, info, sources | initial))
    if info.shape.classes <= 5 and any(objective.metric == "top5" for objective in study.objectives):
        raise StudyError(f"Study.objectives: top5 says nothing of {info.shape.classes} classes; use accuracy or loss")
    price = pricing(info.shape, classifying=study.trial is None)
    if stored is None:
        study, more = with_controls(study, info.shape, price, _counted)
        space, notes = study.open_space(), notes + more
    if sources:
        try_kernels(study)
        rehearse(space, price)
    assert_trainable(study, space, price)
    if isinstance(study.strategy, Design) or (isinstance(study.strategy, Exhaustive) and study.strategy.declared):
        assert_compared_trainable(study, study.strategy, space, price)
    if isinstance(study.seeds, Sequential) and isinstance(study.strategy, Design):
        assert_arms_trainable(study, arms(study.strategy, space), space, price)
    notes += tuple(loading(space, info.shape, init) for init in initial) + auto.words(study, space)
    return Checked(
        study, stored, space, info, sources | initial, price, notes, counted_modules(study), written, tuple(older), changes
    )


def known(storage: str, name: str) -> list[Stored]:
    """The revisions of the study of this name, the newest last; nothing where there is no database."""
    return revisions(read_studies(storage), name) if is_there(storage) else []


def grown(study: Study, stored: Stored) -> tuple[Study, tuple[str, ...], bool]:
    """The study to run for one that may have changed under its name: what changed, and whether the stored study goes on.

    It goes on, resolved as it was, where each of its rows is one of the new study too: with another wording, budget, primary
    comparison or margin, with more seeds, and with another search. Whatever else changed opens a revision beside it."""
    old, new = Study.from_json(stored.attributes["asked"]).to_json(), study.to_json()
    all_changes = differences(old, new)
    may = {"question": new["question"]}
    kinds = [plain["strategy"]["kind"] for plain in (old, new)]
    if all(issubclass(STRATEGIES[kind], Search | Exhaustive) for kind in kinds) and kinds != ["exhaustive"] * 2:
        may["strategy"] = new["strategy"]
    elif kinds[0] == kinds[1]:
        budget = {name: new["strategy"][name] for name in ("trials", "primary", "margin") if name in new["strategy"]}
        may["strategy"] = old["strategy"] | budget
        if more_seeds(old["seeds"], new["seeds"]) and "trials" not in budget:
            may["seeds"] = new["seeds"]
    if not differences(old | may, new):
        switched = kinds[0] != kinds[1]
        silent = ("question", "strategy" if switched else "strategy.trials")
        told = [f"strategy: {kinds[0]} -> {kinds[1]}, which goes on from what is there"] if switched else []
        told += [change for change in all_changes if not change.startswith(silent)]
        return Study.from_json(stored.attributes["definition"] | may), tuple(told), True
    base, number = revision(stored.name)
    shown = "; ".join(all_changes[:6]) + (f"; and {len(all_changes) - 6} more" if len(all_changes) > 6 else "")
    fields = {name: getattr(study, name) for name in Study.model_fields}
    revised = Study(**fields | {"name": f"{base}@{number + 1}"})
    return revised, (f"{shown}: {revised.name} is opened beside {stored.name} and takes over what still holds",), False


def data_of(study: Study, pictures: Training, data: Path, decoding: Progress | None) -> DataInfo:
    """What the study's data are; raises where a loop of the user's own and what it learns from do not go together."""
    if (pictures.dataset == "own") != (study.data is not None):
        remedy = "say what they are, Study(data=OwnData(...))" if study.data is None else "write Training(dataset='own')"
        raise StudyError(
            f"Training.dataset = {pictures.dataset!r}, Study.data = {study.data!r}: of data of your own, {remedy}"
        )
    return open_data(pictures, data, decoding)[1] if study.data is None else own_info(study.data, data, decoding)


def assert_runnable(study: Study, shape: Shape) -> None:
    """Raises where a loop of the user's own is none, or a network is asked to tell no classes apart."""
    if study.trial is not None:
        loop_of(study.trial)
    kinds = {held.part if isinstance(held, Vary) else type(held) for held in held_in(study.space)} - {Backbone}
    if not shape.classes and kinds:
        name = min(kind.__name__ for kind in kinds)
        raise StudyError(
            f"OwnData.classes = 0: {name} ends in a classifier; say how many classes there are, or use a Backbone"
        )


def user_sources(study: Study) -> dict[str, str]:
    """Source hashes of the user's modules in the space; raises CodeError for one that cannot be found."""
    targets = {target for _, target in user_code(study)}
    if study.trial is not None:
        targets.add(study.trial)
    return {target: source_hash(target) for target in sorted(targets)}


def user_code(study: Study) -> set[tuple[type[Part], str]]:
    """The code of the user's that the space names, by the part that names it."""
    return {(part, target) for part, target in named_code(study) if is_target(target)}


def named_code(study: Study) -> set[tuple[type[Part], str]]:
    """Every name in the space where code of the user's may stand: that of ours and of libraries too."""
    found: set[tuple[type[Part], str]] = set()

    def visit(node: Any) -> None:
        if isinstance(node, Vary):
            for field in node.part.code:
                named = node.fields.get(field)
                options: Any = named.options if isinstance(named, Choice) else [named]
                found.update((node.part, option) for option in options if isinstance(option, str))
            visit(list(node.fields.values()))
        elif isinstance(node, Same):
            visit(node.of)
        elif isinstance(node, Choice):
            visit(list(node.options))
        elif isinstance(node, tuple | list | dict):
            for item in node.values() if isinstance(node, dict) else node:
                visit(item)
        elif isinstance(node, Part):
            found.update((type(node), name) for field in node.code if isinstance(name := getattr(node, field), str))
            visit([getattr(node, name) for name in type(node).model_fields])

    visit(study.space)
    return found


def counted_modules(study: Study) -> tuple[str, ...]:
    """The user's attention modules that do not state their MACs, and the models of others."""
    modules = sorted(target for part, target in user_code(study) if part is Custom)
    models = sorted(target for part, target in named_code(study) if part is Backbone)
    return *(target for target in modules if not callable(getattr(load(target), "macs", None))), *models


def try_kernels(study: Study) -> None:
    """Raises CodeError for a distance kernel of the user's that does not load or gives no weights."""
    if kernels := sorted(target for part, target in user_code(study) if part is ExpAtt):
        from harness.networks.attention.kernels import user_kernel

        for target in kernels:
            user_kernel(target)


def pictures_of(study: Study) -> Training:
    """Which pictures the study is about: one set, of which no choice may be made."""

    found = []
    for recipe in held_in(study.training):
        fields = recipe.fields if isinstance(recipe, Vary) else recipe.model_dump()
        found.append({name: fields[name] for name in PICTURES})
    choices = (Choice, Same, Span)
    if any(other != found[0] for other in found) or any(isinstance(value, choices) for value in found[0].values()):
        raise StudyError(f"Study.training: {', '.join(PICTURES)} are one for a whole study; make a study for each")
    return Training(**found[0])


def values_of(study: Study, field: str) -> set[Any]:
    """Every value that a field of the study's training may take."""

    def visit(node: Any) -> Iterator[Any]:
        if isinstance(node, Same):
            yield from visit(node.of)
        elif isinstance(node, Choice):
            for option in node.options:
                yield from visit(option)
        elif isinstance(node, Vary):
            yield from visit(node.fields[field])
        elif isinstance(node, Training):
            yield getattr(node, field)
        else:
            yield node

    return set(visit(study.training))


def assert_possible(study: Study, hardware: Hardware) -> None:
    """Raises StudyError where a recipe asks for what the devices of the trials have not."""
    if "tf32" in values_of(study, "precision") and not hardware.tf32:
        raise StudyError("Training.precision = 'tf32': the devices found do not multiply in TF32; use bf16, fp32 or auto")
    if hardware.device == "cpu" and any(objective.metric == "energy" for objective in study.objectives):
        raise StudyError("Study.objectives: energy is what a GPU's driver tells, and trials would run on a CPU; use seconds")
    if hardware.device == "cpu" and any(latency.device == "cuda" for latency in study.measures):
        raise StudyError("Study.measure: device 'cuda': trials would run on a CPU; use 'cpu', or `harness measure` on a GPU")
    if True in values_of(study, "compile") and not hardware.compiler:
        raise StudyError("Training.compile = True: there is no C++ compiler; install g++, name one by CXX, or use False")


def long_enough(found: Checked, hardware: Hardware, draws: int = 100) -> bool:
    """Whether the shortest of the study's trials, of those drawn, wins by being compiled; a loop of the user's own compiles
    by itself."""
    if found.study.trial is not None:
        return False
    worth = []
    for attempt in range(draws):
        with contextlib.suppress(ConfigError):
            config = found.space.config(found.space.draw(random.Random(attempt)))
            training, kept = config.training, round(found.info.train * (1 - config.training.validation))
            steps = training.epochs * max(kept // training.batch_size, 1)
            precision = hardware.precision if training.precision == "auto" else training.precision
            worth.append(worth_compiling(hardware, precision, found.price(config).macs, steps, training.batch_size))
    return bool(worth) and all(worth)


def loading(space: Space, shape: Shape, init: str) -> str:
    """What a file of weights has for the first network drawn that begins with it; raises DataError where nothing fits."""
    from harness.networks.build import build
    from harness.training.initial import match

    for attempt in range(200):
        with contextlib.suppress(ConfigError):
            config = space.config(space.draw(random.Random(attempt)))
            if config.training.init == init:
                found = match(build(config.network, shape, device="meta"), init)
                new = ", ".join(found.new[:4]) + (", ..." if len(found.new) > 4 else "")
                return f"init {init}: {len(found.weights)} tensors are loaded, {len(found.new)} are new" + (
                    f" ({new})" if new else ""
                )
    return f"init {init}: none of 200 configs drawn begins with it"


def sampled(study: Study, space: Space, most: int) -> tuple[bool, Iterator[Params]]:
    """Choices of the study's configs: whether these are all, and they themselves, of a larger space so many draws."""
    if isinstance(study.strategy, Listed):
        return True, iter(study.strategy.configs)
    if space.size <= most:
        return True, space.enumerate()
    return False, (space.draw(random.Random(index)) for index in range(most))


def rehearse(space: Space, price: Price) -> None:
    """Prices every option once, for which what others wrote is built on the meta device: what does not fit is known now."""
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


def assert_compared_trainable(study: Study, design: Design | Exhaustive, space: Space, price: Price) -> None:
    """Raises StudyError where a constraint refuses the baseline, or the primary arm: nothing could be compared."""
    if not study.constraints:
        return
    told, kind = arms(design, space), type(design).__name__
    base = "full" if isinstance(design, LeaveOneOut) else "base"
    primary = [("primary arm", "primary", arm) for arm in told if arm.name == design.primary]
    for what, remedy, arm in [*([] if isinstance(design, CROSSED) else [("baseline", base, told[0])]), *primary]:
        cost = price(space.config(arm.params))._asdict()
        if broken := next((bound for bound in study.constraints if not bound.holds(cost)), None):
            raise StudyError(
                f"{kind}: the {what} {arm.name!r} breaks {broken} ({cost[broken.metric]:,}) and would never be trained;"
                f" loosen the constraint, or name another by {remedy}="
            )


def assert_arms_trainable(study: Study, planned: list[Arm], space: Space, price: Price) -> None:
    """Raises StudyError for an arm that would have no trials of its own: what seeds in sequence decide counts all arms."""
    known: dict[str, str] = {}
    for arm in planned:
        config = space.config(arm.params)
        cost = price(config)._asdict()
        if broken := next((bound for bound in study.constraints if not bound.holds(cost)), None):
            raise StudyError(
                f"Study.seeds = Sequential(...): arm {arm.name!r} breaks {broken} ({cost[broken.metric]:,}) and would never"
                " be trained; loosen the constraint, or take the arm out of the space"
            )
        if (twin := known.setdefault(canonical(identity(config)), arm.name)) != arm.name:
            raise StudyError(
                f"Study.seeds = Sequential(...): arms {twin!r} and {arm.name!r} are one network and recipe; take one out of"
                " the space"
            )


def differing(stored: Stored, info: DataInfo, sources: dict[str, str]) -> tuple[str, ...]:
    """Notes on what differs from when the study was begun; raises StudyError when its data do."""
    known = DataInfo.from_json(stored.attributes["data"])
    if known.fingerprint != info.fingerprint:
        raise StudyError(
            f"study {stored.name!r} was begun on other pictures ({known.train} of {known.dataset}, fingerprint"
            f" {known.fingerprint}; now {info.train}, {info.fingerprint}): name the old folder by --data, or the study anew"
        )
    if known.scored_on != info.scored_on:
        raise StudyError(f"study {stored.name!r} was begun on other test pictures: name the old folder by --data")
    changed = [target for target, source in sources.items() if stored.attributes["sources"].get(target) != source]
    return tuple(
        f"the source of {target} has changed since the study was begun: new trials use it as it is now" for target in changed
    )


def pricing(shape: Shape, *, classifying: bool = True) -> Price:
    """The exact cost of a config, remembered by what the network is; of networks that our own loop trains, raises for a
    model that does not classify."""
    known: dict[str, Cost] = {}

    def price(config: Config) -> Cost:
        name = canonical(network_identity(config.network))
        if name not in known:
            known[name] = network_cost(config.network, shape, _counted)
            if classifying and isinstance(config.network, Backbone):
                from harness.networks.backbone import assert_classifies

                assert_classifies(config.network, shape)
        return known[name]

    return price


def _counted(what: Any, channels: int, height: int, width: int) -> Cost:
    """What others wrote, which has no closed form: counted, with torch, where there is one."""
    from harness.measure.anatomy import count

    return count(what, channels, height, width)
