"""Numbers and choices as a reader wants them: units, plural forms, what makes a trial different."""

import math
import re
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import date
from typing import NamedTuple

from harness.config import Scalar

SPACE = "\N{NO-BREAK SPACE}"


class Names(dict[str, str]):
    """Words for metrics of ours; one that a loop of the user's own measures is called as its author calls it."""

    def __missing__(self, metric: str) -> str:
        return metric.replace("_", " ")


TITLES = Names({"accuracy": "Accuracy", "loss": "Loss", "params": "Parameters", "macs": "MACs", "seconds": "Time"})
TITLES |= {"top5": "Top-5", "pictures_per_second": "Pictures", "peak_memory": "Peak memory", "energy": "Energy"}
NOUNS = Names({"accuracy": "accuracy", "loss": "loss", "params": "parameters", "macs": "MACs", "seconds": "time"})
NOUNS |= {"top5": "top-5", "pictures_per_second": "pictures", "peak_memory": "peak memory", "energy": "energy"}
TITLES |= {"test_accuracy": "Test accuracy", "test_loss": "Test loss", "test_top5": "Test top-5"}
NOUNS |= {"test_accuracy": "test accuracy", "test_loss": "test loss", "test_top5": "test top-5"}
SHARES = ("accuracy", "top5", "test_accuracy", "test_top5")
"""Metrics that are shares of pictures, shown in percent, their differences in points."""
MEASURED_IN = {"pictures_per_second": "/s", "peak_memory": "B", "energy": "J"}
TITLES |= {"latency": "Latency", "inference_memory": "Memory in use"}
NOUNS |= {"latency": "latency", "inference_memory": "memory in use"}
MEASURED_IN |= {"inference_memory": "B"}
KINDS = {
    "se": "SE",
    "ese": "eSE",
    "eca": "ECA",
    "cbam": "CBAM",
    "bam": "BAM",
    "gc": "GC",
    "ge": "GE",
    "coord": "CoordAtt",
    "simam": "SimAM",
    "triplet": "triplet",
    "nl": "non-local",
    "bottleneck": "BoTNet",
    "halo": "halo",
    "sasa": "SASA",
    "lambda": "lambda",
    "expatt": "ExpAtt",
    "aa": "AA",
    "gsa": "GSA",
    "resnet": "ResNet",
    "preact": "PreActResNet",
    "vgg": "VGG",
    "ltpa": "LTPA",
}
DATASETS = {"digits": "digits", "cifar10": "CIFAR-10", "cifar100": "CIFAR-100", "folder": "a folder of pictures"}


@dataclass(frozen=True)
class Unit:
    """How the values of one metric are written: value * scale, so many decimals, a symbol."""

    metric: str
    scale: float
    decimals: int
    symbol: str

    @property
    def title(self) -> str:
        return TITLES[self.metric]

    @property
    def heading(self) -> str:
        """The title with the symbol, as over a column or along an axis."""
        return f"{self.title} ({self.symbol})" if self.symbol else self.title

    def text(self, value: float | None) -> str:
        """The value with its symbol: 93.41 %, 272.5 k."""
        if value is None:
            return "\N{EN DASH}"
        return f"{self.figure(value)}{SPACE}{self.symbol}" if self.symbol else self.figure(value)

    def figure(self, value: float) -> str:
        """The value without its symbol, as in a column: 93.41."""
        return f"{value * self.scale:,.{self.decimals}f}"

    def noun(self, value: float | None) -> str:
        """The value as a quantity: 272.5 k parameters."""
        if self.metric in ("loss", "test_loss"):
            return f"a {NOUNS[self.metric]} of {self.text(value)}"
        if self.metric == "seconds":
            return self.text(value)
        return f"{self.text(value)}{SPACE if self.metric in ('params', 'macs') else ' '}{NOUNS[self.metric]}"


def is_share(metric: str, own: str = "") -> bool:
    """Whether a metric is a share, shown in percent; `own` is the unit that a study gave it."""
    return metric in SHARES or own == "%"


def unit(metric: str, values: Iterable[float], own: str = "") -> Unit:
    """One unit for all the values of a metric, so that a column lines up and differences stay visible; `own` is what a study
    says of what its own loop measures."""
    top = max((abs(value) for value in values), default=0.0)
    if is_share(metric, own):
        return Unit(metric, 100, 2, "%")
    if metric in ("loss", "test_loss"):
        return Unit(metric, 1, 3, "")
    if metric not in NOUNS:
        return Unit(metric, 1, min(max(3 - math.floor(math.log10(top)), 0), 8) if top else 3, own)
    steps = {"seconds": _HOURS, "latency": _MOMENTS}.get(metric, _MILLIONS)
    scale, symbol = next((scale, symbol) for least, scale, symbol in steps if top >= least)
    whole = len(f"{top * scale:.0f}".lstrip("0"))
    return Unit(metric, scale, min(max(4 - whole, 0), {"": 0, "s": 1}.get(symbol, 3)), symbol + MEASURED_IN.get(metric, ""))


def metric_text(metric: str, value: float, own: str = "") -> str:
    """One value in its own unit, in plain letters: 93.41 %, 0.27 M; `own` is what a study says of what its own loop
    measures."""
    return unit(metric, [value], own).text(value).replace(SPACE, " ")


