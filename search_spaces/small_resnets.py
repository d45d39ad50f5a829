"""Which small ResNet, and which attention in its later stages, with which radius and heads?"""

from harness.config import ExpAtt, ResNet, SqueezeExcite
from harness.space import choose, vary

early = choose(None, SqueezeExcite(ratio=4), ExpAtt(kernel="laplacian", radius=2.0, heads=1, share=0.25, multiple=1))
late = choose(
    None,
    SqueezeExcite(ratio=4),
    vary(
        ExpAtt,
        kernel=choose("gaussian", "uniform"),
        radius=choose(1.0, 3.0),
        radius_per="head",
        heads=choose(1, 2),
        share=0.25,
        multiple=1,
    ),
)
SPACE = vary(ResNet, depth=choose(8, 14), width=choose(0.25, 0.5, 1.0), stages=(None, early, late))
