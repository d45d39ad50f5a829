"""What a person sees in a terminal: the live table of a run, plain lines in a log, the tree of a space."""

import sys
import time
from collections.abc import Iterable, Mapping, Sequence
from types import TracebackType
from typing import Any, Self

from rich.console import Console, RenderableType
from rich.live import Live
from rich.text import Text
from rich.tree import Tree

from harness.config import constant_words
from harness.execution.ledger import Ledger, Running, Watcher
from harness.live import Row, View, drawn
from harness.record import Epoch
from harness.report.words import chosen_text, duration, metric_text
from harness.space import Choice, Same, Span, Vary
from harness.study import Study
from harness.trial import Outcome


def named_text(study: Study, metric: str, metrics: Mapping[str, float]) -> str:
    """accuracy 93.41 %; nothing where it was not measured."""
    return f"{metric} {metric_text(metric, metrics[metric], study.units.get(metric, ''))}" if metric in metrics else ""


def followed(study: Study) -> str:
    """The metric that tells how a trial does while it runs: the first objective that its loop says, else accuracy."""
    return next(iter(study.learned), "accuracy")


def described(study: Study, params: dict[str, Any], order: Iterable[str], seed: int) -> str:
    """What was chosen, and the seed where there are several."""
    words = chosen_text(params, order)
    return words if len(study.seeds) == 1 else f"{words}; seed {seed}"


def reached_text(study: Study, curve: Sequence[Epoch]) -> str:
    """What a running trial's last epoch came to: 91.20 %; nothing before the first."""
    metric, last = followed(study), curve[-1].metrics() if curve else {}
    return metric_text(metric, last[metric], study.units.get(metric, "")) if metric in last else ""


def results_text(study: Study, costs: Mapping[str, int], curve: Sequence[Epoch], outcome: Outcome) -> str:
    """accuracy 93.41 %, 0.27 M params, 40.6 M MACs; or why it failed or was stopped early."""
    if outcome.state == "stopped" and not curve:
        return outcome.reason
    if outcome.state == "stopped":
        return f"{outcome.reason} ({named_text(study, followed(study), curve[-1].metrics())})"
    if outcome.state != "complete":
        return f"failed: {outcome.reason}"
    reached = named_text(study, followed(study), outcome.metrics)
    tested = named_text(study, f"test_{followed(study)}", outcome.metrics) if study.scores_test else ""
    return ", ".join(
        [
            *filter(None, [reached, tested]),
            f"{metric_text('params', costs['params'])} params",
            f"{metric_text('macs', costs['macs'])} MACs",
            *filter(None, [named_text(study, "latency", outcome.metrics)]),
            outcome.reason or duration(outcome.metrics["seconds"]),
        ]
    )


def time_left(ledger: Ledger, started: float, finished_before: int) -> float | None:
    """Seconds until the planned trials are done, by the epochs trained in this run; None before there are any."""
    finished = sum(ledger.finished.values()) - finished_before - ledger.reused
    epochs = max((running.epochs for running in list(ledger.running.values())), default=1)
    partial = sum(len(running.curve) for running in list(ledger.running.values())) / epochs
    return remaining(
        time.monotonic() - started, finished + partial, ledger.planned - sum(ledger.finished.values()) - partial
    )


def remaining(seconds: float, amount: float, left: float) -> float | None:
    """Seconds that so many trials will take, as so many took so long; None where there are none to go by."""
    return None if amount <= 0 else seconds / amount * left


class Log(Watcher):
    """A line for each finished trial: for logs, pipes and terminals that are none."""

    def __init__(self, console: Console) -> None:
        self._console, self._started, self._before = console, time.monotonic(), 0
        self._ledger: Ledger | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        """Nothing is held."""

    def note(self, message: str) -> None:
        """A line of its own."""
        self._console.print(message, markup=False, highlight=False, soft_wrap=True)

    def changed(self, changes: Sequence[str]) -> None:
        for change in changes:
            self.note(f"changed: {change}")

    def shares(self, words: str) -> None:
        self.note(words)

    def decoding(self, done: int, total: int) -> None:
        """Progress of decoding pictures; of none while the cache is looked through, or another process fills it."""
        if total and (done % 5000 == 0 or done == total):
            self.note(f"decoding pictures: {done:,} of {total:,}")

    def began(self, ledger: Ledger, running: Running) -> None:
        if self._ledger is None:
            self._ledger, self._before = ledger, sum(ledger.finished.values())

    def lost(self, ledger: Ledger, running: Running, reason: str) -> None:
        self.note(f"trial {running.number}: {reason}; it goes on with another worker")

    def waits(self, words: str) -> None:
        self.note(words)

    def looked(self, ledger: Ledger, standing: str) -> None:
        self.note(standing)

    def ended(self, ledger: Ledger, running: Running, outcome: Outcome) -> None:
        count, study = sum(ledger.finished.values()), ledger.study
        left = time_left(ledger, self._started, self._before)
        result = results_text(study, running.assignment.costs, running.curve, outcome)
        chosen = chosen_text(running.params, ledger.space.parameters)
        self.note(ended_text(count, ledger.planned, running.number, result, chosen, left))


