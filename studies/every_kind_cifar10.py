"""Does every kind of attention train? Each alone in the last stage of a ResNet-8, on CIFAR-10 as folders of pictures.

Two cores, minutes: harness run studies/every_kind_cifar10.py --data DIR
"""

from harness.config import Training
from harness.study import Exhaustive, Study, maximize, minimize
from search_spaces.every_kind import SPACE

STUDY = Study(
    name="every-kind-cifar10",
    question="Does every kind of attention train in the last stage of a ResNet-8?",
    space=SPACE,
    training=Training(dataset="folder", limit=500, epochs=6),
    strategy=Exhaustive(),
    objectives=(maximize("accuracy"), minimize("params"), minimize("macs")),
)
