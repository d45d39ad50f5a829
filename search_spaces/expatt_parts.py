"""The parts of ExpAtt, each a choice of its own, in stages 2 and 3 of a ResNet-8."""

from harness.config import ExpAtt, ResNet
from harness.space import choose, same, vary

attention = vary(
    ExpAtt,
    kernel=choose("gaussian", "laplacian", "uniform"),
    learned=choose(True, False),
    radius_per=choose("head", "layer"),
    projection=choose(True, False),
    share=0.25,
)
SPACE = vary(ResNet, depth=8, stages=(None, *[same(attention)] * 2))
