"""The ablation table: arms against a baseline, as a person, a paper or a program reads it."""

import csv
import io
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from statistics import median
from typing import Literal

from harness.analysis.effects import Effect, Values, effects, half_width, sensitivity
from harness.analysis.sequential import Course, course_effects
from harness.report.sheet import Cell, Column, Sheet, best_in_columns, latex, markdown
from harness.report.words import Unit, counted, is_share, listed, unit

Form = Literal["latex", "markdown", "csv"]
MARKS: dict[str, tuple[str, str]] = {
    "helps": ("*", "differs from the baseline (familywise level 0.05)"),
    "hurts": ("*", "differs from the baseline (familywise level 0.05)"),
    "no difference": ("=", "no difference larger than the margin (familywise level 0.05)"),
}
"""The mark of a verdict, and what it says."""
COSTS = ("params", "macs")
FEW = 8
"""Arms whose missing seeds are told one by one."""


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
    course: Course | None = None
    """What the results have decided, where seeds come in sequence."""
    beyond: int = 0
    """Trials left out, of seeds behind an arm's last look."""
    primary: str | None = None
    """The one arm that is tested, where one was declared."""
    lacking: str = ""
    """The cells of the study's plan without a complete trial, in a sentence; empty where none is missing."""

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

    def meanings(self) -> list[str]:
        """What the marks of a table without verdicts in words say."""
        told = [row.effect for row in self.rows if row.effect is not None]
        seen = dict(MARKS[effect.verdict] for effect in told if effect.verdict in MARKS)
        return [f"{mark} {meaning}." for mark, meaning in seen.items()]

    def notes(self) -> list[str]:
        """What the table rests on, a sentence each."""
        told = [row.effect for row in self.rows if row.effect is not None]
        found = [] if self.course is None else list(self._sequence(self.course))
        test = "seeds as blocks with one variance for all arms" if any(effect.pooled for effect in told) else "paired t-test"
        tested = sum(effect.verdict != "not tested" for effect in told)
        several = f", Holm over {tested} comparisons" if tested > 1 else ""
        if self.course is None:
            found.append(f"Difference to {self.baseline}: 95 % interval of each; {test}{several}.")
        if self.primary:
            found.append(f"Primary comparison: {self.primary}, tested alone, without correction for the others.")
        if margin := next((effect.margin for effect in told if effect.margin), None):
            found.append(f"Margin {self.number(margin)}{self.unit}: two one-sided tests.")
        if equal := [effect.arm for effect in told if effect.test.equal]:
            whose = listed(equal) if len(equal) <= FEW else f"{len(equal)} arms"
            found.append(f"All differences of {whose} are equal: tested by the step in which values are rounded.")
        if self.lacking:
            found.append(self.lacking)
        lacking = [effect for effect in told if effect.missing and not self.lacking]
        found += [
            f"{effect.arm}: {counted(len(effect.missing), 'seed')} missing here or in the baseline"
            f" ({', '.join(map(str, effect.missing[:8]))}{', ...' if len(effect.missing) > 8 else ''})."
            for effect in lacking[:FEW]
        ]
        if len(lacking) > FEW:
            found.append(f"So it is with {len(lacking) - FEW} more arms.")
        if self.beyond:
            found.append(f"Left out: {self.beyond} complete trials of seeds behind their arm's last look.")
        if pairs := [effect for effect in told if len(effect.seeds) > 2]:
            shared, worth = median(effect.correlation for effect in pairs), median(effect.gain for effect in pairs)
            found.append(f"Pairing by seed: median correlation {shared:+.2f}, worth {worth:.1f} times the seeds.")
        return found

    def _sequence(self, course: Course) -> Iterator[str]:
        """How seeds were added, and what that means for the numbers."""
        rule, tested = course.rule, course.tested
        several = f"Holm's procedure over {tested} comparisons" if tested > 1 else "one comparison"
        yield (
            f"Difference to {self.baseline}: paired t-tests on seeds in sequence, a look at each from {rule.first} to"
            f" {rule.most}, at a constant nominal level that pays for all looks, within {several}. Intervals of 95 % or more"
            " (repeated confidence intervals) hold zero just where no difference is shown."
        )
        settled = {"differ": course.of("differs"), "within the margin": course.of("close"), "open": course.open}
        looks = f"{course.words[0].upper()}{course.words[1:]}"
        told = ", ".join(f"{len(arms)} {words}" for words, arms in settled.items() if arms)
        so_far = "" if course.ended else " so far"
        yield (
            f"{looks}{f' ({told})' if told else ''}; {course.cells} trials asked for{so_far}, {course.saved} fewer than"
            f" {rule.most} seeds of every arm."
        )
        if course.of("differs") and rule.most > rule.first:
            yield "An arm that is decided early has its difference overstated on average; its interval holds."
        if gone := course.of("without trials"):
            yield f"No seed of {', '.join(gone)} could be compared: no more were added."


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
    unit: str = "",
    course: Course | None = None,
    beyond: int = 0,
    lacking: str = "",
) -> Ablation:
    """The table of every arm against the baseline, which comes first; raises EffectError where nothing can be compared.
    `unit` is what a study says of a metric of its own. Where seeds come in sequence (`course`) an arm is told by the
    seeds of its last look."""
    if course is None:
        told = effects(values, baseline, margin=margin, primary=primary, larger_is_better=larger_is_better)
    else:
        told = course_effects(course, values, baseline, larger_is_better=larger_is_better)
        values = {baseline: values[baseline]} | {
            one.arm: {seed: values[one.arm][seed] for seed in one.seeds} for one in told
        }
    found = {effect.arm: effect for effect in told}
    rows = tuple(_row(arm, values[arm], found.get(arm), (costs or {}).get(arm, {})) for arm in (baseline, *found))
    errors = [effect.test.error for effect in found.values() if effect.test.df >= 1 and 0 < effect.test.error < math.inf]
    within = all(0 <= value <= 1 for arm in values.values() for value in arm.values())
    share = within and (is_share(metric, unit) or metric == "top1")
    scale, symbol = (100.0, "%") if share else (1.0, unit)
    least = min(errors, default=0.01) * scale
    decimals = min(max(1 - math.floor(math.log10(least)), 0), 8)
    return Ablation(
        metric, baseline, rows, scale, decimals, symbol, larger_is_better, comment, course, beyond, primary, lacking
    )


