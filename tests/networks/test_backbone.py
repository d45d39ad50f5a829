"""Models of others with attention by path: what is named, how it is built, counted, keyed and searched."""

import copy
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from harness.config import CBAM, ECA, Backbone, Config, Custom, ExpAtt, SqueezeExcite, Training, part_from_json
from harness.cost import Cost, Shape, network_cost
from harness.data.sources import open_data
from harness.errors import CodeError, ConfigError
from harness.key import network_identity, trial_key
from harness.measure.anatomy import count
from harness.measure.complexity import CountError, check, count_dispatch
from harness.networks.backbone import channels_last
from harness.networks.build import build
from harness.plan import make_plan
from harness.space import Space, choose, same, vary
from harness.study import Exhaustive, Study
from harness.terminal import space_tree
from harness.trial import Assignment, run_trial

SHAPE = Shape(3, 32, 32, 10)


class Mixed(nn.Module):
    """A user's model: a strided convolution, blocks with channels last, modules called twice and never, no grid."""

    def __init__(self, channels: int, classes: int) -> None:
        super().__init__()
        self.stem = nn.Conv2d(channels, 16, 3, stride=2, padding=1)
        self.blocks = nn.ModuleList(Last(16) for _ in range(2))
        self.wide = nn.Conv2d(16, 24, 5, padding=2, bias=False)
        self.valid = nn.Conv2d(24, 24, 3)
        self.twice = nn.ReLU()
        self.never = nn.ReLU()
        self.tail = nn.Sequential(nn.Conv2d(24, 24, 3, padding=1))
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.flat = nn.Flatten()
        self.head = nn.Linear(24, classes)

    def forward(self, x: Tensor) -> Tensor:
        x = self.twice(self.stem(x))
        for block in self.blocks:
            assert block.size == 16  # what is asked of a module behind which attention stands
            x = block(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)
        x = self.tail(self.valid(self.twice(self.wide(x))))
        out: Tensor = self.head(self.flat(self.pool(x)))
        return out


class Last(nn.Module):
    def __init__(self, size: int) -> None:
        super().__init__()
        self.size = size
        self.map = nn.Linear(size, size)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.map(x)
        return out


