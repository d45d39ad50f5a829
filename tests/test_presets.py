"""Presets: golden counts, what the papers print, the verb; each an ordinary config."""

import json
import os
import subprocess
import sys

import pytest
from typer.testing import CliRunner

from harness.cli.main import app
from harness.config import Config, ResNet, part_from_json
from harness.cost import Cost, network_cost
from harness.errors import ConfigError
from harness.presets import PRESETS, Printed, find, preset, stages
from harness.space import Space, choose

EXACT = {
    "resnet-34": 21_797_672,
    "resnet-50": 25_557_032,
    "resnet-101": 44_549_160,
    "resnet-152": 60_192_808,
    "expatt-resnet-50": 24_650_165,
    "expatt-resnet-152": 57_796_183,
    "gsa-resnet-38": 14_202_728,
    "gsa-resnet-50": 18_052_856,
    "vgg": 15_038_116,
    "vgg-att2": 19_813_030,
    "vgg-att3": 19_971_751,
    "resnet-164": 1_703_258,
}
"""Parameters of which all digits are known."""
MILLIONS = {
    "se-resnet-50": 28.088,
    "cbam-resnet-50": 28.090,
    "aa-resnet-34": 20.750,
    "aa-resnet-50": 25.814,
    "expatt-resnet-152-pooled": 57.66,
}
"""Parameters known to two or three decimals."""
GFLOPS = {
    "resnet-34": 7.33,
    "resnet-50": 8.18,
    "resnet-101": 15.60,
    "resnet-152": 23.03,
    "expatt-resnet-50": 8.01,
    "expatt-resnet-152": 22.33,
    "expatt-resnet-152-pooled": 22.16,
    "gsa-resnet-38": 5.89,
    "gsa-resnet-50": 7.17,
    "vgg": 2 * 0.31,
    "vgg-att2": 2 * 3.79,
}
"""Twice the multiply-accumulates, recomputed from the papers' descriptions."""
OTHERS = {"aa-resnet-101", "aa-resnet-152", "gsa-resnet-101", "wrn-28-10", "aa-wrn-28-10", "vgg-trunk", "vgg-att1"}
"""Without a recomputed count; the wide ones have printed counts."""
KNOWN_TO_DIFFER = {"expatt-resnet-152": {"params"}, "wrn-28-10": {"params"}, "aa-wrn-28-10": {"params"}}
"""Counts that are not the printed ones: another reading of what a paper leaves open, or a count of the paper's own."""


def test_every_preset_is_held_to_a_count():
    assert {*EXACT, *MILLIONS, *OTHERS} == set(PRESETS)


@pytest.mark.parametrize("name", EXACT)
def test_params_to_the_last_digit(name):
    assert find(name).cost.params == EXACT[name]


@pytest.mark.parametrize("name", MILLIONS)
def test_params_within_five_in_ten_thousand(name):
    assert find(name).cost.params / 1e6 == pytest.approx(MILLIONS[name], rel=5e-4)


@pytest.mark.parametrize("name", GFLOPS)
def test_gflops_within_two_percent(name):
    assert 2 * find(name).cost.macs / 1e9 == pytest.approx(GFLOPS[name], rel=0.02)


@pytest.mark.parametrize("name", PRESETS)
def test_counts_are_those_that_papers_print(name):
    doubted = {count for count, (_, trusted) in find(name).errors().items() if not trusted}
    assert doubted == KNOWN_TO_DIFFER.get(name, set())