def _row(arm: str, cells: Mapping[int, float], effect: Effect | None, costs: Mapping[str, int]) -> Row:
    count, numbers = len(cells), list(cells.values())
    mean = math.fsum(numbers) / count if count else math.nan
    return Row(arm, count, mean, half_width(numbers), effect, costs)


def other_methods(table: Ablation, values: Values) -> Iterator[str]:
    """What other methods than the deciding one say of each arm, a line each; the seeds are those of the comparison."""
    for effect in (row.effect for row in table.rows if row.effect is not None and len(row.effect.seeds) > 1):
        told = sensitivity([values[effect.arm][seed] - values[table.baseline][seed] for seed in effect.seeds])
        interval = "no bootstrap below ten seeds" if len(effect.seeds) < 10 else "no bootstrap of equal differences"
        if told.bootstrap is not None:
            interval = f"bootstrap [{', '.join(map(table.signed, told.bootstrap))}]"
        yield (
            f"{effect.arm}: sign-flip p = {told.sign_flip:.3g} (it cannot be below {told.smallest:.3g}), {interval};"
            " these decide nothing"
        )


# -- ink --------------------------------------------------------------------------------------------------------------


def written(table: Ablation, form: Form) -> str:
    """The table as text of a form, ending in a newline."""
    return as_csv(table) if form == "csv" else {"latex": latex, "markdown": markdown}[form](sheet(table))


def sheet(table: Ablation) -> Sheet:
    """The table's columns and rows: of each column the best is marked."""
    units = {name: unit(name, [row.costs[name] for row in table.rows if name in row.costs]) for name in COSTS}
    costs = [units[name] for name in COSTS if any(name in row.costs for row in table.rows)]
    columns = (
        Column("arm", words=True),
        Column("seeds"),
        Column(table.metric.replace("_", " "), table.symbol),
        Column("difference"),
        Column("95 % interval"),
        Column("p", "Holm", papers=False, narrow=False),
        Column("verdict", words=True, papers=False),
        *(Column(cost.metric, cost.symbol, narrow=False) for cost in costs),
    )
    rows = [
        (*_measured(table, row), *_effect(table, row), *(_cost(row.costs.get(cost.metric), cost) for cost in costs))
        for row in table.rows
    ]
    signs = {2: -1 if table.larger_is_better else 1} | {place: 1 for place in range(7, len(columns))}
    return Sheet(columns, best_in_columns(rows, signs), tuple(table.notes()), tuple(table.meanings()), table.comment)


EFFECT = slice(3, 7)
"""The columns of a sheet that tell an arm against the baseline."""


def plain(table: Ablation) -> Sheet:
    """The sheet of the arms without what tells them against the baseline, which is left out."""
    whole = sheet(replace(table, rows=tuple(row for row in table.rows if row.effect is not None)))
    columns = whole.columns[: EFFECT.start] + whole.columns[EFFECT.stop :]
    rows = tuple(row[: EFFECT.start] + row[EFFECT.stop :] for row in whole.rows)
    return replace(whole, columns=columns, rows=rows, notes=(), marks=())


def _measured(table: Ablation, row: Row) -> tuple[Cell, ...]:
    half = math.isfinite(row.half)
    numbers = (row.mean * table.scale, row.half * table.scale)[: 1 + half] if math.isfinite(row.mean) else ()
    words = table.number(row.mean) + (f" ± {table.number(row.half)}" if half else "")
    look = _look(row)
    return Cell(row.arm, look=look), Cell(str(row.seeds), (row.seeds,)), Cell(words, numbers)


def _effect(table: Ablation, row: Row) -> tuple[Cell, ...]:
    """Difference, interval, p and verdict."""
    if row.effect is None:
        return Cell("-", look="bold"), Cell("-"), Cell("-"), Cell("baseline", look="bold")
    effect, look = row.effect, _look(row)
    mark = MARKS[effect.verdict][0] if effect.verdict in MARKS else ""
    ends = tuple(end * table.scale for end in (effect.low, effect.high)) if math.isfinite(effect.low) else ()
    tested = effect.verdict != "not tested" and effect.test.df >= 1
    p = ("<0.001" if effect.adjusted < 0.001 else f"{effect.adjusted:.3f}") if tested else "-"
    known = math.isfinite(effect.difference)
    return (
        Cell(table.signed(effect.difference), (effect.difference * table.scale,) if known else (), mark, look=look),
        Cell(table.interval(effect), ends),
        Cell(p, (effect.adjusted,) if tested else ()),
        Cell(table.verdict(effect), look=look),
    )


def _look(row: Row) -> str:
    return {"helps": "green", "hurts": "red"}.get(row.effect.verdict, "") if row.effect else "bold"


def _cost(value: int | None, written: Unit) -> Cell:
    return Cell("-") if value is None else Cell(written.figure(value), (value * written.scale,))


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
