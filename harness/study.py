"""A study: a question, with everything needed to answer it. A study file exports one as STUDY."""

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Annotated, Any, Literal, Self

from pydantic import ConfigDict, Field, PlainSerializer, PlainValidator, WrapValidator, model_validator

from harness.config import (
    NETWORKS,
    Neutral,
    OwnData,
    Part,
    Training,
    Trunk,
    constant_words,
    part_from_json,
    parts_from_json,
)
from harness.design import (
    DESIGNS,
    AddOneIn,
    Design,
    Factorial,
    FractionalFactorial,
    LeaveOneOut,
    Listed,
    OneAtATime,
    Sequential,
)
from harness.design import Exhaustive as Exhaustive  # noqa: PLC0414  # where studies look for it, as for the searches
from harness.errors import StudyError, hint
from harness.key import canonical
from harness.latency import HERE, MEASURED, Latency
from harness.space import Choice, Same, Space, Vary

EXACT = ("params", "macs")
"""Metrics known before training, in closed form."""
METRICS = {
    "accuracy": "share of the validation pictures classified right, after the last epoch (or as Training.select says)",
    "top5": "share of them with the right class among the first five, where there are more than five",
    "loss": "mean cross-entropy on the validation pictures, after the last epoch (or as Training.select says)",
    "test_accuracy": "share of the test pictures classified right: read once, after the last epoch, to confirm a study",
    "test_top5": "the same for the right class among the first five, where there are more than five",
    "test_loss": "mean cross-entropy on the test pictures, likewise",
    "params": "trainable parameters of the network",
    "macs": "multiply-accumulates of one picture's forward pass",
    "seconds": "wall-clock seconds of the trial",
    "pictures_per_second": "pictures trained on a second, evaluation and checkpoints apart",
    "peak_memory": "most bytes held at once: by tensors on a GPU, by the whole process on a CPU",
    "energy": "joules that the whole GPU took while the trial ran",
    **MEASURED,
}
"""What objectives and constraints may name."""
EPOCHWISE = ("accuracy", "top5", "loss")
"""Metrics that tell after each epoch how well a trial does."""
TESTED = ("test_accuracy", "test_top5", "test_loss")
"""Metrics of the test part, which only a study that confirms another has."""
LATE = ("pictures_per_second", "peak_memory", "energy", *MEASURED)
"""Metrics that are known when a trial has ended, and not before."""
UNLEARNED = (*EXACT, "seconds", *LATE, *TESTED)
"""Metrics that a training loop does not say after each epoch: they are exact, measured from outside, or for the end."""


class Objective(Part):
    """A metric and the way it should go."""

    metric: str
    """One of METRICS, or what the study's own loop yields by this name."""
    direction: Literal["maximize", "minimize"]
    unit: Annotated[str, Field(max_length=12), Neutral("")] = ""
    """Of what a loop of one's own measures: "%" for shares from 0 to 1, shown in percent; else a symbol, such as "dB"."""

    @model_validator(mode="after")
    def _well_named(self) -> Self:
        if not re.fullmatch(r"[A-Za-z_]\w{0,39}", self.metric, re.ASCII):
            raise StudyError(f"Objective.metric = {self.metric!r}: use letters, digits and _ (40 at most), as in 'miou'")
        if self.unit and self.metric in METRICS:
            raise StudyError(f"Objective.unit = {self.unit!r}: {self.metric} has its own; leave unit out")
        return self

    @property
    def sign(self) -> int:
        """Multiplying by it makes smaller better."""
        return -1 if self.direction == "maximize" else 1


def maximize(metric: str, *, unit: str = "") -> Objective:
    return Objective(metric=metric, direction="maximize", unit=unit)


def minimize(metric: str, *, unit: str = "") -> Objective:
    return Objective(metric=metric, direction="minimize", unit=unit)


