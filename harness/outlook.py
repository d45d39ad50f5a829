"""What a plan can tell of trials before they run: which are finished elsewhere already, and how long one takes here."""

from collections import Counter
from collections.abc import Iterator
from itertools import islice

from harness.code import source_hash
from harness.config import Config
from harness.cost import Shape
from harness.design import Design
from harness.errors import ConfigError, one_line
from harness.execution.reuse import may_stand, on_the_same_pictures
from harness.hardware import Hardware, hardware_here
from harness.key import trial_key
from harness.preflight import Checked, long_enough, values_of
from harness.run import resolved
from harness.storage.reader import read_records, read_studies, revision
from harness.storage.tables import is_there
from harness.strategies.proposers import Cells, Draws, Proposal
from harness.study import Exhaustive, Random, Study


def taken_over(checks: Checked, storage: str) -> dict[str, int]:
    """How many trials a study would take over from each other one, by the keys of its cells; nothing for a search that
    looks at results before it proposes, whose trials are not known yet. `auto` is taken as it comes to on this machine."""
    study = checks.study
    if not may_stand(study) or not is_there(storage):
        return {}
    others = [one for one in on_the_same_pictures(read_studies(storage), checks.info) if one.name != study.name]
    if not others:
        return {}
    if checks.stored is None:
        open_ = "auto" in values_of(study, "precision") | values_of(study, "compile")
        hardware = hardware_here() if open_ else Hardware("cpu", "fp32", tf32=False, compiler=False)
        if hardware is None:
            return {}
        study = resolved(study, hardware, long_enough(checks, hardware), checks.info)
    metrics = {objective.metric for objective in study.objectives}
    finished: dict[str, str] = {}
    for one in others:
        for record in read_records(storage, one.study_id):
            if record.state == "complete" and metrics <= {*record.metrics, *record.costs}:
                finished.setdefault(record.key, revision(one.name)[0])
    own = set()
    if checks.stored is not None:
        own = {record.key for record in read_records(storage, checks.stored.study_id)}
    return dict(Counter(finished[key] for key in dict.fromkeys(keys(study, checks)) if key in finished and key not in own))


def keys(study: Study, checks: Checked) -> Iterator[str]:
    """The keys of the trials that a resolved study will have, as far as they are known before it runs."""
    space = study.open_space(check=False)
    cells: Iterator[Proposal] = iter(())
    if isinstance(study.strategy, Exhaustive | Design):
        cells = Cells(study, space).all()
    elif isinstance(study.strategy, Random):
        draws = Draws(study.seeds[0], space)
        cells = iter(draws.propose, None)

    def source(target: str) -> str:
        return checks.sources.get(target) or source_hash(target)

    def known() -> Iterator[str]:
        seen = set()
        for cell in cells:
            try:
                config = space.config(cell.params)
                cost = checks.price(config)._asdict()
            except ConfigError:
                continue
            key = trial_key(
                config, cell.seed, checks.info.fingerprint, source, trial=study.trial, test=checks.info.scored_on
            )
            if key not in seen and all(constraint.holds(cost) for constraint in study.constraints):
                seen.add(key)
                yield key

    return islice(known(), study.strategy.trials) if isinstance(study.strategy, Random) else known()


class Timer:
    """Times a few steps of training on this machine: seconds a picture, or None and why not."""

    def __init__(self, shape: Shape, threads: int) -> None:
        self._shape, self._threads = shape, threads
        self.problem = ""

    def __call__(self, config: Config, macs: int) -> float | None:
        from harness.measure.timing import seconds_per_picture

        try:
            return seconds_per_picture(config, self._shape, macs, self._threads)
        except Exception as error:  # whatever it is: the plan is made without a time, and the trial will tell
            self.problem = one_line(error, 120)
            return None
