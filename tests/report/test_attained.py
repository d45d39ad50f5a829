"""Attainment surfaces of a study with three seeds, against what is read off by hand."""

from harness.config import ResNet, SqueezeExcite, Training
from harness.record import Record
from harness.report.attained import attained, attained_over, figure
from harness.report.facts import Facts, gather
from harness.space import choose, vary
from harness.study import Exhaustive, Study

STUDY = Study(
    name="three",
    space=vary(ResNet, depth=choose(8, 14), stages=(None, None, choose(None, SqueezeExcite()))),
    training=Training(epochs=1),
    strategy=Exhaustive(),
    seeds=(0, 1, 2),
)
ACCURACY = {(8, "none"): (0.70, 0.72, 0.74), (8, "se"): (0.80, 0.70, 0.78), (14, "none"): (0.75, 0.85, 0.79)}
"""By config, for each seed; what they cost: 100, 200 and 300 parameters, all of them 1,000 MACs."""


def facts(*, missing: int = 0) -> Facts:
    rows = []
    for params, (config, values) in zip((100, 200, 300), ACCURACY.items()):
        for seed, value in enumerate(values):
            choice = {"depth": config[0], "stages.3.attention": config[1]}
            costs = {"params": params, "macs": 1000}
            rows.append(Record(len(rows), "complete", choice, f"k{len(rows)}", seed, {}, costs, {"accuracy": value}))
    return gather(STUDY, {}, rows[: len(rows) - missing])


def test_surfaces_are_what_one_half_and_all_of_the_seeds_reach() -> None:
    told = facts()
    found = attained_over(told, told.costs[0])
    assert found is not None and found.seeds == 3 and found.cost.metric == "params"
    # fronts: seed 0 {100: .70, 200: .80}, seed 1 {100: .72, 300: .85}, seed 2 {100: .74, 200: .78, 300: .79}
    assert found.best == [(100, 0.74), (200, 0.80), (300, 0.85)]
    assert found.median == [(100, 0.72), (200, 0.78), (300, 0.80)]
    assert found.worst == [(100, 0.70), (200, 0.72), (300, 0.79)]
    assert [round(value, 4) for _, value in found.means.values()] == [0.72, 0.76, 0.7967]


def test_what_all_share_and_what_lacks_seeds_has_no_surface() -> None:
    told = facts()
    assert attained_over(told, told.costs[1]) is None, "all cost as many MACs"
    assert attained(gather(STUDY, {}, [])) is None
    cut = facts(missing=1)
    found = attained_over(cut, cut.costs[0])
    assert found is not None and len(found.means) == 2, "a config that lacks a seed is left out"
    assert attained(gather(STUDY.model_copy(update={"seeds": (0,)}), {}, [])) is None


def test_the_band_lies_between_the_outer_surfaces_and_ends_at_the_dearest_config() -> None:
    told = facts(missing=3)  # the dearest is gone: the best config is the second
    found = attained_over(told, told.costs[0])
    assert found is not None
    drawn = figure(told, found)
    lines = {trace.name: (list(trace.x), [round(y, 4) for y in trace.y]) for trace in drawn.data if trace.mode == "lines"}
    assert lines["all attain"] == ([100, 200], [70, 72]) and lines["one attains"] == ([100, 200], [74, 80])
    assert next(trace for trace in drawn.data if trace.name == "one attains").fill == "tonexty"
    section = attained(facts())
    assert section is not None and section.plots[0].views.keys() == {"Parameters"}
