"""How a study came along: its hypervolume over trials and compute, and what early stopping and reuse saved."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import TYPE_CHECKING

from harness.analysis.front import measured
from harness.record import Record
from harness.report.facts import Facts, Trial
from harness.report.figures import GROUPS, INK, layout
from harness.report.section import Block, Note, Plot, Section, Table
from harness.report.sentences import aims
from harness.report.sheet import Cell, Column, Sheet
from harness.report.words import SPACE, counted, duration, listed, percent

if TYPE_CHECKING:
    import plotly.graph_objects as go

FEWEST = 4
"""Complete trials below which a hypervolume over trials tells nothing."""
BEYOND = 0.1
"""The corner lies so much of each objective's range beyond the worst seen."""


# -- facts --------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Step:
    """Where a study stood when a trial had ended."""

    number: int
    trials: int
    """Trials ended, however they ended."""
    epochs: int
    seconds: float
    share: float
    """Of the hypervolume at the end of all studies of the page."""


Point = tuple[float, ...]


def growth(studies: Sequence[Facts]) -> list[list[Step]]:
    """Of each study the steps at which its hypervolume grew, with its last trial; measured to one corner, as shares of what
    all reach together. Nothing where the studies have other objectives, too few trials, or arms:
    seed after seed of what was planned is no progress."""
    goals = studies[0].study.objectives
    if any(facts.study.objectives != goals or facts.arms is not None for facts in studies):
        return []
    points = [point for facts in studies for trial in facts.trials if (point := _point(facts, trial))]
    if len(goals) < 2 or len(points) < FEWEST:
        return []
    corner = tuple(max(column) + BEYOND * ((max(column) - min(column)) or 1.0) for column in zip(*points))
    whole = _volume(points, corner)
    return [list(_steps(facts, corner, whole)) for facts in studies]


def _point(facts: Facts, trial: Trial) -> Point | None:
    """A complete trial's objectives, smaller is better."""
    point = tuple(goal.sign * measured(trial.record, goal.metric) for goal in facts.study.objectives)
    return point if trial.record.state == "complete" and all(map(math.isfinite, point)) else None


def _volume(points: Sequence[Point], corner: Point) -> float:
    import moocore
    import numpy as np

    return float(moocore.hypervolume(np.array(points, float), ref=np.array(corner)))


def _steps(facts: Facts, corner: Point, whole: float) -> Iterator[Step]:
    ended = [trial for trial in facts.trials if trial.record.state != "running"]
    ended.sort(key=lambda trial: (_moment(trial), trial.number))
    best: list[Point] = []
    epochs, seconds, share = 0, 0.0, 0.0
    for count, trial in enumerate(ended, start=1):
        epochs, seconds = epochs + own_epochs(trial.record), seconds + own_seconds(trial)
        point = _point(facts, trial)
        grew = point is not None and not any(all(a <= b for a, b in zip(other, point)) for other in best)
        if point is not None and grew:
            best = [other for other in best if not all(a <= b for a, b in zip(point, other))] + [point]
            share = _volume(best, corner) / whole
        if grew or count == len(ended):
            yield Step(trial.number, count, epochs, seconds, share)


def _moment(trial: Trial) -> float:
    return trial.record.ended.timestamp() if trial.record.ended else math.inf


def own_epochs(record: Record) -> int:
    """Epochs that a trial trained itself: not those it was handed or taken over with."""
    return 0 if record.reused is not None else record.epochs - record.inherited


def own_seconds(trial: Trial) -> float:
    """Seconds that a trial took itself."""
    if trial.record.reused is not None:
        return 0.0
    whole = trial.value("seconds") or sum(epoch.seconds for epoch in trial.record.curve)
    inherited = trial.record.inherited
    return whole - (sum(epoch.seconds for epoch in trial.record.curve[:inherited]) if inherited else 0)


@dataclass(frozen=True)
class Halt:
    """Trials stopped after the same epoch, none of which was gone on with."""

    epoch: int
    trials: tuple[Trial, ...]
    saved: int
    """Epochs not trained."""
    seconds: float
    """What these would have taken, at each trial's own pace."""


