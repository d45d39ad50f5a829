"""`harness check`: a good module holds, a saboteur is told in one line what breaks and what mends it, a study is built."""

import json
import re
from collections.abc import Callable
from pathlib import Path

import pytest

from harness.check import Finding, place_of, rehearse_study, subject_of, tried
from harness.cli import main
from harness.errors import HarnessError
from harness.measure import contract
from harness.measure.complexity import CountError
from harness.measure.contract import CONTRACT
from harness.report.facts import gather
from harness.report.notes import provenance
from harness.storage.reader import read_studies
from harness.study import Study

Harness = Callable[..., tuple[int, str, str]]
GATES = """
import random

import torch
from torch import nn


class Gate(nn.Module):
    def __init__(self, channels, reduction=4):
        super().__init__()
        hidden = max(1, channels // reduction)
        pool = nn.AdaptiveAvgPool2d(1)
        self.weigh = nn.Sequential(pool, nn.Conv2d(channels, hidden, 1), nn.ReLU(), nn.Conv2d(hidden, channels, 1))

    def forward(self, x):
        return x * self.weigh(x).sigmoid()


class States(Gate):
    def macs(self, height, width):
        return sum(p.numel() for p in self.parameters() if p.dim() > 1)


class NotFinite(Gate):
    def forward(self, x):
        return super().forward(x) / x.square().mean((1, 2, 3), keepdim=True).sqrt()


class Shape(Gate):
    def forward(self, x):
        return self.weigh(x)


class NoOnes(Gate):
    def forward(self, x):
        if x.shape[2] == 1:
            raise ValueError("no\\nrow to spare")
        return super().forward(x)


class InPlace(Gate):
    def forward(self, x):
        return x.mul_(self.weigh(x.clone()).sigmoid())


class Mixes(Gate):
    def forward(self, x):
        return super().forward(x - x.mean(0))


class Jumps(Gate):
    def forward(self, x):
        return super().forward(x).contiguous().flatten().as_strided(x.shape, x.stride())


class Coarse(Gate):
    def forward(self, x):
        return super().forward((x + 1000) - 1000)


class Draws(Gate):
    def forward(self, x):
        return super().forward(nn.functional.dropout(x, 0.1))


class Starts(Gate):
    def __init__(self, channels):
        super().__init__(channels)
        nn.init.constant_(self.weigh[1].bias, random.random())


class Hidden(Gate):
    def __init__(self, channels):
        super().__init__(channels)
        self.mean = torch.zeros(1)


class Remembers(Gate):
    seen = 0

    def forward(self, x):
        if self.training:
            self.seen += 1
        return super().forward(x) * (1 + self.seen)


class Unused(Gate):
    def __init__(self, channels):
        super().__init__(channels)
        self.unused = nn.Linear(3, 3)


class Stuck(Gate):
    def __init__(self, channels):
        super().__init__(channels)
        self.one, self.other = (nn.Parameter(torch.zeros(channels, 1, 1)) for _ in range(2))

    def forward(self, x):
        return super().forward(x) + self.one * self.other * x


class Detached(Gate):
    def forward(self, x):
        return super().forward(x.detach())


class Keeps(Gate):
    def forward(self, x):
        self.map = self.weigh(x).sigmoid()
        return x * self.map


class Looks(Gate):
    def forward(self, x):
        return super().forward(x) if x.sum().item() > 0 else x


class Doubles(Gate):
    def macs(self, height, width):
        return 2 * sum(p.numel() for p in self.parameters() if p.dim() > 1)


class Climbs(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        return 10 * x

    @staticmethod
    def backward(ctx, gradient):
        return -1000 * gradient


class Backwards(Gate):
    def forward(self, x):
        return Climbs.apply(super().forward(x))


class Quits(Gate):
    def forward(self, x):
        raise SystemExit(3)


class NoWay(Gate):
    def __init__(self, channels):
        raise RuntimeError("no\\nway")


class Prints(Gate):
    def forward(self, x):
        print("here")
        return super().forward(x)
"""


@pytest.fixture
def lab(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "check_lab.py").write_text(GATES)
    monkeypatch.syspath_prepend(str(tmp_path))
    return tmp_path


@pytest.fixture
def harness(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], lab: Path) -> Harness:
    """Runs a command where the modules lie; gives exit code, stdout and stderr."""
    monkeypatch.chdir(lab)
    monkeypatch.setattr("harness.check.ROUNDS", 1)

    def command(*words: str) -> tuple[int, str, str]:
        monkeypatch.setattr("sys.argv", ["harness", *(() if words[0] in ("plan", "run") else ("check",)), *words])
        try:
            main.main()
            code = 0
        except SystemExit as end:
            code = int(end.code or 0)
        out, err = capsys.readouterr()
        return code, out, err

    return command