class Constraint(Part):
    """A bound on a cost that is known before training, in closed form or measured on the fresh network: what breaks it is
    never trained."""

    metric: Literal["params", "macs", "latency", "inference_memory"]
    at_most: Annotated[float, Field(gt=0)] | None = None
    at_least: Annotated[float, Field(gt=0)] | None = None

    @model_validator(mode="after")
    def _one_bound(self) -> Self:
        if (self.at_most is None) == (self.at_least is None):
            raise StudyError(f"Constraint on {self.metric}: give either at_most or at_least; two bounds are two constraints")
        return self

    def holds(self, costs: Mapping[str, float]) -> bool:
        """Whether costs keep to it; those that are not known yet do."""
        value = costs.get(self.metric)
        if value is None:
            return True
        return (self.at_most is None or value <= self.at_most) and (self.at_least is None or value >= self.at_least)

    def __str__(self) -> str:
        return f"{self.metric} at {'most' if self.at_least is None else 'least'} {self.at_most or self.at_least:g}"


def at_most(metric: str, value: float) -> Constraint:
    return Constraint(metric=metric, at_most=value)  # type: ignore[arg-type]


def at_least(metric: str, value: float) -> Constraint:
    return Constraint(metric=metric, at_least=value)  # type: ignore[arg-type]


class Search(Part):
    """A search proposes `trials` different configs, one trial each; in the order in which results arrive, so two runs may
    propose differently."""

    trials: Annotated[int, Field(ge=1)]


class Random(Search):
    """Configs drawn at random."""

    kind: Literal["random"] = "random"


class Evolution(Search):
    """The best configs so far are crossed and mutated; of many children the one is trained that promises to add most to the
    front, by its exact costs and a forest's guess of what is learned. Above three objectives NSGA-III (Optuna)."""

    kind: Literal["evolution"] = "evolution"
    population: Annotated[int, Field(ge=2)] = 16
    """Configs with which a search begins, promising and far apart in turn; and parents thereafter."""
    children: Annotated[int, Field(ge=1)] = 64
    """Children that are looked at for each that is trained; 1: plain NSGA-II (Optuna)."""


class Tpe(Search):
    """Tree-structured Parzen estimators (Optuna)."""

    kind: Literal["tpe"] = "tpe"


class Bayesian(Search):
    """A Gaussian process (Optuna's GPSampler): for some hundred trials at most, as a proposal takes a second or more."""

    kind: Literal["bayesian"] = "bayesian"


class Auto(Search):
    """Picks a strategy by the size of the space, the trials and the objectives; plan and run say which and why."""

    kind: Literal["auto"] = "auto"


class Halving(Part):
    """Asynchronous successive halving: at each rung a trial goes on where it is among the best of all that reached it."""

    first_rung: Annotated[int, Field(ge=1)] = 1
    """Epochs after which trials are compared for the first time; a trial is never stopped at its last epoch."""
    reduction_factor: Annotated[int, Field(ge=2)] = 3
    """One in so many goes on from a rung, and the next rung is so many times as far."""
    quorum: Annotated[int, Field(ge=2)] = 6
    """Trials that have reached a rung before any is stopped there."""

    def rungs(self, epochs: int) -> tuple[int, ...]:
        """The epochs after which a trial of so many is compared with the others."""
        found = []
        rung = self.first_rung
        while rung < epochs:
            found.append(rung)
            rung *= self.reduction_factor
        return tuple(found)


class SuccessiveHalving(Halving):
    """Ranks by all objectives: those learned as they are after so many epochs, the exact costs as they are; front by front,
    so that a small network is not stopped for being less accurate than a large one (Schmucker et al., arXiv 2106.12639)."""

    kind: Literal["halving"] = "halving"


class Asha(Halving):
    """Ranks by the first learned objective alone (Li et al., arXiv 1810.05934)."""

    kind: Literal["asha"] = "asha"


