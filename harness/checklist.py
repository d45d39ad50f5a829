"""How `harness check` says what it found, on a terminal."""

from collections.abc import Iterator

from rich.table import Table
from rich.text import Text

from harness.check import BATCH, Finding, Price, Rehearsal, custom_of
from harness.measure.contract import CONTRACT, Subject, words
from harness.report.words import counted

TICK, CROSS = "\N{CHECK MARK}", "\N{BALLOT X}"


def title(subject: Subject) -> str:
    """mylab.gate:Gate(reduction=4) at 64 channels on 16x16, place branch"""
    slot = custom_of(subject)
    knobs = ", ".join(f"{name}={value!r}" for name, value in slot.knobs.items())
    return f"{slot.target}({knobs}) at {subject.channels} channels on {words(subject.size)}, place {slot.place}"


def row(finding: Finding) -> Table:
    """A check on a terminal: a tick or a cross, its name, what was seen, and the remedy below."""
    table = Table.grid(padding=(0, 1))
    for width in (1, 28, None):
        table.add_column(width=width, overflow="fold")
    mark = Text(TICK, "green") if finding.holds else Text(CROSS, "red")
    table.add_row(mark, finding.name, Text(finding.seen, "dim" if finding.holds else "red"))
    if finding.remedy:
        table.add_row("", "", Text(finding.remedy))
    return table


def closing(subject: Subject, found: list[Finding], price: Price | None) -> Iterator[str]:
    """How many checks hold, and what the module costs."""
    broken = sum(not finding.holds for finding in found)
    if price is None:
        untried = len(CONTRACT) - len(found)
        yield f"{counted(broken, 'check')} broken" + (f"; {untried} others not tried" if untried else "")
        return
    how = "counted from the operations it dispatches" if price.counted else "as its `macs` says"
    params, macs = (_change(getattr(price.network, name), getattr(price.plain, name)) for name in ("params", "macs"))
    yield f"all {len(found)} hold"
    yield f"{counted(price.params, 'param')}, {price.macs:,} MACs on {words(subject.size)} ({how})"
    yield f"in the middle stage of a ResNet-8: params {params}, MACs {macs}, step time x{price.ratio:.2f}"
    yield f"(a step of {BATCH} pictures takes {1e3 * price.plain_step:.0f} ms without it, on one thread)"


def _change(own: int, plain: int) -> str:
    return f"{100 * (own - plain) / plain:+.1f} %"


def study_lines(found: Rehearsal) -> Iterator[str]:
    """What came of a study."""
    if found.invalid:
        yield f"{counted(found.invalid, 'combination')} of {found.study} are no networks and are never trained"
    for problem in found.problems:
        yield f"{CROSS} {problem}"
    good, mark = found.built - len(found.problems), CROSS if found.problems else TICK
    sample = "" if found.complete else " (a sample of the space)"
    yield f"{mark} {found.study}: {good:,} of {counted(found.built, 'network')} built, counts agree{sample}"
