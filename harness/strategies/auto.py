"""What Auto comes to: by the size of the space, the trials and the objectives, with the reason in words."""

import math

from harness.space import Space
from harness.study import Auto, Evolution, Random, Strategy, Study

FEW = 12
"""Trials below which there is nothing to learn from."""
MANY = 3
"""Objectives above which Evolution is NSGA-III (Deb and Jain 2014)."""


def picked(strategy: Auto, study: Study, space: Space) -> tuple[Random | Evolution, str]:
    """The strategy that Auto stands for, and why."""
    trials, goals = strategy.trials, len(study.objectives)
    if space.size <= trials:
        return Random(trials=trials), f"Random: {trials:,} trials are enough for all {space.size:,.0f} configs"
    if trials < FEW:
        return Random(trials=trials), f"Random: {trials:,} trials are too few to learn from"
    if goals > MANY:
        return Evolution(trials=trials), f"Evolution: NSGA-III, which spreads its trials over {goals} objectives"
    many = "endlessly many" if math.isinf(space.size) else f"{space.size:,.0f}" if space.size < 1e9 else f"{space.size:.3g}"
    return Evolution(trials=trials), (
        f"Evolution: {trials:,} trials among {many} configs, each the most promising of many children by costs known before"
    )


def words(study: Study, space: Space) -> tuple[str, ...]:
    """A note on what Auto picked, where the study asks it to."""
    return (f"Auto picked {picked(study.strategy, study, space)[1]}",) if isinstance(study.strategy, Auto) else ()


def resolved(study: Study, space: Space) -> Strategy:
    """The study's strategy, or the one that Auto stands for."""
    return picked(study.strategy, study, space)[0] if isinstance(study.strategy, Auto) else study.strategy
