"""A process of a trial on several devices beside the first: it trains its piece of every batch, and says nothing.

It ends with the first.
"""

import json
import os
import shutil
import traceback
from pathlib import Path

from harness.child import told
from harness.errors import one_line
from harness.trial import Assignment, cause_of, make_ready, opened


def main() -> None:
    """Follows the first process to the end of the trial."""
    asked = told(at_end=lambda: shutil.rmtree(folder, ignore_errors=True))
    folder, rank = Path(asked["folder"]), int(asked["rank"])
    try:
        follow(Assignment(**asked["assignment"]), rank, int(asked["world"]), folder)
    except Exception as error:
        said = {"reason": one_line(error), "cause": cause_of(error), "traceback": traceback.format_exc(limit=-12)}
        (folder / "telling").write_text(json.dumps(said))
        (folder / "telling").replace(folder / f"error-{rank}")
        os._exit(1)  # whoever waits for the others would wait long


def follow(assignment: Assignment, rank: int, world: int, folder: Path) -> None:
    """Trains as `harness.trial` does, on a piece of each batch."""
    make_ready(assignment)
    from torch import distributed

    from harness.data.batches import open_batches
    from harness.training import checkpoint, loop
    from harness.training.learner import Learner
    from harness.training.ranks import join

    config, where, pictures, info, network, _ = opened(assignment)
    training = config.training
    data = open_batches(pictures, info, training, seed=assignment.seed, device=where, cores=assignment.cores)
    (folder / f"ready-{rank}").touch()
    ranks = join(rank, world, folder, where)
    learner, done = Learner(ranks.synchronised(network, where), training, ranks), 0
    if saved := checkpoint.load(assignment.folder, assignment.key, where):
        learner.restore(saved)
        done = len(saved["curve"])
    ranks.agree(done, where)
    for epoch in range(done + 1, training.epochs + 1):
        loop.train_epoch(learner, data, seed=assignment.seed, epoch=epoch)
    distributed.destroy_process_group()


if __name__ == "__main__":
    main()
