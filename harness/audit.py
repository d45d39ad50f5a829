"""Effects and verdicts for results that came from elsewhere: no training, no GPU."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from harness.analysis.effects import EffectError
from harness.analysis.outside import Outside, read_table
from harness.report.ablation import Ablation, ablation, other_methods

USUAL = ("baseline", "base", "plain", "none", "control", "vanilla", "resnet")
"""What a baseline is usually called."""


@dataclass(frozen=True)
class Audit:
    """The table of a file's arms, which columns it came from, and what other methods say."""

    table: Ablation
    source: Outside
    others: tuple[str, ...]
    guessed: bool = False
    """Whether nobody said which arm is the baseline, nor is one called so: it is the first."""

    def lines(self) -> list[str]:
        """What stands below the table."""
        found = [f"columns: arm = {self.source.arm}, seed = {self.source.seed}, metric = {self.source.metric}"]
        if self.guessed:
            found.append(f"Baseline: {self.table.baseline}, the first in the file; --baseline names another.")
        found += self.table.notes()
        return [*found, *self.others]

    def to_json(self) -> dict[str, Any]:
        """The effects as plain numbers."""
        effects = [row.effect for row in self.table.rows if row.effect is not None]
        return {
            "baseline": self.table.baseline,
            "metric": self.table.metric,
            "effects": [
                {
                    "arm": effect.arm,
                    "seeds": list(effect.seeds),
                    "missing": list(effect.missing),
                    "difference": number(effect.difference),
                    "interval": [number(effect.low), number(effect.high)],
                    "p": effect.test.p,
                    "p_holm": effect.adjusted,
                    "p_equivalence": effect.equivalent,
                    "verdict": effect.verdict,
                    "words": self.table.verdict(effect),
                    "more_seeds": effect.more if effect.verdict == "undecided" else None,
                    "correlation": effect.correlation,
                }
                for effect in effects
            ],
            "notes": self.lines(),
        }


def number(value: float) -> float | None:
    """JSON knows no infinity and no NaN."""
    return value if abs(value) < float("inf") else None


def audit(
    file: Path,
    *,
    arm: str | None = None,
    seed: str | None = None,
    metric: str | None = None,
    baseline: str | None = None,
    margin: float | None = None,
    primary: str | None = None,
    larger_is_better: bool = True,
    others: bool = False,
) -> Audit:
    """The audit of a CSV file; raises EffectError in one line for what cannot be read or compared."""
    source = read_table(file, arm, seed, metric)
    values = source.values
    if not values:
        raise EffectError(f"{file} has no rows below its heading; give a row for each arm and seed")
    known = {name.lower(): name for name in reversed(values)}
    usual = baseline or next((known[name] for name in USUAL if name in known), None)
    base = usual or next(iter(values))
    table = ablation(
        values,
        base,
        source.metric,
        margin=margin,
        primary=primary,
        larger_is_better=larger_is_better,
        comment=f"{file.name}, audited",
    )
    told = tuple(other_methods(table, values)) if others else ()
    return Audit(table, source, told, usual is None)
