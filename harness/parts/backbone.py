"""Networks of others, with attention at places named by path: timm's, torchvision's, or the user's own."""

import re
from collections.abc import Iterator
from functools import lru_cache
from typing import Any, ClassVar, Literal, NamedTuple, Self

from pydantic import Field, model_validator

from harness.cost import Cost, Counter, Shape
from harness.errors import ConfigError, hint
from harness.parts.attention import Attention
from harness.parts.part import Part
from harness.parts.trunk import Slot, Trunk

WIDTHS = (*range(4, 2052, 4), 3072, 4096, 7, 30, 50)
"""Channel counts at which two settings of an attention are compared where the width of a place is not known."""


class Backbone(Trunk):
    """A model of timm, torchvision or the user's, without pretrained weights, with attention in named slots.

        Backbone("timm:convnext_tiny", slots={"s3": "stages.2.blocks.*"}, s3=SqueezeExcite())

    `slots` names places of the model by dotted paths, in which each piece may hold `*`, `?` and `[...]`; every other
    keyword fills a slot, None leaves it as it was. Attention stands behind what the named modules give, (batch, channels,
    height, width) or channels last; a kind that works in place of a convolution takes that of the named `nn.Conv2d`, its
    stride honoured. A model of the user's is `module:make`, called as `make(channels=..., classes=...)`; it gives logits
    (batch, classes), or (batch, classes, ...) for a loop of the user's own, or anything where such data have no classes.
    What a path names, and whether attention fits there, shows when the network is counted or built.
    """

    code: ClassVar[tuple[str, ...]] = ("target",)
    rest: ClassVar[str | None] = "at"
    kind: Literal["backbone"] = "backbone"
    target: str
    slots: dict[str, str] = {}
    at: dict[str, Slot] = {}
    """The attention of each slot."""
    stages: tuple[()] = Field((), exclude=True)
    head: None = Field(None, exclude=True)

    def __init__(
        self,
        target: str | None = None,
        /,
        *,
        slots: dict[str, str] | None = None,
        label: str | None = None,
        **at: Slot,
    ) -> None:
        """`Backbone("timm:resnet50", slots={"late": "layer4.*"}, late=ECA())`."""
        if target is None:  # the fields themselves, as JSON holds them
            Part.__init__(self, slots=slots or {}, label=label, **at)
        else:
            Part.__init__(self, target=target, slots=slots or {}, label=label, at=at)

    @model_validator(mode="before")
    @classmethod
    def _every_slot(cls, data: Any) -> Any:
        """An attention or None for each slot, in the order of the slots."""
        if not isinstance(data, dict) or not isinstance(slots := data.get("slots"), dict):
            return data
        at = data.get("at", {})
        for name in at:
            if name not in slots:
                has = ", ".join(slots) or "none"
                raise ValueError(f"Backbone: there is no slot {name!r} (slots names {has}){hint(name, slots)}")
        return data | {"at": {name: at.get(name) for name in slots}}

    @model_validator(mode="after")
    def _well_named(self) -> Self:
        if not re.fullmatch(r"(timm|torchvision):\w+|[A-Za-z_]\w*(\.[A-Za-z_]\w*)*:[A-Za-z_]\w*", self.target):
            tagged = re.fullmatch(r"(timm:\w+)\.\w+", self.target)
            rule = (
                f"a tag names weights, which are not loaded; write {tagged[1]!r}"
                if tagged
                else "write 'timm:MODEL', 'torchvision:MODEL' or 'package.module:make'"
            )
            raise ConfigError(f"Backbone({self.target!r}): {rule}")
        for name, path in self.slots.items():
            if not re.fullmatch(r"[A-Za-z_]\w*", name) or name in (*type(self).model_fields, "knobs"):
                raise ConfigError(f"Backbone.slots: {name!r} cannot name a slot; use a word of its own, such as 's3'")
            if not re.fullmatch(r"[\w*?\[\]!-]+(\.[\w*?\[\]!-]+)*", path):
                raise ConfigError(f"Backbone.slots.{name} = {path!r}: write a dotted path, such as 'layer3.*'")
            if twin := next((other for other, same in self.slots.items() if same == path and other != name), None):
                raise ConfigError(f"Backbone.slots: {twin} and {name} are both {path!r}; a place has one slot")
        return self

    @model_validator(mode="after")
    def _slots_fit(self) -> Self:
        for name, attention in self.filled.items():
            own = type(attention).model_fields
            if "place" in own and getattr(attention, "place") != own["place"].default:  # noqa: B009
                raise ConfigError(f"Backbone.{name}: {attention!r} says its place, which the slot's path says here; drop it")
            fitting(attention)
        return self

    @property
    def filled(self) -> dict[str, Attention]:
        """The slots that hold an attention."""
        return {name: attention for name, attention in self.at.items() if attention is not None}

    @property
    def class_name(self) -> str:
        """The model's own name."""
        return self.target.partition(":")[2]

    @property
    def places(self) -> dict[str, Attention]:
        """The attention at each path: equal networks have equal values here, but for the fields without effect."""
        return {self.slots[name]: reduced(attention) for name, attention in self.filled.items()}

    def parts(self, shape: Shape, counter: Counter | None = None) -> Iterator[tuple[str, Cost]]:
        """The whole network, counted: a model of others has no closed form."""
        if counter is None:
            raise ConfigError(f"Backbone({self.target!r}): its cost is counted, with torch; no closed form is known")
        yield "network", counter(Classifier(self, shape.classes), shape.channels, shape.height, shape.width)


class Classifier(NamedTuple):
    """A backbone and how many classes it tells apart: what a counter is asked for."""

    backbone: Backbone
    classes: int


def fitting(attention: Attention) -> tuple[int, ...]:
    """The widths at which an attention can be built; raises ConfigError where there is none."""
    return _fitting(type(attention), attention.model_dump_json())


def reduced(attention: Attention) -> Attention:
    """The attention with its default in place of every field that has no effect at any width, and without a label."""
    return _reduced(type(attention), attention.model_dump_json())


@lru_cache(maxsize=4096)
def _fitting(kind: type[Attention], plain: str) -> tuple[int, ...]:
    attention, fit, problem = kind.model_validate_json(plain), [], None
    for channels in WIDTHS:
        try:
            attention.check(channels)
            fit.append(channels)
        except ConfigError as error:
            problem = error
    if not fit and problem is not None:
        raise problem
    return tuple(fit)


@lru_cache(maxsize=4096)
def _reduced(kind: type[Attention], plain: str) -> Attention:
    found = kind.model_validate_json(plain).model_copy(update={"label": None})
    effect = _effect(found)
    for name, field in kind.model_fields.items():
        if name != "kind" and not field.is_required() and getattr(found, name) != field.default:
            without = found.model_copy(update={name: field.default})
            if _effect(without) == effect:
                found = without
    return found


def _effect(attention: Attention) -> list[Any]:
    return [(channels, attention.effective(channels)) for channels in fitting(attention)]