@dataclass(frozen=True)
class Savings:
    """What a study did not have to train."""

    trained: int
    halts: tuple[Halt, ...]
    promoted: int
    """Epochs that promoted trials were handed."""
    taken: int
    """Epochs of trials taken over from other studies."""
    taken_trials: int

    @property
    def stopped(self) -> int:
        return sum(halt.saved for halt in self.halts)

    @property
    def whole(self) -> int:
        """Epochs without early stopping and reuse."""
        return self.trained + self.stopped + self.promoted + self.taken


def savings(facts: Facts) -> Savings:
    """What early stopping, promotion and reuse saved."""
    gone_on = {trial.record.promotes for trial in facts.trials}
    stopped = [t for t in facts.trials if t.record.state == "stopped" and t.record.trained and t.number not in gone_on]
    stopped.sort(key=lambda trial: trial.record.epochs)
    halts = (_halt(epoch, tuple(same)) for epoch, same in groupby(stopped, key=lambda trial: trial.record.epochs))
    taken = [trial.record for trial in facts.trials if trial.record.reused is not None]
    return Savings(
        trained=facts.epochs,
        halts=tuple(halts),
        promoted=sum(trial.record.inherited for trial in facts.trials),
        taken=sum(record.epochs for record in taken),
        taken_trials=len(taken),
    )


def _halt(epoch: int, trials: tuple[Trial, ...]) -> Halt:
    left = [max(_planned(trial) - epoch, 0) for trial in trials]
    paces = [sum(point.seconds for point in trial.record.curve) / max(len(trial.record.curve), 1) for trial in trials]
    return Halt(epoch, trials, sum(left), sum(epochs * pace for epochs, pace in zip(left, paces)))


def _planned(trial: Trial) -> int:
    return int((trial.record.config_json.get("training") or {}).get("epochs") or trial.record.epochs)


# -- words and ink --------------------------------------------------------------------------------------------------------


def growth_section(studies: Sequence[Facts]) -> Iterator[Section]:
    """Hypervolume over trials and over compute."""
    found = growth(studies)
    if not found:
        return
    label = "Share of the final hypervolume, step by step"
    blocks = (Plot("hypervolume", growth_figures(studies, found), label, 380), Note(growth_words(studies, found)))
    yield Section("growth", "How the front grew", blocks)


def growth_words(studies: Sequence[Facts], found: Sequence[Sequence[Step]]) -> str:
    """What is measured, and when nine tenths were reached."""
    words = (
        f"Hypervolume of {aims(studies[0])}, measured to a corner a tenth beyond the worst of each, as a share of what"
        f" {'all trials' if len(studies) == 1 else 'all studies together'} reached."
    )
    for facts, steps in zip(studies, found):
        nine = next((step for step in steps if step.share >= 0.9), None)
        if nine is not None and steps[-1].seconds:
            name = "" if len(studies) == 1 else f"{facts.study.name}: "
            compute = percent(nine.seconds / steps[-1].seconds)
            after = f"{nine.trials:,} of {steps[-1].trials:,} trials ({compute} of the compute)"
            words += f" {name}90{SPACE}% were there after {after}."
    return words


def growth_figures(studies: Sequence[Facts], found: Sequence[Sequence[Step]]) -> "dict[str, go.Figure]":
    """A figure over trials, one over hours of training, one over epochs."""
    most = max((steps[-1].seconds for steps in found if steps), default=0.0)
    scale, symbol = next((one for one in ((3600.0, "hours"), (60.0, "minutes")) if most >= 2 * one[0]), (1.0, "seconds"))
    ways = {
        "Trials": ("Trials ended", lambda step: step.trials),
        "Compute": (f"Training, summed over devices ({symbol})", lambda step: step.seconds / scale),
        "Epochs": ("Epochs trained", lambda step: step.epochs),
    }
    return {name: _growth_figure(studies, found, title, way) for name, (title, way) in ways.items()}