SMALL = ("--channels", "8", "--size", "6")


def test_a_good_module_holds_and_is_priced(harness: Harness) -> None:
    code, out, err = harness("check_lab:Gate", "reduction=2", *SMALL)
    assert (code, err) == (0, "")
    assert "check_lab:Gate(reduction=2) at 8 channels on 6x6, place branch" in out
    assert out.count("\N{CHECK MARK}") == len(CONTRACT) and "\N{BALLOT X}" not in out
    assert f"all {len(CONTRACT)} hold" in out
    assert "76 params, 64 MACs on 6x6 (counted from the operations it dispatches)" in out
    assert re.search(r"params \+1\.5 %, MACs \+0\.1 %, step time x\d", out)
    assert max(map(len, out.splitlines())) <= 80


def test_json_says_it_all(harness: Harness) -> None:
    code, out, err = harness("check_lab:States", "--knob", "reduction=2", "--place", "stage", "--json", *SMALL)
    found = json.loads(out)
    assert (code, err) == (0, "") and found["holds"] and found["knobs"] == {"reduction": 2} and found["place"] == "stage"
    assert [check["name"] for check in found["checks"]] == [promise.__name__.replace("_", " ") for promise in CONTRACT]
    costs = found["costs"]
    assert (costs["params"], costs["macs"], costs["counted"]) == (76, 64, False)
    assert costs["network"]["params"] == costs["plain"]["params"] + 76 and costs["ratio"] > 0
    code, out, _ = harness("check_lab:Mixes", "--json", *SMALL)
    found = json.loads(out)
    assert code == 1 and not found["holds"] and found["costs"] is None
    assert [check["name"] for check in found["checks"] if not check["holds"]] == ["does not mix pictures"]


SABOTEURS = {
    "NoWay": ("constructs", "NoWay(8) raised RuntimeError: no way", "check_lab.py:"),
    "Shape": ("keeps the shape", "(4, 8, 6, 6) gave (4, 8, 1, 1)", "return a tensor of (4, 8, 6, 6)"),
    "NoOnes": ("keeps the shape", "ValueError: no row to spare", "mend check_lab.py:"),
    "Quits": ("keeps the shape", "SystemExit: 3", "mend check_lab.py:"),
    "Starts": ("follows the seed", "weigh.1.bias differs between two modules of one seed", "by torch alone"),
    "Draws": ("follows the seed", "two passes in eval mode differ", "self.training"),
    "InPlace": ("leaves its input alone", "the input was changed in place", "x = x * w"),
    "NotFinite": ("is finite", "outputs that are not finite on zeros", "add a small number"),
    "Mixes": ("does not mix pictures", "a picture alone differs by", "not dim 0"),
    "Jumps": ("ignores the memory format", "channels-last gives other values", "as_strided"),
    "Coarse": ("is close in bf16", "off under autocast", "in fp32"),
    "Hidden": ("has all in its state dict", "mean is a plain tensor", 'self.register_buffer("mean"'),
    "Remembers": ("has all in its state dict", "a module that loads it gives other outputs", "registered buffers"),
    "Unused": ("learns by all its parameters", "no gradient reaches unused.weight, unused.bias", "drop it"),
    "Stuck": ("learns by all its parameters", "no gradient reaches one, other", "drop it"),
    "Detached": ("learns by all its parameters", "no gradient reaches the input", "detach"),
    "Backwards": ("lowers the loss", "became", "wrong signs"),
    "Keeps": ("can be copied", "RuntimeError: Only Tensors created explicitly", "mend"),
    "Looks": ("survives export", "torch.export:", "values of a tensor"),
    "Doubles": ("counts agree", "76 params and 128 MACs at 6x6, does 76 params and 64 MACs", "macs(height, width)"),
}


@pytest.mark.parametrize("name", SABOTEURS)
def test_a_saboteur_is_told_what_breaks_and_what_mends_it(lab: Path, name: str) -> None:
    check, seen, remedy = SABOTEURS[name]
    knobs = ["reduction=2"] if name == "Doubles" else []
    subject = subject_of(f"check_lab:{name}", knobs, 8, 6, "branch")
    found = tried(getattr(contract, check.replace(" ", "_")), subject)
    assert not found.holds and seen in found.seen and remedy in found.remedy
    assert "\n" not in found.seen + found.remedy and "Traceback" not in found.seen


def test_every_promise_has_its_saboteur() -> None:
    kept = {promise.__name__.replace("_", " ") for promise in CONTRACT} - {check for check, _, _ in SABOTEURS.values()}
    assert kept == {"leaves the rest of a network", "runs on meta"}  # which a user's module cannot break


