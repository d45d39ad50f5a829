"""What stands beside the figures, and where the numbers come from."""

import re
import shlex
from collections.abc import Sequence
from dataclasses import dataclass

from harness.report.facts import Facts, Trial, values
from harness.report.sentences import against, aims
from harness.report.views import Axis, Curves, Grouping
from harness.report.words import NOUNS, TITLES, counted, duration, listed

TOGETHER = (
    "A colour for each study; each line joins the configs of a study that no other of it beats on the two axes (its front),"
    " faint ones are beaten. Studies may differ in data, epochs and seeds: what was done, above, tells. Click to open a"
    " trial; draw a box or a lasso to filter the table by it."
)
FEW = 12
"""Trials that a failure names."""


def front_title(facts: Facts) -> str:
    number = len(facts.front)
    if facts.arms is not None:
        return f"{TITLES[facts.main.metric]} and cost of every arm: means over the seeds"
    if len(facts.study.objectives) == 1:
        return f"{TITLES[facts.main.metric]} and cost"
    return f"The front: {counted(number, 'trial')} that no other beats on {aims(facts)}"


def front_note(facts: Facts, axes: Sequence[Axis], split: Grouping | None, most: int) -> str:
    """How to read the figures of the fronts."""
    every = [spot for axis in axes for spot in axis.front + axis.beaten]
    means = any(spot.half for spot in every)
    kind = "configs" if any(spot.name for spot in every) else "trials"
    words = f"The line joins the {kind} that no other beats on the two axes alone (the front); faint {kind} are beaten."
    if means:
        words += " A point is the mean of its seeds, a bar its 95 % interval."
        words += " Bars run out of the picture." if any(axis.reach for axis in axes) else ""
    if any(spot.on_front for axis in axes for spot in axis.beaten):
        words += f" Open symbols are on the front of {aims(facts)} together."
    if split:
        words += f" Colour tells {split.title}, the choice that explains most of the spread in {NOUNS[facts.main.metric]}."
    marks = [mark for axis in axes for mark in axis.references]
    dotted = ["what the baseline reaches"] if any(mark.value is not None for mark in marks) else []
    dotted += ["what published networks cost"] if any(mark.cost is not None for mark in marks) else []
    if dotted:
        words += f" Dotted lines are {listed(dotted)}."
    faint = max(sum(not spot.on_front for spot in axis.beaten) for axis in axes)
    if faint > most:
        words += f" Of the {faint:,} beaten {kind} {most:,} are drawn, evenly by cost; all are in the table."
    usual = f" Hover to see what differs from {against(facts)}"
    return words + f"{usual}; click to open a trial; draw a box or a lasso to filter the table by it."


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


@dataclass(frozen=True)
class Failure:
    """Trials that failed for one reason."""

    reason: str
    count: str
    trials: str
    first: int
    traceback: str


def failures(facts: Facts) -> list[Failure]:
    """The reasons of failed trials, the most frequent first, with the traceback of the first trial of each."""
    groups: dict[str, list[Trial]] = {}
    for trial in facts.trials:
        if trial.record.state == "failed":
            groups.setdefault(trial.record.reason or "no reason was recorded", []).append(trial)
    return [
        Failure(
            reason,
            counted(len(trials), "trial"),
            listed([*(f"trial {trial.number}" for trial in trials[:FEW]), *(["more"] if len(trials) > FEW else [])]),
            trials[0].number,
            trials[0].record.traceback,
        )
        for reason, trials in sorted(groups.items(), key=lambda group: -len(group[1]))
    ]


def provenance(facts: Facts) -> list[tuple[str, str]]:
    """Where the numbers come from: code, libraries, machines, data, dates, hours, energy."""
    data = facts.attributes.get("data") or {}
    created = str(facts.attributes.get("created") or "")
    found = [
        ("Commit", listed(facts.origins("commit"))),
        ("Versions", ", ".join(f"{name} {' / '.join(each)}" for name, each in facts.versions.items())),
        ("Devices", ", ".join(f"{name} ({counted(number, 'trial')})" for name, number in facts.devices.items())),
        ("Hours", f"{duration(facts.seconds)} of training" if facts.seconds else ""),
        ("Energy", _energy(facts)),
        ("Hosts", ", ".join(map(str, facts.origins("host")))),
        ("Precision", ", ".join(map(str, facts.origins("precision")))),
        ("Threads", ", ".join(map(str, facts.origins("threads")))),
        ("Data", " ".join(str(data[name]) for name in ("dataset", "fingerprint") if data.get(name))),
        ("Counted", ", ".join(f"MACs of {target}, from the operations it dispatches" for target in _counted(facts))),
        ("Plan", str(facts.attributes.get("plan") or "")),
        ("Created", created[:16].replace("T", " ")),
    ]
    return [(name, words) for name, words in found if words]


def _energy(facts: Facts) -> str:
    """What GPUs took while trials ran, of those that measured it."""
    own = [trial for trial in facts.trials if trial.record.reused is None]
    joules = values(own, "energy")
    if not joules:
        return "not measured: the devices do not tell it" if any(trial.record.state == "complete" for trial in own) else ""
    return f"{sum(joules) / 3.6e6:,.3g} kWh in {counted(len(joules), 'trial')} that measured it"


def commands(facts: Facts) -> list[tuple[str, tuple[str, ...]]]:
    """How to make the page anew: from its database, and from nothing."""
    name = shlex.quote(facts.study.name)
    kept = "From the database of the study (go on with what is missing, then write the page):"
    found: list[tuple[str, tuple[str, ...]]] = [(kept, (f"harness resume {name}", f"harness report {name}"))]
    commits = [str(commit) for commit in facts.origins("commit")]
    if len(commits) == 1 and re.fullmatch(r"[0-9a-f]{6,40}\+?", commits[0]):
        source = f"git checkout {commits[0].rstrip('+')}"
        unsaved = " (which then had changes that were not committed)" if commits[0].endswith("+") else ""
        words = f"From nothing, with the code of that time{unsaved}; STUDY is the study's file:"
        found.append((words, (source, "make venv", "harness run STUDY", f"harness report {name}")))
    return found
