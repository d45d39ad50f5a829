"""The front with its uncertainty, where configs were trained with several seeds: facts in a table and in sentences."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from harness.analysis.arms import Arms
from harness.analysis.certainty import RESAMPLES, Cells, Certainty, certainty
from harness.analysis.front import measured
from harness.report.facts import Facts
from harness.report.sheet import Cell, Column, Sheet
from harness.report.words import counted, listed, percent
from harness.study import Objective

LIKELY, MOST = 0.05, 20
"""A config is listed from this chance to be on the front on, and so many at most."""
COVERED = ((3, "75 %"), (5, "84 %"), (10, "90 %"))
"""What a percentile interval of 95 % covers at so many seeds, simulated for a mean of normal values."""


@dataclass(frozen=True)
class CertainFront:
    """A front over configs as means of their seeds."""

    found: Certainty
    sheet: Sheet
    left_out: tuple[str, ...]
    """Configs that lack a seed that others have."""


def certain_front(facts: Facts) -> CertainFront | None:
    """The front over the means of the seeds; None with one objective, one config or fewer than two seeds in common."""
    arms, objectives = facts.arms, facts.study.objectives
    cells = whole_cells(facts, objectives) if len(objectives) > 1 else None
    if arms is None or cells is None:
        return None
    found = certainty(cells)
    return CertainFront(found, _sheet(facts, arms, found), tuple(name for name in arms.names if name not in cells))


def whole_cells(facts: Facts, objectives: Sequence[Objective]) -> Cells | None:
    """Config to seed to objectives, smaller being better, of the configs that lack no seed that others have; None where
    there are fewer than two of them, or of the seeds that they share."""
    arms = facts.arms
    if arms is None:
        return None
    cells: Cells = {
        name: {
            seed: tuple(objective.sign * measured(record, objective.metric) for objective in objectives)
            for seed, record in records.items()
            if all(math.isfinite(measured(record, objective.metric)) for objective in objectives)
        }
        for name, records in arms.records.items()
    }
    most = max((len(seeds) for seeds in cells.values()), default=0)
    whole = {name: seeds for name, seeds in cells.items() if len(seeds) == most}
    if most < 2 or len(whole) < 2 or len(set.intersection(*(set(seeds) for seeds in whole.values()))) < 2:
        return None
    return whole


def _sheet(facts: Facts, arms: Arms, found: Certainty) -> Sheet:
    likely = sorted(found.chance, key=lambda name: (-found.chance[name], name))
    shown = [name for name in likely if found.chance[name] >= LIKELY or name in found.front][:MOST]
    metrics = list(dict.fromkeys((facts.main.metric, *(objective.metric for objective in facts.study.objectives))))
    units = [facts.units[metric] for metric in metrics]
    rows = []
    for name in shown:
        records = [arms.records[name][seed] for seed in found.seeds]
        means = [sum(measured(record, unit.metric) for record in records) / len(records) for unit in units]
        place = "knee" if name == found.knee else "front" if name in found.front else "behind"
        numbers = (Cell(unit.figure(mean), (mean * unit.scale,)) for mean, unit in zip(means, units))
        chance = found.chance[name] * 100
        rows.append((Cell(name, look="bold"), *numbers, Cell(f"{chance:.0f}", (chance,)), Cell(place)))
    columns = (
        Column("config", words=True),
        *(Column(unit.title, unit.symbol) for unit in units),
        Column("chance to be on the front", "%"),
        Column("of the means", words=True),
    )
    return Sheet(columns, tuple(rows))


def certain_words(facts: Facts, front: CertainFront) -> list[str]:
    """What the front with its uncertainty says, and how far it may be trusted."""
    found, seeds = front.found, len(front.found.seeds)
    sure = [name for name in found.front if found.chance[name] >= 0.95]
    words = [
        f"Each config is the mean of its {counted(seeds, 'seed')}; the front was drawn {RESAMPLES:,} times with seeds drawn"
        f" anew, all configs together. {len(sure)} of the {counted(len(found.front), 'config')} on it"
        f" {'stays' if len(sure) == 1 else 'stay'} there in 95 % of the draws.",
        f"The knee, {found.knee}, stays the knee in {percent(found.stability)} of them. The front's hypervolume, to"
        f" the worst of each objective and a tenth more, is {percent(found.low / found.hypervolume)} to"
        f" {percent(found.high / found.hypervolume)} of this one's in 95 % of the draws.",
    ]
    if rule := next((covered for most, covered in COVERED if seeds <= most), ""):
        words.append(f"With so few seeds such intervals are too narrow: those of 95 % cover about {rule}.")
    hidden = sum(1 for name, chance in found.chance.items() if chance >= LIKELY) - len(front.sheet.rows)
    if hidden > 0:
        words.append(f"{counted(hidden, 'more config')} with a chance of {percent(LIKELY)} or more.")
    if front.left_out:
        few = [f"\N{LEFT DOUBLE QUOTATION MARK}{name}\N{RIGHT DOUBLE QUOTATION MARK}" for name in front.left_out[:6]]
        words.append(f"Left out, for want of some seeds: {listed(few)}{' and more' if len(front.left_out) > 6 else ''}.")
    return words
