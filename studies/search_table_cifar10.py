"""Every config of a small space with two seeds: the table on which searches are compared (`harness plan --simulate`).

CIFAR-10 as folders of pictures, made small: 2,000 of them, 16x16. An hour of one core:
harness run studies/search_table_cifar10.py --data DIR
"""

from harness.config import Training
from harness.space import choose, vary
from harness.study import Exhaustive, Study, maximize, minimize
from search_spaces.small_resnets import SPACE

STUDY = Study(
    name="search-table-cifar10",
    question="How soon does a search find the front that training everything finds?",
    space=SPACE,
    training=vary(
        Training,
        dataset="folder",
        image_size=16,
        limit=200,
        validation=0.4,
        epochs=9,
        batch_size=64,
        lr=choose(0.02, 0.2),
    ),
    strategy=Exhaustive(),
    objectives=(maximize("accuracy"), minimize("params"), minimize("macs")),
    seeds=(0, 1),
)
