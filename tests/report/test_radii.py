"""Learned radii, against hand-made curves, and kernels against those that networks use."""

from dataclasses import replace

import pytest

from harness.record import Epoch, Record
from harness.report.facts import gather
from harness.report.radii import KERNELS, drawn_kernels, kept, kernel_map, radii, radii_figure, radii_section, starts_figure
from tests.report.sample import ATTRIBUTES, STUDY, learned, records
from tests.report.test_facts import SMALL, made


def with_radii(number: int, start: float, *ends: float, accuracy: float = 0.9) -> Record:
    """A trial of two epochs whose radii in the first block of stage 2 end so."""
    slot = {"kind": "expatt", "kernel": "gaussian", "radius": start, "radius_per": "head"}
    curve = tuple(
        Epoch(n, 0.5, 1.0, 1.0, 1.0, radii={"2.1": tuple(ends) if n == 2 else (start,) * len(ends)}) for n in (1, 2)
    )
    return made(number, accuracy, curve=curve, config_json={"network": {"stages": [None, slot]}})


def test_a_radius_is_told_by_stage_block_head_and_start():
    found = radii(gather(SMALL, {}, [with_radii(0, 2.0, 1.0, 3.0), made(1, 0.9)]))
    assert [(one.stage, one.block, one.head, one.start, one.values) for one in found] == [
        ("stage 2", "1", 1, 2.0, (2.0, 1.0)),
        ("stage 2", "1", 2, 2.0, (2.0, 3.0)),
    ]


def test_what_ends_keep_of_their_starts():
    """Ends are the root of starts: twice the start is 1.41 times the end, and the share kept is one half."""
    some = [with_radii(n, 2.0**n, 2.0 ** (n / 2), accuracy=0.9 + 0.001 * n) for n in range(6)]
    (found,) = kept(gather(SMALL, {}, some), radii(gather(SMALL, {}, some)))
    assert (found.stage, found.trials) == ("stage 2", 6)
    assert found.slope == pytest.approx(0.5) and found.half == pytest.approx(0, abs=1e-6)
    assert found.correlation == pytest.approx(1)
    few = gather(SMALL, {}, some[:4])
    assert kept(few, radii(few)) == []
    same = gather(SMALL, {}, [replace(with_radii(0, 2.0, 1.0), number=n) for n in range(6)])
    assert kept(same, radii(same)) == []


def test_figures_hold_each_radius_from_its_start_on():
    facts = gather(STUDY, ATTRIBUTES, records())
    found = radii(facts)
    drawn = radii_figure(found)
    line = next(trace for trace in drawn.data if trace.meta and trace.meta["trial"] == 52)
    params = facts.trials[52].record.params
    start = float(str(params["stages.2.expatt.radius"]))
    assert line.x[:3] == (0, 1, 2) and line.y[0] == start and line.y[2] == learned(start, 0, 2)
    points = [trace for trace in starts_figure(found).data if trace.customdata is not None]
    assert {number for trace in points for number in trace.customdata} <= {trial.number for trial in facts.complete}


def test_kernels_are_those_of_the_networks():
    import torch

    from harness.networks.attention.kernels import KERNELS as TRUE
    from harness.networks.attention.kernels import dense_map

    assert KERNELS.keys() == TRUE.keys()
    for name, kernel in TRUE.items():
        row = dense_map(kernel, 5, 4, torch.tensor([1.7], dtype=torch.float64))[0, 2 * 4 + 2].reshape(5, 4).numpy()
        found = kernel_map(name, 1.7, 5, 4)
        assert found is not None and found[2, 2] == 1
        assert found / found.sum() == pytest.approx(row, abs=1e-12)
    assert kernel_map("mine:own", 1.7, 5, 4) is None


def test_maps_are_of_the_best_trial_in_positions():
    facts = gather(STUDY, ATTRIBUTES, records())
    best, maps = drawn_kernels(facts, radii(facts))
    assert best is facts.best and maps[0].title == "stage 2.1, head 1" and maps[0].weights.shape == (16, 16)
    section = radii_section(facts)
    assert section is not None and [plot.name for plot in section.plots] == ["radii", "starts", "kernels"]
    assert radii_section(gather(SMALL, {}, [made(0, 0.9)])) is None
