"""Does the kernel function matter once its radius is learned?"""

from harness.config import ExpAtt, ResNet
from harness.space import choose, span, vary

attention = choose(
    None,
    vary(
        ExpAtt,
        kernel=choose("gaussian", "laplacian", "laplacian_l2", "cauchy", "linear"),
        radius=span(1.25, 8.0, log=True),
        radius_per="head",
        heads=choose(1, 2, 4, 8),
    ),
    ExpAtt(kernel="uniform", label="uniform"),  # the control: the same network without a radius
)
SPACE = vary(ResNet, depth=20, stages=(None, attention, attention))
