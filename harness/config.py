"""Configs: a network and how it is trained, as frozen, typed, keyword-only values. What a study file imports.

Stages are named as in the papers, from 1. A stage has one attention slot; where in the stage a module goes is the kind's
own business (its `place`). The kinds of attention and the networks are written in `parts`, one idea a file.
"""

from typing import Annotated, Any, Literal, get_args

from pydantic import Field

from harness.errors import ConfigError
from harness.parts.attention import Attention, Place, Site
from harness.parts.custom import Custom
from harness.parts.expatt import ExpAtt, Kernel
from harness.parts.gates import CBAM, ECA, SqueezeExcite
from harness.parts.part import Neutral, Part, Scalar
from harness.parts.residual import ResNet
from harness.parts.trunk import Slot, Trunk

__all__ = ["ATTENTIONS", "CBAM", "ECA", "NETWORKS", "PARTS", "Attention", "Config", "Custom", "ExpAtt", "Kernel", "Network"]
__all__ += ["Neutral", "Part", "Place", "ResNet", "Scalar", "Site", "Slot", "SqueezeExcite", "Training", "Trunk"]
__all__ += ["name_of", "part_from_json"]

Network = ResNet
"""Any network a config may hold."""
NETWORKS: tuple[type[Trunk], ...] = (ResNet,)
ATTENTIONS: tuple[type[Attention], ...] = tuple(get_args(get_args(get_args(Slot)[0])[0]))
"""Every kind of attention that a slot may hold."""


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


class Config(Part):
    """What a trial is: a network and its training."""

    kind: Literal["config"] = "config"
    network: Network
    training: Training = Training()


_PARTS: tuple[type[Part], ...] = (*ATTENTIONS, *NETWORKS, Training, Config)
PARTS: dict[str, type[Part]] = {part.model_fields["kind"].default: part for part in _PARTS}
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
