"""The ablation table: arms against a baseline, as a person, a paper or a program reads it."""

import csv
import io
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import median
from typing import TYPE_CHECKING, Literal

from harness.analysis.effects import LEVEL, Effect, Values, effects

if TYPE_CHECKING:
    from rich.table import Table as RichTable

Form = Literal["latex", "markdown", "csv"]
MARKS: dict[str, tuple[str, str, str]] = {
    "helps": ("*", r"$^{*}$", "differs from the baseline (familywise level 0.05)"),
    "hurts": ("*", r"$^{*}$", "differs from the baseline (familywise level 0.05)"),
    "no difference": ("=", r"$^{=}$", "no difference larger than the margin (familywise level 0.05)"),
}
"""Of a verdict: as text, in LaTeX, and what it says."""


@dataclass(frozen=True)
class Row:
    """One arm: its mean over its seeds with a 95 % interval, and what it changes."""

    arm: str
    seeds: int
    mean: float
    half: float
    """Half of the interval of the mean; infinite for one seed."""
    effect: Effect | None
    """None for the baseline."""
    costs: Mapping[str, int]


@dataclass(frozen=True)
class Ablation:
    """A table's facts. Values times `scale`, with so many decimals, in `symbol`."""

    metric: str
    baseline: str
    rows: tuple[Row, ...]
    scale: float = 1.0
    decimals: int = 3
    symbol: str = ""
    larger_is_better: bool = True
    comment: str = ""
    """Where the numbers come from: study, commit, date."""

    def number(self, value: float) -> str:
        """A value in the table's unit; a dash where there is none."""
        return f"{value * self.scale:,.{self.decimals}f}" if math.isfinite(value) else "-"

    def signed(self, value: float) -> str:
        """A difference in the table's unit, with its sign."""
        return f"{value * self.scale:+,.{self.decimals}f}" if math.isfinite(value) else "-"

    def interval(self, effect: Effect) -> str:
        """The difference's 95 % interval."""
        return f"[{self.signed(effect.low)}, {self.signed(effect.high)}]" if math.isfinite(effect.low) else "-"

    def verdict(self, effect: Effect) -> str:
        """The verdict in words, its margin in the table's unit."""
        if effect.verdict == "no difference" and effect.margin is not None:
            return f"no difference larger than {self.number(effect.margin)}{self.unit}"
        return effect.words

    @property
    def unit(self) -> str:
        """Of a difference: points where the values are shares in percent."""
        return " points" if self.symbol == "%" else f" {self.symbol}" if self.symbol else ""

    @property
    def best(self) -> str:
        """The arm with the best mean."""
        known = [row for row in self.rows if math.isfinite(row.mean)]
        best = (max if self.larger_is_better else min)(known, key=lambda row: row.mean, default=None)
        return best.arm if best else ""

    def notes(self, *, marks: bool = True) -> list[str]:
        """What the table rests on, a sentence each; `marks` explains those of a table without verdicts in words."""
        told = [row.effect for row in self.rows if row.effect is not None]
        seen = {MARKS[effect.verdict][0]: MARKS[effect.verdict][2] for effect in told if effect.verdict in MARKS}
        found = [f"{mark} {meaning}." for mark, meaning in seen.items()] if marks else []
        test = "seeds as blocks with one variance for all arms" if any(effect.pooled for effect in told) else "paired t-test"
        tested = sum(effect.verdict != "not tested" for effect in told)
        several = f", Holm over {tested} comparisons" if tested > 1 else ""
        found.append(f"Difference to {self.baseline}: 95 % interval of each; {test}{several}.")
        if margin := next((effect.margin for effect in told if effect.margin), None):
            found.append(f"Margin {self.number(margin)}{self.unit}: two one-sided tests.")
        found += [
            f"{effect.arm}: {len(effect.missing)} of the seeds are missing here or in the baseline"
            f" ({', '.join(map(str, effect.missing[:8]))}{', ...' if len(effect.missing) > 8 else ''})."
            for effect in told
            if effect.missing
        ]
        if pairs := [effect for effect in told if len(effect.seeds) > 2]:
            shared, worth = median(effect.correlation for effect in pairs), median(effect.gain for effect in pairs)
            found.append(f"Pairing by seed: median correlation {shared:+.2f}, worth {worth:.1f} times the seeds.")
        return found


def ablation(
    values: Values,
    baseline: str,
    metric: str,
    *,
    margin: float | None = None,
    primary: str | None = None,
    larger_is_better: bool = True,
    costs: Mapping[str, Mapping[str, int]] | None = None,
    comment: str = "",
) -> Ablation:
    """The table of every arm against the baseline, which comes first; raises EffectError where nothing can be compared."""
    found = {
        effect.arm: effect
        for effect in effects(values, baseline, margin=margin, primary=primary, larger_is_better=larger_is_better)
    }
    rows = tuple(_row(arm, values[arm], found.get(arm), (costs or {}).get(arm, {})) for arm in (baseline, *found))
    errors = [effect.test.error for effect in found.values() if effect.test.df >= 1 and effect.test.error > 0]
    share = metric in ("accuracy", "top1", "top5") and all(
        0 <= value <= 1 for arm in values.values() for value in arm.values()
    )
    scale, symbol = (100.0, "%") if share else (1.0, "")
    least = min(errors, default=0.01) * scale
    decimals = min(max(1 - math.floor(math.log10(least)), 0), 8)
    return Ablation(metric, baseline, rows, scale, decimals, symbol, larger_is_better, comment)


def _row(arm: str, cells: Mapping[int, float], effect: Effect | None, costs: Mapping[str, int]) -> Row:
    import numpy as np
    from scipy.stats import t

    count, numbers = len(cells), np.array(list(cells.values()))
    half = float(t.ppf(1 - LEVEL / 2, count - 1) * numbers.std(ddof=1)) / math.sqrt(count) if count > 1 else math.inf
    return Row(arm, count, float(numbers.mean()) if count else math.nan, half, effect, costs)


