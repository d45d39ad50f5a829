"""A training loop of the user's own: the same bits however often it is interrupted, one clear line for what is no loop."""

import csv
import io
import json
import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from harness.code import source_hash
from harness.config import Backbone, Config, OwnData, ResNet, SqueezeExcite, Training
from harness.cost import Shape, network_cost
from harness.data.own import own_info
from harness.data.sources import open_data
from harness.design import AddOneIn
from harness.errors import DataError, HarnessError
from harness.own_loop import Context
from harness.preflight import checked
from harness.record import Record
from harness.report.facts import gather
from harness.report.page import write_page
from harness.report.words import metric_text
from harness.run import Options, run_study
from harness.space import choose, span, vary
from harness.storage.reader import read_records, read_studies
from harness.study import Asha, Exhaustive, Random, Study, maximize, minimize
from harness.trial import Assignment, Outcome, run_trial
from tests.users import BEN, user

REAL = '''
import random
import numpy as np
import torch
from torch.nn import functional as F

class Count:
    """Something of one's own that has a state."""
    value = 0.0
    def state_dict(self):
        return {"value": self.value, "list": [np.float64(1.0), (2, None)]}
    def load_state_dict(self, state):
        assert state["list"] == [1.0, (2, None)]
        self.value = state["value"]

def run(context):
    network, count, stream = context.network, Count(), torch.Generator().manual_seed(context.seed)
    optimizer = torch.optim.AdamW(network.parameters(), lr=context.training.lr)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 0.01, total_steps=context.training.epochs + 1)
    context.keep(optimizer=optimizer, schedule=schedule, count=count, stream=stream)
    for epoch in context.epochs():
        network.train()
        for pictures, targets in context.batches():
            noise = np.random.normal() + random.random() + torch.rand(1, generator=stream).item()
            scores = network(pictures + 0.01 * noise * torch.randn_like(pictures))
            loss = F.cross_entropy(scores, targets)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        schedule.step()
        network.eval()
        with torch.no_grad():
            parts = [(network(x).argmax(1) == y).double().mean() for x, y in context.held_out()]
        count.value += noise + context.rng("word").normal()
        yield {"hits": sum(parts) / len(parts), "loss": loss.detach(), "count": np.float64(count.value)}
'''
TRAINING = Training(epochs=3, limit=12, batch_size=32, validation=0.2, precision="fp32", augment="crop", lr=0.01)
NETWORK = ResNet(depth=8, width=0.5, stages=(None, None, SqueezeExcite(ratio=4)))


@pytest.fixture
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> Callable[[str], str]:
    """Writes a module with a loop `run`; returns how a study names it."""
    monkeypatch.syspath_prepend(str(tmp_path))
    made = 0

    def write(source: str) -> str:
        nonlocal made
        made += 1
        name = f"own_loop_{abs(hash(request.node.nodeid))}_{made}"
        (tmp_path / f"{name}.py").write_text(source)
        return f"{name}:run"

    return write


def assignment(runs: Path, trial: str, **changes: Any) -> Assignment:
    _, info = open_data(TRAINING, Path())
    config = Config(network=NETWORK, training=TRAINING).model_dump(mode="json")
    given = Assignment(
        study="s",
        number=0,
        key="k",
        seed=1,
        config=config,
        costs=network_cost(NETWORK, info.shape)._asdict(),
        data="data",
        fingerprint=info.fingerprint,
        runs=str(runs),
        trial=trial,
        shape=(*info.shape,),
        wanted=("hits",),
    )
    return replace(given, **changes)


def outcome(given: Assignment) -> Outcome:
    found = list(run_trial(given))[-1].outcome
    assert found is not None
    return found


# -- going on ---------------------------------------------------------------------------------------------------------


def scores(found: Outcome) -> dict[str, Any]:
    assert found.state == "complete", found.traceback
    measured = {name: value for name, value in found.metrics.items() if name in ("hits", "loss", "count")}
    return measured | {"weights": found.provenance["weights"]}


