"""Seeds in sequence, as proposed: what is asked for depends on the results alone."""

import random
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from harness.config import ResNet, SqueezeExcite
from harness.design import AddOneIn, Sequential
from harness.record import Record
from harness.space import choose, vary
from harness.strategies.proposers import Cells, Proposal
from harness.strategies.rounds import Rounds
from harness.study import Study, maximize, minimize

SLOT: Any = choose(None, SqueezeExcite(ratio=4), SqueezeExcite(ratio=2, label="se2"))
SPACE = vary(ResNet, depth=8, stages=(SLOT, SLOT, SLOT))
Results = dict[str, float | None]


def study(seeds: Sequential, **fields: Any) -> Study:
    objectives = (minimize("params"), maximize("accuracy"))
    return Study(name="s", space=SPACE, strategy=AddOneIn(**fields), objectives=objectives, seeds=seeds)


def cell(proposal: Proposal) -> str:
    return f"{sorted(proposal.params.items())}: {proposal.seed}"


def result(proposal: Proposal, world: int, noise: float) -> float | None:
    """The accuracy of a cell in one of many worlds; None where the trial fails, one time in fifteen."""
    rng, shared = random.Random(f"{world}, {cell(proposal)}"), random.Random(f"{world}, {proposal.seed}")
    gain = random.Random(f"{world}, {sorted(proposal.params.items())}").choice((0.0, 0.0, 0.01, 0.05))
    return None if rng.random() < 1 / 15 else 0.5 + gain + 0.1 * shared.random() + noise * rng.gauss()


def told(found: float | None) -> list[float] | None:
    return None if found is None else [1000.0, found]


def row(proposal: Proposal, found: Any) -> Record:
    """What the database says of a cell."""
    state: Any = found if isinstance(found, str) else "failed" if found is None else "complete"
    metrics = {"accuracy": found} if state == "complete" else {}
    return Record(0, state, proposal.params, "", proposal.seed, {}, {}, metrics)


class Hall:
    """Workers and drivers of one study; what was finished and what runs outlives a driver, as rows do."""

    def __init__(self, asked: Study, world: int, noise: float) -> None:
        self.study, self.space, self.world, self.noise = asked, asked.open_space(), world, noise
        self.results: Results = {}
        self.busy: list[Proposal] = []
        self.rows: list[tuple[Proposal, float | None]] = []

    def driver(self, rng: random.Random) -> Rounds:
        made = Rounds(self.study, self.space)
        rows: list[tuple[Proposal, Any]] = [*self.rows, *((proposal, "running") for proposal in self.busy)]
        for proposal, found in rng.sample(rows, len(rows)):
            made.recall(row(proposal, found))
        return made

    def run(self, rng: random.Random, workers: int, deaths: float) -> None:
        driver = self.driver(rng)
        while True:
            if rng.random() < deaths:
                driver = self.driver(rng)
            while len(self.busy) < workers and (proposal := driver.propose()) is not None:
                assert cell(proposal) not in self.results, "proposed twice"
                self.results[cell(proposal)] = None
                self.busy.append(proposal)
            if not self.busy:
                assert not driver.waiting and driver.left == 0, "nothing runs, and yet it waits"
                return
            assert driver.waiting
            done = self.busy.pop(rng.randrange(len(self.busy)))
            found = result(done, self.world, self.noise)
            self.results[cell(done)] = found
            self.rows.append((done, found))
            driver.told(done, told(found))


@given(
    world=st.integers(0, 10**6),
    order=st.integers(0, 10**6),
    workers=st.integers(1, 40),
    noise=st.sampled_from((0.002, 0.02, 0.1)),
    first=st.integers(2, 4),
    primary=st.sampled_from((None, "stage 2 SE")),
    margin=st.sampled_from((None, 0.02)),
)
@settings(max_examples=25, deadline=None)
def test_the_same_results_ask_for_the_same_cells(
    world: int, order: int, workers: int, noise: float, first: int, primary: str | None, margin: float | None
) -> None:
    asked = study(Sequential(first=first, most=7, smallest_effect=margin), primary=primary)
    calm, wild = Hall(asked, world, noise), Hall(asked, world, noise)
    calm.run(random.Random(0), 1, deaths=0.0)
    wild.run(random.Random(order), workers, deaths=0.2)
    assert wild.results == calm.results
    course = calm.driver(random.Random(0)).course
    assert course.ended and course.cells == len(calm.results)


def test_a_limit_of_seeds_is_that_of_fixed_ones() -> None:
    """Where nothing is ever decided every arm gets every seed, in the order of a design with fixed seeds."""
    asked = study(Sequential(first=2, most=4))
    listed = Study(name="s", space=SPACE, strategy=AddOneIn(), seeds=(0, 1, 2, 3))
    sequence, fixed = Rounds(asked, asked.open_space()), Cells(listed, listed.open_space())
    seen = []
    while (proposal := sequence.propose()) is not None:
        seen.append(cell(proposal))
        sequence.told(proposal, [1000.0, 0.5])
    assert seen == [cell(found) for found in iter(fixed.propose, None)]