def test_se_resnet_50_by_hand():
    """Two 1x1 convolutions with biases a block, on pooled channels: C -> C/16 -> C."""
    plain, found = find("resnet-50").cost, find("se-resnet-50").cost
    added = [(blocks, channels) for blocks, channels in zip((3, 4, 6, 3), (256, 512, 1024, 2048), strict=True)]
    assert found.macs - plain.macs == sum(n * 2 * c * (c // 16) for n, c in added)
    assert found.params - plain.params == sum(n * (2 * c * (c // 16) + c + c // 16) for n, c in added)


def test_what_rounding_explains_is_no_error():
    assert Printed("25.6").beyond_rounding(25.557) == 0 == Printed("25.6").beyond_rounding(25.65)
    assert Printed("25.6").beyond_rounding(25.70) == pytest.approx(0.05 / 25.6)
    assert Printed("25.6").error(25.557) == pytest.approx(-0.043 / 25.6)
    assert Printed("18").slack == 0.5


@pytest.mark.parametrize("name", PRESETS)
def test_the_parts_of_a_preset_are_the_whole(name):
    found, total = find(name), Cost(0, 0)
    for stage in stages(found):
        total += stage.cost
    assert total == found.cost == network_cost(found.network, found.shape)


@pytest.mark.parametrize("name", PRESETS)
def test_a_preset_is_an_ordinary_config(name):
    config = Config(network=preset(name))
    assert part_from_json(json.loads(json.dumps(config.model_dump(mode="json")))) == config
    assert preset(name).label == find(name).title


def test_presets_stand_in_a_space_under_their_titles():
    space = Space(choose(preset("resnet-50"), preset("SE-ResNet-50"), ResNet(depth=18)))
    assert space.parameters == {"network": ("ResNet-50", "SE-ResNet-50", "resnet")}
    assert space.config({"network": "SE-ResNet-50"}).network == preset("se-resnet-50")


def test_an_unknown_name_is_one_line():
    with pytest.raises(ConfigError, match=r"^there is no preset 'resnet-51': .* did you mean 'resnet-50'\?$"):
        preset("resnet-51")


# -- the verb


def said(*words: str, columns: int = 100) -> str:
    found = CliRunner(env={"COLUMNS": str(columns), "HARNESS_STORAGE": ""}).invoke(app, ["presets", *words])
    assert found.exit_code == 0, found.output
    return found.output


@pytest.mark.parametrize("columns", [80, 100])
def test_the_list_fits_and_shows_both_counts(columns):
    lines = printed(columns)
    assert max(map(len, lines)) <= columns
    rows = {line.split()[0]: line.split() for line in lines if line.strip()}
    assert set(PRESETS) <= set(rows)
    assert rows["resnet-50"][1:10] == ["25.557", "M", "25.6", "-0.17", "%", "8.18", "8.2", "-0.26", "%"]
    assert rows["resnet-152"][3:5] == ["-", "-"]


def printed(columns: int, *names: str) -> list[str]:
    """What the installed command prints in a terminal of so many columns."""
    script = "import sys; from harness.cli.main import main; sys.argv = ['harness', 'presets', *sys.argv[1:]]; main()"
    environment = os.environ | {"COLUMNS": str(columns)}
    done = subprocess.run(
        [sys.executable, "-c", script, *names], env=environment, capture_output=True, text=True, check=True
    )
    return done.stdout.splitlines()


def test_one_is_shown_stage_by_stage():
    text = said("ExpAtt-ResNet-50")
    assert text.startswith("ExpAtt-ResNet-50, 3x224x224, 1,000 classes (arXiv 2006.07872)")
    row = next(line.split() for line in text.splitlines() if line.startswith("stage 4"))
    assert row[2:4] == ["2048x7x7", "ExpAtt"]
    assert 'preset("expatt-resnet-50")' in text


def test_json_is_json_alone():
    rows = json.loads(said("--json"))
    assert [row["name"] for row in rows] == list(PRESETS)
    plain = next(row for row in rows if row["name"] == "resnet-152")
    assert plain["params"] == 60_192_808 and plain["published_params"] is None and plain["params_error"] is None
    one = json.loads(said("se-resnet-50", "--json"))
    assert sum(stage["params"] for stage in one["stages"]) == one["params"] == 28_088_024
    assert sum(stage["macs_share"] for stage in one["stages"]) == pytest.approx(1)


def test_presets_need_no_torch():
    script = (
        "import sys, harness.presets, harness.controls; sys.exit(any(name in sys.modules for name in ('torch', 'timm')))"
    )
    assert subprocess.run([sys.executable, "-c", script], check=False).returncode == 0
