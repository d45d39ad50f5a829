"""Pre-activation residual networks: ResNet-164 and wide ones."""

from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field, model_validator

from harness.parts.residual import Residual
from harness.parts.trunk import sized


class Preactivated(Residual):
    """What networks of pre-activation blocks share: three stages, a 3x3 stem without norm, 1x1 shortcuts where the shape
    changes, and a norm and a ReLU behind the last block. Taps of a head are the sums that leave a stage, as they are."""

    preactivated: ClassVar[bool] = True
    step: ClassVar[int]
    """Layers that one more block in each stage adds."""

    @model_validator(mode="before")
    @classmethod
    def _all_stages(cls, data: Any) -> Any:
        if not isinstance(data, dict) or type(depth := data.get("depth", cls.model_fields["depth"].default)) is not int:
            return data
        extra = cls.model_fields["depth"].default % cls.step
        if depth < cls.step + extra or depth % cls.step != extra:
            examples = ", ".join(str(cls.step * n + extra) for n in (1, 2, 3))
            raise ValueError(f"{cls.__name__}.depth = {depth!r}: use {cls.step}n + {extra}, as {examples}, ...")
        return sized(data, 3, cls.__name__, f"depth {depth}")

    @property
    def blocks(self) -> tuple[int, ...]:
        return (self.depth // self.step,) * 3

    def scaled(self, factor: float) -> tuple[int, ...]:
        """The widths of the CIFAR networks, so many times."""
        return tuple(max(1, round(factor * channels)) for channels in (16, 32, 64))


class PreActResNet(Preactivated):
    """Pre-activation bottleneck networks (He et al., arXiv 1603.05027) of depth 9n + 2: 164 has 1,703,258 parameters at 10
    classes. Stages of 64, 128 and 256 channels; `width` multiplies every channel count.

    As the trunk of LTPA (arXiv 1804.02391, ResNet-164): `head=LTPA(taps=(2, 3))`.
    """

    step: ClassVar[int] = 9
    kind: Literal["preact"] = "preact"
    depth: int = 164
    width: Annotated[float, Field(gt=0, le=16)] = 1.0

    @property
    def bottleneck(self) -> bool:
        return True

    @property
    def widths(self) -> tuple[int, ...]:
        return self.scaled(self.width)

    def structure(self) -> dict[str, Any]:
        return {"blocks": self.blocks, "widths": self.widths}


class WideResNet(Preactivated):
    """Wide residual networks (Zagoruyko and Komodakis, arXiv 1605.07146) of depth 6n + 4, basic blocks: WRN-28-10 is the
    default, 36.5 M parameters and 5.2 GMACs at 32x32. `factor` widens the stages, not the stem."""

    step: ClassVar[int] = 6
    kind: Literal["wide"] = "wide"
    depth: int = 28
    factor: Annotated[float, Field(gt=0, le=32)] = 10.0
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Between the convolutions of a block (section 2.4: 0.3); 0 as with AA (arXiv 1904.09925)."""

    @property
    def bottleneck(self) -> bool:
        return False

    @property
    def widths(self) -> tuple[int, ...]:
        return self.scaled(self.factor)

    @property
    def stem_width(self) -> int:
        return 16

    def structure(self) -> dict[str, Any]:
        return {"blocks": self.blocks, "widths": self.widths, "dropout": self.dropout}
