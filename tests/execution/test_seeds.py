"""Seeds in sequence, through the ledger: the same results lead to the same cells, whatever order they come in, however many
work at once, whoever is killed; nothing waits for ever, nothing ends early."""

import random
import shutil
from collections import Counter
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from harness.analysis.arms import Arms, arms_of, contest
from harness.analysis.sequential import Course
from harness.config import ResNet, SqueezeExcite
from harness.design import AddOneIn, Sequential
from harness.execution.ledger import Ledger, Places, Rules, Watcher
from harness.record import Record
from harness.space import choose, vary
from harness.storage.reader import read_records
from harness.storage.store import Store
from harness.study import Study, maximize
from harness.trial import Assignment, Outcome, Report
from tests.execution.desk import INFO, curve, price

SLOT: Any = choose(None, SqueezeExcite(ratio=4), SqueezeExcite(ratio=2, label="se2"))
STUDY = Study(
    name="s",
    space=vary(ResNet, depth=8, stages=(SLOT, SLOT, None)),
    strategy=AddOneIn(),
    objectives=(maximize("accuracy"),),
    seeds=Sequential(first=3, most=8, smallest_effect=0.02),
)
ARMS = ("base", "stage 1 SE", "stage 1 se2", "stage 2 SE", "stage 2 se2")
GAINS = dict(zip(ARMS, (0.0, 0.4, 0.0, 0.01, 0.03)))
Cell = tuple[str, int]


def made_up(arm: str, seed: int, noise: float = 0.02) -> float:
    """The accuracy of an arm and a seed, the same for whoever asks."""
    return 0.5 + GAINS[arm] + noise * random.Random(f"{arm}:{seed}").gauss() + 0.05 * random.Random(seed).random()


