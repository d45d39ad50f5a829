"""One attention module in the last stage of a ResNet-8, the others plain."""

from harness.config import AA, CBAM, ECA, ExpAtt, ResNet, SqueezeExcite
from harness.space import choose, vary

ATTENTION = (
    ExpAtt(share=0.25),
    ExpAtt(share=0.25, kernel="uniform", label="uniform"),  # a control: the same module, a map without a choice
    AA(),
    SqueezeExcite(ratio=8),
    ECA(),
    CBAM(ratio=8),
)
SPACE = vary(
    ResNet,
    depth=8,
    stages=(None, None, choose(None, *ATTENTION)),
)
