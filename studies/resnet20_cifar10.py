"""How far ResNet-20 comes on two cores: the whole of CIFAR-10 as folders of pictures, three seeds, minutes told.

Two cores, half an hour: harness run studies/resnet20_cifar10.py --data DIR
"""

from harness.config import ResNet, Training
from harness.space import vary
from harness.study import Exhaustive, Study, maximize

STUDY = Study(
    name="resnet-20",
    question="How accurate is a plain ResNet-20 after ten epochs?",
    space=vary(ResNet, depth=20),
    training=Training(dataset="folder", epochs=10),
    strategy=Exhaustive(),
    objectives=(maximize("accuracy"),),
    seeds=(0, 1, 2),
)
