"""The published networks, as ordinary configs: counts computed here beside those that the papers print.

    from harness.presets import preset
    space = choose(preset("resnet-50"), preset("expatt-resnet-50"))

Published numbers are those of the papers, with the digits that they print; where a paper gives none, there is none. FLOPs of
these papers are twice the multiply-accumulates.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

from harness.config import (
    AA,
    CBAM,
    GSA,
    LTPA,
    VGG,
    ExpAtt,
    Network,
    Part,
    PreActResNet,
    ResNet,
    Slot,
    SqueezeExcite,
    WideResNet,
)
from harness.cost import Cost, Shape, network_cost
from harness.errors import ConfigError, hint

IMAGENET, CIFAR10, CIFAR100 = Shape(3, 224, 224, 1000), Shape(3, 32, 32, 10), Shape(3, 32, 32, 100)
TRUSTED = {"params": 0.0005, "gflops": 0.02}
"""Relative errors above which a count is not the paper's; of params, beyond what rounding explains."""


@dataclass(frozen=True)
class Printed:
    """A number as a paper prints it."""

    text: str

    @property
    def value(self) -> float:
        return float(self.text)

    @property
    def slack(self) -> float:
        """Half a unit of the last digit: what rounding may have taken."""
        return 0.5 * 10.0 ** -len(self.text.partition(".")[2])

    def error(self, found: float) -> float:
        """The relative error of a computed number."""
        return found / self.value - 1

    def beyond_rounding(self, found: float) -> float:
        """The part of the relative error that the rounding of the printed number does not explain, 0 or more."""
        return max(0.0, abs(found - self.value) - self.slack * (1 + 1e-9)) / self.value


@dataclass(frozen=True)
class Preset:
    """A published network at the shape that it was published for."""

    title: str
    """As papers write it; its name is the same in small letters."""
    plain: Network
    shape: Shape
    paper: str
    """arXiv id of what prints the numbers, else of what describes the network."""
    params: Printed | None = None
    """Millions."""
    gflops: Printed | None = None
    note: str = ""
    """Which reading of the paper this is, where it leaves one open."""

    @property
    def name(self) -> str:
        return self.title.lower()

    @property
    def network(self) -> Network:
        """The config, labelled by its title."""
        return self.plain.model_copy(update={"label": self.title})

    @property
    def cost(self) -> Cost:
        return network_cost(self.plain, self.shape)

    def errors(self) -> dict[str, tuple[float, bool]]:
        """Relative errors of params and gflops, where there are published ones, and whether each is to be trusted."""
        cost, found = self.cost, {}
        if self.params is not None:
            millions = cost.params / 1e6
            found["params"] = self.params.error(millions), self.params.beyond_rounding(millions) <= TRUSTED["params"]
        if self.gflops is not None:
            error = self.gflops.error(2 * cost.macs / 1e9)
            found["gflops"] = error, abs(error) <= TRUSTED["gflops"]
        return found

    def to_json(self) -> dict[str, Any]:
        cost, errors = self.cost, self.errors()
        found: dict[str, Any] = {"name": self.name, "arxiv": self.paper, "shape": self.shape._asdict(), **cost._asdict()}
        found["gflops"] = 2 * cost.macs / 1e9
        for name, printed in (("params", self.params), ("gflops", self.gflops)):
            found[f"published_{name}"] = printed and printed.value
            found[f"{name}_error"], found[f"{name}_trusted"] = errors.get(name, (None, None))
        return found | {"note": self.note, "network": self.network.model_dump(mode="json")}


class Stage(NamedTuple):
    """A part of a network: what leaves it (nothing leaves the head), its attention, its cost."""

    name: str
    leaves: tuple[int, int, int] | None
    attention: Part | None
    cost: Cost

    def to_json(self, whole: Cost) -> dict[str, Any]:
        attention = self.attention and self.attention.model_dump(mode="json")
        shares = {"params_share": self.cost.params / whole.params, "macs_share": self.cost.macs / whole.macs}
        return {"part": self.name, "leaves": self.leaves, "attention": attention, **self.cost._asdict(), **shares}


def stages(preset: Preset) -> Iterator[Stage]:
    """The network part by part, from the stem to the head."""
    network = preset.network
    grids: dict[str, tuple[int, int, int]] = {name: grid for name, _, grid in network.pieces(preset.shape)}
    for name, cost in network.parts(preset.shape):
        number = name.removeprefix("stage ")
        slot = network.stages[int(number) - 1] if number.isdigit() else network.head if name == "head" else None
        yield Stage(name, grids.get(name), slot, cost)


def preset(name: str) -> Network:
    """The network of this name, labelled by its title; raises ConfigError for an unknown one."""
    return find(name).network