@pytest.fixture(scope="module")
def empty(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A database whose tables are made, to be copied."""
    folder = tmp_path_factory.mktemp("empty")
    Store(f"sqlite:///{folder}/harness.db").close()
    return folder / "harness.db"


class Lab(Watcher):
    """Drivers of one study, with workers that finish in any order."""

    def __init__(
        self, empty: Path, folder: Path, *, broken: Mapping[Cell, int] = {}, noise: float = 0.02, **fields: Any
    ) -> None:
        folder.mkdir(exist_ok=True, parents=True)
        shutil.copy(empty, folder / "harness.db")
        self.folder, self.broken, self.noise, self.told = folder, dict(broken), noise, list[str]()
        self.change(**fields)

    def change(self, **fields: Any) -> None:
        self.study = Study(**{name: getattr(STUDY, name) for name in Study.model_fields} | fields)
        self.names = contest(self.study, self.study.open_space()).name

    def looked(self, ledger: Ledger, standing: str) -> None:
        self.told.append(standing)

    def open(self, **options: Any) -> Ledger:
        store = Store(f"sqlite:///{self.folder}/harness.db")
        study_id = store.create("s", self.study.objectives)
        store.set_attributes(study_id, {"definition": self.study.to_json()})
        places = Places("data", str(self.folder / "runs"))
        return Ledger(store, study_id, self.study, INFO, places, price, watcher=self, **options)

    def records(self) -> list[Record]:
        return read_records(f"sqlite:///{self.folder}/harness.db", 1)

    def cell(self, ledger: Ledger, assignment: Assignment) -> Cell:
        return str(self.names(ledger.running[assignment.number].params)), assignment.seed

    def finish(self, ledger: Ledger, assignment: Assignment) -> None:
        arm, seed = cell = self.cell(ledger, assignment)
        if self.broken.get(cell, 0) > 0:
            self.broken[cell] -= 1
            done = Outcome("failed", reason=f"no luck with {arm}, {seed}")
        else:
            done = Outcome("complete", metrics={"accuracy": made_up(arm, seed, self.noise), "loss": 1.0, "seconds": 0.1})
        ledger.report(assignment.number, Report(curve(2), done))

    def drive(self, rng: random.Random, workers: int, lifetime: int | None = None, **options: Any) -> Ledger:
        """Runs the study with so many workers, to its end or until the driver dies after so many results."""
        ledger, busy, results = self.open(**options), list[Assignment](), 0
        while True:
            while len(busy) < workers and (assignment := ledger.next()) is not None:
                busy.append(assignment)
            if not busy:
                return ledger
            if results == lifetime:
                return ledger
            self.finish(ledger, busy.pop(rng.randrange(len(busy))))
            results += 1

    def cells(self) -> Counter[Cell]:
        records = self.records()
        assert {record.state for record in records} <= {"complete", "failed"}
        return Counter((str(self.names(record.params)), record.seed) for record in records)

    @property
    def course(self) -> Course:
        found = self.arms.course
        assert found is not None
        return found

    @property
    def arms(self) -> Arms:
        found = arms_of(self.study, self.study.open_space(), self.records())
        assert found is not None
        return found


@pytest.fixture
def make(empty: Path, tmp_path: Path) -> Callable[..., Lab]:
    return lambda name="lab", **given: Lab(empty, tmp_path / name, **given)


@pytest.fixture
def calm(make: Callable[..., Lab]) -> Callable[..., Lab]:
    """A study that nobody disturbs, one trial at a time."""

    def run(**given: Any) -> Lab:
        lab = make("calm", **given)
        lab.drive(random.Random(0), 1)
        return lab

    return run


MakeLab = Callable[..., Lab]


def test_decided_arms_get_no_more_seeds(make: MakeLab) -> None:
    lab = make()
    ledger = lab.drive(random.Random(0), 1)
    assert ledger.done and not ledger.running
    seeds, course = Counter(arm for arm, _ in lab.cells()), lab.course
    assert course.ended and {arm: one.asked for arm, one in course.arms.items()} == {arm: seeds[arm] for arm in ARMS[1:]}
    assert course.arms["stage 1 SE"].kind == "differs" and seeds["stage 1 SE"] == 3
    assert seeds["base"] == max(seeds.values()) > min(seeds.values()) == 3
    assert ledger.planned == ledger.rows == course.cells == seeds.total() and course.saved == 40 - course.cells
    assert [record.seed for record in lab.records()] == sorted(record.seed for record in lab.records())
    assert lab.told[0].startswith("round 1: ") and lab.told[0].endswith(" of 4 comparisons still open")
    assert len(lab.told) == course.round and lab.told[-1] == ledger.standing == course.words


@pytest.mark.parametrize("workers", [2, 5, 30])
def test_the_same_results_lead_to_the_same_cells(make: MakeLab, calm: MakeLab, workers: int) -> None:
    """In any order, with any number of workers, with drivers that die at any moment."""
    rng, lab = random.Random(workers), make(noise=0.05)
    for _ in range(3):
        lab.drive(rng, workers, lifetime=rng.randrange(10))
    assert lab.drive(rng, workers).done
    other = calm(noise=0.05)
    assert lab.cells() == other.cells() and lab.course == other.course


def test_many_workers_are_used_as_well_as_the_design_allows(make: MakeLab, calm: MakeLab) -> None:
    """Whoever has to wait for nobody does not: an arm that no share of the level could settle goes on by itself."""
    lab = make(noise=0.2)
    ledger = lab.open()
    first: list[Assignment] = []
    while (assignment := ledger.next()) is not None:
        first.append(assignment)
    assert len(first) == 15 and not ledger.done, "the first three seeds of all at once, then it waits"
    slow = next(assignment for assignment in first if lab.cell(ledger, assignment) == ("stage 2 se2", 0))
    for assignment in first:
        if assignment is not slow:
            lab.finish(ledger, assignment)
    ahead = []
    while (assignment := ledger.next()) is not None:
        ahead.append(lab.cell(ledger, assignment))
        lab.finish(ledger, assignment)
    assert {seed for arm, seed in ahead if arm == "base"} == {3, 4, 5, 6, 7}, "others went ahead of the slow one"
    assert not [cell for cell in ahead if cell[0] == "stage 2 se2"] and not ledger.done
    lab.finish(ledger, slow)
    while (assignment := ledger.next()) is not None:
        lab.finish(ledger, assignment)
    assert ledger.done
    assert lab.cells() == calm(noise=0.2).cells()


BROKEN = {
    "a cell": {("stage 2 se2", 1): 1},
    "the baseline": {("base", 0): 1},
    "both": {("base", 2): 1, ("stage 1 SE", 2): 1},
    "an arm": {("stage 2 SE", seed): 1 for seed in range(8)},
    "most of the baseline": {("base", seed): 1 for seed in range(2)},
}


@pytest.mark.parametrize("broken", BROKEN.values(), ids=BROKEN)
def test_failed_cells_block_nothing_and_are_named(make: MakeLab, broken: dict[Cell, int]) -> None:
    lab = make(broken=broken)
    assert lab.drive(random.Random(1), 4).done and lab.course.ended
    failed = {(str(lab.names(one.params)), one.seed) for one in lab.records() if one.state == "failed"}
    assert failed and {(arm, seed) for arm, seeds in lab.arms.missing.items() for seed in seeds} == failed
    for arm, one in lab.course.arms.items():
        assert set(one.seeds) == {s for s in range(one.asked) if (arm, s) not in failed and ("base", s) not in failed}
    if len(broken) == 8:
        assert lab.course.arms["stage 2 SE"].kind == "without trials" and lab.course.arms["stage 2 SE"].asked == 3


def test_a_failed_cell_that_runs_again_is_waited_for(make: MakeLab, calm: MakeLab) -> None:
    lab = make(broken={("stage 2 se2", 1): 1, ("base", 2): 1})
    lab.drive(random.Random(1), 3)
    assert lab.drive(random.Random(2), 3, rules=Rules(retry_failed=True)).done
    other = calm()
    assert lab.course.arms == other.course.arms and set(other.cells()) <= set(lab.cells())


def test_a_limit_of_trials_ends_the_run_and_not_the_study(make: MakeLab, calm: MakeLab) -> None:
    lab = make()
    for trials in (7, 16):
        ledger = lab.drive(random.Random(0), 2, rules=Rules(trials=trials))
        assert ledger.done and ledger.planned == ledger.rows == trials
    lab.drive(random.Random(0), 2)
    assert lab.cells() == calm().cells()


def test_a_primary_comparison_alone_gets_more_seeds(make: MakeLab) -> None:
    lab = make(strategy=AddOneIn(primary="stage 1 se2"), noise=0.1)
    lab.drive(random.Random(0), 3)
    seeds = Counter(arm for arm, _ in lab.cells())
    assert seeds["stage 1 se2"] == seeds["base"] == 8
    assert {seeds[arm] for arm in ("stage 1 SE", "stage 2 SE", "stage 2 se2")} == {3}
    assert lab.course.of("not tested") == ("stage 1 SE", "stage 2 SE", "stage 2 se2") and lab.course.tested == 1


def test_more_seeds_at_most_go_on_in_place(make: MakeLab, calm: MakeLab) -> None:
    lab = make(noise=0.1, seeds=Sequential(first=3, most=5, smallest_effect=0.02))
    lab.drive(random.Random(0), 2)
    lab.change()
    assert lab.drive(random.Random(0), 2).done
    other = calm(noise=0.1)
    assert lab.course == other.course and set(other.cells()) <= set(lab.cells())
