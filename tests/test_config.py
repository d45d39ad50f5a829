"""Configs: what is refused and how it is said, what a stage is, what a part is at a width, JSON."""

import json

import pytest

from harness.config import CBAM, ECA, PARTS, Config, Custom, ExpAtt, ResNet, SqueezeExcite, Training, name_of, part_from_json
from harness.errors import ConfigError, hint, one_line

EXAMPLES = [
    Config(network=ResNet()),
    Config(
        network=ResNet(depth=50, stages=(None, SqueezeExcite(), ECA(size=5), CBAM(size=3)), stem="cifar", width=0.5),
        training=Training(dataset="cifar10", limit=100, lr=0.05, precision="bf16", label="long"),
    ),
    Config(network=ResNet(depth=56, label="wide", stages=(ExpAtt(), ExpAtt(kernel="uniform", share=0.2), None))),
    Config(network=ResNet(stages=(None, Custom("mylab.gate:Gate", reduction=4, name="x", on=True, off=None, p=0.5), None))),
    Config(network=ResNet(stages=(None, None, Custom("mylab:Gate", place="stage", label="mine", kind="soft", span=3)))),
]


def refused(build):
    with pytest.raises(ConfigError) as caught:
        build()
    message = str(caught.value)
    assert "\n" not in message
    return message


# -- JSON


@pytest.mark.parametrize("config", EXAMPLES, ids=range(len(EXAMPLES)))
def test_json_gives_the_same_config(config):
    again = part_from_json(json.loads(json.dumps(config.model_dump(mode="json"))))
    assert again == config
    assert repr(again) == repr(config)  # 1, 1.0 and True are equal but not the same


def test_every_part_is_known_by_its_kind():
    assert {"se", "lambda", "expatt", "custom", "ltpa", "resnet", "preact", "wide", "vgg", "config"} <= PARTS.keys()
    for kind, part in PARTS.items():
        assert part.model_fields["kind"].default == kind


def test_json_of_an_unknown_part_says_what_is_known():
    message = refused(lambda: part_from_json({"kind": "transformer"}))
    assert message.startswith("kind = 'transformer': unknown part; this version knows se, ese, eca, cbam, ")


def test_json_without_a_later_field_takes_its_default():
    plain = EXAMPLES[1].model_dump(mode="json")
    del plain["training"]["label_smoothing"]
    assert part_from_json(plain) == EXAMPLES[1]


# -- values and refusals


def test_parts_are_frozen():
    with pytest.raises(Exception, match="frozen"):
        ResNet().depth = 32


REFUSALS = {
    "unknown field": (
        lambda: ResNet(dept=20),
        "ResNet.dept: ResNet has no such field (it has label, depth, stages, head, stem, width); did you mean 'depth'?",
    ),
    "unknown field wins over a wrong value": (lambda: ExpAtt(kernel=3, head=2), "did you mean 'heads'?"),
    "unknown name": (lambda: ExpAtt(kernel="gausian"), "ExpAtt.kernel = 'gausian': input should be 'gaussian',"),
    "did you mean": (lambda: ExpAtt(kernel="gausian"), "; did you mean 'gaussian'?"),
    "bound": (lambda: ExpAtt(radius=0.0), "ExpAtt.radius = 0.0: input should be greater than 0"),
    "no number": (lambda: ExpAtt(radius=float("nan")), "ExpAtt.radius = nan: input should be a finite number"),
    "no coercion": (lambda: ExpAtt(heads="8"), "ExpAtt.heads = '8': input should be a valid integer"),
    "bool is no int": (lambda: Training(epochs=True), "Training.epochs = True: input should be a valid integer"),
    "missing": (Config, "Config.network is missing: give Config(network=...)"),
    "depth": (lambda: ResNet(depth=21), "ResNet.depth = 21: use one of 8, 14, 18, 20"),
    "depth is whole": (lambda: ResNet(depth=20.0), "ResNet.depth = 20.0: input should be a valid integer"),
    "number of slots": (
        lambda: ResNet(depth=50, stages=(None, None, None)),
        "ResNet.stages has 3 slots: depth 50 has 4 stages, give one slot each",
    ),
    "stages is a number": (
        lambda: ResNet(stages=5),
        "ResNet.stages = 5: give a tuple with one slot per stage, 3 at depth 20",
    ),
    "stages is a part": (lambda: ResNet(stages=ECA()), "give a tuple with one slot per stage, 3 at depth 20"),
    "stages is None": (lambda: ResNet(stages=None), "ResNet.stages = None: give a tuple with one slot per stage"),
    "a class for a part": (
        lambda: ResNet(stages=(None, ExpAtt, None)),
        "ResNet.stages.2 = <class 'harness.parts.expatt.ExpAtt'>: give SqueezeExcite(...) or EffectiveSE(...) or ECA(...)",
    ),
    "a name for a part": (lambda: ResNet(stages=(None, None, "se")), "ResNet.stages.3 = 'se': give SqueezeExcite(...) or"),
    "stem": (
        lambda: ResNet(stem="imagenet"),
        "ResNet.stem = 'imagenet': depth 20 is a CIFAR depth; use 18, 34, 38, 50, 101, 152",
    ),
    "even ECA": (
        lambda: ResNet(stages=(ECA(size=4), None, None)),
        "stage 1: ECA.size = 4: a centred 1-D convolution has an odd",
    ),
    "heads": (
        lambda: ResNet(stages=(None, None, ExpAtt(heads=3))),
        "stage 3: ExpAtt.heads = 3: must divide the 8 attention channels; use one of [1, 2, 4, 8]",
    ),
    "share": (
        lambda: ResNet(width=0.5, stages=(ExpAtt(), None, None)),
        "stage 1: ExpAtt.share = 0.1: takes 8 of 8 channels and leaves none to the convolution",
    ),
    "target": (lambda: Custom("gate"), "Custom('gate'): write 'package.module:Class', for instance 'mylab.gate:Gate'"),
    "target with a hole": (lambda: Custom("mylab..gate:Gate"), "write 'package.module:Class'"),
    "a knob that is no value": (
        lambda: Custom("mylab:Gate", sizes=[3, 5]),
        "Custom('mylab:Gate').sizes = [3, 5]: a knob is a string, a finite number, a bool or None",
    ),
    "a knob that is no number": (lambda: Custom("mylab:Gate", p=float("inf")), "Custom('mylab:Gate').p = inf: a knob is a"),
    "knobs by keyword": (lambda: Custom(target="mylab:Gate", reduction=4), "Custom.reduction: Custom has no such field"),
    "no knob is swallowed": (
        lambda: SqueezeExcite(ratio=8, reduction=4),
        "SqueezeExcite.reduction: SqueezeExcite has no such",
    ),
}