def test_cut_after_any_epoch_it_ends_with_the_same_bits(tmp_path: Path, module: Callable[[str], str]) -> None:
    trial = module(REAL)
    whole = outcome(assignment(tmp_path / "whole", trial))
    assert {"peak_memory", "seconds"} <= set(whole.metrics) and "(cpu)" in whole.device
    assert whole.provenance["trial"] == trial and whole.provenance["threads"] == 1
    assert scores(outcome(assignment(tmp_path / "again", trial))) == scores(whole)
    for epochs in (1, 2, 3):
        given = assignment(tmp_path / f"cut-{epochs}", trial)
        running = run_trial(given)
        for _ in range(epochs):
            next(running)
        running.close()
        rest = list(run_trial(given))
        assert [len(report.curve) for report in rest] == [*range(epochs + 1, 4), 3], "an epoch was trained again"
        assert scores(rest[-1].outcome) == scores(whole)  # type: ignore[arg-type]


def test_it_ends_between_two_batches_when_the_run_does(tmp_path: Path, module: Callable[[str], str]) -> None:
    given, asked = assignment(tmp_path / "cut", module(REAL)), iter(range(10**6))
    seen: list[Any] = []
    for report in run_trial(given, stop=lambda: len(seen) == 1 and next(asked) > 1):
        seen.append(report)
    assert len(seen) == 1 and next(asked) == 3, "it went on after the batch"
    assert [len(report.curve) for report in run_trial(given)] == [2, 3, 3]


def test_at_a_rung_a_trial_that_goes_on_says_so_again(tmp_path: Path, module: Callable[[str], str]) -> None:
    given = assignment(tmp_path, module(REAL), rungs=(1,))
    running = run_trial(given)
    next(running)
    running.close()
    assert [len(report.curve) for report in run_trial(given)] == [1, 2, 3, 3]


def test_what_keeps_nothing_is_begun_again(tmp_path: Path, module: Callable[[str], str]) -> None:
    trial = module("def run(context):\n    for epoch in context.epochs():\n        yield {'hits': epoch / 9}\n")
    running = run_trial(assignment(tmp_path, trial))
    next(running)
    running.close()
    reports = list(run_trial(assignment(tmp_path, trial)))
    assert [len(report.curve) for report in reports] == [1, 2, 3, 3]
    assert reports[-1].curve[-1].own == {"hits": pytest.approx(1 / 3)} and math.isnan(reports[-1].curve[-1].accuracy)
    assert not list(tmp_path.rglob("*.pt")), "no network was used"


def test_a_loop_is_tried_by_hand(module: Callable[[str], str]) -> None:
    scope: dict[str, Any] = {}
    exec(REAL, scope)
    found = list(scope["run"](Context(Config(network=NETWORK, training=TRAINING), shape=Shape(1, 8, 8, 10))))
    assert len(found) == 3 and 0 <= float(found[-1]["hits"]) <= 1


# -- what is no loop --------------------------------------------------------------------------------------------------

EPOCH = "def run(context):\n    for _ in context.epochs():\n        "
BAD = {
    "yields nothing": ("def run(context):\n    yield from ()\n", "yielded nothing: it yields a dictionary of metrics"),
    "no generator": ("def run(context):\n    return 0.5\n", "gave 0.5: write a generator"),
    "no dictionary": (EPOCH + "yield 0.5\n", "epoch 1: it yielded 0.5; yield a dictionary of metrics"),
    "an empty one": (EPOCH + "yield {}\n", "it yielded {}; yield a dictionary"),
    "not the objective": (
        EPOCH + "yield {'hit': 1}\n",
        "yielded no 'hits', which is an objective (but hit); did you mean 'hit'?",
    ),
    "not a number": (EPOCH + "yield {'hits': float('nan')}\n", "measured hits = nan; a metric is a finite number"),
    "infinite": (EPOCH + "yield {'hits': 1, 'loss': float('inf')}\n", "measured loss = inf"),
    "a word": (EPOCH + "yield {'hits': '0.5'}\n", "hits = '0.5' is no number"),
    "none": (EPOCH + "yield {'hits': None}\n", "hits = None is no number"),
    "a list": (EPOCH + "yield {'hits': [1, 2]}\n", "hits = [1, 2] is no number"),
    "a name that is none": (EPOCH + "yield {'hits': 1, 'm IoU': 1}\n", "'m IoU' names no metric; use letters, digits and _"),
    "a cost": (EPOCH + "yield {'hits': 1, 'macs': 1}\n", "macs is measured by the harness itself"),
    "the test part": (EPOCH + "yield {'hits': 1, 'test_hits': 1}\n", "test_hits is for trials that confirm others"),
    "too many": (
        "def run(context):\n    for _ in range(9):\n        yield {'hits': 1}\n",
        "yielded more often than 3 times, the epochs of its config: loop over context.epochs()",
    ),
    "keeps without epochs": (
        "def run(context):\n    context.keep()\n    for _ in range(3):\n        yield {'hits': 1}\n",
        "context.keep(...) goes with `for epoch in context.epochs():`",
    ),
    "keeps twice": ("def run(context):\n    context.keep()\n    context.keep()\n    yield {}\n", "is called once"),
    "keeps a number": ("def run(context):\n    context.keep(a=3)\n    yield {}\n", "keep(a=...): int has no state_dict()"),
    "keeps a function": (
        "class A:\n    def state_dict(self): return {'b': [print]}\n    def load_state_dict(self, state): ...\n"
        "def run(context):\n    context.keep(a=A())\n    for _ in context.epochs():\n        yield {'hits': 1}\n",
        "context.keep: a.b.0 is a builtins.builtin_function_or_method, which cannot be kept",
    ),
    "forgets its optimiser": (
        "import torch\ndef run(context):\n    made = torch.optim.SGD(context.network.parameters(), lr=0.1)\n"
        "    context.keep()\n    for _ in context.epochs():\n        made.step()\n        yield {'hits': 1}\n",
        "context.keep(...) names no SGD, which has stepped: keep(optimizer=...) it as well",
    ),
    "breaks": (EPOCH + "yield {'hits': 1 / 0}\n", "ZeroDivisionError: division by zero"),
}