class Seen(nn.Module):
    """An attention that notes the shape it is given."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.channels, self.shape = channels, torch.Size()
        self.scale = nn.Parameter(torch.zeros(channels, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        assert x.shape[1] == self.channels
        self.shape = x.shape
        return x * (1 + self.scale)


class Tuples(Mixed):
    def forward(self, x: Tensor) -> Any:
        return super().forward(x), x


class Looking(Mixed):
    """Looks at its numbers, so that it cannot run on the meta device."""

    def forward(self, x: Tensor) -> Tensor:
        x.sum().item()
        return super().forward(x)


def bare(channels: int) -> nn.Module:
    return nn.Conv2d(channels, 1, 1)


def no_module(channels: int, classes: int) -> int:
    return channels + classes


MIXED, LOOKING, SEEN = f"{__name__}:Mixed", f"{__name__}:Looking", Custom(f"{__name__}:Seen")


# -- built and counted


NETWORKS = [
    Backbone("timm:convnext_atto", slots={"s3": "stages.2.blocks.*"}, s3=SqueezeExcite()),
    Backbone("timm:convnext_atto", slots={"s1": "stages.0.blocks.*.conv_dw"}, s1=ExpAtt()),
    Backbone("timm:resnet10t", slots={"s2": "layer2", "s4": "layer[34].*.conv1"}, s2=CBAM(), s4=ExpAtt()),
    Backbone("timm:swin_tiny_patch4_window7_224", slots={"late": "layers.3.blocks.*"}, late=ECA()),
    Backbone("torchvision:resnet18", slots={"all": "layer?.*", "stem": "conv1"}, all=SqueezeExcite(), stem=ExpAtt()),
    Backbone(MIXED, slots={"down": "stem", "b": "blocks.*", "w": "wide"}, down=ExpAtt(), b=SEEN, w=ExpAtt(kernel="cauchy")),
    Backbone(LOOKING, slots={"b": "blocks.1"}, b=ECA()),
]


@pytest.mark.parametrize(
    ("network", "shape"),
    [*((network, SHAPE) for network in NETWORKS), *((network, Shape(1, 32, 48, 7)) for network in NETWORKS[2:5:2])],
    ids=lambda value: getattr(value, "target", value),
)
def test_the_cost_is_that_of_the_built_network(network: Backbone, shape: Shape) -> None:
    model, claimed = build(network, shape, device="meta"), network_cost(network, shape, count)
    assert all(parameter.is_meta for parameter in model.parameters())
    assert count_dispatch(model, shape) == claimed
    check(network, model, shape, claimed)
    with pytest.raises(CountError, match=r" with .* at \(\d, 32, \d+, \d+\): the closed form says"):
        check(network, model, shape, claimed + Cost(1, 0))


@pytest.mark.parametrize("network", NETWORKS, ids=lambda network: network.target)
def test_its_own_layers_start_equal_whatever_stands_in_the_slots(network: Backbone) -> None:
    def layers(one: Backbone, seed: int) -> dict[str, Tensor]:
        state = build(one, SHAPE, seed).state_dict()
        return {path.replace(".module.", "."): tensor for path, tensor in state.items() if ".attention." not in path}

    plain, found, other = layers(Backbone(network.target), 3), layers(network, 3), layers(network, 4)
    common = plain.keys() & found.keys()
    replaced = {path for path in plain.keys() - found.keys()}
    assert len(common) > len(plain) / 2 and all(path.endswith((".weight", ".bias")) for path in replaced)
    assert all(torch.equal(plain[path], found[path]) for path in common)
    assert not all(torch.equal(found[path], other[path]) for path in common)
    for path in replaced:  # what a convolution keeps beside attention
        kept, whole = found.get(path.replace(".weight", ".kept.weight")), plain[path]
        if kept is not None and kept.shape[1:] == whole.shape[1:]:
            assert torch.equal(kept, whole[: len(kept)])


def test_a_seed_gives_the_network_again_and_the_callers_numbers_are_left_alone() -> None:
    network = NETWORKS[5]
    torch.manual_seed(1)
    expected = torch.randn(3)
    torch.manual_seed(1)
    first, second, free = build(network, SHAPE, 5), build(network, SHAPE, 5), build(network, SHAPE, None)
    assert torch.equal(torch.randn(3), expected)
    x = torch.randn(2, 3, 32, 32)
    assert torch.equal(first.eval()(x), second.eval()(x)) and not torch.equal(first(x), free.eval()(x))
    twin = copy.deepcopy(first)
    with torch.no_grad():
        for parameter in twin.parameters():
            parameter.zero_()
    assert not torch.equal(twin(x), first(x))  # nothing is shared with a copy
    twin.load_state_dict(first.state_dict())
    assert torch.equal(twin(x), first(x))


def test_attention_sees_channels_first_and_a_stride_is_honoured() -> None:
    model = build(NETWORKS[5], SHAPE).eval()
    assert model(torch.randn(4, 3, 32, 32)).shape == (4, 10)
    parts = dict(model.named_modules())
    for path in ("model.blocks.0", "model.blocks.1"):
        seen = parts[f"{path}.attention"]
        assert isinstance(seen, Seen) and seen.shape == (4, 16, 16, 16)
    assert parts["model.stem"](torch.randn(1, 3, 9, 7)).shape == (1, 16, 5, 4)
    assert parts["model.wide"](torch.randn(1, 16, 9, 7)).shape == (1, 24, 9, 7)


def test_attention_that_does_nothing_leaves_the_network_as_it_was() -> None:
    slots, x = {"a": "blocks.*", "b": "valid"}, torch.randn(2, 3, 32, 32)
    plain, found = build(Backbone(MIXED), SHAPE), build(Backbone(MIXED, slots=slots, a=SEEN, b=SEEN), SHAPE)
    assert torch.equal(plain(x), found(x))


def test_channels_of_the_pictures_reach_any_library() -> None:
    for target in ("timm:resnet10t", "torchvision:resnet18", MIXED):
        for channels in (1, 4):
            shape = Shape(channels, 32, 32, 7)
            assert build(Backbone(target), shape).eval()(torch.randn(2, channels, 32, 32)).shape == (2, 7)


@pytest.mark.parametrize(
    ("sizes", "shape", "last"),
    [
        ((64, 7, 7), (3, 224, 224, 1), False),
        ((7, 7, 64), (3, 224, 224, 1), True),
        ((7, 7, 7), (3, 224, 224, 1), False),
        ((4, 6, 96), (3, 33, 47, 1), True),
        ((96, 5, 6), (3, 33, 47, 1), False),
        ((1, 1, 512), (3, 32, 32, 1), True),
    ],
)
def test_the_grid_is_what_has_the_pictures_proportions(sizes: Any, shape: Any, last: bool) -> None:
    assert channels_last(sizes, Shape(*shape)) == last


# -- refused


@pytest.mark.parametrize(
    ("network", "words"),
    [
        (Backbone("timm:convnext_tine"), r"timm \d.* has no such model; did you mean 'convnext_tiny'\?"),
        (Backbone("torchvision:rasnet18"), r"torchvision \d.* has no such classifier; did you mean 'resnet18'\?"),
        (Backbone("nowhere.nets:make"), r"nowhere.nets cannot be found"),
        (Backbone(f"{__name__}:bare"), r"it is called as bare\(channels=..., classes=...\): got an unexpected"),
        (Backbone(f"{__name__}:no_module"), r"it gives int, no nn.Module"),
        (Backbone(f"{__name__}:Tuples"), r"it must give logits \(2, 10\), it gives tuple"),
        (Backbone("torchvision:vit_b_16"), r"pictures of 3x32x32 raised AssertionError: Wrong image height"),
        (Backbone(MIXED, slots={"s": "block.*"}), r"'block.\*' names no module; the model holds .*did you mean 'blocks'"),
        (Backbone(MIXED, slots={"s": "blocks.7"}), r"'blocks.7' names no module; blocks holds 0, 1$"),
        (Backbone(MIXED, slots={"s": "stem.0"}), r"'stem.0' names no module; stem holds nothing"),
        (Backbone(MIXED, slots={"s": "blocks.*", "t": "blocks.1"}), r"'blocks.\*' and 'blocks.1' both name blocks.1"),
        (Backbone(MIXED, slots={"s": "twice"}), r"twice \(ReLU\) is called 2 times in a forward pass"),
        (Backbone(MIXED, slots={"s": "never"}), r"never \(ReLU\) is not called in a forward pass"),
        (Backbone(MIXED, slots={"s": "head"}), r"head \(Linear\) gives \(2, 10\) for 2 pictures; attention needs a grid"),
    ],
    ids=lambda value: value.target if isinstance(value, Backbone) else "",
)
def test_a_model_or_path_that_is_none_is_one_line(network: Backbone, words: str) -> None:
    for attempt in (lambda: network_cost(network, SHAPE, count), lambda: build(network, SHAPE)):
        with pytest.raises(CodeError, match=words) as caught:
            attempt()
        assert "\n" not in str(caught.value) and str(caught.value).startswith(network.target)


@pytest.mark.parametrize(
    ("slots", "attention", "words"),
    [
        ({"s": "blocks.*"}, ExpAtt(), r"slot s: ExpAtt takes the place of a convolution .* 'blocks.0' is none \(Last\)$"),
        ({"s": "tail"}, ExpAtt(), r"'tail' is none \(Sequential\); name one by its path, such as 'tail.0'$"),
        ({"s": "valid"}, ExpAtt(), r"'valid' is none \(Conv2d\)"),  # without padding its grid is another
        ({"s": "stem"}, ExpAtt(heads=3, share=0.5), r"slot s: ExpAtt.heads = 3: must divide the 8 attention channels"),
    ],
)
def test_attention_that_does_not_fit_its_place_is_no_config(slots: dict[str, str], attention: Any, words: str) -> None:
    network = Backbone(MIXED, slots=slots, s=attention)
    for attempt in (lambda: network_cost(network, SHAPE, count), lambda: build(network, SHAPE)):
        with pytest.raises(ConfigError, match=words) as caught:
            attempt()
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("build_it", "words"),
    [
        (lambda: Backbone("timm:resnet50.a1_in1k"), "a tag names weights, which are not loaded; write 'timm:resnet50'"),
        (lambda: Backbone("resnet50"), "write 'timm:MODEL', 'torchvision:MODEL' or 'package.module:make'"),
        (lambda: Backbone("timm:x", slots={"s3": "a"}, s2=ECA()), r"there is no slot 's2' \(slots names s3\)$"),
        (lambda: Backbone("timm:x", slots={"kind": "a"}), "'kind' cannot name a slot"),
        (lambda: Backbone("timm:x", slots={"s": "a..b"}), r"Backbone.slots.s = 'a..b': write a dotted path"),
        (lambda: Backbone("timm:x", slots={"s": "a", "t": "a"}), "t and s are both 'a'; a place has one slot"),
        (lambda: Backbone("timm:x", slots={"s": "a"}, s=3), r"Backbone.at.s = 3: give SqueezeExcite"),
        (lambda: Backbone("timm:x", slots={"s": "a"}, s=ExpAtt(kernel="linear", radius=1.0)), "a linear kernel of radius 1"),
        (lambda: Backbone("timm:x", slots={"s": "a"}, s=Custom("m:C", place="stage")), "which the slot's path says here"),
        (lambda: network_cost(Backbone("timm:x"), SHAPE), "its cost is counted, with torch"),
    ],
)
def test_what_can_be_told_without_the_model_is_told_at_once(build_it: Any, words: str) -> None:
    with pytest.raises(ConfigError, match=words) as caught:
        build_it()
    assert "\n" not in str(caught.value)


# -- as a config and in a space


def test_json_gives_the_same_backbone() -> None:
    for network in NETWORKS:
        config = Config(network=network)
        assert part_from_json(json.loads(json.dumps(config.model_dump(mode="json")))) == config


def test_equal_networks_have_equal_identities() -> None:
    def identity(**fields: Any) -> Any:
        return network_identity(Backbone("timm:x", **fields))

    one = identity(slots={"s3": "stages.2"}, s3=ExpAtt())
    assert one == identity(slots={"late": "stages.2"}, late=ExpAtt(label="mine"))  # names and labels
    assert one == identity(slots={"none": "stages.1", "s3": "stages.2"}, s3=ExpAtt())  # a slot that holds nothing
    assert one == identity(slots={"s3": "stages.2"}, s3=ExpAtt(heads=4))  # heads that share a radius
    assert one != identity(slots={"s3": "stages.2"}, s3=ExpAtt(heads=4, radius_per="head"))
    assert one != identity(slots={"s3": "stages.2"}, s3=ExpAtt(share=0.125))
    assert one != identity(slots={"s3": "stages.3"}, s3=ExpAtt())
    assert identity() == identity(slots={"s3": "stages.2"}) != network_identity(Backbone("timm:y"))


def test_the_source_of_the_users_model_and_module_is_in_the_key() -> None:
    sources = {MIXED: "1", SEEN.target: "2"}
    config = Config(network=Backbone(MIXED, slots={"b": "blocks.*"}, b=SEEN))
    changes: list[dict[str, str]] = [{}, {MIXED: "3"}, {SEEN.target: "3"}]
    assert len({trial_key(config, 0, "data", (sources | change).__getitem__) for change in changes}) == 3
    assert "source" not in network_identity(Backbone("timm:x"), lambda _: pytest.fail("a library's model has no source"))


ATTENTION = choose(None, vary(SqueezeExcite, ratio=choose(4, 8)), ECA())
SPACE = vary(Backbone, MIXED, slots={"b": "blocks.*", "w": choose("wide", "valid")}, b=ATTENTION, w=same(ATTENTION))


def test_slots_are_choices_under_their_names() -> None:
    space = Space(SPACE)
    assert space.parameters == {
        "slots.w": ("wide", "valid"),
        "at.b.attention": ("none", "se", "eca"),
        "at.b.se.ratio": (4, 8),
        "at.w.attention": ("none", "se", "eca"),
        "at.w.se.ratio": (4, 8),
    }
    params: dict[str, Any] = {"slots.w": "valid", "at.b.attention": "se", "at.b.se.ratio": 8, "at.w.attention": "eca"}
    config = space.config(params)
    assert config.network == Backbone(MIXED, slots={"b": "blocks.*", "w": "valid"}, b=SqueezeExcite(ratio=8), w=ECA())
    assert space.params(config) == params
    again = Space.from_json(json.loads(json.dumps(space.to_json())))
    assert again.parameters == space.parameters and again.config(params) == config and space.size == 2 * 4 * 4


def test_backbones_are_options_under_their_own_names() -> None:
    second = vary(Backbone, "timm:convnext_atto", slots={"a": "b"}, a=choose(None, ECA()))
    space = Space(choose(Backbone("timm:resnet10t"), second))
    assert space.parameters == {
        "network": ("resnet10t", "convnext_atto"),
        "convnext_atto.at.a.attention": ("none", "eca"),
    }


def test_its_tree_and_its_words_name_the_slots(capsys: pytest.CaptureFixture[str]) -> None:
    from rich.console import Console

    from harness.report.words import differences

    Console(width=100).print(space_tree("x", {"network": SPACE}))
    shown = capsys.readouterr().out
    assert "b at blocks.*: one of 3" in shown and MIXED in shown
    words = differences({"at.b.se.ratio": 8, "at.b.attention": "se", "slots.w": "wide"}, ())
    assert list(map(str, words)) == ["b ratio 8 · SE", "w at wide"]
    assert words[0].prose == "ratio 8 (SE) in b"


# -- in a study


def study(space: Any) -> Study:
    training = Training(epochs=1, limit=12, batch_size=32, precision="fp32")
    return Study(name="others", question="?", space=space, training=training, strategy=Exhaustive())


def test_a_plan_counts_what_does_not_fit_as_no_network(tmp_path: Path) -> None:
    space = vary(Backbone, MIXED, slots={"b": choose("blocks.*", "wide")}, b=choose(None, ExpAtt()))
    found = make_plan(study(space), tmp_path, f"sqlite:///{tmp_path}/none.db")
    assert (found.looked_at, found.invalid, found.distinct) == (4, 1, 2)
    assert "takes the place of a convolution" in found.problem
    assert f"  MACs of {MIXED} counted from the operations it dispatches" in found.lines()


def test_a_plan_refuses_a_path_that_names_nothing(tmp_path: Path) -> None:
    space = vary(Backbone, MIXED, slots={"b": "nowhere"}, b=choose(None, ECA()))
    with pytest.raises(CodeError, match="'nowhere' names no module"):
        make_plan(study(space), tmp_path, f"sqlite:///{tmp_path}/none.db")


def test_a_trial_repeats_and_is_checked(tmp_path: Path) -> None:
    training = Training(epochs=2, limit=12, batch_size=32, precision="bf16", augment="crop")
    _, info = open_data(training, Path())
    network = Backbone(MIXED, slots={"b": "blocks.*", "w": "wide"}, b=SqueezeExcite(ratio=4), w=ExpAtt())
    weights = []
    for name in ("one", "two"):
        assignment = Assignment(
            study="s",
            number=0,
            key="k",
            seed=1,
            config=Config(network=network, training=training).model_dump(mode="json"),
            costs=network_cost(network, info.shape, count)._asdict(),
            data="data",
            fingerprint=info.fingerprint,
            runs=str(tmp_path / name),
        )
        outcome = list(run_trial(assignment))[-1].outcome
        assert outcome is not None and outcome.state == "complete", outcome and outcome.traceback
        weights.append(outcome.provenance["weights"])
        assert {"timm", "torchvision"} <= outcome.provenance["versions"].keys()
    assert weights[0] == weights[1]


def test_reading_a_backbone_imports_neither_torch_nor_timm() -> None:
    script = (
        "import sys; from harness.config import *; from harness.key import network_identity; from harness.space import *;"
        "network = vary(Backbone, 'timm:convnext_tiny', slots={'s3': 'stages.2.blocks.*'}, s3=choose(None, ExpAtt()));"
        "space = Space(network); network_identity(space.config({'at.s3.attention': 'expatt'}).network);"
        "sys.exit(any(name in sys.modules for name in ('torch', 'timm', 'torchvision')))"
    )
    assert subprocess.run([sys.executable, "-c", script], check=False).returncode == 0
