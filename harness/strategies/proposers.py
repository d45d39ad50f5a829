"""Who proposes the next config: a design's cells in order, random draws, or an Optuna sampler over a shadow study.

The shadow is an Optuna study in memory, filled from the database: samplers see all they need, and what is infeasible or
proposed twice is told to the shadow alone. It is asked for every parameter of the space, active or not, because samplers
search only parameters that every trial has; a row keeps the active ones as its own and the whole proposal beside them.
"""

import random
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Protocol

import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.samplers import BaseSampler, GPSampler, NSGAIIISampler, NSGAIISampler, TPESampler
from optuna.trial import TrialState, create_trial

from harness.config import Config
from harness.cost import Cost
from harness.design import Design, Exhaustive, arms
from harness.errors import StudyError
from harness.record import Record
from harness.space import Domain, Params, Space, Span
from harness.strategies.auto import MANY, resolved
from harness.strategies.breeding import MOST as LEARNED
from harness.strategies.breeding import Child, Forest, Nursery, Process, choice, farthest, promising
from harness.study import Bayesian, Evolution, Random, Search, Study, Tpe

LARGEST_DESIGN = 100_000
"""Configs that Exhaustive() will list."""
KEPT = 1000
"""Trials that evolution keeps in mind: of twice as many the best half and the newest half of these."""
GP_TRIALS = 100
"""Trials that a Gaussian process learns from, whose time grows with their cube."""


@dataclass(frozen=True)
class Proposal:
    """Flat parameters, and what a row must keep for the strategy to go on after a restart."""

    params: Params
    seed: int
    memory: dict[str, Any] | None = None
    token: int = -1
    """The shadow's own number of it."""


def proposed(record: Record) -> Proposal:
    """The proposal that a row was made of."""
    return Proposal(record.params, record.seed, record.proposal or None)


class Proposer(Protocol):
    """Proposes until it has nothing left; is told what became of each proposal, and of trials before its time."""

    def propose(self) -> Proposal | None:
        """The next proposal, None when the space is exhausted."""

    def adopt(self, params: Params, seed: int) -> Proposal:
        """A proposal of a trial that is known already."""

    def told(self, proposal: Proposal, values: Sequence[float] | None) -> None:
        """How a proposal ended: with values, which are those so far of a trial that was stopped early, or refused, failed or
        known already."""

    def remember(self, proposal: Proposal, values: Sequence[float]) -> None:
        """A finished trial of an earlier run, or one that was stopped early, whichever strategy proposed it."""


