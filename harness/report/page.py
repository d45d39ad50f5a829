"""The page of a study, or of several: one file that opens offline, with its data beside it."""

import base64
import hashlib
import json
import os
import re
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup, escape

from harness.record import Record, uncollected
from harness.report import notes, sentences
from harness.report.ablation import written
from harness.report.choices import factors_csv
from harness.report.comparison import compared
from harness.report.facts import Facts, gather, units_of
from harness.report.section import Section
from harness.report.sections import sections
from harness.report.tables import columns, front_json, trials_csv
from harness.report.terms import TERMS, Explainer
from harness.report.words import NOUNS, Unit
from harness.study import Study

HERE = Path(__file__).parent
SCRIPTS = ("data.js", "table.js", "panel.js", "plots.js", "page.js")
"""The page's own, in the order in which they run, as one."""


class Source(NamedTuple):
    """A study as the database has it."""

    study: Study
    attributes: dict[str, Any]
    records: Sequence[Record]
    confirmed: Facts | None = None
    """Of the study that confirms it."""


def write_page(study: Study, attributes: dict[str, Any], records: Sequence[Record], folder: Path) -> Path:
    """Writes index.html, trials.csv and front.json into the folder; returns the page's path."""
    return write_pages([Source(study, attributes, records)], folder)


def write_pages(sources: Sequence[Source], folder: Path) -> Path:
    """Writes one page of these studies, with the data of each beside it (of several, in a folder of its name); returns the
    page's path. Each file is replaced whole, the page last, so that an interrupted write leaves the old page."""
    studies = [gather(*source) for source in sources]
    page = render(studies, datetime.now(UTC))
    for facts in studies:
        beside = folder if len(studies) == 1 else folder / facts.study.name
        beside.mkdir(parents=True, exist_ok=True)
        replace(beside / "trials.csv", trials_csv(facts))
        replace(beside / "front.json", json.dumps(front_json(facts), indent=1))
        if (found := compared(facts)) is not None:
            replace(beside / "effects.csv", written(found.table, "csv"))
        if told := factors_csv(facts):
            replace(beside / "factors.csv", told)
    replace(folder / "index.html", page)
    return folder / "index.html"


def render(studies: Sequence[Facts], written: datetime) -> str:
    """The page as one HTML text."""
    from plotly.offline import get_plotlyjs

    shown = sections(studies)
    own = "\n".join((HERE / name).read_text("utf-8") for name in SCRIPTS)
    scripts = {"plotly": get_plotlyjs(), "page": own}
    return (
        environment()
        .get_template("page.html")
        .render(
            studies=studies,
            say=sentences,
            notes=notes,
            nouns=NOUNS,
            sections=shown,
            data=data(studies),
            figures=figures(shown),
            terms=TERMS,
            explain=Explainer(),
            style=Markup((HERE / "page.css").read_text("utf-8")),
            scripts={name: Markup(script) for name, script in scripts.items()},
            policy=policy(scripts.values()),
            written=written,
        )
    )


@uncollected
def data(studies: Sequence[Facts]) -> dict[str, Any]:
    """What the page's figures, table and panel draw from: studies, units, and every trial once."""
    units = [one for metric, one in units_of(studies).items() if any(facts.known(metric) for facts in studies)]
    shown = {objective.metric for facts in studies for objective in (facts.main, *facts.costs)}
    return {
        "studies": [_told(facts) for facts in studies],
        "units": [_unit(one) | {"shown": one.metric in shown} for one in units],
        "trials": columns(studies, units),
    }


def _told(facts: Facts) -> dict[str, Any]:
    """A study as the panel and the downloads need it."""
    curve = facts.units.get(facts.followed.metric)
    told = {"name": facts.study.name, "against": sentences.against(facts), "main": facts.main.metric, "grids": facts.grids}
    return told | {"curve": curve and _unit(curve)}


def _unit(one: Unit) -> dict[str, Any]:
    return {"metric": one.metric, "title": one.title, "scale": one.scale, "decimals": one.decimals, "symbol": one.symbol}


def figures(shown: Iterable[Section]) -> dict[str, Any]:
    """Every figure by its address: its views by name, without what the page fills in from the trials."""
    return {
        plot.name: {name: lean(figure.to_plotly_json()) for name, figure in plot.views.items()}
        for section in shown
        for plot in section.plots
    }


def lean(figure: dict[str, Any]) -> dict[str, Any]:
    """A figure whose traces of trials only name them."""
    for trace in figure["data"]:
        if "x" in (trace.get("meta") or {}):
            del trace["x"], trace["y"]
    return figure


@cache
def environment() -> Environment:
    """Everything is escaped, JSON within scripts included; an unknown name is an error."""
    found = Environment(
        loader=FileSystemLoader(HERE), autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    found.policies["json.dumps_kwargs"] = {"separators": (",", ":"), "allow_nan": False}
    found.filters["linked"] = linked
    return found


def linked(text: str, study: str = "") -> Markup:
    """The text, escaped, in which `trial 17` opens that trial; on a page of several studies that of the named one."""
    link = rf'<a href="#trial={escape(study)}{":" if study else ""}\2">\1 \2</a>'
    return Markup(re.sub(r"\b(trial) (\d+)\b", link, str(escape(text)), flags=re.IGNORECASE))


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
