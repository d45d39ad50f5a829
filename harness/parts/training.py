"""How a network is trained, and on which data."""

from typing import Annotated, Literal

from pydantic import Field

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
