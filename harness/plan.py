"""What a study would do, before anything runs."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from harness.analysis.arms import plans_comparisons
from harness.config import Config, Training
from harness.errors import ConfigError, StudyError
from harness.execution.keeping import PROMOTABLE
from harness.forecast import Clock, Forecast, forecast, past_trials
from harness.key import canonical, identity
from harness.outlook import Timer, taken_over
from harness.preflight import Checked, checked, sampled
from harness.storage.tables import is_there
from harness.study import EXACT, Search, Study

LOOKED_AT = 2_000
"""Configs whose cost a plan works out: all of a smaller space, draws from a larger one."""


@dataclass(frozen=True)
class Plan:
    """A study's size, costs and trials."""

    study: str
    size: float
    """Combinations of active choices; infinite with a continuous span."""
    choices: int
    trials: int
    epochs: tuple[int, int]
    """Fewest and most of a trial."""
    looked_at: int
    complete: bool
    """Whether every config was looked at, not a sample."""
    distinct: int
    """Different trials among those looked at."""
    invalid: int
    over_budget: int
    problem: str
    """Why the first invalid combination is none."""
    costs: dict[str, tuple[int, int]]
    """Smallest and largest params and macs of what may be trained."""
    data: dict[str, Any]
    constraints: tuple[str, ...]
    """Those on exact costs."""
    unmeasured: tuple[str, ...]
    """Those on what is measured before a trial trains."""
    done: int
    """Trials in the database."""
    checkpoint: int
    """Bytes of the largest trial's checkpoint: weights, what the optimiser keeps beside them, averaged and best weights; a
    batch norm's statistics, of all less than one in a hundred, are left out."""
    counted: tuple[str, ...]
    """The user's modules whose MACs are counted from the operations they dispatch."""
    rungs: tuple[int, ...] = ()
    """Epochs after which trials may be stopped early."""
    stopping: str = ""
    """Who is stopped early, in words."""
    design: Forecast | None = None
    """Of a design: its arms, what it can show, and how long it takes."""
    seconds: float | None = None
    """Of all trials of a search, one after another, none stopped early; None where unknown."""
    pace: str = ""
    """What that rests on."""
    reused: dict[str, int] = field(default_factory=dict)
    """Trials that would be taken over, by the study that finished them."""
    notes: tuple[str, ...] = ()
    """What is left out, and what differs from when the study was begun."""

    @property
    def weights(self) -> int:
        """Bytes of the largest network's weights."""
        return 4 * self.costs["params"][1]

    @property
    def held(self) -> str:
        """How the pictures are kept."""
        size = size_words(self.data["train"] * math.prod(self.data["shape"]))
        return f"read as they pass ({size} decoded)" if self.data["streamed"] else f"{size} held decoded"

    def to_json(self) -> dict[str, Any]:
        size = None if math.isinf(self.size) else int(self.size)
        design = self.design and self.design.to_json()
        sizes = {"weights_bytes": self.weights, "checkpoint_bytes": self.checkpoint}
        return asdict(self) | {"size": size, "design": design} | sizes

    def lines(self) -> Iterator[str]:
        """The plan in words."""
        from harness.report.words import counted, duration, listed, unit

        sample = "all" if self.complete else f"{self.looked_at:,} draws"
        size = "endlessly many" if math.isinf(self.size) else f"{self.size:,.0f}" if self.size < 1e9 else f"{self.size:.3g}"
        yield f"space: {counted(self.choices, 'choice')}, {size} configs"
        if self.invalid:
            yield f"  {self.invalid:,} of {sample} are no networks and are never trained ({self.problem})"
        if self.over_budget:
            yield f"  {self.over_budget:,} of {sample} break {' and '.join(self.constraints)} and are never trained"
        elif self.constraints:
            yield f"  {' and '.join(self.constraints)} holds for {sample}"
        if self.unmeasured:
            yield f"  {' and '.join(self.unmeasured)}: measured before a network is trained, or not trained"
        if self.complete and self.distinct < self.looked_at - self.invalid - self.over_budget:
            yield f"  {self.distinct:,} of them are different networks or recipes"
        for metric, (low, high) in self.costs.items():
            words = unit(metric, [high])
            yield f"{metric}: {words.text(low)} to {words.text(high)}" + ("" if self.complete else f" in {sample}")
        for target in self.counted:
            yield f"  MACs of {target} counted from the operations it dispatches"
        height, width = self.data["shape"][1:]
        amount = f"{self.data['train']:,} {'inputs' if self.data['own'] else 'pictures'} to train and validate on"
        held = "read by the study's own loop" if self.data["own"] else self.held
        about = [self.data["dataset"], *([amount] if self.data["train"] else []), f"{height}x{width}", held]
        yield f"data: {', '.join(about)}"
        low, high = self.epochs
        epochs = f"{low}" if low == high else f"{low} to {high}"
        yield f"trials: {self.trials:,} of {epochs} epochs; {self.done:,} in the database"
        if self.reused:
            total, names = sum(self.reused.values()), [f"{number:,} of {name}" for name, number in self.reused.items()]
            yield f"  {counted(total, 'trial')} would be taken over, not trained: {listed(names)} (--no-reuse trains all)"
        if self.pace:
            early = ", without early stops" if self.stopping else ""
            known = "unknown" if self.seconds is None else f"{duration(self.seconds)}, one after another{early}"
            yield f"time: {known} ({self.pace})"
        if self.stopping:
            yield f"early stopping: {self.stopping}"
        yield (
            f"disk: {size_words(self.checkpoint)} a running trial, then {size_words(self.weights)} each for the weights"
            f" kept: those of the front, or {size_words(self.weights * self.trials)} with --keep all"
        )
        if self.rungs:
            yield f"  and {size_words(self.checkpoint)} each for the best {PROMOTABLE} stopped early, or all with --keep all"
        if self.design is not None:
            yield from self.design.lines()
        yield from (f"note: {note}" for note in self.notes)


