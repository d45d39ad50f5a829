"""The papers' recipes as far as they are known here, ready to train with: `Study(..., training=EXPATT_CIFAR)`.

What a paper's recipe does not say where we read it stays our default (the batch of 128, the weight decay of 5e-4, crops and
flips), and momentum is plain, as "SGD with momentum" says. GSA (arXiv 2010.03019) is missing: nothing of its recipe was at
hand. Fewer epochs: `--set training.epochs=20`; the warm-up, a share of the steps, shrinks with them.
"""

from harness.config import Training


def _expatt(epochs: int, dataset: str) -> Training:
    return Training(
        dataset=dataset,  # type: ignore[arg-type]
        epochs=epochs,
        lr=0.05,
        momentum=0.9,
        nesterov=False,
        warmup=15 / epochs,
        schedule="restarts",
        cycle=10,
    )


EXPATT_CIFAR = _expatt(450, "cifar10")
"""ExpAtt (arXiv 2006.07872): linear warm-up over 15 epochs to 0.05, then a cosine with restarts at 25, 45, 85, 165 and 325;
the last cycle, of 320 epochs, is cut at 450."""
EXPATT_TINY_IMAGENET = _expatt(324, "folder")
"""The same, ended before the restart at 325."""
EXPATT_IMAGENET = _expatt(164, "folder")
"""The same, ended before the restart at 165."""

AA_CIFAR = Training(
    dataset="cifar100", epochs=500, batch_size=128, lr=0.2 * 128 / 256, momentum=0.9, nesterov=False, warmup=0.05
)
"""AA (arXiv 1904.09925): 0.2 x batch / 256 after a linear warm-up over 5 % of the steps, then a cosine."""

LTPA_CIFAR = Training(
    dataset="cifar10",
    epochs=300,
    batch_size=128,
    lr=0.1,
    momentum=0.9,
    nesterov=False,
    weight_decay=5e-4,
    warmup=0.0,
    schedule="step",
    milestones=tuple(range(25, 300, 25)),
    drop=0.5,
    augment="flip",
)
"""LTPA (arXiv 1804.02391): halved every 25 epochs, flips alone; its rate of 1, with Torch's dampening, is 0.1 here."""
