"""No attention, squeeze-and-excitation or explicit maps in the last two stages of a small network, at three widths."""

from harness.config import ExpAtt, ResNet, SqueezeExcite
from harness.space import choose, span, vary

attention = choose(
    None,
    SqueezeExcite(ratio=4),
    vary(
        ExpAtt,
        kernel=choose("gaussian", "laplacian", "cauchy"),
        radius=span(0.5, 4.0, log=True),
        radius_per="head",
        heads=choose(1, 2, 4),
    ),
)
SPACE = vary(ResNet, depth=8, stages=(None, attention, attention), width=choose(0.5, 0.75, 1.0))
