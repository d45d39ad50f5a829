"""Main effects and two-way interactions of a factorial design, with seeds as blocks (statsmodels, type II)."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations

from harness.analysis.effects import NOISE, EffectError, holm, smallest_step
from harness.config import Scalar


@dataclass(frozen=True)
class Factor:
    """What one choice, or two together, explain."""

    names: tuple[str, ...]
    """One for a main effect, two for an interaction."""
    df: int
    f: float
    p: float
    adjusted: float
    """p after Holm's correction over all rows."""
    share: float
    """Partial eta squared: of what is left when the others are accounted for, how much this explains."""
    means: Mapping[tuple[str, ...], float]
    """Mean at each level, or each pair of levels, over arms and seeds."""


def factors(cells: Sequence[tuple[Mapping[str, Scalar], Mapping[int, float]]], *, interactions: bool = True) -> list[Factor]:
    """The factors of arms given as (levels by name, value by seed), main effects first.

    Where the factors leave nothing but the computer's rounding, as the differences of a few counts or rounded values are
    equal by chance, the residual variance is that of a value rounded to the smallest step between measured values:
    step^2 / 12, as in `effects.paired_test`. Raises EffectError where no factor has two levels, all values are equal, or
    the arms leave nothing to tell noise from effects."""
    import numpy as np
    import pandas as pd
    import statsmodels.formula.api as smf
    from statsmodels.stats.anova import anova_lm

    names = [name for name in cells[0][0] if len({repr(arm.get(name)) for arm, _ in cells}) > 1] if cells else []
    if not names:
        raise EffectError("no choice has two values among the arms: there are no main effects to tell")
    rows = [
        {"value": value, "block": str(seed), **{f"x{place}": str(arm.get(name)) for place, name in enumerate(names)}}
        for arm, values in cells
        for seed, value in values.items()
    ]
    frame = pd.DataFrame(rows)
    pairs = [
        (one, other) for one, other in combinations(range(len(names)), 2) if interactions and _crossed(frame, one, other)
    ]
    words = [(place,) for place in range(len(names))] + pairs
    blocks = ["C(block)"] if frame["block"].nunique() > 1 else []
    terms = {word: ":".join(f"C(x{place})" for place in word) for word in words}
    fit = smf.ols(f"value ~ {' + '.join([*terms.values(), *blocks])}", frame).fit()
    if fit.df_resid < 1:
        raise EffectError("as many effects as cells: nothing is left to tell them from noise; add seeds or arms")
    left = float(fit.ssr)
    if left <= len(frame) * (NOISE * np.abs(frame["value"]).max()) ** 2:
        step = smallest_step(frame["value"])
        if step is None:
            raise EffectError("all values are equal: nothing tells effects from noise; add seeds, or compare another metric")
        left = fit.df_resid * step**2 / 12
    table = anova_lm(fit, typ=2)
    found = [_factor(word, table.loc[terms[word]], left, int(fit.df_resid), names, frame) for word in words]
    adjusted = holm([factor.p for factor in found])
    return [Factor(one.names, one.df, one.f, one.p, p, one.share, one.means) for one, p in zip(found, adjusted)]


def _crossed(frame: object, one: int, other: int) -> bool:
    """Whether every level of one factor meets every level of the other: else their interaction is none."""
    seen = frame.groupby([f"x{one}", f"x{other}"]).ngroups  # type: ignore[attr-defined]
    return bool(seen == frame[f"x{one}"].nunique() * frame[f"x{other}"].nunique())  # type: ignore[index]


def _factor(word: tuple[int, ...], row: object, left: float, df: int, names: Sequence[str], frame: object) -> Factor:
    """One row of the table, against what is left: a sum of squares and its degrees of freedom."""
    from scipy.stats import f as ratio

    squares, own = float(row["sum_sq"]), int(row["df"])  # type: ignore[index]
    grouped = frame.groupby([f"x{place}" for place in word])["value"].mean()  # type: ignore[attr-defined]
    means = {key if isinstance(key, tuple) else (key,): float(value) for key, value in grouped.items()}
    f = squares / own / (left / df)
    return Factor(
        names=tuple(names[place] for place in word),
        df=own,
        f=f,
        p=float(ratio.sf(f, own, df)),
        adjusted=1.0,
        share=squares / (squares + left),
        means=means,
    )
