"""Configs: a network and how it is trained, as frozen, typed, keyword-only values.

Stages are named as in the papers, from 1. A stage has one attention slot; where in the stage a module goes is the kind's
own business (its `place`). Nothing here imports torch: listing, planning and reporting read configs in milliseconds.
"""

import math
import re
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, Literal, Self, get_args

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator
from pydantic_core import ErrorDetails

from harness.errors import ConfigError, hint

Scalar = str | int | float | bool | None
Kernel = Literal["gaussian", "laplacian", "laplacian_l2", "cauchy", "linear", "uniform"]
Place = Literal["conv", "branch", "block", "stage"]
"""conv: in place of a block's 3x3 convolution; branch: on the residual branch before the addition; block: after the
addition; stage: after the last block of the stage."""


@dataclass(frozen=True)
class Neutral:
    """Marks a field added after the first release: at this value the key leaves it out, so that old keys stay."""

    value: Scalar


class Part(BaseModel):
    """A piece of a config. `label` is the user's own name for it, shown in its place and never part of the key."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)
    version: ClassVar[int] = 1

    def __init__(self, **data: Any) -> None:
        try:
            super().__init__(**data)
        except ValidationError as error:
            problems = error.errors()
            unknown = (problem for problem in problems if problem["type"] == "extra_forbidden")
            raise ConfigError(explain(type(self), next(unknown, problems[0]))) from None


def explain(part: type[BaseModel], error: ErrorDetails) -> str:
    """One pydantic error as one line: field, value, rule, remedy."""
    where = ".".join([part.__name__, *(str(key + 1 if isinstance(key, int) else key) for key in error["loc"])])
    if error["type"] == "extra_forbidden":
        fields = [name for name in part.model_fields if name != "kind"]
        return f"{where}: {part.__name__} has no such field (it has {', '.join(fields)}){hint(error['loc'][-1], fields)}"
    if error["type"] == "missing":
        return f"{where} is missing: give {part.__name__}({error['loc'][-1]}=...)"
    if error["type"] == "value_error":
        return str(error["ctx"]["error"])
    if type(error["input"]).__module__ == "harness.space":
        return f"{where} = {error['input']!r}: {part.__name__}(...) takes plain values; write vary({part.__name__}, ...)"
    if error["type"] in ("union_tag_not_found", "model_attributes_type"):
        parts = " or ".join(f"{name}(...)" for name in _parts_in(part.model_fields[str(error["loc"][0])].annotation))
        return f"{where} = {error['input']!r}: give {parts}"
    rule = error["msg"][:1].lower() + error["msg"][1:]
    allowed = re.findall(r"'([^']+)'", str(error.get("ctx", {}).get("expected", "")))
    return f"{where} = {error['input']!r}: {rule}{hint(error['input'], allowed)}"


def _parts_in(annotation: Any) -> list[str]:
    """The names of the parts that an annotation allows, however deep."""
    if isinstance(annotation, type) and issubclass(annotation, Part):
        return [annotation.__name__]
    return [name for inner in get_args(annotation) for name in _parts_in(inner)]


class Attention(Part):
    """What every attention kind answers about itself at a slot of `channels` channels."""

    label: str | None = None

    @property
    def where(self) -> Place:
        """Where in the stage the module goes."""
        return "branch"

    def check(self, channels: int) -> None:
        """Raise ConfigError when the module cannot be built at this width."""

    def effective(self, channels: int) -> dict[str, Any]:
        """What makes the module what it is at this width: equal networks have equal values here."""
        return {name: value for name, value in self.model_dump().items() if name not in ("kind", "label")}


class SqueezeExcite(Attention):
    """Squeeze-and-excitation (Hu et al., arXiv 1709.01507, section 3): channel weights from a pooled bottleneck."""

    kind: Literal["se"] = "se"
    ratio: Annotated[int, Field(ge=1)] = 16

    def squeezed(self, channels: int) -> int:
        """Channels of the bottleneck: no rounding, so that every ratio is the network it says."""
        return max(1, channels // self.ratio)

    def effective(self, channels: int) -> dict[str, Any]:
        return {"squeezed": self.squeezed(channels)}


class ECA(Attention):
    """Efficient channel attention (Wang et al., arXiv 1910.03151): a 1-D convolution over the pooled channels."""

    kind: Literal["eca"] = "eca"
    size: Annotated[int, Field(ge=1)] | None = None
    """Width of the 1-D convolution, odd; None adapts it to the channels as the paper does (gamma 2, beta 1)."""

    def kernel_size(self, channels: int) -> int:
        """The odd width at this number of channels."""
        adapted = int(abs((channels.bit_length() - 1 + 1) / 2)) if self.size is None else self.size
        return max(adapted + 1 - adapted % 2, 3) if self.size is None else adapted

    def check(self, channels: int) -> None:
        if self.size is not None and self.size % 2 == 0:
            raise ConfigError(f"ECA.size = {self.size}: a centred 1-D convolution has an odd width; use {self.size + 1}")

    def effective(self, channels: int) -> dict[str, Any]:
        return {"size": self.kernel_size(channels)}


class CBAM(Attention):
    """Convolutional block attention (Woo et al., arXiv 1807.06521): channel weights, then a spatial map."""

    kind: Literal["cbam"] = "cbam"
    ratio: Annotated[int, Field(ge=1)] = 16
    size: Literal[3, 5, 7] = 7
    """Side of the spatial convolution."""

    def squeezed(self, channels: int) -> int:
        """Channels of the shared bottleneck."""
        return max(1, channels // self.ratio)

    def effective(self, channels: int) -> dict[str, Any]:
        return {"squeezed": self.squeezed(channels), "size": self.size}


class ExpAtt(Attention):
    """Explicitly modelled attention maps (arXiv 2006.07872): weights are a kernel of distance with a learnable radius.

    Augments the 3x3 convolution of a bottleneck (the first 3x3 of a basic block) as AA does: a share of its output channels
    comes from `A V`, where V is a 1x1 projection of the input and row i of a head's map A is k(|p_i - p_j| / radius)
    normalised to one. The defaults are the reading that gives the published counts (24,650,165 parameters at depth 50).
    With one radius a layer all heads share one map, so `heads` matters only with `radius_per="head"`.
    """

    kind: Literal["expatt"] = "expatt"
    kernel: Kernel = "gaussian"
    radius: Annotated[float, Field(gt=0)] = 2.0
    """Initial radius in positions of the slot's own grid."""
    radius_per: Literal["layer", "head"] = "layer"
    heads: Annotated[int, Field(ge=1)] = 8
    share: Annotated[float, Field(gt=0, lt=1)] = 0.1
    """Share of the convolution's output channels, floored to a multiple of 8, at least 8."""

    @property
    def where(self) -> Place:
        return "conv"

    def values(self, channels: int) -> int:
        """dv: the channels that attention gives, of `channels` output channels of the 3x3."""
        return max(8, int(self.share * channels + 1e-9) // 8 * 8)

    def factorises(self, height: int, width: int) -> bool:
        """Whether the map is applied as a kernel over rows times a kernel over columns, which is exact for a gaussian of
        squared L2, a laplacian of L1 and the uniform map; on small maps the dense product is faster."""
        return self.kernel in ("gaussian", "laplacian", "uniform") and height * width > 64

    def radii(self) -> int:
        """Learnable radii of a layer."""
        return 0 if self.kernel == "uniform" else self.heads if self.radius_per == "head" else 1

    def check(self, channels: int) -> None:
        dv = self.values(channels)
        if self.kernel == "linear" and self.radius <= 1:
            raise ConfigError(
                f"ExpAtt.radius = {self.radius:g}: a linear kernel of radius 1 or less sees only its own position and never"
                " learns; use more than 1"
            )
        if dv >= channels:
            raise ConfigError(
                f"ExpAtt.share = {self.share}: takes {dv} of {channels} channels and leaves none to the convolution;"
                " use a wider network or a smaller share"
            )
        if dv % self.heads:
            fit = [n for n in range(1, dv + 1) if dv % n == 0]
            raise ConfigError(f"ExpAtt.heads = {self.heads}: must divide the {dv} attention channels; use one of {fit}")

    def effective(self, channels: int) -> dict[str, Any]:
        found: dict[str, Any] = {"kernel": self.kernel, "values": self.values(channels)}
        if self.kernel != "uniform":
            found |= {"radius": self.radius, "radii": self.radii()}
        return found


class Custom(Attention):
    """A user's own `cls(channels, **knobs)`, named `package.module:Class`, never pickled.

    The module maps (batch, channels, height, width) to the same shape. `place` says where it goes: `branch` (as SE,
    before the addition), `block` or `stage`.
    """

    kind: Literal["custom"] = "custom"
    target: str
    knobs: dict[str, Scalar] = {}
    place: Literal["branch", "block", "stage"] = "branch"

    def __init__(
        self,
        target: str | None = None,
        /,
        *,
        place: Literal["branch", "block", "stage"] = "branch",
        label: str | None = None,
        **knobs: Any,
    ) -> None:
        """`Custom("mylab.gate:Gate", reduction=4)`; `place` and `label` are ours, every other keyword is a knob."""
        if target is None:  # the fields themselves, as JSON holds them
            Part.__init__(self, place=place, label=label, **knobs)
        else:
            for name, value in knobs.items():
                if not isinstance(value, Scalar) or (isinstance(value, float) and not math.isfinite(value)):
                    rule = "a knob is a string, a finite number, a bool or None"
                    raise ConfigError(f"Custom({target!r}).{name} = {value!r}: {rule}")
            Part.__init__(self, target=target, place=place, label=label, knobs=knobs)

    @model_validator(mode="after")
    def _names_a_class(self) -> Self:
        if not re.fullmatch(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*:[A-Za-z_]\w*", self.target):
            raise ConfigError(f"Custom({self.target!r}): write 'package.module:Class', for instance 'mylab.gate:Gate'")
        return self

    @property
    def where(self) -> Place:
        return self.place

    @property
    def class_name(self) -> str:
        return self.target.partition(":")[2]


Slot = Annotated[SqueezeExcite | ECA | CBAM | ExpAtt | Custom, Field(discriminator="kind")] | None

CIFAR_DEPTHS = tuple(depth for depth in range(8, 111, 6) if depth != 50)
"""6n + 2 layers, three stages (He et al., section 4.2); 50 is the ImageNet depth."""
IMAGENET_BLOCKS = {18: (2, 2, 2, 2), 34: (3, 4, 6, 3), 50: (3, 4, 6, 3), 101: (3, 4, 23, 3), 152: (3, 8, 36, 3)}


class ResNet(Part):
    """Residual networks (He et al., arXiv 1512.03385): depths 18 to 152 as in torchvision (v1.5: stride on the 3x3), and
    the CIFAR depths 8 to 110 with three stages of 16, 32 and 64 channels and shortcuts without parameters.

    `stages` holds one attention slot per stage. `stem="cifar"` gives any depth a 3x3 stem without pooling for small
    pictures; None takes the family's own. `width` multiplies every channel count.
    """

    kind: Literal["resnet"] = "resnet"
    label: str | None = None
    depth: int = 20
    stages: tuple[Slot, ...] = ()
    stem: Literal["imagenet", "cifar"] | None = None
    width: Annotated[float, Field(gt=0, le=16)] = 1.0

    @model_validator(mode="before")
    @classmethod
    def _all_stages(cls, data: Any) -> Any:
        if not isinstance(data, dict) or type(depth := data.get("depth", 20)) is not int:
            return data
        allowed = sorted({*CIFAR_DEPTHS, *IMAGENET_BLOCKS})
        if depth not in allowed:
            raise ValueError(f"ResNet.depth = {depth!r}: use one of {', '.join(map(str, allowed))}")
        count = 4 if depth in IMAGENET_BLOCKS else 3
        stages = data.get("stages", ())
        if not isinstance(stages, (tuple, list)):
            raise ValueError(f"ResNet.stages = {stages!r}: give a tuple with one slot per stage, {count} at depth {depth}")
        stages = tuple(stages) or (None,) * count
        if len(stages) != count:
            raise ValueError(f"ResNet.stages has {len(stages)} slots: depth {depth} has {count} stages, give one slot each")
        return data | {"stages": stages}

    @model_validator(mode="after")
    def _slots_fit(self) -> Self:
        if not self.imagenet and self.stem == "imagenet":
            raise ConfigError(f"ResNet.stem = 'imagenet': depth {self.depth} is a CIFAR depth; use 18, 34, 50, 101 or 152")
        for stage, attention in enumerate(self.stages, start=1):
            if attention is not None:
                try:
                    attention.check(self.slot_channels(stage))
                except ConfigError as error:
                    raise ConfigError(f"stage {stage}: {error}") from None
        return self

    @property
    def imagenet(self) -> bool:
        """Whether the depth is one of the four-stage family."""
        return self.depth in IMAGENET_BLOCKS

    @property
    def bottleneck(self) -> bool:
        return self.imagenet and self.depth >= 50

    @property
    def blocks(self) -> tuple[int, ...]:
        """Blocks of each stage."""
        return IMAGENET_BLOCKS[self.depth] if self.imagenet else ((self.depth - 2) // 6,) * 3

    @property
    def widths(self) -> tuple[int, ...]:
        """Channels of the 3x3 convolutions of each stage."""
        base = (64, 128, 256, 512) if self.imagenet else (16, 32, 64)
        return tuple(max(1, round(self.width * channels)) for channels in base)

    @property
    def outputs(self) -> tuple[int, ...]:
        """Output channels of each stage."""
        return tuple(4 * width for width in self.widths) if self.bottleneck else self.widths

    @property
    def small_stem(self) -> bool:
        """A 3x3 stem without pooling."""
        return self.stem == "cifar" or not self.imagenet

    def slot_channels(self, stage: int) -> int:
        """The channels that the attention of this stage (from 1) is asked to work on."""
        attention = self.stages[stage - 1]
        inner = attention is not None and attention.where == "conv"
        return (self.widths if inner else self.outputs)[stage - 1]


class Training(Part):
    """An honest small recipe: SGD with Nesterov, linear warm-up and cosine, flips and crops; on which data.

    A validation part is drawn from the training pictures, stratified by class, by the trial's seed; the test part stays
    untouched. What is `auto` is resolved when a study is created, and stored.
    """

    kind: Literal["training"] = "training"
    label: str | None = None
    dataset: Literal["digits", "cifar10", "cifar100", "folder"] = "digits"
    image_size: Annotated[int, Field(ge=4, le=1024)] | None = None
    """Side of the square that pictures of a folder are resized to; None where they all have one size."""
    limit: Annotated[int, Field(ge=2)] | None = None
    """Pictures per class of the training part, the first by name; None takes all."""
    validation: Annotated[float, Field(gt=0, lt=1)] = 0.1
    """Share of the training pictures held out to validate on."""
    epochs: Annotated[int, Field(ge=1)] = 20
    batch_size: Annotated[int, Field(ge=2)] = 128
    lr: Annotated[float, Field(gt=0)] = 0.1
    """Peak learning rate."""
    momentum: Annotated[float, Field(ge=0, lt=1)] = 0.9
    weight_decay: Annotated[float, Field(ge=0)] = 5e-4
    """Of weights of two dimensions or more: never of norms, biases and radii."""
    warmup: Annotated[float, Field(ge=0, lt=1)] = 0.1
    """Share of the steps over which the learning rate rises."""
    augment: Literal["auto", "none", "crop", "crop+flip"] = "auto"
    """auto: crop+flip, and crop alone on digits, which do not survive a mirror."""
    precision: Literal["auto", "fp32", "bf16"] = "auto"
    """auto: bf16 with channels-last where the processor has bf16 matrix units, else fp32."""
    label_smoothing: Annotated[float, Field(ge=0, lt=1), Neutral(0.0)] = 0.0
    deterministic: Annotated[bool, Neutral(False)] = False
    """Only kernels that repeat bit for bit, on a GPU too, at some cost in speed; a CPU repeats without."""


Network = ResNet
"""Any network a config may hold."""


class Config(Part):
    """What a trial is: a network and its training."""

    kind: Literal["config"] = "config"
    network: Network
    training: Training = Training()


PARTS: dict[str, type[Part]] = {
    part.model_fields["kind"].default: part for part in (SqueezeExcite, ECA, CBAM, ExpAtt, Custom, ResNet, Training, Config)
}
"""Every part by its kind: what JSON names it by."""


def part_from_json(data: dict[str, Any]) -> Part:
    """The part a JSON object describes; raises ConfigError for an unknown kind or value."""
    kind = data.get("kind")
    if kind not in PARTS:
        raise ConfigError(f"kind = {kind!r}: unknown part; this version knows {', '.join(PARTS)}")
    return PARTS[kind](**{name: value if name == "knobs" else _from_json(value) for name, value in data.items()})


def _from_json(value: Any) -> Any:
    if isinstance(value, list):
        return tuple(_from_json(item) for item in value)
    if isinstance(value, dict) and "kind" in value:
        return part_from_json(value)
    return value


def name_of(part: object) -> str:
    """How a part is called where only its name fits: its label, its kind, or the user's class."""
    if part is None:
        return "none"
    if isinstance(part, Part):
        label: str | None = getattr(part, "label", None)
        own = part.class_name.lower() if isinstance(part, Custom) else str(type(part).model_fields["kind"].default)
        return label or own
    return "+".join(map(name_of, part)) if isinstance(part, tuple) else str(part)
