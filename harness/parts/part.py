"""The base of every piece of a config: frozen, typed, keyword-only values whose errors are one line.

Nothing in `parts` imports torch: listing, planning and reporting read configs in milliseconds.
"""

import re
from dataclasses import dataclass
from typing import Any, ClassVar, TypeGuard, get_args

from pydantic import BaseModel, ConfigDict, ValidationError
from pydantic_core import ErrorDetails

from harness.errors import ConfigError, hint

Scalar = str | int | float | bool | None


@dataclass(frozen=True)
class Neutral:
    """Marks a field added after the first release: at this value the key leaves it out, so that old keys stay."""

    value: Scalar


class Part(BaseModel):
    """A piece of a config. `label` is the user's own name for it, shown in its place and never part of the key."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)
    version: ClassVar[int] = 1
    code: ClassVar[tuple[str, ...]] = ()
    """Fields that may name code of the user's, as `package.module:Name`."""
    rest: ClassVar[str | None] = None
    """The field that holds every other keyword, of the user's own naming; such a part is given its target by position."""

    def __init__(self, **data: Any) -> None:
        try:
            super().__init__(**data)
        except ValidationError as error:
            problems = error.errors()
            unknown = (problem for problem in problems if problem["type"] == "extra_forbidden")
            raise ConfigError(explain(type(self), next(unknown, problems[0]))) from None

    @property
    def targets(self) -> tuple[str, ...]:
        """The code of the user's that this part itself names."""
        return tuple(filter(is_target, (getattr(self, name) for name in self.code)))


def is_target(value: object) -> TypeGuard[str]:
    """Whether a value names code as `package.module:Name`; names of libraries' models are no code of the user's."""
    return isinstance(value, str) and ":" in value and not value.startswith(("timm:", "torchvision:"))


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
    if error["type"] in ("union_tag_not_found", "union_tag_invalid", "model_attributes_type", "model_type"):
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