@pytest.mark.parametrize("source, words", BAD.values(), ids=BAD)
def test_what_is_no_loop_fails_with_one_clear_line(
    tmp_path: Path, module: Callable[[str], str], source: str, words: str
) -> None:
    found = outcome(assignment(tmp_path, module(source)))
    assert found.state == "failed"
    assert words in found.reason and "\n" not in found.reason


def test_a_dataclass_or_a_named_tuple_is_a_dictionary_too(tmp_path: Path, module: Callable[[str], str]) -> None:
    source = (
        "from dataclasses import dataclass\nfrom typing import NamedTuple\nimport torch\n"
        "@dataclass\nclass One:\n    hits: float\n    accuracy: float\n"
        "class Two(NamedTuple):\n    hits: torch.Tensor\n    loss: int\n"
        "def run(context):\n    yield One(0.5, 0.25)\n    yield Two(torch.tensor(0.75), 2)\n"
    )
    curve = list(run_trial(assignment(tmp_path, module(source))))[-1].curve
    assert [point.metrics() for point in curve] == [{"accuracy": 0.25, "hits": 0.5}, {"loss": 2.0, "hits": 0.75}]
    assert [point.headline for point in curve] == [0.25, 0.75]


# -- in a study -------------------------------------------------------------------------------------------------------

QUICK = """
def run(context):
    config = context.config.model_dump_json()
    gain = 0.1 * config.count('"se"') + 0.001 * (hash(context.seed) % 7)
    for epoch in range(1, context.training.epochs + 1):
        yield {"mIoU": (0.3 + gain) * epoch / context.training.epochs, "distance": 9 - 10 * gain, "loss": 1 / epoch}
"""
DATA = OwnData(name="blobs", shape=(3, 16, 16), classes=4, train=100)
gate: Any = choose(None, SqueezeExcite(ratio=4))


def study(trial: str, **changes: Any) -> Study:
    given: dict[str, Any] = {
        "name": "own",
        "space": vary(ResNet, depth=8, stages=(None, gate, gate)),
        "training": Training(dataset="own", epochs=4),
        "data": DATA,
        "trial": trial,
        "strategy": AddOneIn(margin=0.01),
        "objectives": (maximize("mIoU", unit="%"), minimize("macs"), minimize("distance", unit="px")),
        "seeds": (0, 1, 2),
    }
    return Study(**given | changes)


def run(tmp_path: Path, one: Study) -> list[Record]:
    options = Options(storage=f"sqlite:///{tmp_path}/harness.db", backend="local", code=(str(tmp_path),), data=tmp_path)
    done = run_study(one, options)
    assert (done.failed, done.left) == (0, 0)
    newest = read_studies(options.storage, one.name)[-1]
    return read_records(options.storage, newest.study_id)