@pytest.mark.parametrize("build, words", REFUSALS.values(), ids=REFUSALS.keys())
def test_a_refusal_names_field_value_rule_and_remedy(build, words):
    assert words in refused(build)


def test_a_choice_in_a_plain_part_points_to_vary():
    from harness.space import choose, span

    assert "ExpAtt(...) takes plain values; write vary(ExpAtt, ...)" in refused(lambda: ExpAtt(radius=span(0.5, 8.0)))
    assert "write vary(ResNet, ...)" in refused(lambda: ResNet(depth=choose(20, 32)))
    assert "ResNet.stages.1 = " in refused(lambda: ResNet(stages=(choose(None, ECA()), None, None)))


def test_errors_fit_on_one_line():
    assert hint("gausian", ["gaussian", "linear"]) == "; did you mean 'gaussian'?"
    assert hint("zzz", ["gaussian", "linear"]) == ""
    assert one_line(ValueError("one\n  two")) == "ValueError: one two"
    assert one_line(ConfigError("one\n  two")) == "one two"
    assert one_line(KeyError()) == "KeyError"
    assert one_line(ConfigError("x" * 500), limit=10) == "x" * 7 + "..."


# -- stages (He et al., table 1 and section 4.2)


@pytest.mark.parametrize(
    "depth, blocks, outputs",
    [
        (8, (1, 1, 1), (16, 32, 64)),
        (20, (3, 3, 3), (16, 32, 64)),
        (110, (18, 18, 18), (16, 32, 64)),
        (18, (2, 2, 2, 2), (64, 128, 256, 512)),
        (34, (3, 4, 6, 3), (64, 128, 256, 512)),
        (50, (3, 4, 6, 3), (256, 512, 1024, 2048)),
        (152, (3, 8, 36, 3), (256, 512, 1024, 2048)),
    ],
)
def test_depths_are_those_of_the_paper(depth, blocks, outputs):
    network = ResNet(depth=depth)
    assert (network.blocks, network.outputs, len(network.stages)) == (blocks, outputs, len(blocks))


def test_attention_in_place_of_the_3x3_sees_the_inner_width():
    network = ResNet(depth=50, stages=(None, ExpAtt(), SqueezeExcite(), None))
    assert [network.slot_channels(stage) for stage in (1, 2, 3, 4)] == [256, 128, 1024, 2048]


def test_width_multiplies_every_channel_count():
    assert ResNet(width=2.0).widths == (32, 64, 128)
    assert ResNet(depth=18, width=0.25).outputs == (16, 32, 64, 128)


# -- parts at a width


@pytest.mark.parametrize("channels, size", [(16, 3), (64, 3), (128, 5), (256, 5), (512, 5), (1024, 5), (2048, 7)])
def test_eca_adapts_as_in_the_paper(channels, size):
    """Wang et al., section 3.2.3: the odd number next to log2(C) / 2 + 1 / 2."""
    assert ECA().kernel_size(channels) == size


def test_eca_keeps_a_given_size():
    assert ECA(size=9).kernel_size(16) == 9


@pytest.mark.parametrize(
    "share, channels, values", [(0.1, 64, 8), (0.1, 128, 8), (0.1, 256, 24), (0.1, 512, 48), (0.25, 64, 16)]
)
def test_expatt_takes_a_multiple_of_eight(share, channels, values):
    assert ExpAtt(share=share).values(channels) == values


def test_the_radii_of_a_layer():
    assert ExpAtt(heads=4).radii() == 1
    assert ExpAtt(heads=4, radius_per="head").radii() == 4
    assert ExpAtt(heads=4, radius_per="head", kernel="uniform").radii() == 0


# -- names


@pytest.mark.parametrize(
    "part, name",
    [
        (None, "none"),
        (SqueezeExcite(), "se"),
        (SqueezeExcite(label="wide"), "wide"),
        (Custom("mylab.gate:Gate"), "gate"),
        (Custom("mylab.gate:Gate", label="mine"), "mine"),
        (Training(), "training"),
        (Training(label="long"), "long"),
        ((None, ECA(), Custom("a:B")), "none+eca+b"),
        (8, "8"),
        ("gaussian", "gaussian"),
    ],
)
def test_parts_are_called_by_label_kind_or_class(part, name):
    assert name_of(part) == name
