"""How a network is trained, and on which data."""

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from harness.errors import ConfigError
from harness.parts.part import Neutral, Part


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
    loading: Annotated[Literal["auto", "resident", "stream"], Neutral("auto"), Neutral("resident")] = "auto"
    """Whether pictures are decoded once and held whole, or read from their files as they pass; auto: streamed where a folder
    takes more than HARNESS_RESIDENT_GB decoded (by default a quarter of the memory)."""
    skip_bad_images: Annotated[bool, Neutral(False)] = False
    """Leave out pictures that cannot be read, and say how many; else one of them is an error."""
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
    augment: Literal["auto", "none", "crop", "flip", "crop+flip"] = "auto"
    """auto: crop+flip, and crop alone on digits, which do not survive a mirror. A crop is a window of the padded picture (an
    eighth of the side), of a streamed one a part of random size and shape; none: a streamed picture's centre."""
    padding: Annotated[Literal["reflect", "zero"], Neutral("reflect")] = "reflect"
    """What crops see beyond the border: the picture mirrored, or black."""
    cutout: Annotated[float, Field(ge=0, le=1), Neutral(0.0)] = 0.0
    """Share of the sides of a box of the mean colour, put anywhere (arXiv 1708.04552, 0.5 on CIFAR-10); 0: none."""
    jitter: Annotated[float, Field(ge=0, le=1), Neutral(0.0)] = 0.0
    """Brightness, contrast and saturation times 1 - jitter to 1 + jitter each; 0: none."""
    policy: Annotated[Literal["trivial", "rand"] | None, Neutral(None)] = None
    """TrivialAugment in its wide space (arXiv 2103.10158), or RandAugment with two operations (arXiv 1909.13719)."""
    magnitude: Annotated[int, Field(ge=0, le=30), Neutral(9)] = 9
    """Strength of `rand`."""
    mixup: Annotated[float, Field(ge=0), Neutral(0.0)] = 0.0
    """Alpha of the Beta distribution of shares in which two pictures and their classes are mixed (arXiv 1710.09412)."""
    cutmix: Annotated[float, Field(ge=0), Neutral(0.0)] = 0.0
    """The same for a box of one picture put into another (arXiv 1905.04899); with both, a toss for each picture."""
    precision: Literal["auto", "fp32", "bf16"] = "auto"
    """auto: bf16 with channels-last where the processor has bf16 matrix units, else fp32."""
    label_smoothing: Annotated[float, Field(ge=0, lt=1), Neutral(0.0)] = 0.0
    deterministic: Annotated[bool, Neutral(False)] = False
    """Only kernels that repeat bit for bit, on a GPU too, at some cost in speed; a CPU repeats without."""

    @model_validator(mode="after")
    def _augments(self) -> Self:
        if self.padding == "zero" and self.augment in ("none", "flip"):
            raise ConfigError(f"Training.padding = 'zero': augment = {self.augment!r} pads nothing; leave padding out")
        if self.magnitude != 9 and self.policy != "rand":
            raise ConfigError(f"Training.magnitude = {self.magnitude}: only policy='rand' has one; leave magnitude out")
        return self
