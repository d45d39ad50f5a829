"""How much each choice matters, by Optuna's own evaluators over a study in memory made of finished trials."""

import random
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import optuna
from optuna.importance import BaseImportanceEvaluator, FanovaImportanceEvaluator, PedAnovaImportanceEvaluator
from optuna.trial import create_trial

from harness.config import Scalar
from harness.design import levels
from harness.space import Domain, Params, Space, Span
from harness.strategies.proposers import distributions

MOST = 200
"""Trials that are looked at; of more an even sample."""
RESAMPLES, OUTSIDE = 10, 1
"""Of the resamples so many at either end are left out of what a share reaches."""
TREES, FEWER_TREES = 32, 8
"""Of the forest of all trials, and of that of a resample."""


@dataclass(frozen=True)
class Share:
    """What part of the whole a choice has, and what resamples of the trials gave it, without the outermost."""

    name: str
    share: float
    low: float
    high: float


@dataclass(frozen=True)
class Importance:
    """The choices, those that matter most first, by two measures; the shares of each add up to 1."""

    trials: int
    fanova: tuple[Share, ...]
    """Of the variance of the metric over the space, as a forest of trees sees it (Hutter et al. 2014)."""
    ped: tuple[Share, ...]
    """Of what tells the best trials from all (PED-ANOVA, Watanabe et al. 2023), of the choices that every trial has: a
    default in place of an inactive span would look like what tells them apart."""
    quantile: float
    """The share of trials that are taken to be the best."""
    resamples: int = RESAMPLES
    inside: int = RESAMPLES - 2 * OUTSIDE


def importance(space: Space, trials: Sequence[tuple[Params, float]], *, maximize: bool, seed: int = 0) -> Importance | None:
    """The importance of the choices, from (active choices, metric) of complete trials; None where not two choices vary,
    or the metric does not. A choice that a trial does not have takes its first value there (a span its middle)."""
    step = max((len(trials) - 1) / (MOST - 1), 1.0)
    chosen = [trials[round(place * step)] for place in range(min(len(trials), MOST))]
    full = [(_filled(space, params), value) for params, value in chosen]
    names = [name for name in space.parameters if len({repr(params[name]) for params, _ in full}) > 1]
    if len(names) < 2 or len({value for _, value in full}) < 2:
        return None
    always = [name for name in names if all(name in params for params, _ in chosen)]
    rng = random.Random(seed)
    resamples = [rng.choices(full, k=len(full)) for _ in range(RESAMPLES)]
    quantile = max(0.1, 5 / len(full))

    def shares(wanted: Sequence[str], first: BaseImportanceEvaluator, others: BaseImportanceEvaluator) -> tuple[Share, ...]:
        whole = _evaluated(space, full, wanted, first, maximize)
        told = [_evaluated(space, sample, wanted, others, maximize) for sample in resamples]
        found = [Share(name, whole.get(name, 0.0), *_ends([one.get(name, 0.0) for one in told])) for name in wanted]
        return tuple(sorted(found, key=lambda share: -share.share))

    forests = [FanovaImportanceEvaluator(n_trees=trees, seed=seed) for trees in (TREES, FEWER_TREES)]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        best = PedAnovaImportanceEvaluator(target_quantile=quantile)
    ped = shares(always, best, best) if len(always) > 1 else ()
    return Importance(len(trials), shares(names, forests[0], forests[1]), ped, quantile)


def _ends(values: Sequence[float]) -> tuple[float, float]:
    kept = sorted(values)[OUTSIDE : len(values) - OUTSIDE]
    return kept[0], kept[-1]


def _filled(space: Space, params: Params) -> Params:
    return {name: params.get(name, _default(domain)) for name, domain in space.parameters.items()}


def _default(domain: Domain) -> Scalar:
    return levels(domain, 3)[len(levels(domain, 3)) // 2] if isinstance(domain, Span) else domain[0]


def _evaluated(
    space: Space,
    sample: Sequence[tuple[Params, float]],
    names: Sequence[str],
    evaluator: BaseImportanceEvaluator,
    maximize: bool,
) -> Mapping[str, float]:
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    study = optuna.create_study(direction="maximize" if maximize else "minimize")
    known = distributions(space)
    study.add_trials([create_trial(params=params, distributions=known, value=value) for params, value in sample])
    varied = [name for name in names if len({repr(params[name]) for params, _ in sample}) > 1]
    if not varied or len({value for _, value in sample}) < 2:
        return {}
    told = optuna.importance.get_param_importances(study, evaluator=evaluator, params=varied)
    return {name: float(share) for name, share in told.items()}
