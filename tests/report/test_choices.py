"""The page of a factorial study with seeds: maps of its effects, its front with uncertainty, importance of its choices."""

import csv
import io
import random
import re
from dataclasses import replace
from datetime import UTC, datetime
from functools import cache
from statistics import fmean

import pytest

from harness.config import ECA, ResNet, SqueezeExcite, Training
from harness.cost import Shape, network_cost
from harness.design import Factorial, FractionalFactorial, arms
from harness.record import Record
from harness.report.certain import certain_front, certain_words
from harness.report.choices import factor_sheet, factor_words, factors_csv, importance_of, importance_words, maps
from harness.report.citation import keys, methods
from harness.report.comparison import compared
from harness.report.facts import Facts, gather
from harness.report.page import render
from harness.report.sentences import told
from harness.space import choose, vary
from harness.study import Exhaustive, Strategy, Study, at_most, maximize
from tests.report.sample import ATTRIBUTES
from tests.report.sample import STUDY as SEARCH
from tests.report.sample import records as search_records

GAINS = {"none": 0.0, "se": 0.006, "eca": 0.004}
attention = choose(None, SqueezeExcite(ratio=4), ECA())
STUDY = Study(
    name="where",
    question="Which <stage> wants which attention?",
    space=vary(ResNet, depth=20, stages=(None, attention, attention)),
    training=Training(dataset="cifar10"),
    strategy=Factorial(levels=3),
    seeds=(0, 1, 2, 3, 4),
)


@cache
def made() -> list[Record]:
    """SE in both stages is worse than either alone: an interaction."""
    space, (base,), found = STUDY.open_space(), search_records(1), []
    for seed in STUDY.seeds:
        shared = random.Random(seed).gauss(0, 0.003)
        for params in space.enumerate():
            config, rng = space.config(params), random.Random(f"{seed} {params}")
            one, other = (str(params[f"stages.{stage}.attention"]) for stage in (2, 3))
            cost = network_cost(config.network, Shape(3, 32, 32, 10))
            both = 0.008 if one == other == "se" else 0.0
            accuracy = 0.9 + shared + GAINS[one] + 1.5 * GAINS[other] - both + rng.gauss(0, 0.002)
            fields = {"number": len(found), "params": params, "seed": seed, "metrics": {"accuracy": accuracy}}
            costs = {"params": cost.params, "macs": cost.macs}
            found.append(replace(base, **fields, costs=costs, config_json=config.model_dump(mode="json")))
    return found


def facts(records: list[Record] | None = None, strategy: Strategy | None = None) -> Facts:
    study = STUDY.model_copy(update={"strategy": strategy}) if strategy else STUDY
    return gather(study, ATTRIBUTES, made() if records is None else records)


@pytest.mark.parametrize("strategy", [Factorial(levels=3), Exhaustive()])
def test_maps_hold_the_means_of_all_trials_with_a_choice(strategy: Strategy) -> None:
    stages, pair = maps(facts(strategy=strategy))
    assert (stages.rows, stages.columns) == (("stage 2", "stage 3"), ("none", "SE", "ECA"))
    of_se = [record.metrics["accuracy"] for record in made() if record.params["stages.3.attention"] == "se"]
    assert stages.means[1][1] == pytest.approx(fmean(of_se))
    assert (
        pair.title == "Stage 2 attention by stage 3 attention: mean accuracy (%)"
        and pair.rows == pair.columns == stages.columns
    )
    corner = [one for one in made() if set(one.params.values()) == {"se"}]
    assert len(corner) == 5 and pair.means[1][1] == pytest.approx(fmean(one.metrics["accuracy"] for one in corner))
    assert "p 0.009, 34" in pair.words and stages.shade(max(stages.means[1])) == 1.0 and stages.shade(None) == 0.0


def test_a_search_and_a_design_of_one_seed_have_no_maps() -> None:
    assert maps(gather(SEARCH, ATTRIBUTES, search_records())) == []
    assert maps(facts([])) == []


