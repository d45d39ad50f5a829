"""Configs: a network and how it is trained, as frozen, typed, keyword-only values. What a study file imports.

Stages are named as in the papers, from 1. A stage has one attention slot; where in the stage a module goes is the kind's
own business (its `place`). The kinds of attention and the networks are written in `parts`, one idea a file.
"""

from typing import Annotated, Any, Literal, get_args

from pydantic import Field

from harness.errors import ConfigError
from harness.parts.attention import Attention, Place, Site
from harness.parts.augmented import AA
from harness.parts.backbone import Backbone
from harness.parts.custom import Custom
from harness.parts.expatt import ExpAtt, Kernel
from harness.parts.gates import (
    BAM,
    CBAM,
    ECA,
    CoordinateAttention,
    EffectiveSE,
    GatherExcite,
    GlobalContext,
    SimAM,
    SqueezeExcite,
    TripletAttention,
)
from harness.parts.gsa import GSA
from harness.parts.ltpa import LTPA
from harness.parts.mixers import BottleneckAttention, Halo, LambdaLayer, NonLocal, StandAlone
from harness.parts.own_data import OwnData
from harness.parts.part import Neutral, Part, Scalar
from harness.parts.preact import PreActResNet, WideResNet
from harness.parts.residual import ResNet
from harness.parts.training import Training
from harness.parts.trunk import Slot, Trunk
from harness.parts.vgg import VGG

__all__ = ["ATTENTIONS", "CBAM", "ECA", "NETWORKS", "PARTS", "Attention", "Config", "Custom", "ExpAtt", "Kernel", "Network"]
__all__ += ["Neutral", "Part", "Place", "ResNet", "Scalar", "Site", "Slot", "SqueezeExcite", "Training", "Trunk"]
__all__ += ["AA", "GSA", "LTPA", "VGG", "PreActResNet", "WideResNet", "name_of", "part_from_json", "parts_from_json"]
__all__ += ["BAM", "BottleneckAttention", "CoordinateAttention", "EffectiveSE", "GatherExcite", "GlobalContext", "Halo"]
__all__ += ["Backbone", "LambdaLayer", "NonLocal", "OwnData", "SimAM", "StandAlone", "TripletAttention"]

Network = Annotated[ResNet | PreActResNet | WideResNet | VGG | Backbone, Field(discriminator="kind")]
"""Any network a config may hold."""
NETWORKS: tuple[type[Trunk], ...] = tuple(get_args(get_args(Network)[0]))
ATTENTIONS: tuple[type[Attention], ...] = tuple(get_args(get_args(get_args(Slot)[0])[0]))
"""Every kind of attention that a slot may hold."""


class Config(Part):
    """What a trial is: a network and its training."""

    kind: Literal["config"] = "config"
    network: Network
    training: Training = Training()


_PARTS: tuple[type[Part], ...] = (*ATTENTIONS, LTPA, *NETWORKS, Training, Config)
PARTS: dict[str, type[Part]] = {part.model_fields["kind"].default: part for part in _PARTS}
"""Every part by its kind: what JSON names it by."""


def part_from_json(data: dict[str, Any]) -> Part:
    """The part a JSON object describes; raises ConfigError for an unknown kind or value."""
    kind = data.get("kind")
    if kind not in PARTS:
        raise ConfigError(f"kind = {kind!r}: unknown part; this version knows {', '.join(PARTS)}")
    return PARTS[kind](**{name: value if name == "knobs" else parts_from_json(value) for name, value in data.items()})


def parts_from_json(value: Any) -> Any:
    """Lists as tuples and every object with a kind as its part."""
    if isinstance(value, list):
        return tuple(parts_from_json(item) for item in value)
    if isinstance(value, dict):
        return part_from_json(value) if "kind" in value else {name: parts_from_json(item) for name, item in value.items()}
    return value


def name_of(part: object) -> str:
    """How a part is called where only its name fits: its label, its kind, or the name of what others wrote."""
    if part is None:
        return "none"
    if isinstance(part, Part):
        label: str | None = getattr(part, "label", None)
        own = (
            part.class_name.lower() if isinstance(part, Custom | Backbone) else str(type(part).model_fields["kind"].default)
        )
        return label or own
    return "+".join(map(name_of, part)) if isinstance(part, tuple) else str(part)


def constant_words(value: object) -> str:
    """A constant: a part with the fields that are not its defaults, None as none."""
    if not isinstance(value, Part):
        return name_of(value)
    own = {name: field.default for name, field in type(value).model_fields.items() if name not in ("kind", "label", "knobs")}
    given = {name: found for name, default in own.items() if (found := getattr(value, name)) != default}
    fields = ", ".join(f"{name}={found!r}" for name, found in (given | getattr(value, "knobs", {})).items())
    label = getattr(value, "label", None)
    return f"{label + ': ' if label else ''}{type(value).__name__}({fields})"
