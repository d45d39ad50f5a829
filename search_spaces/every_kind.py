"""Every kind of attention there is, each alone in the last stage of a small ResNet, and LTPA as its head."""

from harness.config import (
    AA,
    BAM,
    CBAM,
    ECA,
    GSA,
    LTPA,
    BottleneckAttention,
    CoordinateAttention,
    EffectiveSE,
    ExpAtt,
    GatherExcite,
    GlobalContext,
    Halo,
    LambdaLayer,
    NonLocal,
    ResNet,
    SimAM,
    SqueezeExcite,
    StandAlone,
    TripletAttention,
)
from harness.space import choose, vary

attention = choose(
    None,
    SqueezeExcite(ratio=4),
    EffectiveSE(),
    ECA(),
    CBAM(ratio=4),
    BAM(ratio=4),
    GlobalContext(ratio=4),
    GatherExcite(),
    CoordinateAttention(ratio=4),
    SimAM(),
    TripletAttention(),
    NonLocal(),
    BottleneckAttention(),
    Halo(),
    StandAlone(),
    LambdaLayer(),
    ExpAtt(),
    AA(),
    GSA(),
)
SPACE = choose(
    vary(ResNet, depth=8, stages=(None, None, attention), label="slot"),
    ResNet(depth=8, head=LTPA(taps=(2, 3)), label="LTPA"),
)
