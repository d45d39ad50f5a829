"""Networks beside each other: refused values, JSON, keys, and studies that choose among them."""

import json
import random

import pytest

from harness.config import (
    LTPA,
    NETWORKS,
    VGG,
    Config,
    Custom,
    ExpAtt,
    Network,
    PreActResNet,
    ResNet,
    SqueezeExcite,
    Trunk,
    WideResNet,
    part_from_json,
)
from harness.cost import Shape
from harness.errors import ConfigError
from harness.key import trial_key
from harness.space import Space, choose, vary
from harness.study import Random, Study

EXAMPLES: list[Network] = [
    ResNet(),
    ResNet(head=LTPA(taps=(2, 3))),
    PreActResNet(),
    PreActResNet(depth=173),
    PreActResNet(width=0.5),
    PreActResNet(stages=(None, None, SqueezeExcite())),
    WideResNet(),
    WideResNet(depth=22),
    WideResNet(factor=4),
    WideResNet(dropout=0.3),
    WideResNet(head=LTPA(taps=(3,), score="dp")),
    VGG(),
    VGG(trunk="attention"),
    VGG(width=0.5),
    VGG(dropout=0.5),
    VGG(stages=(None, ExpAtt(), None, None, Custom("mylab:Gate", reduction=4))),
    VGG(trunk="attention", head=LTPA(taps=(3, 4, 5), combine="indep", average="probability", label="mine")),
]


def key(network: Network) -> str:
    return trial_key(Config(network=network), 0, "d", str)


@pytest.mark.parametrize("network", EXAMPLES, ids=range(len(EXAMPLES)))
def test_json_gives_the_same_config_and_key(network: Network) -> None:
    config = Config(network=network)
    again = part_from_json(json.loads(json.dumps(config.model_dump(mode="json"))))
    assert again == config and repr(again) == repr(config)
    assert isinstance(again, Config) and trial_key(again, 0, "d", str) == key(network)


def test_what_matters_changes_the_key() -> None:
    assert len({key(network) for network in EXAMPLES}) == len(EXAMPLES)
    assert {type(network) for network in EXAMPLES} <= set(NETWORKS)


def test_widths_that_round_alike_are_one_network() -> None:
    assert key(WideResNet(factor=10)) == key(WideResNet(factor=10.0001))
    assert key(VGG(width=1.0)) == key(VGG(width=1.0001))


@pytest.mark.parametrize(
    ("build", "words"),
    [
        (lambda: PreActResNet(depth=165), "PreActResNet.depth = 165: use 9n + 2, as 11, 20, 29, ..."),
        (lambda: PreActResNet(depth=2), "PreActResNet.depth = 2: use 9n + 2, as 11, 20, 29, ..."),
        (lambda: WideResNet(depth=20), "WideResNet.depth = 20: use 6n + 4, as 10, 16, 22, ..."),
        (lambda: WideResNet(depth="28"), "WideResNet.depth = '28': input should be a valid integer"),
        (
            lambda: PreActResNet(stages=(None, None)),
            "PreActResNet.stages has 2 slots: depth 164 has 3 stages, give one slot each",
        ),
        (lambda: WideResNet(factor=0), "WideResNet.factor = 0: input should be greater than 0"),
        (lambda: WideResNet(dropout=1.0), "WideResNet.dropout = 1.0: input should be less than 1"),
        (lambda: VGG(stages=(None,) * 3), "VGG.stages has 3 slots: each trunk has 5 stages, give one slot each"),
        (lambda: VGG(trunk="attn"), "VGG.trunk = 'attn': input should be 'plain' or 'attention'"),
        (lambda: VGG(depth=16), "VGG.depth: VGG has no such field (it has label, stages, head, trunk, width, dropout)"),
        (lambda: VGG(width=0.05, stages=(ExpAtt(),) + (None,) * 4), "stage 1: ExpAtt.share = 0.1: takes 8 of 3 channels"),
        (lambda: VGG(head=ExpAtt()), "give LTPA(...)"),
        (LTPA, "LTPA.taps is missing: give LTPA(taps=...)"),
        (lambda: Config(network=ExpAtt()), "give ResNet(...) or PreActResNet(...) or WideResNet(...) or VGG(...)"),
    ],
)
def test_a_refusal_names_field_value_rule_and_remedy(build, words) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(ConfigError) as caught:
        build()
    assert words in str(caught.value) and "\n" not in str(caught.value)


def test_a_study_chooses_among_networks_and_heads() -> None:
    attention = choose(None, vary(ExpAtt, kernel=choose("gaussian", "cauchy")))
    taps: tuple[int, ...] = choose((4, 5), (3, 4, 5))
    head = choose(None, vary(LTPA, taps=taps, score=choose("pc", "dp")))
    space: Trunk = choose(
        vary(ResNet, depth=choose(20, 32), stages=(None, None, attention)),
        vary(WideResNet, depth=10, factor=choose(1, 2)),
        vary(VGG, trunk="attention", head=head),
        PreActResNet(depth=11),
    )
    study = Study(name="trunks", space=space, strategy=Random(trials=3))
    found: Space = study.open_space()
    assert found.size == 2 * 3 + 2 + (1 + 4) + 1
    assert list(found.parameters)[:4] == [
        "network",
        "resnet.depth",
        "resnet.stages.3.attention",
        "resnet.stages.3.expatt.kernel",
    ]
    assert list(found.parameters)[-3:] == ["vgg.head", "vgg.head.ltpa.taps", "vgg.head.ltpa.score"]
    plain = study.to_json()
    assert Study.from_json(json.loads(json.dumps(plain))).to_json() == plain
    for number in range(30):
        params = found.draw(random.Random(number))
        assert found.params(found.config(params)) == params


def test_the_parts_of_a_cost_are_named_in_order() -> None:
    shape = Shape(3, 32, 32, 10)
    assert [name for name, _ in VGG(trunk="attention").parts(shape)] == [*(f"stage {n}" for n in range(1, 6)), "end", "head"]
    assert [name for name, _ in WideResNet().parts(shape)] == ["stem", "stage 1", "stage 2", "stage 3", "end", "head"]
    assert [name for name, _ in ResNet().parts(shape)] == ["stem", "stage 1", "stage 2", "stage 3", "head"]
