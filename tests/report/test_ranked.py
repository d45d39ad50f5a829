"""The many configs of a space, trained with several seeds: ranked by their means, not told against the first."""

from dataclasses import replace

import pytest

from harness.config import ResNet, SqueezeExcite, Training
from harness.design import OneAtATime
from harness.report import sentences
from harness.report.ablation import plain
from harness.report.comparison import compared, foremost
from harness.report.facts import MANY, Facts, gather
from harness.report.naming import sides
from harness.report.sections import effects, sections
from harness.report.views import Axis, Spot, axes
from harness.space import choose, vary
from harness.study import Exhaustive, Study, minimize
from tests.report.test_facts import made

WIDTHS = tuple((10 + index) / 10 for index in range(15))
STUDY = Study(
    name="all",
    question="Which is best?",
    space=vary(ResNet, depth=8, width=choose(*WIDTHS), stages=(None, None, choose(None, SqueezeExcite()))),
    training=Training(epochs=2),
    strategy=Exhaustive(),
    seeds=(0, 1),
)


def found() -> Facts:
    """30 configs: config n reaches 0.5 + n / 100 with a spread of 0.02 between its two seeds, which the first fifth of them
    do not share to the last digit, and costs 1000 + 10 n MACs."""
    records = []
    for number in range(60):
        config, seed = divmod(number, 2)
        width, slot = WIDTHS[config // 2], ("none", "se")[config % 2]
        spread = 0.02 + 0.002 * (config % 2) * (config < 10)
        one = made(number, 0.5 + config / 100 + (seed - 0.5) * spread, 100 + config, 1000 + 10 * config)
        records.append(replace(one, seed=seed, params={"width": width, "stages.3.attention": slot}))
    return gather(STUDY, {}, records)


def test_the_answer_ranks_and_names_the_cheaper_one_about_as_good():
    """The mean of config 29 is 0.79, its half interval 12.706 x 0.0141 / sqrt 2 = 0.127; config 28 has 1280 of 1290 MACs."""
    facts = found()
    assert facts.ranked
    assert sentences.told(facts).replace("\N{NO-BREAK SPACE}", " ") == (
        "The best of 30 configs is “stage 3 SE; width 2.4”, with 79.00 ± 12.71 % accuracy over 2 seeds. Within 1 point of"
        " it, “stage 3 none; width 2.4” needs 0.78 % fewer MACs."
    )
    best, cheap = sentences.cards(facts)
    assert (best.title, cheap.title) == ("Best mean accuracy", "Fewest MACs within 1 point: mean accuracy")
    few = gather(STUDY, {}, [trial.record for trial in facts.trials[:20]])
    assert not few.ranked and "gains 9.000 ± 0.169 points over stage 3 none; width 1;" in sentences.told(few)


def test_where_no_arm_gains_the_answer_says_so_first():
    records = [trial.record for trial in found().trials[:12]]
    worse = [replace(record, metrics={"accuracy": 1.2 - record.metrics["accuracy"]}) for record in records]
    words = sentences.told(gather(STUDY, {}, worse))
    assert words.startswith("No arm is shown to gain over stage 3 none; width 1. ")
    assert "“stage 3 SE; width 1.2” loses 5.000 ± 0.199 points against stage 3 none; width 1;" in words


def test_the_best_alone_are_listed_without_a_word_on_the_first():
    facts = found()
    comparison = compared(facts)
    assert comparison is not None and len(comparison.table.rows) == 30
    few = foremost(comparison)
    assert [row.mean for row in few.table.rows[1:3]] == pytest.approx([0.79, 0.78]) and len(few.table.rows) == 1 + MANY
    sheet = plain(few.table)
    assert sheet.head == ["arm", "seeds", "accuracy (%)", "params", "macs"] and len(sheet.rows) == MANY
    (section,) = (one for one in sections([facts]) if one.name == "effects")
    assert section.title == "The best 24 of 30 configs, by the means of their seeds"
    assert not section.plots


def test_the_primary_arm_is_among_the_best_that_are_listed():
    fields = {name: getattr(STUDY, name) for name in Study.model_fields}
    primary = "stage 3 SE; width 1"
    facts = gather(Study(**fields | {"strategy": Exhaustive(primary=primary)}), {}, [one.record for one in found().trials])
    comparison = compared(facts)
    assert comparison is not None
    rows = foremost(comparison).table.rows
    assert [row.arm for row in rows[:3]] == ["stage 3 none; width 1", primary, "stage 3 SE; width 2.4"]
    assert len(rows) == 1 + MANY
    section = effects(facts)
    assert section is not None
    assert any("The primary arm and the best 23 others of 29 arms" in str(block) for block in section.blocks)


def test_the_picture_shows_the_means_where_intervals_are_far_wider():
    """Means from 0.5 to 0.79: as much again above and below, 0.21 to 1.08, is more than 0.373 to 0.917 of the intervals."""
    by_params, _ = axes(found())
    assert by_params.reach is None
    wide = replace(by_params, front=tuple(replace(spot, half=0.6) for spot in by_params.front))
    assert wide.reach == pytest.approx((0.21, 1.08))
    assert by_params.references[0].name == "no attention (the best of 15)"
    assert by_params.references[0].value == pytest.approx(0.78)


def test_names_keep_clear_of_one_another_and_of_the_edges():
    assert sides([(0.1, 0.5), (0.5, 0.5)], ["left", "right"]) == [(1, 1), (1, 1)]
    assert sides([(0.97, 0.5)], ["a name too long for what is left"]) == [(-1, 1)]
    first, second = sides([(0.5, 0.5), (0.52, 0.51)], ["the one and only", "its neighbour"])
    assert first != second


def test_one_mean_has_no_reach():
    trials = found().trials[:2]
    assert Axis(minimize("params"), (Spot(trials, 100.0, 0.5, "one", 0.2),), (), False).reach is None


def test_a_primary_comparison_and_missing_cells_are_told_in_the_answer_and_beside_the_table():
    fields = {name: getattr(STUDY, name) for name in Study.model_fields}
    study = Study(**fields | {"strategy": OneAtATime(primary="stage 3 SE")})
    facts = gather(study, {}, [trial.record for trial in found().trials if trial.record.params["width"] < 1.15])
    words = sentences.told(facts).replace("\N{NO-BREAK SPACE}", " ")
    assert words.startswith("“stage 3 SE” is undecided against base") and words.endswith(
        "; “stage 3 SE” is the primary comparison, the others are not tested."
    )
    comparison = compared(facts)
    assert comparison is not None
    notes = comparison.table.notes()
    assert "Primary comparison: stage 3 SE, tested alone, without correction for the others." in notes
    assert any(note.startswith("26 cells of the plan missing: ") for note in notes)
