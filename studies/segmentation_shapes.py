"""Which attention helps a small U-Net to segment, and where? A study with a training loop, data and a metric of its own."""

from harness.config import GSA, Backbone, ExpAtt, OwnData, SqueezeExcite, Training
from harness.design import AddOneIn
from harness.space import choose, vary
from harness.study import Study, maximize, minimize

gate = choose(None, SqueezeExcite(ratio=4))
STUDY = Study(
    name="segmentation-shapes",
    question="Which attention helps a small U-Net to segment, and where?",
    space=vary(
        Backbone,
        "studies.shapes_loop:UNet",
        slots={"encoder": "second", "bottom": "bottom", "mixing": "bottom.0"},  # modules of the network, by their paths
        encoder=gate,  # behind the second block
        bottom=gate,  # behind the deepest
        mixing=choose(None, ExpAtt(), GSA()),  # in place of the deepest convolution
    ),
    training=Training(dataset="own", epochs=12, batch_size=32, lr=0.005, weight_decay=0.01),
    data=OwnData(name="shapes", shape=(1, 48, 48), classes=4, train=640),  # what the network sees: costs are counted for it
    trial="studies.shapes_loop:run",
    strategy=AddOneIn(margin=0.01),
    objectives=(maximize("mIoU", unit="%"), minimize("params"), minimize("macs")),
    seeds=(0, 1, 2),
)
