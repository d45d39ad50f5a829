"""Which kind of attention belongs in which stage? All 100 combinations on CIFAR-10 as folders of pictures, three seeds.

Small: harness run studies/attention_kind_cifar10.py --data DIR --set training.epochs=1 --set training.limit=300 --trials 4
"""

from harness.config import Training
from harness.study import Exhaustive, Study, maximize, minimize
from search_spaces.attention_kind import SPACE

STUDY = Study(
    name="attention-kind-cifar10",
    question="Which kind of attention belongs in which stage of a ResNet-20?",
    space=SPACE,
    training=Training(dataset="folder", epochs=20, batch_size=64),
    strategy=Exhaustive(),
    objectives=(maximize("accuracy"), minimize("params"), minimize("macs")),
    seeds=(0, 1, 2),
)