def test_the_front_of_the_means_is_told_with_its_chances() -> None:
    front = certain_front(facts())
    assert front is not None and front.found.seeds == STUDY.seeds and front.left_out == ()
    chances = {row[0].text: row[-2].values[0] for row in front.sheet.rows}
    assert chances["base"] == 100 and "stage 2 SE; stage 3 SE" not in chances
    assert {row[0].text for row in front.sheet.rows if row[-1].text in ("front", "knee")} == set(front.found.front)
    words = certain_words(facts(), front)
    assert words[0].startswith("Each config is the mean of its 5 seeds; the front was drawn 1,000 times")
    assert words[2] == "With so few seeds such intervals are too narrow: those of 95 % cover about 84 %."


def test_a_config_without_all_seeds_is_left_out_by_name() -> None:
    front = certain_front(facts([record for record in made() if record.number != 4]))
    assert front is not None and len(front.left_out) == 1
    assert front.left_out[0] in certain_words(facts(), front)[-1]


def test_one_objective_one_seed_or_a_search_has_no_such_front() -> None:
    single = STUDY.model_copy(update={"objectives": (maximize("accuracy"),)})
    assert certain_front(gather(single, ATTRIBUTES, made())) is None
    assert certain_front(facts([record for record in made() if record.seed == 0])) is None
    assert certain_front(gather(SEARCH, ATTRIBUTES, search_records())) is None


def test_importance_needs_twenty_complete_trials() -> None:
    assert importance_of(facts(made()[:19])) is None
    found = importance_of(facts(made()[:27]))
    assert found is not None and "All of it rests on 27 trials: small differences" in importance_words(facts(), found)


def test_the_page_shows_all_of_it_escaped() -> None:
    page = render([facts()], datetime(2025, 6, 3, tzinfo=UTC))
    titles = re.findall(r"<h2>(.*?)</h2>", page)
    assert "The front over the means of the seeds, and how sure it is" in titles and "Which choices matter" in titles
    assert page.count('<table class="map">') == 2 and "Which <stage>" not in page
    bare = render([facts([])], datetime(2025, 6, 3, tzinfo=UTC))
    assert "Which choices matter" not in bare and "how sure it is" not in bare


def test_the_answer_says_what_arms_gain() -> None:
    words = told(facts())
    assert "stage 2 ECA; stage 3 SE\N{RIGHT DOUBLE QUOTATION MARK} gains 1.35 ± 0.34 points over base; " in words
    assert "; 5 more arms differ from it. In accuracy, over 5 seeds" in words
    few = told(facts([record for record in made() if record.seed < 2]))
    assert "over 2 of 5 seeds" in few


def fraction_with_a_control() -> tuple[Facts, list[tuple[tuple[int, int, int], int, float]]]:
    """A half of 2^3 (C = AB) and a plain control, with levels, seed and accuracy of each trial of the fraction."""
    two = choose(None, SqueezeExcite(ratio=4))
    network = vary(ResNet, depth=20, stages=(two, two, two))
    axes = tuple(f"stages.{stage}.attention" for stage in (1, 2, 3))
    study = Study(
        name="half",
        space=choose(network, ResNet(depth=20, width=1.1, label="plain, as many params")),
        training=Training(dataset="cifar10"),
        strategy=FractionalFactorial(axes=axes, resolution=3, controls=("params",)),
        seeds=(0, 1, 2),
    )
    (base,), found, cells, rng = search_records(1), [], [], random.Random(3)
    for arm in arms(study.strategy, study.open_space()):
        for seed in study.seeds:
            levels = tuple(int(arm.params.get(f"resnet.stages.{stage}.attention") == "se") for stage in (1, 2, 3))
            accuracy = 0.9 + 0.01 * levels[0] + 0.002 * seed + rng.gauss(0, 0.003)
            fields = {"number": len(found), "params": arm.params, "seed": seed, "metrics": {"accuracy": accuracy}}
            found.append(replace(base, **fields))
            if "network" in arm.params and arm.params["network"] == "resnet":
                cells.append((levels, seed, accuracy))
    return gather(study, ATTRIBUTES, found), cells


