"""One kind of attention, or none, in each stage of a CIFAR network."""

from harness.config import CBAM, ECA, ExpAtt, ResNet, SqueezeExcite
from harness.space import choose, vary

attention = choose(None, SqueezeExcite(ratio=8), ECA(), CBAM(ratio=8), ExpAtt())
SPACE = vary(ResNet, depth=20, stages=(choose(None, SqueezeExcite(ratio=8), ECA(), CBAM(ratio=8)), attention, attention))