def proposer(study: Study, space: Space, rows: int, price: Callable[[Config], Cost]) -> Proposer:
    """The proposer of a study's strategy; `rows` proposals were made before, in earlier runs; `price` tells exact costs."""
    strategy = resolved(study, space)
    if isinstance(strategy, Random):
        return Draws(study.seeds[0], space)
    seed = study.seeds[0] * 1_000_003 + rows
    if isinstance(strategy, Evolution):
        size = strategy.population
        if strategy.children > 1 and len(study.objectives) <= MANY:
            return Bred(study, space, Nursery(space, price), seed, strategy)
        if len(study.objectives) > MANY:
            many = partial(NSGAIIISampler, population_size=size)
            return Shadow(study, space, lambda seed: quietly(partial(many, seed=seed)), seed, best=size)
        return Shadow(study, space, lambda seed: NSGAIISampler(population_size=size, seed=seed), seed, best=size)
    if isinstance(strategy, Bayesian):
        process = partial(Shadow, study, space, lambda seed: quietly(lambda: GPSampler(seed=seed)), seed)
        return process(best=GP_TRIALS, recent=GP_TRIALS // 2, every=50)
    if isinstance(strategy, Tpe):
        return Shadow(study, space, lambda seed: TPESampler(multivariate=True, seed=seed), seed, best=500, recent=500)
    return Cells(study, space)


def quietly(make: Callable[[], BaseSampler]) -> BaseSampler:
    """A sampler that Optuna calls experimental."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        return make()


def assert_fits(study: Study, space: Space) -> None:
    """Raises StudyError or SpaceError where a strategy cannot go through the space."""
    if not isinstance(study.strategy, Search):
        Cells(study, space)


class Cells:
    """Every combination, or every arm of a design, with every seed, always in the same order; a design's arms seed by seed,
    so that one cut short has compared all of them over the same seeds."""

    def __init__(self, study: Study, space: Space) -> None:
        self._space, self._seeds = space, study.seeds
        self._arms = [arm.params for arm in arms(study.strategy, space)] if isinstance(study.strategy, Design) else []
        if not self._arms:
            self._listable(space)
        if isinstance(study.strategy, Exhaustive) and study.strategy.declared:
            arms(study.strategy, space)  # raises where they do not fit the space
        self._cells = self.all()

    @staticmethod
    def _listable(space: Space) -> None:
        next(space.enumerate())  # raises where the space cannot be listed
        if space.size > LARGEST_DESIGN:
            raise StudyError(
                f"Exhaustive() over {space.size:.3g} configs: more than {LARGEST_DESIGN:,};"
                " use Random, Evolution or Tpe(trials=...)"
            )

    def all(self) -> Iterator[Proposal]:
        """Every cell, from the first."""
        if self._arms:
            return (Proposal(params, seed) for seed in self._seeds for params in self._arms)
        return (Proposal(params, seed) for params in self._space.enumerate() for seed in self._seeds)

    def propose(self) -> Proposal | None:
        return next(self._cells, None)

    def adopt(self, params: Params, seed: int) -> Proposal:
        return Proposal(params, seed)

    def told(self, proposal: Proposal, values: Sequence[float] | None) -> None:
        """A design does not look at results."""

    def remember(self, proposal: Proposal, values: Sequence[float]) -> None:
        """A design does not look at results."""


class Draws:
    """Random draws, the n-th always the same; then, in a small space, whatever was never drawn."""

    def __init__(self, seed: int, space: Space) -> None:
        self._seed = seed
        self._draws = self._all(space)

    def _all(self, space: Space) -> Iterator[Proposal]:
        tries = int(min(20 * space.size, LARGEST_DESIGN))
        for index in range(tries):
            yield Proposal(space.draw(random.Random(f"{self._seed}:{index}")), self._seed)
        if space.size <= LARGEST_DESIGN:
            yield from (Proposal(params, self._seed) for params in space.enumerate())

    def propose(self) -> Proposal | None:
        return next(self._draws, None)

    def adopt(self, params: Params, seed: int) -> Proposal:
        return Proposal(params, seed)

    def told(self, proposal: Proposal, values: Sequence[float] | None) -> None:
        """Random draws do not look at results."""

    def remember(self, proposal: Proposal, values: Sequence[float]) -> None:
        """Random draws do not look at results."""


@dataclass
class Bred:
    """Evolution whose children are looked at before one of them is trained; when there are none left that were not, random
    draws take its place."""

    study: Study
    space: Space
    nursery: Nursery
    seed: int
    strategy: Evolution
    patience: int = 50
    """Refused proposals in a row after which random draws are tried."""

    def __post_init__(self) -> None:
        self._draws = Draws(self.seed, self.space)
        self._trials: list[tuple[Proposal, Sequence[float]]] = []
        self._kept = max(KEPT, 4 * self.strategy.population)
        self._open: dict[int, Child] = {}
        self._taken: set[int | str] = set()
        """The choices that were ever proposed; and the names of those proposed in this run, which equal networks share."""
        self._asked = self._refused = 0
        self._spent = False
        """Whether no child was found any more that was not taken."""

    def propose(self) -> Proposal | None:
        self._asked += 1
        rng = random.Random(f"{self.seed}:{self._asked}")
        begun = len(self._trials) + len(self._open)
        begins = begun < self.strategy.population or not self._trials
        parents = [] if len(self._trials) < 2 else self._parents()
        tired = self._spent or self._refused >= self.patience
        children = [] if tired else self.nursery.children(parents, rng, self.strategy.children, self._taken)
        if not children:
            self._spent = self._spent or not tired
            drawn = self._draws.propose()
            return drawn and self.adopt(drawn.params, self.study.seeds[0])
        pending = list(self._open.values())
        if begins and begun % 2:
            before = (child for child, _ in self._children(self._trials))
            chosen = farthest(children, [*before, *pending])
        else:
            older, newest = self._trials[:-LEARNED], self._children(self._trials[-LEARNED:])
            model = Process if begins or not newest else Forest
            chosen = promising(model(self.study, newest, rng.randrange(2**31), [v for _, v in older]), children, pending)
        self._open[self._asked] = chosen
        active = self.space.active(chosen.params)
        self._taken |= {choice(active), chosen.name}
        return Proposal(active, self.study.seeds[0], {"params": dict(chosen.params)}, self._asked)

    def _children(self, trials: Sequence[tuple[Proposal, Sequence[float]]]) -> list[tuple[Child, Sequence[float]]]:
        """Trials as children, those that are no network any more left out."""
        found = ((self.nursery.child(whole(self.space, proposal)), values) for proposal, values in trials)
        return [(child, values) for child, values in found if child is not None]

    def _fittest(self) -> list[int]:
        return fittest([[o.sign * v for o, v in zip(self.study.objectives, values)] for _, values in self._trials])

    def _parents(self) -> list[Params]:
        return [whole(self.space, self._trials[place][0]) for place in self._fittest()[: self.strategy.population]]

    def adopt(self, params: Params, seed: int) -> Proposal:
        return Proposal(params, seed, {"params": completed(self.space, params)})

    def told(self, proposal: Proposal, values: Sequence[float] | None) -> None:
        self._refused = 0 if values is not None else self._refused + 1
        self._open.pop(proposal.token, None)
        if values is not None:
            self.remember(proposal, values)

    def remember(self, proposal: Proposal, values: Sequence[float]) -> None:
        self._taken.add(choice(proposal.params))
        self._trials.append((proposal, values))
        if len(self._trials) >= 2 * self._kept:  # a long study proposes as fast as a short one
            newest = range(len(self._trials) - self._kept // 2, len(self._trials))
            kept = sorted({*self._fittest()[: self._kept // 2], *newest})
            self._trials = [self._trials[place] for place in kept]


GENERATIONS = ("NSGAIISampler:generation", "NSGAIIISampler:generation")
"""Where Optuna's NSGA-II and III note a trial's generation; without it they do not look at the trial."""


@dataclass
class Shadow:
    """An Optuna sampler over a study in memory; when it keeps repeating itself, random draws take its place.

    A sampler's time grows with the trials it is shown, so the shadow is made anew from the best (and, for `recent`, the
    newest) of them every so often, and when a study goes on: a long study proposes as fast as a short one.
    """

    study: Study
    space: Space
    sampler: Callable[[int], BaseSampler]
    """Makes the sampler from a seed."""
    seed: int
    best: int
    recent: int = 0
    every: int = 300
    """Results after which the shadow is made anew."""
    patience: int = 50
    """Refused proposals in a row after which random draws are tried."""

    def __post_init__(self) -> None:
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        self._distributions = distributions(self.space)
        self._draws = Draws(self.seed, self.space)
        self._past: list[tuple[Params, tuple[float, ...]]] = []
        self._open: dict[int, tuple[optuna.Study, optuna.trial.Trial]] = {}
        self._optuna: optuna.Study | None = None
        self._refused = self._asked = self._results = 0

    def propose(self) -> Proposal | None:
        if self._refused >= self.patience:
            drawn = self._draws.propose()
            return drawn and self.adopt(drawn.params, self.study.seeds[0])
        if self._optuna is None or self._results >= self.every:
            self._optuna = self._renewed()
        trial = self._optuna.ask(self._distributions)
        self._asked += 1
        self._open[self._asked] = (self._optuna, trial)
        return Proposal(self.space.active(trial.params), self.study.seeds[0], {"params": dict(trial.params)}, self._asked)

    def adopt(self, params: Params, seed: int) -> Proposal:
        return Proposal(params, seed, {"params": completed(self.space, params)})

    def told(self, proposal: Proposal, values: Sequence[float] | None) -> None:
        self._refused = 0 if values is not None else self._refused + 1
        asked, trial = self._open.pop(proposal.token, (None, None))
        if values is not None:
            self.remember(proposal, values)
            self._results += 1
        if asked is not self._optuna or trial is None or asked is None:
            if values is not None and self._optuna is not None:
                self._optuna.add_trial(self._trial(whole(self.space, proposal), values))
        elif values is None:
            asked.tell(trial, state=TrialState.FAIL)
        else:
            asked.tell(trial, list(values))

    def remember(self, proposal: Proposal, values: Sequence[float]) -> None:
        self._past.append((whole(self.space, proposal), tuple(values)))

    def _renewed(self) -> optuna.Study:
        """A new shadow of the trials that matter."""
        kept = fittest(
            [[o.sign * v for o, v in zip(self.study.objectives, values, strict=True)] for _, values in self._past]
        )
        newest = range(max(len(self._past) - self.recent, 0), len(self._past)) if self.recent else ()
        self._past = [self._past[index] for index in sorted({*kept[: self.best], *newest})]
        self._results = 0
        directions = [objective.direction for objective in self.study.objectives]
        study = optuna.create_study(directions=directions, sampler=self.sampler(self.seed + self._asked))
        study.add_trials([self._trial(params, values) for params, values in self._past])
        return study

    def _trial(self, params: Params, values: Sequence[float]) -> optuna.trial.FrozenTrial:
        return create_trial(
            params=params, distributions=self._distributions, values=list(values), system_attrs=dict.fromkeys(GENERATIONS, 0)
        )


def whole(space: Space, proposal: Proposal) -> Params:
    """All parameters of a proposal, inactive ones too: as they were proposed, or drawn where they never were."""
    kept: Params = (proposal.memory or {}).get("params", {})
    return kept if kept.keys() == space.parameters.keys() else completed(space, proposal.params)


def completed(space: Space, params: Params) -> Params:
    """A draw with values for the inactive parameters too."""
    rng = random.Random(repr(sorted(params.items())))
    return {
        name: params[name] if name in params else domain.draw(rng) if isinstance(domain, Span) else rng.choice(domain)
        for name, domain in space.parameters.items()
    }


def fittest(points: list[list[float]]) -> list[int]:
    """Places of points (smaller is better) as NSGA-II orders them: by front, within a front the lonely ones first
    (Deb et al. 2002, crowding distance)."""
    if not points:
        return []
    import moocore
    import numpy as np

    values = np.asarray(points, float)
    ranks = np.asarray(moocore.pareto_rank(values))
    crowding = np.zeros(len(values))
    for rank in np.unique(ranks):
        front = np.flatnonzero(ranks == rank)
        for column in values[front].T:
            order = np.argsort(column, kind="stable")
            width = column[order[-1]] - column[order[0]]
            gaps = (column[order[2:]] - column[order[:-2]]) / width if width > 0 else 0.0
            crowding[front[order[1:-1]]] += gaps
            crowding[front[order[[0, -1]]]] = np.inf
    return [int(place) for place in np.lexsort((-crowding, ranks))]


def distributions(space: Space) -> dict[str, BaseDistribution]:
    """Every flat parameter as Optuna knows it."""
    return {name: distribution(domain) for name, domain in space.parameters.items()}


def distribution(domain: Domain) -> BaseDistribution:
    """A choice or a span as Optuna knows it."""
    if not isinstance(domain, Span):
        return CategoricalDistribution(domain)
    if domain.whole:
        return IntDistribution(int(domain.low), int(domain.high), log=domain.log, step=int(domain.step or 1))
    return FloatDistribution(domain.low, domain.high, log=domain.log, step=domain.step)
