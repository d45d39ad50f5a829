"""The page of a study: one file that opens offline, with its data beside it."""

import base64
import hashlib
import json
import os
import re
from collections.abc import Sequence
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup, escape

from harness.record import Record
from harness.report import notes, sentences
from harness.report.ablation import sheet, written
from harness.report.certain import certain_front, certain_words
from harness.report.choices import MAPS_NOTE, importance_figure, importance_of, importance_words, maps
from harness.report.comparison import Comparison, compared, forest, missing_words, plan_words, verdicts
from harness.report.facts import Facts, gather
from harness.report.figures import MAX_BEATEN, curves_figure, front_figure, plain_layout
from harness.report.tables import front_json, table, trials_csv
from harness.report.views import axes, curves, grouping
from harness.report.words import NOUNS, TITLES
from harness.study import Study

HERE = Path(__file__).parent
MAX_FRONT = 40
"""Front trials listed on the page; the table below it holds all."""


def write_page(study: Study, attributes: dict[str, Any], records: Sequence[Record], folder: Path) -> Path:
    """Writes index.html, trials.csv and front.json into the folder; returns the page's path.

    Each file is replaced whole, the page last, so that an interrupted write leaves the old page."""
    facts = gather(study, attributes, records)
    page = render(facts, datetime.now(UTC))
    folder.mkdir(parents=True, exist_ok=True)
    replace(folder / "trials.csv", trials_csv(facts))
    replace(folder / "front.json", json.dumps(front_json(facts), indent=1))
    if (found := compared(facts)) is not None:
        replace(folder / "effects.csv", written(found.table, "csv"))
    replace(folder / "index.html", page)
    return folder / "index.html"


def render(facts: Facts, written: datetime) -> str:
    """The page as one HTML text."""
    from plotly.offline import get_plotlyjs

    split, drawn = grouping(facts), curves(facts)
    fronts = [(axis, front_figure(facts, axis, split)) for axis in axes(facts)]
    figures = {f"front-{axis.cost.metric}": figure for axis, figure in fronts}
    found = compared(facts)
    if found is not None:
        figures["effects"] = forest(found, facts.units[facts.main.metric], plain_layout())
    matter, crossed = importance_of(facts), maps(facts)
    if matter is not None:
        figures["importance"] = importance_figure(matter, plain_layout())
    if drawn.drawn:
        figures["curves"] = curves_figure(facts, drawn)
    scripts = {"plotly": get_plotlyjs() if figures else "", "page": (HERE / "page.js").read_text("utf-8")}
    return (
        environment()
        .get_template("page.html")
        .render(
            facts=facts,
            say=sentences,
            notes=notes,
            titles=TITLES,
            nouns=NOUNS,
            axes=[axis for axis, _ in fronts],
            split=split,
            shown=list(dict.fromkeys((facts.main.metric, *(cost.metric for cost in facts.costs)))),
            curves=drawn,
            effects=found and _effects(found),
            certain=_certain(facts),
            importance=matter and importance_words(facts, matter),
            maps=crossed,
            maps_note=MAPS_NOTE,
            tall=figures["importance"].layout.height if matter is not None else 0,
            figures={name: figure.to_plotly_json() for name, figure in figures.items()},
            table=table(facts),
            style=Markup((HERE / "page.css").read_text("utf-8")),
            scripts={name: Markup(script) for name, script in scripts.items()},
            policy=policy(scripts.values()),
            written=written,
            max_front=MAX_FRONT,
            max_beaten=MAX_BEATEN,
        )
    )


def _effects(found: Comparison) -> dict[str, Any]:
    """The comparison as the page shows it."""
    notes = [*found.table.notes(), *filter(None, [plan_words(found)])]
    told = {"answer": verdicts(found), "missing": missing_words(found), "notes": notes}
    return told | {"sheet": sheet(found.table), "baseline": found.arms.baseline}


def _certain(facts: Facts) -> dict[str, Any] | None:
    """The front with its uncertainty as the page shows it."""
    front = certain_front(facts)
    return None if front is None else {"sheet": front.sheet, "notes": certain_words(facts, front)}


@cache
def environment() -> Environment:
    """Everything is escaped, JSON within scripts included; an unknown name is an error."""
    found = Environment(
        loader=FileSystemLoader(HERE), autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    found.policies["json.dumps_kwargs"] = {"separators": (",", ":"), "allow_nan": False}
    found.filters["linked"] = linked
    return found


def linked(text: str) -> Markup:
    """The text, escaped, in which `trial 17` opens that trial."""
    return Markup(re.sub(r"\b(trial) (\d+)\b", r'<a href="#trial=\2">\1 \2</a>', str(escape(text)), flags=re.IGNORECASE))


def policy(scripts: Any) -> str:
    """A content-security policy that runs these scripts and no other, and forbids every request."""
    hashes = (base64.b64encode(hashlib.sha256(script.encode()).digest()).decode() for script in scripts if script)
    allowed = " ".join(f"'sha256-{digest}'" for digest in hashes)
    return (
        f"default-src 'none'; script-src {allowed}; style-src 'unsafe-inline'; img-src data: blob:; "
        "base-uri 'none'; form-action 'none'"
    )


def replace(path: Path, text: str) -> None:
    """Writes a file beside its place and moves it there."""
    draft = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        draft.write_text(text, "utf-8", errors="backslashreplace", newline="\n")
        draft.replace(path)
    finally:
        draft.unlink(missing_ok=True)
