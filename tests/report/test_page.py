import base64
import csv
import hashlib
import json
import math
import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import pytest

from harness.config import ResNet, SqueezeExcite, part_from_json
from harness.record import Epoch
from harness.report.facts import gather
from harness.report.page import write_page
from harness.report.tables import coded, curve
from harness.space import choose, same, vary
from harness.study import Exhaustive, maximize, minimize
from tests.report.sample import ATTRIBUTES, STUDY, records

EVIL = "<script>alert(1)</script>&\"'<img src=x onerror=alert(2)>\u2028"


class Page(HTMLParser):
    """The page as a browser reads it: its tags, and the text of each script."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.scripts: list[str] = []
        self.text = ""
        self._inside = ""
        self.feed(path.read_text("utf-8"))

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        self._inside = tag
        if tag == "script":
            self.scripts.append("")

    def handle_endtag(self, tag):
        self._inside = ""

    def handle_data(self, data):
        if self._inside == "script":
            self.scripts[-1] += data
        else:
            self.text += data

    def json(self, name: str):
        kinds = [attributes for tag, attributes in self.tags if tag == "script"]
        return json.loads(self.scripts[[kind.get("id") for kind in kinds].index(name)])


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    return write_page(STUDY, ATTRIBUTES, records(), tmp_path_factory.mktemp("page")).parent


@pytest.fixture(scope="module")
def page(folder) -> Page:
    return Page(folder / "index.html")


def test_tells_the_question_and_the_answer(page):
    assert "Does the kernel function matter once its radius is learned?" in page.text
    assert re.search(r"The best of 54 trials reaches \d\d\.\d\d.% accuracy", page.text)
    for heading in ("What was done", "What this does not show", "Training curves", "Trials", "Provenance"):
        assert heading in page.text
    assert "harness resume expatt-kernels-cifar10\nharness report expatt-kernels-cifar10" in page.text


def test_loads_nothing_from_anywhere(page):
    for tag, attributes in page.tags:
        assert tag not in ("link", "iframe", "object", "embed", "base", "form")
        assert "src" not in attributes
        assert (attributes.get("href") or "#").startswith("#")
        assert not any(name.startswith("on") for name in attributes)
    assert "url(" not in page.text and "@import" not in page.text


def test_its_policy_allows_its_own_scripts_alone(page):
    policy = next(a["content"] for tag, a in page.tags if a.get("http-equiv") == "Content-Security-Policy")
    run = [text for text, (_, a) in zip(page.scripts, [t for t in page.tags if t[0] == "script"]) if "type" not in a]
    assert "default-src 'none'" in policy and len(run) == 2
    for script in run:
        assert f"'sha256-{base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()}'" in policy
    assert "unsafe-eval" not in policy and "script-src 'unsafe" not in policy


def test_draws_vectors(page):
    figures = page.json("figure-data")
    assert list(figures) == ["front", "importance", "radii", "starts", "kernels", "curves", "hypervolume", "saved"]
    assert list(figures["front"]) == ["Parameters", "MACs"]
    drawn = [figure for views in figures.values() for figure in views.values()]
    assert {trace["type"] for figure in drawn for trace in figure["data"]} == {"scatter", "bar", "contour"}
    ids = [attributes.get("id") for _, attributes in page.tags]
    assert {f"plot-{name}" for name in figures} <= set(ids) and len([i for i in ids if i]) == len({i for i in ids if i})


def test_figures_name_their_trials_and_the_page_keeps_their_values_once(page):
    found = page.json("page-data")["trials"]
    for view in page.json("figure-data")["front"].values():
        named = [trace for trace in view["data"] if "x" in (trace.get("meta") or {})]
        assert named and not any("x" in trace or "y" in trace or "text" in trace for trace in named)
        numbers = sorted(number for trace in named for number in trace["customdata"])
        assert numbers == sorted(record.number for record in records() if record.state == "complete")
    assert found["number"] == [record.number for record in records()]
    assert column(found["values"]["params"]) == [record.costs["params"] for record in records()]
    assert column(found["values"]["accuracy"]) == [record.metrics.get("accuracy") for record in records()]


def column(coded_values):
    """A column as the page reads it."""
    if isinstance(coded_values, list):
        return coded_values
    at = coded_values.get("at")
    return [coded_values["of"][place] for place in at] if at is not None else coded_values["of"] * len(records())


def test_columns_are_short_and_come_back():
    assert coded(["a", "a", "a"]) == {"of": ["a"]}
    mixed = coded([1, 1, True, True, 1, 1.0, 1])
    assert list(map(repr, mixed["of"])) == ["1", "True", "1.0"] and mixed["at"] == [0, 0, 1, 1, 0, 2, 0]
    assert coded([0.1, 0.2, 0.3]) == [0.1, 0.2, 0.3]
    assert coded([None, "x", None, "x"]) == {"of": [None, "x"], "at": [0, 1, 0, 1]}


def test_long_curves_are_kept_at_even_epochs():
    (record,) = records(1)
    assert curve(record.curve, 20)[0] == [] and len(curve(record.curve, 20)[1]) == 20
    epochs, accuracy, loss, training = curve(record.curve, 7)
    assert epochs == [2, 5, 8, 11, 14, 17, 20] and len(accuracy) == len(loss) == len(training) == 7
    assert accuracy[-1] == record.curve[-1].accuracy and curve((), 7) == []


def test_csv_holds_every_trial(folder):
    with (folder / "trials.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    for row, record in zip(rows, records(), strict=True):
        assert (int(row["number"]), row["state"], row["key"], row["reason"]) == (
            record.number,
            record.state,
            record.key,
            record.reason,
        )
        assert int(row["macs"]) == record.costs["macs"]
        assert row["accuracy"] == ("" if record.state != "complete" else str(record.metrics["accuracy"]))
        chosen = {name: value for name, value in row.items() if "." in name or name == "depth"}
        assert {name: value for name, value in chosen.items() if value} == {n: str(v) for n, v in record.params.items()}


def test_json_holds_the_front(folder):
    data = json.loads((folder / "front.json").read_text())
    facts = gather(STUDY, ATTRIBUTES, records())
    assert [(item["number"], item["key"], item["seed"]) for item in data["front"]] == [
        (trial.number, trial.record.key, 0) for trial in facts.front
    ]
    assert data["objectives"][0] == {"metric": "accuracy", "direction": "maximize"}
    assert data["front"][0]["values"] == {name: facts.front[0].value(name) for name in ("accuracy", "params", "macs")}
    assert part_from_json(data["front"][0]["config"]) == facts.front[0].record.config


def test_configs_come_back_from_their_columns(page):
    leaves = [(leaf["path"], column(leaf["values"])) for leaf in page.json("page-data")["trials"]["config"]]
    for row, record in enumerate(records()):
        assert rebuilt([(path, values[row]) for path, values in leaves]) == record.config_json


def rebuilt(leaves):
    """A config as the page puts it together; lists are first dictionaries by place."""
    found = {}
    for path, value in leaves:
        if value:
            part = found
            for name in path[:-1]:
                part = part.setdefault(name, {})
            part[path[-1]] = value[0]

    def whole(part):
        if not isinstance(part, dict):
            return part
        if part and all(isinstance(name, int) for name in part):
            return [whole(part[place]) for place in range(len(part))]
        return {name: whole(value) for name, value in part.items()}

    return whole(found)


def test_hostile_names_stay_text(tmp_path):
    option = vary(SqueezeExcite, label=EVIL, ratio=choose(4, 8))
    space = vary(ResNet, depth=20, stages=(None, None, choose(None, option)))
    study = STUDY.model_copy(update={"question": EVIL, "space": space})
    attributes = {"created": EVIL, "data": {"dataset": EVIL, "fingerprint": EVIL}, "provenance": {"commit": EVIL}}
    evil = {
        "params": {"stages.3.attention": EVIL, EVIL: EVIL},
        "device": EVIL,
        "reason": EVIL,
        "traceback": EVIL,
        "key": EVIL,
    }
    evil["provenance"] = {"host": EVIL, "versions": {EVIL: EVIL}, "commit": "\ud800"}
    some = [replace(record, **evil) for record in records(30)]
    path = write_page(study, attributes, some, tmp_path)
    page = Page(path)
    assert page.text.count("<script>alert(1)</script>") >= 5
    assert len([tag for tag, _ in page.tags if tag == "script"]) == 5
    assert not [tag for tag, _ in page.tags if tag == "img"]
    assert EVIL in column(page.json("page-data")["trials"]["choices"][0]["words"])
    assert "<img" not in json.dumps(page.json("figure-data"))
    with (tmp_path / "trials.csv").open(newline="", encoding="utf-8") as file:
        assert next(csv.DictReader(file))["reason"] == EVIL


FIRST = records(1)[0]
DIVERGED = replace(FIRST, metrics={"accuracy": math.nan}, curve=(Epoch(1, 0.1, math.nan, math.inf, 1.0),))


@pytest.mark.parametrize(
    ("some", "words"),
    [
        ([], "No answer yet"),
        ([replace(r, state="failed", metrics={}, curve=()) for r in records(3)], "all 3 trials failed"),
        ([replace(FIRST, state="running", metrics={}, curve=(), costs={}, config_json={})], "no trial is complete"),
        ([FIRST], "One trial so far"),
        ([FIRST, replace(FIRST, number=1)], "The best of 2 trials"),
        ([DIVERGED], "No answer: no complete"),
        ([replace(r, curve=(), epochs=0, device="", provenance={}, started=None) for r in records(9)], "The best"),
    ],
)
def test_little_gives_a_sensible_page(tmp_path, some, words):
    page = Page(write_page(STUDY, {}, some, tmp_path))
    assert words in page.text
    assert not re.search(r"\b(nan|inf|None)\b", page.text)
    assert len(page.json("page-data")["trials"]["number"]) == len(some)


@pytest.mark.parametrize(
    "objectives",
    [
        (maximize("accuracy"),),
        (minimize("loss"), minimize("params")),
        (minimize("seconds"), maximize("accuracy")),
        (minimize("macs"),),
    ],
)
def test_any_objectives_give_a_sensible_page(tmp_path, objectives):
    study = STUDY.model_copy(update={"objectives": objectives})
    page = Page(write_page(study, ATTRIBUTES, records(), tmp_path))
    assert "The best of 54 trials" in page.text
    assert page.json("figure-data")


def test_other_strategies_and_spaces(tmp_path):
    tied = same(choose(None, SqueezeExcite()))
    space = vary(ResNet, depth=20, stages=(None, tied, tied))
    study = STUDY.model_copy(update={"space": space, "strategy": Exhaustive(), "seeds": (0, 1, 2), "question": ""})
    some = [replace(r, params={"stages.2+3.attention": "se"}, seed=r.number % 3) for r in records(6)]
    page = Page(write_page(study, ATTRIBUTES, some, tmp_path))
    assert "3 seeds (0, 1 and 2)" in page.text and "stages 2+3" in page.text
    assert ("h1", {}) in page.tags and "expatt-kernels-cifar10" in page.text


def test_an_interrupted_write_leaves_the_old_page(tmp_path, monkeypatch):
    write_page(STUDY, ATTRIBUTES, [FIRST], tmp_path)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    monkeypatch.setattr(Path, "replace", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        write_page(STUDY, ATTRIBUTES, records(), tmp_path)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before
    assert set(before) == {"index.html", "trials.csv", "front.json"}