def size_words(count: float) -> str:
    """Bytes as a person reads them: 0.29 MB, 4.1 GB."""
    return f"{count / 1e9:,.1f} GB" if count >= 1e9 else f"{count / 1e6:,.1f} MB"


def checkpoint_bytes(training: Training, params: int) -> int:
    """Of a trial while it runs: weights, SGD's momentum or AdamW's two moments, the moving average, the best epoch's."""
    moments = 2 if training.optimizer == "adamw" else int(training.momentum > 0)
    return 4 * params * (1 + moments + bool(training.ema) + (training.select == "best"))


def make_plan(study: Study, data: Path, storage: str, *, timing: bool = False) -> Plan:
    """Looks at the configs a study would draw from, and with `timing` times a few steps where no past trial tells how long
    one takes; raises a HarnessError for what would stop a run."""
    from harness.report.sentences import early_stopping

    checks = checked(study, storage, data)
    timer = Timer(checks.info.shape, study.threads) if timing and study.trial is None else None
    study, space, price = checks.study, checks.space, checks.price
    found: dict[str, Config] = {}
    costs: dict[str, list[int]] = {"params": [], "macs": []}
    checkpoint = 0
    invalid, over, looked_at, problem = 0, 0, 0, ""
    complete, sample = sampled(study, space, LOOKED_AT)
    for params in sample:
        looked_at += 1
        try:
            config = space.config(params)
            cost = price(config)._asdict()
        except ConfigError as error:
            invalid, problem = invalid + 1, problem or str(error)
            continue
        if all(constraint.holds(cost) for constraint in study.constraints):
            found[canonical(identity(config))] = config
            checkpoint = max(checkpoint, checkpoint_bytes(config.training, cost["params"]))
            for metric, value in cost.items():
                costs[metric].append(value)
        else:
            over += 1
    if not found:
        reason = f"none of {looked_at:,} configs looked at is within {' and '.join(map(str, study.constraints))}"
        raise StudyError(f"study {study.name!r} has nothing to train: {reason if over else problem}")
    stored = checks.stored
    epochs = [config.training.epochs for config in found.values()]
    budget = study.strategy.trials if isinstance(study.strategy, Search) else math.inf
    cells = len(found) * len(study.seeds) if complete else space.size * len(study.seeds)
    design = None
    if plans_comparisons(study):
        past = storage if is_there(storage) else None
        design = forecast(study, space, price, checks.info, past, checks.asked["training"], timer)
        cells = design.cells
    seconds, pace = (None, "") if design is not None else pace_of(list(found.values()), checks, storage, timer)
    trials = int(min(budget, cells))
    return Plan(
        study=study.name,
        size=space.size,
        choices=len(space.parameters),
        trials=trials,
        epochs=(min(epochs), max(epochs)),
        looked_at=looked_at,
        complete=complete,
        distinct=len(found),
        invalid=invalid,
        over_budget=over,
        problem=problem,
        costs={metric: (min(values), max(values)) for metric, values in costs.items()},
        data=checks.info.to_json(),
        constraints=tuple(str(bound) for bound in study.constraints if bound.metric in EXACT),
        unmeasured=tuple(str(bound) for bound in study.constraints if bound.metric not in EXACT),
        done=sum(stored.counts.values()) if stored else 0,
        checkpoint=checkpoint,
        counted=checks.counted,
        rungs=study.stopping.rungs(max(epochs)) if study.stopping else (),
        stopping=early_stopping(study, max(epochs)) if study.stopping else "",
        design=design,
        seconds=None if seconds is None else seconds * trials,
        pace=pace,
        reused=taken_over(checks, storage),
        notes=(*(f"changed: {change}" for change in checks.changes), *checks.notes),
    )


def pace_of(configs: Sequence[Config], checks: Checked, storage: str, timer: Timer | None) -> tuple[float | None, str]:
    """The mean seconds of a trial over configs, and what they rest on."""
    past = past_trials(storage, checks.info.fingerprint) if is_there(storage) else ()
    clock = Clock([record for _, records in past for record in records])
    priced = [(config, checks.price(config).macs) for config in configs]
    if timer is not None:
        clock.ask(timer, priced, checks.info.train)
    known = [clock.seconds(config, macs) for config, macs in priced]
    seconds = [one for one in known if one is not None]
    return math.fsum(seconds) / len(seconds) if len(seconds) == len(known) else None, clock.words(configs)
