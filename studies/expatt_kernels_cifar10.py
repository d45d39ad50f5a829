"""Does the kernel function matter once its radius is learned? On CIFAR-10 as folders of pictures, sized for one GPU.

Small: harness run studies/expatt_kernels_cifar10.py --data DIR --set training.epochs=1 --set training.limit=300 --trials 4
"""

from harness.config import Training
from harness.study import Evolution, Study, at_most, maximize, minimize
from search_spaces.expatt_kernels import SPACE

STUDY = Study(
    name="expatt-kernels-cifar10",
    question="Does the kernel function matter once its radius is learned?",
    space=SPACE,
    training=Training(dataset="folder", epochs=20, batch_size=64),
    strategy=Evolution(trials=60),
    objectives=(maximize("accuracy"), minimize("params"), minimize("macs")),
    constraints=(at_most("macs", 60e6),),
)