def test_effects_and_page_speak_of_its_own_metrics(tmp_path: Path, module: Callable[[str], str]) -> None:
    one = study(module(QUICK))
    records = run(tmp_path, one)
    assert len(records) == 9 and {record.state for record in records} == {"complete"}
    assert records[0].curve[-1].own["mIoU"] == records[0].metrics["mIoU"] == pytest.approx(0.3)
    assert records[0].curve[-1].loss == 0.25
    stored = read_studies(f"sqlite:///{tmp_path}/harness.db", "own")[0]
    again = Study.from_json(stored.attributes["definition"])
    assert again.data == DATA and again.objectives == one.objectives
    page = write_page(again, stored.attributes, records, tmp_path / "page").read_text()
    for words in ("stage 2 SE", "+10.0", " points", "mIoU", "blobs", "100 training", "16 x 16", "distance"):
        assert words in page, words
    head, *rows = csv.reader(io.StringIO((tmp_path / "page" / "trials.csv").read_text()))
    assert {"mIoU", "distance"} <= set(head) and float(rows[0][head.index("mIoU")]) == pytest.approx(0.3)
    facts = gather(again, stored.attributes, records)
    assert facts.units["mIoU"].text(0.4) == "40.00\N{NO-BREAK SPACE}%" and facts.in_points
    assert facts.units["distance"].text(8.0) == "8.000\N{NO-BREAK SPACE}px"
    assert metric_text("mIoU", 0.5, "%") == "50.00 %"


def test_the_smaller_can_be_the_better(tmp_path: Path, module: Callable[[str], str]) -> None:
    one = study(module(QUICK), objectives=(minimize("distance", unit="px"), minimize("macs")))
    stored = run(tmp_path, one)
    attributes = read_studies(f"sqlite:///{tmp_path}/harness.db", "own")[0].attributes
    page = write_page(one, attributes, stored, tmp_path / "page").read_text()
    assert "helps" in page and "-1.00" in page.replace("\N{MINUS SIGN}", "-")


def test_its_metric_decides_who_is_stopped_early(tmp_path: Path, module: Callable[[str], str]) -> None:
    one = study(
        module(QUICK),
        training=vary(Training, dataset="own", epochs=4, lr=span(0.01, 0.2, log=True)),
        strategy=Random(trials=12),
        seeds=(0,),
        stopping=Asha(quorum=4),
    )
    records = run(tmp_path, one)
    stopped = [record for record in records if record.state == "stopped"]
    assert stopped and all("of" in record.reason and len(record.curve) in (1, 3) for record in stopped)
    best = max(record.curve[0].own["mIoU"] for record in records)
    assert all(record.curve[0].own["mIoU"] <= best for record in stopped)
    assert max(record.metrics["mIoU"] for record in records if record.state == "complete") == pytest.approx(4 * best)


def test_a_failed_loop_is_run_again_when_its_source_has_changed(tmp_path: Path, module: Callable[[str], str]) -> None:
    trial = module(EPOCH + "yield {'hits': 1}\n")
    one = study(trial, strategy=Exhaustive(), seeds=(0,))
    options = Options(storage=f"sqlite:///{tmp_path}/harness.db", backend="local", code=(str(tmp_path),))
    done = run_study(one, options)
    assert done.failed == 4 and "yielded no 'mIoU'" in read_records(options.storage, 1)[0].reason
    before = source_hash(trial)
    keys = {record.key for record in read_records(options.storage, 1)}
    (tmp_path / f"{trial.partition(':')[0]}.py").write_text(QUICK)
    assert source_hash(trial) != before
    import importlib
    import sys

    from harness import code

    code._imported.clear()
    del sys.modules[trial.partition(":")[0]]
    importlib.invalidate_caches()
    again = run_study(one, options)
    assert again.complete == 4
    assert not keys & {record.key for record in read_records(options.storage, 1) if record.state == "complete"}