def find(name: str) -> Preset:
    """The preset of this name, however its letters are written; raises ConfigError for an unknown one."""
    if (found := PRESETS.get(name.lower())) is None:
        raise ConfigError(f"there is no preset {name!r}: `harness presets` lists them{hint(name.lower(), PRESETS)}")
    return found


def _everywhere(attention: Slot, **fields: Any) -> ResNet:
    return ResNet(depth=50, stages=(attention,) * 4, **fields)


def _later(depth: int, attention: Slot) -> ResNet:
    """In the last three stages, as AA and ExpAtt have it."""
    return ResNet(depth=depth, stages=(None, *[attention] * 3))


def _gsa(depth: int) -> ResNet:
    return ResNet(depth=depth, stem="imagenet", stages=(GSA(),) * 4)


def _attending(*taps: int) -> VGG:
    return VGG(trunk="attention", head=LTPA(taps=taps))


_LTPA = "levels concatenated and scored by pc, the global feature mapped down to each level's width"
_SHELF = (
    Preset("ResNet-34", ResNet(depth=34), IMAGENET, "1904.09925", Printed("21.8"), Printed("7.4")),
    Preset("ResNet-50", ResNet(depth=50), IMAGENET, "1904.09925", Printed("25.6"), Printed("8.2")),
    Preset("ResNet-101", ResNet(depth=101), IMAGENET, "1904.09925", Printed("44.5"), Printed("15.6")),
    Preset("ResNet-152", ResNet(depth=152), IMAGENET, "1512.03385"),
    Preset("SE-ResNet-50", _everywhere(SqueezeExcite()), IMAGENET, "1904.09925", Printed("28.1"), Printed("8.2")),
    Preset("CBAM-ResNet-50", _everywhere(CBAM()), IMAGENET, "1807.06521"),
    Preset(
        "AA-ResNet-34", _later(34, AA(kappa=0.25, upsilon=0.25)), IMAGENET, "1904.09925", Printed("20.7"), Printed("7.1")
    ),
    Preset("AA-ResNet-50", _later(50, AA()), IMAGENET, "1904.09925", Printed("25.8"), Printed("8.3")),
    Preset("AA-ResNet-101", _later(101, AA()), IMAGENET, "1904.09925"),
    Preset("AA-ResNet-152", _later(152, AA()), IMAGENET, "1904.09925"),
    Preset("ExpAtt-ResNet-50", _later(50, ExpAtt()), IMAGENET, "2006.07872"),
    Preset(
        "ExpAtt-ResNet-152",
        _later(152, ExpAtt()),
        IMAGENET,
        "2006.07872",
        Printed("57.66"),
        Printed("22.2"),
        note="attention has a tenth of the channels, floored to a multiple of 8, on whole maps",
    ),
    Preset(
        "ExpAtt-ResNet-152-pooled",
        _later(152, ExpAtt(heads=1, multiple=1, largest=14)),
        IMAGENET,
        "2006.07872",
        Printed("57.66"),
        Printed("22.2"),
        note="attention has a tenth of the channels, not floored, and maps of 28 positions a side are pooled",
    ),
    Preset("GSA-ResNet-38", _gsa(38), IMAGENET, "2010.03019"),
    Preset("GSA-ResNet-50", _gsa(50), IMAGENET, "2010.03019", Printed("18.1")),
    Preset("GSA-ResNet-101", _gsa(101), IMAGENET, "2010.03019"),
    Preset("WRN-28-10", WideResNet(), CIFAR100, "1904.09925", Printed("36.3"), Printed("10.4")),
    Preset(
        "AA-WRN-28-10",
        WideResNet(stages=(AA(pooled="qkv"),) * 3),
        CIFAR100,
        "1904.09925",
        Printed("36.2"),
        Printed("10.9"),
        note="in all three stages; maps of 32 are pooled behind the projections, which gives the FLOPs (before them 10.63,"
        " the same function); the paper's parameters of the plain network are 0.2 M below this one's, too",
    ),
    Preset("VGG", VGG(), CIFAR100, "1804.02391", note="the baseline of LTPA"),
    Preset(
        "VGG-trunk",
        VGG(trunk="attention"),
        CIFAR100,
        "1804.02391",
        note="LTPA's trunk without attention: the control for what its larger maps gain",
    ),
    Preset("VGG-att1", _attending(5), CIFAR100, "1804.02391", note=_LTPA),
    Preset("VGG-att2", _attending(4, 5), CIFAR100, "1804.02391", note=_LTPA),
    Preset("VGG-att3", _attending(3, 4, 5), CIFAR100, "1804.02391", note=_LTPA),
    Preset("ResNet-164", PreActResNet(), CIFAR10, "1603.05027", note="pre-activation; a trunk of LTPA"),
)
PRESETS = {preset.name: preset for preset in _SHELF}
"""Every preset by its name."""
