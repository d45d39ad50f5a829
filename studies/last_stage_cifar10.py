"""Does attention in the last stage help more than as many params or MACs do? CIFAR-10 as folders of pictures.

Two cores, about twelve minutes: harness run studies/last_stage_cifar10.py --data DIR
"""

from harness.config import Training
from harness.design import AddOneIn
from harness.study import Study
from search_spaces.last_stage import SPACE

STUDY = Study(
    name="last-stage",
    question="Does any attention in the last stage of a ResNet-8 beat matched controls?",
    space=SPACE,
    training=Training(dataset="folder", limit=1000, validation=0.3, epochs=6),
    strategy=AddOneIn(margin=0.01, controls=("params", "macs")),
    seeds=(0, 1, 2, 3, 4, 5),
)