def _growth_figure(studies: Sequence[Facts], found: Sequence[Sequence[Step]], title: str, way: object) -> "go.Figure":
    from html import escape

    import plotly.graph_objects as go

    figure = go.Figure(layout=layout("study" if len(studies) > 1 else ""))
    for place, (facts, steps) in enumerate(zip(studies, found)):
        figure.add_scatter(
            x=[0, *(float(f"{way(step):.6g}") for step in steps)],  # type: ignore[operator]
            y=[0, *(round(100 * step.share, 3) for step in steps)],
            mode="lines",
            line={"shape": "hv", "color": INK if len(studies) == 1 else GROUPS[(place + 1) % len(GROUPS)][0], "width": 2},
            text=["", *(f"trial {step.number}" for step in steps)],
            hovertemplate="%{y:.1f} % at %{x:.4g}, with %{text}<extra></extra>",
            name=escape(facts.study.name),
            showlegend=len(studies) > 1,
        )
    figure.update_xaxes(title_text=title, rangemode="tozero")
    figure.update_yaxes(title_text="Hypervolume (% of the final one)", range=(0, 104))
    return figure


def savings_section(facts: Facts) -> Section | None:
    """What early stopping and reuse saved."""
    found = savings(facts)
    if found.whole == found.trained:
        return None
    blocks: list[Block] = [Plot("saved", {"": savings_figure(found)}, "Epochs trained and saved", 150)]
    blocks.append(Note(savings_words(facts, found)))
    if found.halts:
        blocks.append(Table(halts_sheet(found)))
    return Section("savings", "What early stopping and reuse saved", tuple(blocks))


def savings_words(facts: Facts, found: Savings) -> str:
    """In words, as shares of what training all would have taken."""
    seconds = sum(halt.seconds for halt in found.halts)
    parts = []
    if found.stopped:
        time = f", some {duration(seconds)} at their pace" if seconds else ""
        stopped = sum(len(halt.trials) for halt in found.halts)
        parts.append(f"early stopping of {counted(stopped, 'trial')} saved {counted(found.stopped, 'epoch')}{time}")
    if found.taken:
        parts.append(f"{counted(found.taken_trials, 'trial')} taken over from other studies {counted(found.taken, 'epoch')}")
    if found.promoted:
        parts.append(f"going on with stopped trials {counted(found.promoted, 'epoch')}")
    share = percent(1 - found.trained / found.whole)
    words = listed(parts)
    return f"{words[:1].upper()}{words[1:]}: {share} of the {found.whole:,} epochs that all trials have in full."


def savings_figure(found: Savings) -> "go.Figure":
    """One bar of all epochs: trained, and saved in each way."""
    import plotly.graph_objects as go

    figure = go.Figure(layout=layout("epochs"))
    saved = (("stopped early", found.stopped), ("taken over", found.taken), ("handed on", found.promoted))
    parts = (("trained", found.trained), *saved)
    for place, (name, epochs) in enumerate(parts):
        if epochs:
            colour = GROUPS[place][0]
            hover = f"{name}: %{{x:,}} epochs<extra></extra>"
            bar = {"orientation": "h", "marker": {"color": colour}, "hovertemplate": hover, "width": 0.6}
            figure.add_bar(x=[epochs], y=[""], name=f"{name} {epochs:,}", **bar)
    figure.update_layout(barmode="stack", legend_traceorder="normal")
    figure.update_xaxes(range=(0, found.whole))
    figure.update_yaxes(showticklabels=False)
    return figure


def halts_sheet(found: Savings) -> Sheet:
    """Where trials were stopped, a row each."""
    columns = (Column("after epoch"), Column("trials stopped"), Column("epochs saved"), Column("time saved"))
    rows = [
        (
            Cell(str(halt.epoch), (halt.epoch,)),
            Cell(f"{len(halt.trials):,}", (len(halt.trials),)),
            Cell(f"{halt.saved:,}", (halt.saved,)),
            Cell(duration(halt.seconds) if halt.seconds else "\N{EN DASH}", (halt.seconds,)),
        )
        for halt in found.halts
    ]
    return Sheet(columns, tuple(rows))
