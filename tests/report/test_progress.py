"""How a study came along, against numbers worked out by hand."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from harness.record import Epoch, Record
from harness.report.facts import gather
from harness.report.progress import growth, growth_figures, growth_section, savings, savings_section, savings_words
from harness.study import maximize, minimize
from tests.report.test_facts import SMALL, made

TWO = SMALL.model_copy(update={"objectives": (maximize("accuracy"), minimize("params"))})
START = datetime(2025, 6, 3, tzinfo=UTC)


def ended(record: Record, minute: int) -> Record:
    return replace(record, ended=START + timedelta(minutes=minute))


GROWING = [
    ended(made(n, accuracy, params), n) for n, (accuracy, params) in enumerate([(0.9, 100), (0.95, 200), (0.94, 150)])
]
GROWING.append(ended(made(3, 0.8, 300), 3))


def test_hypervolume_grows_as_by_hand():
    """The corner is 0.785 and 320: a tenth of the range beyond the worst."""
    (steps,) = growth([gather(TWO, {}, GROWING[::-1])])
    assert [step.number for step in steps] == [0, 1, 2, 3]
    assert [step.share for step in steps] == pytest.approx([25.3 / 33.3, 31.3 / 33.3, 1, 1])
    assert [(step.trials, step.epochs, step.seconds) for step in steps] == [
        (1, 2, 3.0),
        (2, 4, 6.0),
        (3, 6, 9.0),
        (4, 8, 12.0),
    ]


def test_studies_share_one_corner_and_one_whole():
    one, other = gather(TWO, {}, GROWING[:2]), gather(TWO, {}, GROWING[2:])
    first, second = growth([one, other])
    assert first[-1].share == pytest.approx(31.3 / 33.3)
    assert second[0].share == pytest.approx(0.155 * 170 / 33.3)
    assert growth([one, gather(SMALL, {}, GROWING)]) == []
    drawn = growth_figures([one, other], [first, second])
    assert list(drawn) == ["Trials", "Compute", "Epochs"] and list(drawn["Epochs"].data[0].x) == [0, 2, 4]


def test_what_ends_without_a_number_costs_compute_and_gains_nothing():
    failed = ended(replace(GROWING[3], state="failed", metrics={}, epochs=2), 9)
    (steps,) = growth([gather(TWO, {}, [*GROWING[:3], GROWING[3], replace(failed, number=4)])])
    assert (steps[-1].number, steps[-1].trials, steps[-1].share) == (4, 5, pytest.approx(1))
    assert list(growth_section([gather(TWO, {}, GROWING[:2])])) == []


def test_savings_count_every_epoch_once():
    pace = tuple(Epoch(epoch, 0.5, 1.0, 1.0, 4.0) for epoch in (1, 2))
    config = {"training": {"epochs": 10}}
    stopped = [made(n, state="stopped", curve=pace, epochs=2, config_json=config) for n in (1, 2)]
    promoted = made(3, 0.9, promotes=2, inherited=2, epochs=10, config_json=config)
    taken = made(4, 0.9, reused={"study": "other", "number": 1}, epochs=10, config_json=config)
    facts = gather(SMALL, {}, [made(0, 0.9, epochs=10, config_json=config), *stopped, promoted, taken])
    found = savings(facts)
    (halt,) = found.halts
    assert [trial.number for trial in halt.trials] == [1] and (halt.epoch, halt.saved, halt.seconds) == (2, 8, 32.0)
    assert (found.trained, found.stopped, found.promoted, found.taken) == (22, 8, 2, 10) and found.whole == 42
    assert "early stopping of 1 trial saved 8 epochs, some 32" in savings_words(facts, found).lower()
    assert savings_section(facts) is not None and savings_section(gather(SMALL, {}, [made(0, 0.9)])) is None