def test_what_others_build_on_ends_the_check(harness: Harness) -> None:
    code, out, err = harness("check_lab:Draws", *SMALL)
    assert (code, err) == (1, "") and "two passes in eval mode differ" in out
    assert out.count("\N{BALLOT X}") == 1 and f"1 check broken; {len(CONTRACT) - 3} others not tried" in out


def test_what_looks_at_values_is_counted_on_the_cpu(lab: Path) -> None:
    subject = subject_of("check_lab:Looks", [], 8, 6, "branch")
    assert tried(contract.runs_on_meta, subject).seen == "no: it looks at values, so it is counted on the CPU"


def test_what_a_module_prints_is_not_on_stdout(harness: Harness) -> None:
    code, out, err = harness("check_lab:Prints", "--json", *SMALL)
    assert code == 0 and json.loads(out)["holds"] and "here" in err


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("nowhere.gate:Gate",), "nowhere.gate cannot be found"),
        (("check_lab:Gat",), "check_lab has no Gat; did you mean 'Gate'?"),
        (("check_lab:GATES",), "check_lab has no GATES"),
        (("check_lab:random",), "check_lab:random is no nn.Module class"),
        (("check_lab:Gate", "reducton=2"), "has no knob 'reducton' (it has reduction); did you mean 'reduction'?"),
        (("check_lab:Gate", "reduction"), "reduction: write a knob as name=value"),
        (("check_lab:Gate", "reduction=[1]"), "a knob is a string, a finite number, a bool or None"),
        (("check_lab:Gate", "--channels", "4096"), "--channels 4096: use 1 to 512"),
        (("check_lab:",), "write 'package.module:Class'"),
        (("study.py",), "study.py: there is no such study file"),
        (("study.py", "reduction=2"), "knobs are for a module of your own"),
    ],
)
def test_a_wrong_target_is_one_line(harness: Harness, words: tuple[str, ...], said: str) -> None:
    code, out, err = harness(*words)
    assert (code, out) == (2, "") and said in err and err.count("\n") == 1 and err.startswith("harness: ")


STUDY = """
from harness.config import *
from harness.space import *
from harness.study import *
slot = choose(None, SqueezeExcite(ratio=4), vary(Custom, "check_lab:Gate", reduction=choose(2, 4)))
STUDY = Study(
    name="tiny", question="Which?", space=vary(ResNet, depth=8, stages=(None, None, slot)),
    training=Training(epochs=1, limit=10, precision="fp32"), strategy=Exhaustive(),
)
"""


def test_a_study_is_built_without_training(harness: Harness, lab: Path) -> None:
    (lab / "study.py").write_text(STUDY)
    code, out, err = harness("study.py")
    assert (code, err) == (0, "") and "tiny: 4 of 4 networks built, counts agree\n" in out
    code, out, _ = harness("study.py", "--configs", "3", "--json")
    found = json.loads(out)
    assert code == 0 and found["holds"] and not found["complete"] and 1 <= found["built"] <= 3
    assert not (lab / "harness.db").exists()


@pytest.mark.parametrize(("name", "said"), [("Gate", True), ("States", False)])
def test_whose_macs_are_counted_is_said_where_they_are_shown(harness: Harness, lab: Path, name: str, said: bool) -> None:
    (lab / "study.py").write_text(STUDY.replace("check_lab:Gate", f"check_lab:{name}"))
    words = f"MACs of check_lab:{name} counted from the operations it dispatches"
    assert (words in harness("plan", "study.py")[1]) == said
    assert harness("run", "study.py", "--backend", "local", "--trials", "1")[0] == 0
    stored = read_studies("sqlite:///harness.db", "tiny")[0]
    assert stored.attributes["counted"] == ([f"check_lab:{name}"] if said else [])
    facts = gather(Study.from_json(stored.attributes["definition"]), stored.attributes, [])
    rows = dict(provenance(facts))
    assert rows.get("Counted") == (f"MACs of check_lab:{name}, from the operations it dispatches" if said else None)


def test_networks_that_count_otherwise_are_listed(
    make_study: Callable[..., Study], storage: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def wrong(*_: object) -> None:
        raise CountError("the closed form says 1, ptflops 2")

    monkeypatch.setattr("harness.check.check", wrong)
    seen: list[tuple[int, int]] = []
    found = rehearse_study(make_study(), Path(), storage, 5, lambda done, total: seen.append((done, total)))
    assert found.problems == ("the closed form says 1, ptflops 2",) * found.built and found.built > 1
    assert seen == [(done, found.built) for done in range(found.built + 1)] and not found.complete


def test_a_finding_without_a_frame_of_the_users_points_at_the_module() -> None:
    assert place_of(HarnessError("anything")) == "the module"
    assert Finding("name", True, "seen").remedy == ""
