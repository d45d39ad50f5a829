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
    dataset: Literal["digits", "cifar10", "cifar100", "folder", "own"] = "digits"
    """own: what a loop of the user's own reads or makes by itself, described by `Study(data=OwnData(...))`."""
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
    """Pictures of a step of the optimiser."""
    accumulate: Annotated[int, Field(ge=1), Neutral(1)] = 1
    """Pieces that a batch is passed in, one after the other, where the whole does not fit into memory; batch norms see a
    piece at a time."""
    optimizer: Annotated[Literal["sgd", "adamw"], Neutral("sgd")] = "sgd"
    lr: Annotated[float, Field(gt=0)] = 0.1
    """Peak learning rate."""
    radius_lr: Annotated[float, Field(gt=0), Neutral(1.0)] = 1.0
    """Times the learning rate: that of learnable radii."""
    momentum: Annotated[float, Field(ge=0, lt=1)] = 0.9
    """Of SGD; AdamW's first beta."""
    nesterov: Annotated[bool, Neutral(True)] = True
    """Whether SGD looks ahead (Nesterov)."""
    weight_decay: Annotated[float, Field(ge=0)] = 5e-4
    """Never of norms, biases and radii; SGD adds it to the gradient, AdamW decouples it."""
    schedule: Annotated[Literal["cosine", "step", "onecycle", "restarts"], Neutral("cosine")] = "cosine"
    """How the learning rate falls after the warm-up: half a cosine to zero; by `drop` at each of `milestones`; one-cycle (a
    cosine up over the warm-up, one down); a cosine that restarts (SGDR, arXiv 1608.03983), each cycle twice as long."""
    milestones: Annotated[tuple[Annotated[int, Field(ge=1)], ...], Neutral(())] = ()
    """Of `step`: epochs after which the rate is multiplied by `drop`."""
    drop: Annotated[float, Field(gt=0, lt=1), Neutral(0.1)] = 0.1
    cycle: Annotated[int, Field(ge=1), Neutral(10)] = 10
    """Of `restarts`: epochs of the first cycle."""
    warmup: Annotated[float, Field(ge=0, lt=1)] = 0.1
    """Share of the steps over which the learning rate rises."""
    clip: Annotated[Annotated[float, Field(gt=0)] | None, Neutral(None)] = None
    """Longest norm of all gradients together; None clips none."""
    ema: Annotated[float, Field(ge=0, lt=1), Neutral(0.0)] = 0.0
    """Decay a step of an exponential moving average of the weights, which is then what is evaluated and kept; 0: none."""
    select: Annotated[Literal["last", "best"], Neutral("last")] = "last"
    """Which epoch's weights and metrics are the trial's. `best` on the validation part is optimistic: it is the luckiest of
    as many looks as there are epochs."""
    init: Annotated[Annotated[str, Field(min_length=1)] | None, Neutral(None)] = None
    """Weights to begin with: "timm:resnet50.a1_in1k", or the path of a checkpoint. What fits by name and shape is loaded;
    its hash is in the key."""
    augment: Literal["auto", "none", "crop", "flip", "crop+flip"] = "auto"
    """auto: crop+flip, and crop alone on digits, which do not survive a mirror. A crop is a window of the padded picture (an
    eighth of the side), of a streamed one a part of random size and shape; none: a streamed picture's centre."""
    padding: Annotated[Literal["reflect", "zero"], Neutral("reflect")] = "reflect"
    """What crops see beyond the border: the picture mirrored, or black; of streamed pictures they see nothing there."""
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
    precision: Literal["auto", "fp32", "tf32", "bf16"] = "auto"
    """auto: bf16 autocast where the device multiplies in it, else fp32; channels-last in any case. tf32 is fp32 with
    products of 10 bits, on GPUs that have it."""
    compile: Annotated[Literal["auto"] | bool, Neutral("auto"), Neutral(False)] = "auto"
    """Whether the network is compiled for training (`torch.compile`); auto: on a GPU, where the shortest trial of the study
    is long enough to win more than compiling costs."""
    label_smoothing: Annotated[float, Field(ge=0, lt=1), Neutral(0.0)] = 0.0
    deterministic: Annotated[bool, Neutral(False)] = False
    """Only kernels that repeat bit for bit, on a GPU too, at some cost in speed; a CPU repeats without."""

    @model_validator(mode="after")
    def _makes_sense(self) -> Self:
        if (self.schedule == "step") != bool(self.milestones):
            remedy = "give milestones=(82, 123) or so" if self.schedule == "step" else "leave milestones out"
            raise ConfigError(f"Training.schedule = {self.schedule!r}, milestones = {self.milestones}: {remedy}")
        if list(self.milestones) != sorted(set(self.milestones)):
            raise ConfigError(f"Training.milestones = {self.milestones}: epochs rise, each is given once")
        if self.batch_size < 2 * self.accumulate:
            raise ConfigError(
                f"Training.accumulate = {self.accumulate}: a batch of {self.batch_size} has not two pictures for each piece;"
                f" use at most {self.batch_size // 2}"
            )
        if self.init is not None and ":" in self.init and not self.init.startswith("timm:"):
            raise ConfigError(f"Training.init = {self.init!r}: write timm:NAME, or a path without a colon")
        return self

    @model_validator(mode="after")
    def _augments(self) -> Self:
        if self.padding == "zero" and self.augment in ("none", "flip"):
            raise ConfigError(f"Training.padding = 'zero': augment = {self.augment!r} pads nothing; leave padding out")
        if self.magnitude != 9 and self.policy != "rand":
            raise ConfigError(f"Training.magnitude = {self.magnitude}: only policy='rand' has one; leave magnitude out")
        return self

    def without_effect(self) -> set[str]:
        """Fields that change no number of a trial, with the others as they are."""
        idle = {"kind", "label", "dataset", "limit", "image_size", "loading", "skip_bad_images"}
        if self.schedule != "step":
            idle.add("drop")
        if self.schedule != "restarts":
            idle.add("cycle")
        if self.optimizer != "sgd" or self.momentum == 0:
            idle.add("nesterov")
        if self.loading == "stream":
            idle.add("padding")  # parts of a picture are taken, of which none reaches beyond its border
        return idle