Strategy = Annotated[
    Exhaustive
    | Random
    | Evolution
    | Tpe
    | Bayesian
    | Auto
    | LeaveOneOut
    | AddOneIn
    | OneAtATime
    | Factorial
    | FractionalFactorial
    | Listed,
    Field(discriminator="kind"),
]
STRATEGIES: dict[str, type[Part]] = {
    "exhaustive": Exhaustive,
    "random": Random,
    "evolution": Evolution,
    "tpe": Tpe,
    "bayesian": Bayesian,
    "auto": Auto,
    **{str(design.model_fields["kind"].default): design for design in DESIGNS},
}
Stopping = Annotated[SuccessiveHalving | Asha, Field(discriminator="kind")]
STOPPINGS: dict[str, type[Part]] = {"halving": SuccessiveHalving, "asha": Asha}


def _node(*kinds: type[Part]) -> Any:
    """A field that holds a part or the choices in its place; typed as the part, which the grammar pretends to be."""

    def check(value: Any) -> Any:
        for held in held_in(value):
            part = held.part if isinstance(held, Vary) else type(held)
            if not issubclass(part, kinds):
                plain = " or ".join(f"{kind.__name__}(...)" for kind in kinds)
                raise ValueError(f"Study wants {plain} or vary({kinds[0].__name__}, ...) here; got {_short(held)}")
        return value

    return PlainValidator(check)


def held_in(node: Any) -> Iterator[Any]:
    """What stands in a place: the options of a choice, however nested, or the thing itself."""
    if isinstance(node, Same):
        yield from held_in(node.of)
    elif isinstance(node, Choice):
        for option in node.options:
            yield from held_in(option)
    else:
        yield node


def _sequence(value: Any, plain: Callable[[Any], tuple[int, ...]]) -> tuple[int, ...]:
    """Seeds as they are: a sequence is more than the tuple that it is too."""
    return value if isinstance(value, Sequential) else plain(value)


def _plain_seeds(seeds: tuple[int, ...]) -> Any:
    return seeds.to_json() if isinstance(seeds, Sequential) else list(seeds)


def _sequential(plain: dict[str, Any]) -> Sequential:
    """Seeds in sequence from their JSON."""
    given = {name: value for name, value in plain.items() if name != "kind"}
    known = tuple(Sequential.__annotations__)
    if plain.get("kind") != "sequential" or (unknown := next((name for name in given if name not in known), None)):
        raise StudyError(f"seeds {plain}: unknown; Sequential has {', '.join(known)}{hint(unknown, known)}")
    return Sequential(**given)