def test_data_of_ones_own_are_in_the_key(tmp_path: Path) -> None:
    base = own_info(DATA, tmp_path)
    assert base == own_info(DATA, tmp_path / "elsewhere")
    assert base.shape == Shape(3, 16, 16, 4) and base.own and base.train == 100
    for change in ({"revision": "2"}, {"shape": (3, 16, 17)}, {"classes": 5}, {"name": "other"}):
        assert own_info(DATA.model_copy(update=change), tmp_path).fingerprint != base.fingerprint
    assert own_info(DATA.model_copy(update={"train": 7}), tmp_path).fingerprint == base.fingerprint
    files = DATA.model_copy(update={"files": "scans/*.txt"})
    with pytest.raises(DataError, match=r"OwnData.files = 'scans/\*.txt': no file under"):
        own_info(files, tmp_path)
    (tmp_path / "scans").mkdir()
    (tmp_path / "scans" / "one.txt").write_text("1")
    first = own_info(files, tmp_path).fingerprint
    (tmp_path / "scans" / "one.txt").write_text("two")
    assert len({base.fingerprint, first, own_info(files, tmp_path).fingerprint}) == 3


def test_a_file_of_ones_own_that_cannot_be_read_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    tmp_path.chmod(0o777)
    closed = tmp_path / "one.txt"
    closed.touch(0)
    with user(BEN), pytest.raises(DataError, match=r"^one.txt: cannot be read; mend or remove it, or narrow OwnData.files$"):
        own_info(DATA.model_copy(update={"files": "*.txt"}), Path())


NETWORKS = """
import torch
from torch import nn

class Dense(nn.Sequential):
    def __init__(self, channels, classes):
        super().__init__(nn.Conv2d(channels, 8, 3, padding=1), nn.Conv2d(8, classes, 1))

class Denoiser(nn.Sequential):
    def __init__(self, channels):
        super().__init__(nn.Conv2d(channels, 8, 3, padding=1), nn.Conv2d(8, channels, 1))

def run(context):
    yield {"mIoU": 0.5, "distance": 1.0}

def two(context, more):
    yield {}
"""
CASES: dict[str, tuple[dict[str, Any], str]] = {
    "own data, another set": ({"training": Training(epochs=4)}, "of data of your own, write Training(dataset='own')"),
    "own set, no data": ({"data": None}, "of data of your own, say what they are, Study(data=OwnData(...))"),
    "no classes": ({"data": OwnData(name="b", shape=(3, 8, 8))}, "OwnData.classes = 0: ResNet ends in a classifier"),
    "two arguments": ({"trial": "two"}, "two(context, more) is called with one argument: write def two(context)"),
    "no such loop": ({"trial": "walk"}, "has no walk"),
}


@pytest.mark.parametrize("changes, words", CASES.values(), ids=CASES)
def test_what_cannot_run_is_told_before_it_does(
    tmp_path: Path, module: Callable[[str], str], changes: dict[str, Any], words: str
) -> None:
    target = module(NETWORKS)
    if "trial" in changes:
        changes = {"trial": target.replace(":run", f":{changes['trial']}")}
    with pytest.raises(HarnessError) as caught:
        checked(study(**{"trial": target} | changes), f"sqlite:///{tmp_path}/none.db", tmp_path)
    assert words in str(caught.value) and "\n" not in str(caught.value)


def test_a_network_may_give_whatever_its_loop_can_use(tmp_path: Path, module: Callable[[str], str]) -> None:
    target = module(NETWORKS)
    dense, denoiser = (target.replace(":run", f":{name}") for name in ("Dense", "Denoiser"))
    slots: Any = {"slots": {"a": "0"}, "a": gate}
    found = checked(study(target, space=vary(Backbone, dense, **slots)), f"sqlite:///{tmp_path}/none.db", tmp_path)
    config = found.space.config(next(found.space.enumerate()))
    assert found.price(config).macs == 16 * 16 * (27 * 8 + 8 * 4), "counted for one input of these data"
    plain = study(target, space=vary(Backbone, denoiser, **slots), data=OwnData(name="b", shape=(3, 16, 16)))
    checked(plain, f"sqlite:///{tmp_path}/none.db", tmp_path)
    ours = Study(name="ours", space=vary(Backbone, dense, **slots), training=Training(limit=5), strategy=Exhaustive())
    with pytest.raises(
        HarnessError, match=r"must give logits \(2, 10\), it gives \(2, 10, 8, 8\); anything else is trained by"
    ):
        checked(ours, f"sqlite:///{tmp_path}/none.db", tmp_path)


def test_a_study_of_ones_own_is_its_json() -> None:
    one = study("a.b:run", stopping=None)
    again = Study.from_json(json.loads(json.dumps(one.to_json())))
    assert again.to_json() == one.to_json() and again.data == one.data
