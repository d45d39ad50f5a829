"""A module of the user's own, by name."""

import math
import re
from typing import Any, ClassVar, Literal, Self

from pydantic import model_validator

from harness.code import written_defaults
from harness.cost import Cost, Counter
from harness.errors import ConfigError
from harness.parts.attention import Attention, Place, Site
from harness.parts.part import Part, Scalar


class Custom(Attention):
    """A user's own `cls(channels, **knobs)`, named `package.module:Class`, never pickled.

    The module maps (batch, channels, height, width) to the same shape. `place` says where it goes: `branch` (as SE,
    before the addition), `block` or `stage`.
    """

    code: ClassVar[tuple[str, ...]] = ("target",)
    rest: ClassVar[str | None] = "knobs"
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

    def effective(self, channels: int) -> dict[str, Any]:
        """A knob at the default that its class writes down is left out, as the class would take it anyway."""
        defaults = written_defaults(self.target)

        def redundant(name: str, value: Scalar) -> bool:
            return name in defaults and type(defaults[name]) is type(value) and defaults[name] == value

        knobs = {name: value for name, value in self.knobs.items() if not redundant(name, value)}
        return super().effective(channels) | {"knobs": knobs}

    def cost(self, site: Site, counter: Counter | None = None) -> Cost:
        if counter is None:
            raise ConfigError(f"Custom({self.target!r}): no closed form of its cost is known here")
        return counter(self, site.channels, site.height, site.width)