class Study(Part):
    """A space, a strategy, objectives, constraints, seeds and a budget, under a name that its database knows it by."""

    model_config = ConfigDict(arbitrary_types_allowed=True)

    name: str
    question: str = ""
    space: Annotated[Trunk, _node(*NETWORKS), PlainSerializer(lambda _: None)]
    training: Annotated[Training, _node(Training), PlainSerializer(lambda _: None)] = Training()
    strategy: Strategy
    stopping: Stopping | None = None
    """Which trials end before their last epoch; None: none does."""
    objectives: tuple[Objective, ...] = (maximize("accuracy"), minimize("params"), minimize("macs"))
    constraints: tuple[Constraint, ...] = ()
    seeds: Annotated[tuple[int, ...], WrapValidator(_sequence), PlainSerializer(_plain_seeds)] = (0,)
    """Of every config; of a design also `Sequential(...)`."""
    measure: tuple[Latency, ...] = ()
    """Devices and batch sizes at which every network is measured before it is trained; the first is what `latency` and
    `inference_memory` mean. Empty, where an objective or a constraint names one of them: one picture, where trials run."""
    trial: str | None = None
    """A training loop of the user's own in place of ours, `module:function`: a generator `function(context)` that yields a
    dictionary of metrics after each epoch (`harness.own_loop.Context` says what it is given)."""
    data: OwnData | None = None
    """What such a loop learns from, where that is none of our data sets; with `Training(dataset="own")`."""
    threads: Annotated[int, Field(ge=1)] = 1
    """CPU threads of a trial: part of its numbers' rounding, so it belongs to the study and not to how it is run."""

    @model_validator(mode="after")
    def _makes_sense(self) -> Self:
        if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_.~=+,-]{0,99}(@[1-9][0-9]*)?", self.name):
            raise StudyError(
                f"Study.name = {self.name!r}: use letters, digits and . _ - (100 at most), as in 'kernels-cifar10'"
            )
        metrics = [objective.metric for objective in self.objectives]
        if not metrics or len(set(metrics)) < len(metrics):
            raise StudyError(f"Study.objectives = {metrics}: give one or more, each metric once")
        if (tested := set(metrics) & set(TESTED)) and not self.scores_test:
            raise StudyError(
                f"Study.objectives: {', '.join(sorted(tested))}: the test part is not for choosing by it, else nothing is"
                f" left to judge the choice; use {' or '.join(EPOCHWISE)}, then `harness confirm {self.name}`"
            )
        if self.scores_test and self.stopping is not None:
            raise StudyError(f"Study.stopping = {self.stopping!r}: what confirms a study stops no trial; leave it out")
        self._assert_measured(metrics)
        if self.stopping is not None and not self.learned:
            raise StudyError(
                f"Study.stopping = {self.stopping!r}: no objective of {metrics} is learned epoch by epoch;"
                f" leave stopping out, or add {' or '.join(EPOCHWISE)}"
            )
        if self.stopping is not None and (late := set(metrics) & set(LATE)):
            raise StudyError(
                f"Study.stopping = {self.stopping!r}: {', '.join(sorted(late))} is known only when a trial has ended;"
                " leave stopping out, or that objective"
            )
        self._measures_what_it_can()
        if isinstance(self.seeds, Sequential):
            self._can_be_sequential(self.seeds)
            return self
        if not self.seeds or len(set(self.seeds)) < len(self.seeds) or min(self.seeds) < 0:
            raise StudyError(f"Study.seeds = {self.seeds}: give one or more different numbers from 0")
        if len(self.seeds) > 1 and isinstance(self.strategy, Search):
            raise StudyError(
                f"Study.seeds = {self.seeds}: a search trains each config with one seed; give one, or use a design"
            )
        return self

    def _can_be_sequential(self, seeds: Sequential) -> None:
        """Raises StudyError where there is no comparison to decide, or nothing to decide it by."""
        if not isinstance(self.strategy, Design):
            raise StudyError(
                "Study.seeds = Sequential(...): only a design has comparisons to decide; use one, or list the seeds"
            )
        if self.stopping is not None:
            raise StudyError(
                "Study.seeds = Sequential(...): trials that stop early decide no comparison; leave stopping out"
            )
        if self.needs_elsewhere or any(bound.metric in MEASURED for bound in self.constraints):
            raise StudyError(
                "Study.seeds = Sequential(...): every arm has to be trained, and what is measured may rule one out; leave"
                f" {', '.join(MEASURED)} out of objectives and constraints"
            )
        metric = next((objective.metric for objective in self.objectives if objective.metric not in EXACT), None)
        if metric is None:
            raise StudyError(
                "Study.seeds = Sequential(...): no objective is learned, so seeds decide nothing; add maximize('accuracy')"
            )
        effect, margin = seeds.smallest_effect, self.strategy.margin
        if effect is not None and margin is not None and effect != margin:
            raise StudyError(
                f"Sequential.smallest_effect = {effect:g} and {type(self.strategy).__name__}.margin = {margin:g} are both"
                " the smallest difference that matters: give one of them"
            )
        if effect is not None and effect >= 0.1 and metric.endswith(("accuracy", "top5")):
            raise StudyError(
                f"Sequential.smallest_effect = {effect:g} of {metric} is {100 * effect:g} points: for {effect:g} points"
                f" write {effect / 100:g}"
            )

    def _assert_measured(self, metrics: Sequence[str]) -> None:
        """Raises StudyError for an objective that no trial will measure, and for data that no loop reads."""
        known = (*METRICS, *(() if self.trial is None else metrics))
        if unknown := next((metric for metric in metrics if metric not in known), None):
            raise StudyError(
                f"Study.objectives: {unknown!r} is no metric of ours ({', '.join(METRICS)}){hint(unknown, METRICS)};"
                ' a loop of your own measures it: trial="module:function"'
            )
        early = [metric for metric in metrics if metric.startswith("test_") and not self.scores_test]
        if early:
            what = "names that begin with test_ are for"
            raise StudyError(f"Study.objectives: {early[0]}: {what} `harness confirm {self.name}`")
        if self.trial is not None and "pictures_per_second" in metrics:
            raise StudyError(
                "Study.objectives: pictures_per_second is measured in our own loop; let yours yield its own speed"
            )
        if self.trial is None and self.data is not None:
            raise StudyError(
                f"Study.data = {self.data.name!r}: only a loop of your own reads it; give trial='module:function'"
            )

    @property
    def learned(self) -> tuple[str, ...]:
        """The metrics of the objectives that the training loop says after each epoch; of a study that confirms another those
        of its validation pictures, for a look at the test part comes once, at the end."""
        first = "test_" if self.scores_test else ""
        names = (objective.metric.removeprefix(first) for objective in self.objectives)
        return tuple(name for name in names if name not in UNLEARNED and not name.startswith("test_"))

    @property
    def units(self) -> dict[str, str]:
        """What the objectives say of their units."""
        return {objective.metric: objective.unit for objective in self.objectives if objective.unit}

    @property
    def scores_test(self) -> bool:
        """Whether its trials are scored on the test part: only those that confirm another study's are."""
        return isinstance(self.strategy, Listed)

    def _measures_what_it_can(self) -> None:
        if len(set(self.measure)) < len(self.measure):
            raise StudyError(f"Study.measure = {self.measure}: give each device and batch size once")
        bound = [constraint for constraint in self.constraints if constraint.metric in MEASURED]
        if bound and self.measures[0].device not in (*HERE, "auto"):
            raise StudyError(
                f"Study.constraints: {bound[0]}: a trial cannot measure on {self.measures[0].device!r} before it trains;"
                " put Latency(device='cpu') or 'cuda' first in Study.measure"
            )
        if self.trial is not None and self.measures:
            raise StudyError(
                f"Study.measure: networks of a loop of your own are not measured while {self.trial} trains them;"
                f" leave latency out, then `harness measure {self.name}`"
            )

    @property
    def measures(self) -> tuple[Latency, ...]:
        """What is measured of every network; nothing where nobody asks."""
        named = {objective.metric for objective in self.objectives} | {bound.metric for bound in self.constraints}
        return self.measure or ((Latency(),) if named & set(MEASURED) else ())

    @property
    def needs_elsewhere(self) -> bool:
        """Whether trials cannot measure an objective by themselves: the study chooses among those that are finished."""
        named = {objective.metric for objective in self.objectives} & set(MEASURED)
        return bool(named) and self.measures[0].device not in (*HERE, "auto")

    def open_space(self, *, check: bool = True) -> Space:
        """The space of this study's configs."""
        return Space(self.space, self.training, check=check)

    def to_json(self) -> dict[str, Any]:
        """The definition as plain JSON: what the database keeps and a resume goes by."""
        plain = self.model_dump(mode="json", exclude={"space", "training"})
        return plain | self.open_space(check=False).to_json()

    def settled(self, auto: Mapping[str, Any]) -> "Study":
        """The study with every `auto` of its training replaced, by what `auto` has for the setting."""

        def settle(plain: Any, setting: str = "") -> Any:
            if isinstance(plain, dict):
                return {name: settle(value, name if name in auto else setting) for name, value in plain.items()}
            if isinstance(plain, list):
                return [settle(item, setting) for item in plain]
            return auto[setting] if plain == "auto" and setting in auto else plain

        plain = self.to_json()
        return Study.from_json(plain | {"training": settle(plain["training"])})

    @staticmethod
    def from_json(data: dict[str, Any]) -> "Study":
        """The study that `to_json` wrote."""
        if missing := [name for name in ("network", "training", "strategy", "objectives", "seeds") if name not in data]:
            raise StudyError(f"this is not the definition of a study: it has no {', no '.join(missing)}")
        fields = dict(data)
        root = Space.from_json({name: fields.pop(name) for name in ("network", "training")}).root.fields
        for name, kinds in (("strategy", STRATEGIES), ("stopping", STOPPINGS)):
            if isinstance(plain := fields.get(name), dict):
                kind = plain.get("kind")
                if kind not in kinds:
                    raise StudyError(f"{name} {kind!r}: unknown; this version knows {', '.join(kinds)}")
                fields[name] = kinds[kind](**{field: parts_from_json(value) for field, value in plain.items()})
        if isinstance(seeds := fields["seeds"], dict):
            fields["seeds"] = _sequential(seeds)
        if isinstance(own := fields.get("data"), dict):
            fields["data"] = OwnData(**parts_from_json(own))
        parts = {"objectives": Objective, "constraints": Constraint, "measure": Latency, "seeds": None}
        for name, part in parts.items():
            if isinstance(items := fields.get(name), list):
                fields[name] = tuple(part(**item) if part and isinstance(item, dict) else item for item in items)
        return Study(space=root["network"], training=root["training"], **fields)


