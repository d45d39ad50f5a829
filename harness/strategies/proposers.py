"""Who proposes the next config: a design's cells in order, random draws, or an Optuna sampler over a shadow study.

The shadow is an Optuna study in memory, filled from the database: samplers see all they need, and what is infeasible or
proposed twice is told to the shadow alone. It is asked for every parameter of the space, active or not, because samplers
search only parameters that every trial has; a row keeps the active ones as its own and the whole proposal beside them.
"""

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.samplers import BaseSampler, NSGAIISampler, TPESampler
from optuna.trial import TrialState, create_trial

from harness.config import Scalar
from harness.errors import StudyError
from harness.space import Domain, Params, Space, Span
from harness.study import Evolution, Exhaustive, Random, Study

LARGEST_DESIGN = 100_000
"""Configs that Exhaustive() will list."""


@dataclass(frozen=True)
class Proposal:
    """Flat parameters, and what a row must keep for the strategy to go on after a restart."""

    params: Params
    seed: int
    memory: dict[str, Any] | None = None
    token: int = -1
    """The shadow's own number of it."""


class Proposer(Protocol):
    """Proposes until it has nothing left; is told what became of each proposal, and of trials before its time."""

    def propose(self) -> Proposal | None:
        """The next proposal, None when the space is exhausted."""

    def told(self, proposal: Proposal, values: Sequence[float] | None) -> None:
        """How a proposal ended: with values, or refused, failed or known already."""

    def remember(self, memory: dict[str, Any], values: Sequence[float]) -> None:
        """A finished trial of an earlier run."""


def proposer(study: Study, space: Space, rows: int) -> Proposer:
    """The proposer of a study's strategy; `rows` proposals were made before, in earlier runs."""
    strategy = study.strategy
    if isinstance(strategy, Exhaustive):
        return Cells(study, space)
    if isinstance(strategy, Random):
        return Draws(study.seeds[0], space)
    seed = study.seeds[0] * 1_000_003 + rows
    if isinstance(strategy, Evolution):
        return Shadow(study, space, NSGAIISampler(population_size=strategy.population, seed=seed), seed)
    return Shadow(study, space, TPESampler(multivariate=True, n_startup_trials=10, seed=seed), seed)


class Cells:
    """Every combination with every seed, always in the same order."""

    def __init__(self, study: Study, space: Space) -> None:
        next(space.enumerate())  # raises where the space cannot be listed
        if space.size > LARGEST_DESIGN:
            raise StudyError(
                f"Exhaustive() over {space.size:.3g} configs: more than {LARGEST_DESIGN:,};"
                " use Random, Evolution or Tpe(trials=...)"
            )
        self._space, self._seeds = space, study.seeds
        self._cells = self.all()

    def all(self) -> Iterator[Proposal]:
        """Every cell, from the first."""
        return (Proposal(params, seed) for params in self._space.enumerate() for seed in self._seeds)

    def propose(self) -> Proposal | None:
        return next(self._cells, None)

    def told(self, proposal: Proposal, values: Sequence[float] | None) -> None:
        """A design does not look at results."""

    def remember(self, memory: dict[str, Any], values: Sequence[float]) -> None:
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

    def told(self, proposal: Proposal, values: Sequence[float] | None) -> None:
        """Random draws do not look at results."""

    def remember(self, memory: dict[str, Any], values: Sequence[float]) -> None:
        """Random draws do not look at results."""


@dataclass
class Shadow:
    """An Optuna sampler over a study in memory; when it keeps repeating itself, random draws take its place."""

    study: Study
    space: Space
    sampler: BaseSampler
    seed: int
    patience: int = 50
    """Refused proposals in a row after which random draws are tried."""
    _refused: int = 0
    _open: dict[int, optuna.trial.Trial] = field(default_factory=dict)

    def __post_init__(self) -> None:
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        directions = [objective.direction for objective in self.study.objectives]
        self._optuna = optuna.create_study(directions=directions, sampler=self.sampler)
        self._distributions = distributions(self.space)
        self._draws = Draws(self.seed, self.space)

    def propose(self) -> Proposal | None:
        if self._refused >= self.patience:
            drawn = self._draws.propose()
            return drawn and Proposal(drawn.params, self.study.seeds[0], {"params": self._complete(drawn.params)})
        trial = self._optuna.ask(self._distributions)
        self._open[trial.number] = trial
        system = self._optuna.get_trials(deepcopy=False)[trial.number].system_attrs
        memory = {
            "params": dict(trial.params),
            "system": {key: value for key, value in system.items() if "generation" in key},
        }
        return Proposal(self.space.active(trial.params), self.study.seeds[0], memory, trial.number)

    def told(self, proposal: Proposal, values: Sequence[float] | None) -> None:
        self._refused = 0 if values is not None else self._refused + 1
        trial = self._open.pop(proposal.token, None)
        if trial is None:
            if values is not None and proposal.memory is not None:
                self.remember(proposal.memory, values)
        elif values is None:
            self._optuna.tell(trial, state=TrialState.FAIL)
        else:
            self._optuna.tell(trial, list(values))

    def remember(self, memory: dict[str, Any], values: Sequence[float]) -> None:
        known = set(memory.get("params", {}))
        if known == set(self._distributions):
            past = create_trial(
                params=memory["params"],
                distributions=self._distributions,
                values=list(values),
                system_attrs=memory.get("system", {}),
            )
            self._optuna.add_trial(past)

    def _complete(self, params: Params) -> dict[str, Scalar]:
        """A draw with values for the inactive parameters too."""
        rng = random.Random(repr(sorted(params.items())))
        return {
            name: params[name] if name in params else domain.draw(rng) if isinstance(domain, Span) else rng.choice(domain)
            for name, domain in self.space.parameters.items()
        }


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