# -- ink --------------------------------------------------------------------------------------------------------------


def written(table: Ablation, form: Form) -> str:
    """The table as text of a form, ending in a newline."""
    return {"latex": latex, "markdown": markdown, "csv": as_csv}[form](table)


def _cells(table: Ablation, row: Row) -> list[str]:
    mean = table.number(row.mean) + (f" ± {table.number(row.half)}" if math.isfinite(row.half) else "")
    if row.effect is None:
        return [row.arm, str(row.seeds), mean, "-", "-", "baseline"]
    effect = row.effect
    p = (
        "-"
        if effect.verdict == "not tested" or effect.test.df < 1
        else f"{effect.adjusted:.3f}"
        if effect.adjusted >= 0.001
        else "<0.001"
    )
    return [row.arm, str(row.seeds), mean, table.signed(effect.difference), table.interval(effect), p, table.verdict(effect)]


def grid(table: Ablation) -> tuple[list[str], list[list[str]]]:
    """Headings and rows as text."""
    costs = [name for name in ("params", "macs") if any(name in row.costs for row in table.rows)]
    head = ["arm", "seeds", f"{table.metric}{f' ({table.symbol})' if table.symbol else ''}", "difference", "95 % interval"]
    head += ["p (Holm)", "verdict", *costs]
    rows = []
    for row in table.rows:
        cells = _cells(table, row)
        if row.effect is None:
            cells.insert(5, "-")
        rows.append(cells + [f"{row.costs[name]:,}" if name in row.costs else "-" for name in costs])
    return head, rows


def drawn(table: Ablation, width: int = 120) -> "RichTable":
    """The table for a terminal of so many columns; a narrow one leaves out p and costs, which the notes and --as tell."""
    from rich.table import Table
    from rich.text import Text

    head, rows = grid(table)
    shown = [place for place in range(len(head)) if width >= 110 or place in (0, 1, 2, 3, 4, 6)]
    found = Table(box=None, pad_edge=False, header_style="dim")
    for place in shown:
        words = place in (0, 6)
        found.add_column(head[place], justify="left" if words else "right", overflow="fold", no_wrap=not words)
    colours = {"helps": "green", "hurts": "red"}
    for row, cells in zip(table.rows, rows):
        look = colours.get(row.effect.verdict, "") if row.effect else "bold"
        if row.effect is not None and width < 110:
            cells[6] = row.effect.words if row.effect.verdict == "undecided" else row.effect.verdict
        found.add_row(*(Text(cells[place], style=look if place in (0, 3, 6) else "") for place in shown))
    return found


def markdown(table: Ablation) -> str:
    """A table of GitHub's Markdown, the best mean in bold, with its notes."""
    head, rows = grid(table)
    lines = [f"<!-- {table.comment.replace('--', '- -')} -->"] if table.comment else []
    lines += [_piped(head), "|" + "|".join("---" if place in (0, 6) else "--:" for place in range(len(head))) + "|"]
    for row, cells in zip(table.rows, rows):
        escaped = [cell.replace("|", r"\|") for cell in cells]
        if row.arm == table.best:
            escaped[2] = f"**{escaped[2]}**"
        lines.append(_piped(escaped))
    return "\n".join([*lines, "", *table.notes()]) + "\n"


def _piped(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def latex(table: Ablation) -> str:
    """A booktabs table, the best mean in bold, its marks explained in a note."""
    head, rows = grid(table)
    keep = [place for place in range(len(head)) if place not in (5, 6)]  # marks say what p and verdict would
    lines = [f"% {line}" for line in table.comment.splitlines()]
    lines += [rf"\begin{{tabular}}{{l{'r' * (len(keep) - 1)}}}", r"\toprule"]
    lines += [" & ".join(_tex(head[place]) for place in keep) + r" \\", r"\midrule"]
    for row, cells in zip(table.rows, rows):
        found = [_tex(cells[place]) for place in keep]
        if row.arm == table.best:
            found[2] = rf"\textbf{{{found[2]}}}"
        if row.effect is not None and row.effect.verdict in MARKS:
            found[3] += MARKS[row.effect.verdict][1]
        lines.append(" & ".join(found) + r" \\")
    lines += [r"\bottomrule", r"\end{tabular}"]
    return "\n".join([*lines, *(rf"\par\footnotesize {_tex(note)}" for note in table.notes())]) + "\n"


_TEX = {"\\": r"\textbackslash{}", "±": r"$\pm$", "·": r"$\cdot$", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}"}
_TEX |= {char: f"\\{char}" for char in "&%$#_{}"} | {"<": "$<$", ">": "$>$", "*": "$*$", "=": "$=$"}


def _tex(text: str) -> str:
    return "".join(_TEX.get(char, char) for char in text)


def as_csv(table: Ablation) -> str:
    """Plain numbers, unrounded, one row an arm."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    names = ["difference", "low", "high", "p", "p_holm", "p_equivalence", "verdict", "pooled", "correlation"]
    writer.writerow(["arm", "seeds", "mean", "half", *names, "params", "macs"])
    for row in table.rows:
        effect, own = row.effect, [row.arm, row.seeds, row.mean, row.half]
        told: list[object] = [""] * len(names)
        if effect is not None:
            told = [effect.difference, effect.low, effect.high, effect.test.p, effect.adjusted, effect.equivalent]
            told += [effect.verdict, int(effect.pooled), effect.correlation]
        writer.writerow([*own, *told, row.costs.get("params", ""), row.costs.get("macs", "")])
    return text.getvalue()