def differences(old: Any, new: Any, path: str = "") -> list[str]:
    """What changed between two definitions, a line each: `training.epochs: 20 -> 5`, `objectives: minimize macs dropped`."""
    if isinstance(old, dict) and isinstance(new, dict):
        names = [*old, *(name for name in new if name not in old)]
        found = [differences(old.get(name), new.get(name), f"{path}.{name}".lstrip(".")) for name in names]
        return [line for lines in found for line in lines]
    if isinstance(old, list) and isinstance(new, list):
        places = path.rpartition(".")[2] not in ("choose", "objectives", "constraints", "measure")
        if len(old) == len(new) and (places or all(map(_alike, old, new))):
            pairs = enumerate(zip(old, new), start=1)
            return [line for index, (one, other) in pairs for line in differences(one, other, f"{path}.{index}")]
        if any(isinstance(item, dict | list) for item in [*old, *new]):
            return [f"{_place(path)}: {words}" for words in _moved(old, new)]
    return [] if old == new and type(old) is type(new) else [f"{_place(path)}: {_short(old)} -> {_short(new)}"]


def _alike(one: Any, other: Any) -> bool:
    """Whether two items of a list are told apart by what is inside them: parts of one kind, objectives of one metric."""
    if not (isinstance(one, dict) and isinstance(other, dict)):
        return not isinstance(one, dict) and not isinstance(other, dict)
    return all(one.get(name) == other.get(name) for name in ("kind", "vary", "metric"))


