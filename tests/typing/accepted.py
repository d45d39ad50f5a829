"""Spaces and studies as they are written: mypy --strict has nothing to say."""

from harness.config import (
    CBAM,
    LTPA,
    VGG,
    Backbone,
    Custom,
    ExpAtt,
    Kernel,
    ResNet,
    SqueezeExcite,
    Training,
    Trunk,
    WideResNet,
)
from harness.controls import matched
from harness.cost import Shape
from harness.presets import preset
from harness.space import choose, same, span, vary
from harness.study import Evolution, Exhaustive, Study, at_most, maximize, minimize

# a choice in its place takes its type from there
attention = choose(
    None,
    SqueezeExcite(),
    vary(ExpAtt, kernel=choose("gaussian", "laplacian"), radius=span(0.5, 8.0, log=True), heads=choose(1, 2, 4, 8)),
    vary(Custom, "mylab.gate:Gate", reduction=choose(4, 8), place="stage", label="mine"),
)
SPACE: ResNet = vary(ResNet, depth=choose(20, 32), width=span(0.5, 2.0), stages=(None, attention, same(attention)))

OTHERS: Backbone = vary(
    Backbone,
    choose("timm:convnext_tiny", "timm:convnext_small"),
    slots={"s3": choose("stages.2.blocks.*", "stages.2"), "s4": "stages.3"},
    s3=attention,
    s4=choose(None, SqueezeExcite()),
)
PUBLISHED = choose(preset("resnet-50"), matched(ResNet(depth=50), to=SPACE, shape=Shape(3, 32, 32, 10)).network, SPACE)

# a choice in a variable of its own says its type
kernel: Kernel = choose("gaussian", "laplacian")
own = vary(ExpAtt, kernel=choose("gaussian", "mylab.kernels:cosine"))
tied = same(kernel)
heads = same(span(1, 8))
WHOLE = vary(
    ResNet, stages=choose((None, None, vary(ExpAtt, kernel=tied, heads=heads)), (None, vary(CBAM, size=choose(3, 7)), None))
)

STUDY = Study(
    name="kernels",
    space=SPACE,
    training=vary(Training, dataset="cifar10", epochs=span(5, 20, step=5), augment=choose("none", "crop")),
    strategy=Evolution(trials=60),
    objectives=(maximize("accuracy"), minimize("macs")),
    constraints=(at_most("macs", 60e6),),
)

# networks among which to choose are trunks
attending = vary(LTPA, taps=choose((4, 5), (3, 4, 5)), score=choose("pc", "dp"))
ATTENDING = vary(VGG, trunk="attention", head=choose(None, attending))
AMONG: Trunk = choose(SPACE, vary(WideResNet, depth=10, factor=choose(1, 2)), ATTENDING)
TRUNKS = Study(name="trunks", space=AMONG, strategy=Exhaustive())
DIRECT = Study(name="direct", space=choose(ResNet(), vary(VGG, width=span(0.5, 1.0))), strategy=Evolution(trials=5))
EVERY = Study(name="every", space=choose(SPACE, WHOLE), strategy=Exhaustive(), seeds=(0, 1))