def ended_text(count: int, planned: int, number: int, result: str, chosen: str, left: float | None) -> str:
    """[3/60] trial 2: accuracy 93.41 % (stage 3 SE); about 4 minutes left"""
    return f"[{count}/{planned}] trial {number}: {result} ({chosen})" + (f"; about {duration(left)} left" if left else "")


class LiveTable(Log):
    """The running trials with their epochs, best values and time left, redrawn in place; finished ones scroll above."""

    def __init__(self, console: Console) -> None:
        super().__init__(console)
        self._words = "checking the study and its data"
        self._begun: dict[int, float] = {}
        self._live = Live(console=console, get_renderable=self._render, refresh_per_second=4, transient=True)

    def __enter__(self) -> Self:
        self._live.__enter__()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._live.__exit__(kind, error, trace)

    def note(self, message: str) -> None:
        self._console.print(message, markup=False, highlight=False)

    def decoding(self, done: int, total: int) -> None:
        self._words = f"decoding pictures: {done:,} of {total:,}" if total else "looking for decoded pictures"

    def began(self, ledger: Ledger, running: Running) -> None:
        super().began(ledger, running)
        self._begun[running.number] = time.monotonic()

    def _render(self) -> RenderableType:
        if self._ledger is None:
            return Text(f"{self._words} ... {time.monotonic() - self._started:.0f} s", style="dim")
        return drawn(self._view(self._ledger), self._console.width)

    def _view(self, ledger: Ledger) -> View:
        now, study = time.monotonic(), ledger.study
        return View(
            name=study.name,
            planned=ledger.planned,
            states=dict(ledger.finished),
            reused=ledger.reused,
            screened=ledger.screened_out,
            seconds=now - self._started,
            left=time_left(ledger, self._started, self._before),
            best="  ".join(named_text(study, metric, ledger.best) for metric in dict(ledger.best)),
            front=len(ledger.front),
            metric=followed(study),
            standing=ledger.standing,
            stopping=ledger.stopping,
            rows=tuple(self._row(ledger, running, now) for running in list(ledger.running.values())),
        )

    def _row(self, ledger: Ledger, running: Running, now: float) -> Row:
        return Row(
            number=running.number,
            done=len(running.curve),
            epochs=running.epochs,
            value=reached_text(ledger.study, running.curve),
            pace=running.pace,
            age=now - self._begun.get(running.number, now),
            device=running.device,
            chosen=described(ledger.study, running.params, ledger.space.parameters, running.assignment.seed),
        )


def watcher_for(console: Console, *, quiet: bool = False) -> Log:
    """A live table on a terminal, plain lines elsewhere, nothing but errors where stdout is for JSON."""
    if quiet:
        return Log(Console(file=sys.stderr))
    return LiveTable(console) if console.is_terminal else Log(console)


# -- the tree of a space ----------------------------------------------------------------------------------------------


def space_tree(title: str, roots: dict[str, Any]) -> Tree:
    """A space as a tree: parts, their choices, and what is not a default."""
    tree = Tree(Text(title, style="bold"), guide_style="dim")
    for name, node in roots.items():
        _grow(tree, name, node)
    return tree


def _grow(tree: Tree, name: str, node: Any) -> None:
    prefix = f"{name}: " if name else ""
    if isinstance(node, Same):
        inner = tree.add(Text(f"{prefix}the same everywhere", style="cyan"))
        _grow(inner, "", node.of)
    elif isinstance(node, Span):
        scale = ", log scale" if node.log else "" if node.step in (None, 1) else f", step {node.step:g}"
        tree.add(Text(f"{prefix}{node.low:g} to {node.high:g}{' (whole)' if node.whole else ''}{scale}"))
    elif isinstance(node, Choice):
        if all(not isinstance(option, Choice | Span | Vary | Same | tuple) for option in node.options):
            tree.add(Text(f"{prefix}{' | '.join(constant_words(option) for option in node.options)}"))
        else:
            branch = tree.add(Text(f"{prefix}one of {len(node.options)}", style="cyan"))
            for option in node.options:
                _grow(branch, "", option)
    elif isinstance(node, Vary):
        branch = tree.add(Text(f"{prefix}{node.fields.get('label') or node.fields.get('target') or node.part.__name__}"))
        for slot, filling in node.fields.get("at", {}).items():
            path = node.fields["slots"].get(slot)
            _grow(branch, f"{slot} at {' | '.join(path.options) if isinstance(path, Choice) else path}", filling)
        own = {name: field.default for name, field in node.part.model_fields.items()} | node.fields.get("knobs", {})
        for field, value in (node.fields | node.fields.get("knobs", {})).items():
            if _open(value) and field != "knobs":
                _grow(branch, field, value)
            elif field not in ("label", "target", "knobs", "slots", "at") and value != own[field]:
                branch.add(Text(f"{field}: {value}", style="dim"))
    elif isinstance(node, tuple):
        branch = tree.add(Text(f"{prefix}one slot each", style="dim")) if name else tree
        for stage, slot in enumerate(node, start=1):
            _grow(branch, f"stage {stage}", slot)
    else:
        tree.add(Text(f"{prefix}{constant_words(node)}", style="dim"))


def _open(node: Any) -> bool:
    """Whether there is anything to choose in it, or slots to show."""
    return isinstance(node, Choice | Span | Vary | Same | tuple)