def _moved(old: list[Any], new: list[Any]) -> Iterator[str]:
    """What a list has more, and less, by its items."""
    before, now = ({canonical(item): item for item in items} for items in (old, new))
    for how, found, others in (("added", now, before), ("dropped", before, now)):
        if items := [_item(item) for key, item in found.items() if key not in others]:
            yield f"{', '.join(items)} {how}"
    if before.keys() == now.keys():
        yield "in another order"


def _item(value: Any) -> str:
    """An option, an objective or a constraint in words."""
    if isinstance(value, dict) and "metric" in value:
        return f"{value['direction']} {value['metric']}" if "direction" in value else str(Constraint(**value))
    return constant_words(part_from_json(value)) if isinstance(value, dict) and "kind" in value else _short(value)


def _place(path: str) -> str:
    """Where something is, without the words of the grammar: `network.stages.2`."""
    return ".".join(piece for piece in path.removesuffix(".choose").split(".") if piece != "fields")


def _short(value: Any, limit: int = 60) -> str:
    words = repr(value)
    if isinstance(value, list) and any(isinstance(item, dict) for item in value):
        words = f"[{', '.join(map(_short, value))}]"
    elif isinstance(value, dict):
        known = value.get("vary") or value.get("kind") or value
        words = " | ".join(map(_item, value["choose"])) if "choose" in value else str(known)
        words = f"{value['span'][0]:g} to {value['span'][1]:g}" if "span" in value else words
    return words if len(words) <= limit else words[: limit - 3] + "..."