_HOURS = ((4 * 3600, 1 / 3600, "h"), (15 * 60, 1 / 60, "min"), (0, 1.0, "s"))
_MOMENTS = ((1, 1.0, "s"), (1e-3, 1e3, "ms"), (0, 1e6, "\N{MICRO SIGN}s"))
_MILLIONS = ((1e9, 1e-9, "G"), (1e6, 1e-6, "M"), (1e4, 1e-3, "k"), (0, 1.0, ""))


def duration(seconds: float) -> str:
    """9.5 days, 4.1 hours, 12 minutes, 9 s."""
    for size, name in ((86_400, "day"), (3600, "hour"), (60, "minute")):
        if seconds >= 2 * size:
            amount = seconds / size
            return f"{amount:,.1f} {name}s" if amount < 10 else f"{amount:,.0f} {name}s"
    return f"{seconds:.0f}{SPACE}s" if seconds >= 10 else f"{seconds:.1f}{SPACE}s"


def day(moment: date) -> str:
    """3 June 2025."""
    return f"{moment.day} {moment:%B %Y}"


def percent(share: float) -> str:
    """A share as whole percents: 87 %."""
    return f"{100 * share:.0f}{SPACE}%"


def counted(number: float, noun: str, plural: str = "") -> str:
    """1 trial, 2 trials, 1,000 trials."""
    return f"{number:,.0f} {noun if number == 1 else plural or noun + 's'}"


def spelled(number: int, noun: str, plural: str) -> str:
    """A number at the start of a sentence: Six trials are, 54 trials are."""
    words = ["No", "One", "Two", "Three", "Four", "Five", "Six", "Seven", "Eight", "Nine", "Ten", "Eleven", "Twelve"]
    return f"{words[number] if number < len(words) else f'{number:,}'} {noun if number == 1 else plural}"


def listed(words: Iterable[object], last: str = "and") -> str:
    """a, b and c; nothing for nothing."""
    *head, tail = map(str, words) if (words := list(words)) else [""]
    return f"{', '.join(head)} {last} {tail}" if head else tail


# -- what makes a trial different ---------------------------------------------------------------------------------------


class Difference(NamedTuple):
    """What was chosen at one place of the config: ('stage 2', ('ExpAtt', 'gaussian', 'radius 2.3'))."""

    place: str
    chosen: tuple[str, ...]

    def __str__(self) -> str:
        return f"{self.place} {' · '.join(self.chosen)}".strip()

    @property
    def prose(self) -> str:
        """As in a sentence: ExpAtt (gaussian, radius 2.3) in stage 2."""
        if self.place in ("", "training"):
            return ", ".join(self.chosen)
        head, *rest = self.chosen
        return f"{head} ({', '.join(rest)}) in {self.place}" if rest else f"{head} in {self.place}"


_STAGE = re.compile(r"(?:.*\.)?stages\.(?:.*\.)?(\d+(?:\+\d+)*)\.(.+)")
_SLOT = re.compile(r"(?:.*\.)?(?:at|slots)\.([^.]+)(?:\.(.+))?")
"""A slot of a model of others: what stands in it, or where it is."""
_PARTS = ("attention", "network", "recipe")
"""Last pieces of the names of choices between whole parts, which the chosen part's own name tells enough about."""


def place_of(name: str) -> tuple[str, str]:
    """Where a flat parameter belongs, and what it is called there: `stages.2.expatt.radius` -> stage 2, radius."""
    stage = _STAGE.fullmatch(name)
    if stage:
        where, rest = stage.groups()
        return f"stage{'s' if '+' in where else ''} {where}", rest.rpartition(".")[2]
    if slot := _SLOT.fullmatch(name):
        return slot[1], slot[2].rpartition(".")[2] if slot[2] else "at"
    place, _, field = name.rpartition(".")
    return ("training" if place.startswith("training") else ""), field


def chosen_words(field: str, value: Scalar) -> str:
    """A chosen value, named where it would not speak for itself."""
    if field in _PARTS or (isinstance(value, str) and field in ("kernel", "dataset", "stages")):
        return KINDS.get(str(value), str(value))
    if isinstance(value, bool):
        return f"{field} {'yes' if value else 'no'}"
    words = f"{value:.3g}" if isinstance(value, float) else KINDS.get(str(value), str(value))
    return f"{field.replace('_', ' ')} {words}"


def differences(params: dict[str, Scalar], order: Iterable[str]) -> tuple[Difference, ...]:
    """The active choices in the space's order, those of one place together."""
    found: dict[str, list[str]] = {}
    for name in dict.fromkeys([name for name in order if name in params] + list(params)):
        place, field = place_of(name)
        found.setdefault(place, []).append(chosen_words(field, params[name]))
    return tuple(Difference(place, tuple(words)) for place, words in found.items())


def chosen_text(params: dict[str, Scalar], order: Iterable[str] = ()) -> str:
    """What tells a trial from the others, in a few words."""
    return "; ".join(map(str, differences(params, order))) or "the one config"


def choice_title(name: str) -> str:
    """A choice as a legend's title: `stages.3.attention` -> stage 3 attention; with the network's name among several."""
    (place, field), (first, dot, _) = place_of(name), name.partition(".")
    owner = KINDS.get(first, first) if dot and first not in ("stages", "slots", "head", "training") else ""
    return " ".join(filter(None, (owner, place, field.replace("_", " "))))
