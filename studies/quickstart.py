"""Which attention belongs in which stage of a small network, on scikit-learn's real handwritten digits? Two minutes."""

from harness.config import Training
from harness.study import Evolution, Study, maximize, minimize
from search_spaces.quickstart import SPACE

STUDY = Study(
    name="quickstart",
    question="Which attention belongs in which stage of a small network that reads handwritten digits?",
    space=SPACE,
    training=Training(dataset="digits", epochs=15, batch_size=64, validation=0.25),
    strategy=Evolution(trials=24, population=8),
    objectives=(maximize("accuracy"), minimize("params"), minimize("macs")),
)