def test_a_fraction_tells_its_main_effects_without_its_controls_as_sums_of_squares_have_them():
    told_of, cells = fraction_with_a_control()
    assert len(cells) == 12
    mean = fmean(value for *_, value in cells)
    squares = [
        sum(6 * (fmean(value for levels, _, value in cells if levels[axis] == side) - mean) ** 2 for side in (0, 1))
        for axis in range(3)
    ]
    blocks = sum(4 * (fmean(value for _, one, value in cells if one == seed) - mean) ** 2 for seed in range(3))
    left = sum((value - mean) ** 2 for *_, value in cells) - sum(squares) - blocks
    rows = list(csv.DictReader(io.StringIO(factors_csv(told_of))))
    assert [row["effect"] for row in rows] == [f"resnet.stages.{stage}.attention" for stage in (1, 2, 3)]
    assert [float(row["f"]) for row in rows] == pytest.approx([one / (left / 6) for one in squares])  # 11 - 3 - 2 degrees
    assert [float(row["partial_eta_squared"]) for row in rows] == pytest.approx([one / (one + left) for one in squares])
    assert "aliased with it, which `harness plan` names" in factor_words(told_of)


def test_every_main_effect_and_interaction_of_a_factorial_stands_in_a_table():
    sheet = factor_sheet(facts())
    assert sheet is not None and sheet.head == ["effect", "df", "F", "p (Holm)", "share (%)"]
    assert [row[0] for row in sheet.texts()] == [
        "stage 2 attention",
        "stage 3 attention",
        "stage 2 attention x stage 3 attention",
    ]
    assert [row[1] for row in sheet.texts()] == ["2", "2", "4"]
    assert factor_sheet(gather(SEARCH, ATTRIBUTES, search_records(30))) is None


def test_every_config_may_be_compared_with_a_named_one_and_one_of_them_be_declared():
    strategy = Exhaustive(
        base=ResNet(depth=20, stages=(None, ECA(), None)), primary="stage 2 SE; stage 3 none", margin=0.004
    )
    found = compared(facts(made()[:-2], strategy))
    assert found is not None and found.arms.baseline == "stage 2 ECA; stage 3 none" and len(found.arms.names) == 9
    tested = {effect.arm: effect.verdict for effect in found.effects if effect.verdict != "not tested"}
    assert list(tested) == ["stage 2 SE; stage 3 none"] and found.table.primary == "stage 2 SE; stage 3 none"
    assert (
        "2 cells of the plan missing: stage 2 ECA; stage 3 SE (seed 4) and stage 2 ECA; stage 3 ECA" in found.table.lacking
    )
    assert any(note.startswith("Margin 0.4") for note in found.table.notes())


def test_an_arm_that_breaks_a_constraint_is_neither_missing_nor_counted():
    """SE in a stage of ResNet-20 has 256 (stage 2) or 1,024 weights a block and their biases: both together break it."""
    most = min(record.costs["params"] for record in made() if list(record.params.values()) == ["se", "se"]) - 1
    study = Study(
        **{name: getattr(STUDY, name) for name in Study.model_fields} | {"constraints": (at_most("params", most),)}
    )
    kept = [record for record in made() if record.costs["params"] <= most]
    found = compared(gather(study, ATTRIBUTES | {"data": {"shape": [3, 32, 32], "classes": 10}}, kept))
    assert found is not None and "stage 2 SE; stage 3 SE" not in found.arms.names
    assert found.table.lacking == "" and len(found.effects) == 7
    assert any(note.endswith("Holm over 7 comparisons.") for note in found.table.notes())


def test_the_analysis_of_a_factorial_is_cited_and_told_in_the_methods():
    told = "Main effects and two-way interactions were tested by an analysis of variance with seeds as blocks (type II)"
    assert told in methods(facts()) and "seabold2010statsmodels" in keys(facts())
    half, _ = fraction_with_a_control()
    assert " Main effects were tested by an analysis of variance" in methods(half)
    assert "analysis of variance" not in methods(gather(SEARCH, ATTRIBUTES, search_records(30)))
