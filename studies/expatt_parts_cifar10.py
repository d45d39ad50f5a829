"""Which part of ExpAtt matters: kernel, learned radius, heads, projection? CIFAR-10 as folders of pictures.

Two cores, about eight minutes: harness run studies/expatt_parts_cifar10.py --data DIR
"""

from harness.config import Training
from harness.design import OneAtATime
from harness.study import Study
from search_spaces.expatt_parts import SPACE

STUDY = Study(
    name="expatt-parts",
    question="Which part of ExpAtt matters in a ResNet-8: its kernel, learning the radius, a radius a head, the projection?",
    space=SPACE,
    training=Training(dataset="folder", limit=1000, validation=0.3, epochs=6),
    strategy=OneAtATime(margin=0.01),
    seeds=(0, 1, 2, 3, 4, 5),
)
