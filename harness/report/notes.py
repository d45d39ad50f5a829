"""What stands beside the figures, and where the numbers come from."""

from collections.abc import Sequence
from datetime import datetime

from harness.report.facts import Facts, values
from harness.report.sentences import aims
from harness.report.views import Axis, Curves, Grouping
from harness.report.words import NOUNS, TITLES, counted, listed


def front_title(facts: Facts) -> str:
    number = len(facts.front)
    if len(facts.study.objectives) == 1:
        return f"{TITLES[facts.main.metric]} and cost"
    return f"The front: {counted(number, 'trial')} that no other beats on {aims(facts)}"


def front_note(facts: Facts, axes: Sequence[Axis], split: Grouping | None, most: int) -> str:
    """How to read the figures of the fronts."""
    words = "The line joins the trials that no other beats on the two axes alone; faint trials are beaten."
    if any(trial.on_front for axis in axes for trial in axis.beaten):
        words += f" Open symbols are on the front of {aims(facts)} together."
    if split:
        words += f" Colour tells {split.title}, the choice that explains most of the spread in {NOUNS[facts.main.metric]}."
    faint = max(sum(not trial.on_front for trial in axis.beaten) for axis in axes)
    if faint > most:
        words += f" Of the {faint:,} beaten trials {most:,} are drawn, evenly by cost."
    return words


def constants(facts: Facts, axes: Sequence[Axis]) -> list[str]:
    """A line for each cost that has no figure as all trials share it."""
    drawn = {axis.cost.metric for axis in axes}
    metrics = (cost.metric for cost in facts.costs if cost.metric not in drawn)
    found = [(facts.units[metric], values(facts.complete, metric)) for metric in metrics]
    return [f"Every trial has {unit.noun(each[0])}." for unit, each in found if len(each) > 1]


def curves_note(facts: Facts, curves: Curves) -> str:
    """How to read the curves, and how many are drawn."""
    words = f"{TITLES[curves.metric]} on the validation part after each epoch."
    if any(trial.on_front for trial in curves.drawn):
        words += " The trials of the front are in colour."
    if curves.edge is not None:
        words += f" The picture starts at epoch {curves.since}; a double click shows all."
    if len(curves.drawn) < curves.total:
        words += f" {len(curves.drawn)} of {curves.total:,} curves are drawn: the front's, and others evenly by number."
    return words


def _counted(facts: Facts) -> list[str]:
    """The user's modules that do not state their MACs."""
    return list(facts.attributes.get("counted") or [])


def provenance(facts: Facts, written: datetime) -> list[tuple[str, str]]:
    """Where the numbers come from: code, libraries, machines, data, dates."""
    data = facts.attributes.get("data") or {}
    created = str(facts.attributes.get("created") or "")
    found = [
        ("Commit", listed(facts.origins("commit"))),
        ("Versions", ", ".join(f"{name} {' / '.join(each)}" for name, each in facts.versions.items())),
        ("Devices", ", ".join(f"{name} ({counted(number, 'trial')})" for name, number in facts.devices.items())),
        ("Hosts", ", ".join(map(str, facts.origins("host")))),
        ("Precision", ", ".join(map(str, facts.origins("precision")))),
        ("Threads", ", ".join(map(str, facts.origins("threads")))),
        ("Data", " ".join(str(data[name]) for name in ("dataset", "fingerprint") if data.get(name))),
        ("Counted", ", ".join(f"MACs of {target}, from the operations it dispatches" for target in _counted(facts))),
        ("Created", created[:16].replace("T", " ")),
        ("Page written", f"{written:%Y-%m-%d %H:%M %Z}".strip()),
    ]
    return [(name, words) for name, words in found if words]
