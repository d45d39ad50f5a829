"""The sections of the page, in order. One more is a function in a place of its own and a line in `SECTIONS`."""

from collections.abc import Iterator, Sequence

from harness.report import notes
from harness.report.ablation import plain, sheet
from harness.report.attained import attained
from harness.report.certain import certain_front, certain_words
from harness.report.choices import factor_sheet, factor_words, importance_figure, importance_of, importance_words, maps
from harness.report.comparison import compared, foremost, forest, plan_words
from harness.report.confirming import confirmation
from harness.report.facts import MANY, Facts, units_of
from harness.report.figures import MAX_BEATEN, curves_figure, front_figure, fronts_figure, layout
from harness.report.fronts import front_table
from harness.report.progress import growth_section, savings_section
from harness.report.radii import radii_section
from harness.report.section import Block, Builder, Commands, Listed, Note, Plot, Section, Table, each
from harness.report.views import axes, curves, grouping
from harness.report.words import NOUNS, TITLES

MAX_TRACEBACKS = 10
"""Tracebacks that are unfolded; the table of trials has all."""


def fronts(facts: Facts) -> Section | None:
    """Main metric against each cost, and the front over all objectives as a table."""
    if not facts.complete:
        return None
    found, split = axes(facts), grouping(facts)
    views = {TITLES[axis.cost.metric]: front_figure(facts, axis, split) for axis in found}
    label = f"{TITLES[facts.main.metric]} over cost; the table of trials holds the same values"
    blocks: list[Block] = []
    if found:
        blocks = [Plot("front", views, label, 520), Note(notes.front_note(facts, found, split, MAX_BEATEN))]
    blocks += [Note(words) for words in notes.constants(facts, found)]
    return Section("fronts", notes.front_title(facts), (*blocks, *front_table(facts)))


def sure(facts: Facts) -> Section | None:
    """The front over the means of the seeds, and how sure it is."""
    front = certain_front(facts)
    if front is None:
        return None
    words = map(Note, certain_words(facts, front))
    return Section("sure", "The front over the means of the seeds, and how sure it is", (Table(front.sheet), *words))


def effects(facts: Facts) -> Section | None:
    """Every arm against the baseline, with the trials behind each line."""
    found = compared(facts)
    if found is None:
        return None
    few = foremost(found)
    if facts.ranked:
        title = f"The best {MANY} of {len(found.arms.names):,} configs, by the means of their seeds"
        beside = f"effects.csv, beside this page, has all, each against the first: {found.arms.baseline}."
        return Section("effects", title, (Table(plain(few.table)), Note(beside)))
    drawn = forest(few, facts.units[facts.main.metric], layout())
    label = "Differences to the baseline with intervals; the table below holds the same values"
    first = f"The primary arm and the best {MANY - 1} others" if found.table.primary else f"The best {MANY}"
    more = f"{first} of {len(found.effects):,} arms; effects.csv, beside this page, holds all."
    words = [more if few is not found else "", *found.table.notes(), plan_words(found)]
    shown = (Plot("effects", {"": drawn}, label, drawn.layout.height), Table(sheet(few.table)))
    return Section("effects", f"Effects: every arm against {found.arms.baseline}", (*shown, *map(Note, filter(None, words))))


def choices(facts: Facts) -> Section | None:
    """Stage by attention, interactions, importance."""
    crossed, told, matter = maps(facts), factor_sheet(facts), importance_of(facts)
    blocks: list[Block] = list(crossed)
    if told is not None:
        blocks += [Table(told), Note(factor_words(facts))]
    if matter is not None:
        drawn = importance_figure(matter, layout())
        label = (
            f"Share of each choice in the spread of {NOUNS[facts.main.metric]}; the note below tells what it is a share of"
        )
        blocks += [Plot("importance", {"": drawn}, label, drawn.layout.height), Note(importance_words(facts, matter))]
    return Section("choices", "Which choices matter", tuple(blocks)) if blocks else None


def learning(facts: Facts) -> Section | None:
    """Training curves."""
    found = curves(facts)
    if not found.drawn:
        return None
    label = f"{TITLES[found.metric]} after each epoch"
    blocks = (Plot("curves", {"": curves_figure(facts, found)}, label), Note(notes.curves_note(facts, found)))
    return Section("learning", "Training curves", blocks)


def failures(facts: Facts) -> Section | None:
    """Why trials failed: each reason once, with its trials and one traceback."""
    found = notes.failures(facts)
    if not found:
        return None
    items = tuple((one.count, f"{one.reason}: {one.trials}") for one in found)
    folded = tuple((f"Traceback of trial {one.first}", one.traceback) for one in found if one.traceback)
    return Section("failures", "Failures", (Listed(items, folded[:MAX_TRACEBACKS]),), last=True)


def provenance(facts: Facts) -> Section | None:
    """Commit, versions, devices, hours, energy."""
    return Section("provenance", "Provenance", (Listed(tuple(notes.provenance(facts))),), last=True, half=True)


def again(facts: Facts) -> Section | None:
    """How to make this page anew."""
    beside = (
        "Beside this page: trials.csv, every trial with its choices and results, and front.json, the front with its configs."
    )
    blocks: list[Block] = []
    for words, lines in notes.commands(facts):
        blocks += [Note(words), Commands(lines)]
    return Section("again", "How to reproduce this page", (*blocks, Note(beside)), last=True, half=True)


def together(studies: Sequence[Facts]) -> Iterator[Section]:
    """The fronts; those of several studies that ask for one metric on common axes."""
    if len(studies) == 1 or len({facts.main.metric for facts in studies}) > 1:
        yield from each(fronts)(studies)
        return
    units, main = units_of(studies), studies[0].main.metric
    found = [(facts, {axis.cost.metric: axis for axis in axes(facts)}) for facts in studies]
    views = {}
    for metric in dict.fromkeys(metric for _, own in found for metric in own):
        having = [(place, facts, own[metric]) for place, (facts, own) in enumerate(found) if metric in own]
        views[TITLES[metric]] = fronts_figure(having, units[metric], units[main])
    if views:
        label = f"{TITLES[main]} over cost, a colour for each study; the table of trials holds the same values"
        yield Section("fronts", f"{TITLES[main]} and cost", (Plot("front", views, label, 520), Note(notes.TOGETHER)))


SECTIONS: tuple[Builder, ...] = (
    together,
    each(confirmation),
    each(sure),
    each(attained),
    each(effects),
    each(choices),
    each(radii_section),
    each(learning),
    growth_section,
    each(savings_section),
    each(failures),
    each(provenance),
    each(again),
)


def sections(studies: Sequence[Facts]) -> list[Section]:
    """What a page of these studies shows between its head and its trials."""
    return [section for build in SECTIONS for section in build(studies)]
