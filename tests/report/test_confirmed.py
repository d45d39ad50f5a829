"""A search beside its confirmation, on records made by hand: facts, words, section, page, methods."""

import re
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from harness.config import ResNet, SqueezeExcite, Training
from harness.confirm import Wanted, confirming_study
from harness.design import arms
from harness.record import Record
from harness.report.citation import methods
from harness.report.confirmed import confirmed, curse_words, front_words, looks, looks_words, order_words
from harness.report.confirming import confirmation, figure, sheet
from harness.report.facts import Facts, gather
from harness.report.page import Source, write_pages
from harness.report.section import Plot, Table
from harness.report.sentences import limits
from harness.space import choose, vary
from harness.study import Random, Study

STUDY = Study(
    name="small",
    question="Does squeezing help?",
    space=vary(ResNet, depth=choose(8, 14), stages=(None, None, choose(None, SqueezeExcite(label="<b>se</b>")))),
    training=Training(epochs=2),
    strategy=Random(trials=4),
)
START = datetime(2026, 3, 1, 12, tzinfo=UTC)
CHOICES = [(8, "none"), (14, "none"), (8, "<b>se</b>"), (14, "<b>se</b>")]
PROMISED = [0.80, 0.78, 0.85, 0.90]
SEEDS = (1000, 1001)


def record(number: int, choice: int, seed: int, metrics: dict[str, float], **more: Any) -> Record:
    depth, slot = CHOICES[choice]
    params = {"depth": depth, "stages.3.attention": slot}
    config = STUDY.open_space(check=False).config(params).model_dump(mode="json")
    costs = {"params": 100 * depth + len(slot), "macs": 1000 * depth}
    ended = START + timedelta(minutes=number)
    return Record(number, "complete", params, f"k{number}", seed, config, costs, metrics, ended=ended, **more)


SEARCHED = [record(number, number, 0, {"accuracy": value}) for number, value in enumerate(PROMISED)]
AGAIN = {0: [(0.79, 0.78), (0.77, 0.76)], 2: [(0.84, 0.82), (0.84, 0.84)], 3: [(0.84, 0.86), (0.82, 0.82)]}
"""By choice: accuracy on validation pictures and on the test part, a pair for each seed. Choice 1 is plain, at depth 14."""
PLAIN = [(0.80, 0.81), (0.80, 0.83)]


def again(**more: Any) -> tuple[Study, list[Record]]:
    study = confirming_study("small", STUDY.to_json(), SEARCHED, Wanted(), SEEDS)
    rows = []
    for seed, which in zip(SEEDS, (0, 1)):
        for choice, pairs in {1: PLAIN, **AGAIN}.items():
            validated, tested = pairs[which]
            look = {"pictures": 200, "fingerprint": "t", "read": (START + timedelta(days=1 + which)).isoformat()}
            given = {"accuracy": validated, "test_accuracy": tested, "test_loss": 1.0}
            rows.append(record(len(rows), choice, seed, given, provenance={"test": look}, **more))
    return study, rows


def facts(rows: list[Record] | None = None) -> Facts:
    study, made = again()
    return gather(STUDY, {}, SEARCHED, gather(study, {}, made if rows is None else rows))


def test_the_arms_are_those_of_the_front_and_plain() -> None:
    study, _ = again()
    assert [arm.name for arm in arms(study.strategy, study.open_space())] == [  # type: ignore[arg-type]
        "plain",
        "stage 3 <b>se</b>",
        "depth 8; stage 3 <b>se</b>",
        "depth 8",
    ]


def test_what_was_promised_stands_beside_what_is_left() -> None:
    found = confirmed(facts())
    assert found is not None and found.baseline == "plain"
    told = [(one.name, one.trials, one.promised, round(one.mean, 6), one.on_front) for one in found.configs]
    assert told == [
        ("stage 3 <b>se</b>", (3,), 0.90, 0.84, True),
        ("depth 8; stage 3 <b>se</b>", (2,), 0.85, 0.83, True),
        ("plain", (), None, 0.82, False),  # dearer than the second, and worse
        ("depth 8", (0,), 0.80, 0.77, True),
    ]
    # by hand: promised (0.9 + 0.85 + 0.8) / 3 = 0.85; on the test part seed 1000 has 0.82, seed 1001 0.806667
    assert found.by_test is not None and found.by_test.mean == pytest.approx(0.85 - (0.82 + 0.80666667) / 2)
    assert found.by_validation is not None and found.by_validation.mean == pytest.approx(0.85 - (0.82333333 + 0.81) / 2)


def test_the_loss_is_told_in_points_with_its_interval() -> None:
    found = confirmed(facts())
    assert found is not None
    # mean 3.67, half = 12.706 * 0.9428 / sqrt(2) = 8.47
    assert curse_words(found) == (
        "On the test part the 3 configs are, on average, 3.67 points of accuracy (95 % interval -4.80 to 12.14) short of"
        " what the search promised: no more than seeds explain. On validation pictures, with the same fresh seeds, 3.33"
        " points of accuracy (95 % interval -5.14 to 11.80) short of it."
    )
    assert front_words(found).startswith("3 of the 3 are on the front of the means over test accuracy, parameters and MACs.")
    assert front_words(found).endswith("the best, stage 3 <b>se</b>, is still the best of them.")
    for low, high, words in ((0.1, 0.2, "winner's curse"), (-0.2, -0.1, "better than promised")):
        assert found.by_test is not None
        other = replace(found, by_test=replace(found.by_test, mean=(low + high) / 2, low=low, high=high), by_validation=None)
        assert words in curse_words(other)
        assert "15.00 points of accuracy (95 % interval 10.00 to 20.00)" in curse_words(other)


def test_looks_at_the_test_part_are_counted_and_dated() -> None:
    told = facts()
    assert told.confirmed is not None and looks(told.confirmed) == 8
    assert looks_words(told.confirmed) == (
        "The test part (200 pictures) was read 8 times: once for each trial, after its last epoch, from 2 March 2026 to"
        " 3 March 2026."
    )
    assert order_words(told) == [looks_words(told.confirmed)]
    late = replace(
        told, trials=(*told.trials, replace(told.trials[0], record=replace(SEARCHED[0], ended=START + timedelta(9))))
    )
    assert order_words(late)[1] == "1 trial of small ended after it had been read for the first time."
    _, rows = again(reused={"study": "small~confirm", "number": 1, "commit": ""})
    assert looks(gather(again()[0], {}, rows)) == 0, "what was taken over was not read again"


def test_the_methods_say_how_often_and_when_the_test_part_was_read() -> None:
    data = {"dataset": "digits", "classes": 10, "train": 1438}
    alone = methods(gather(STUDY, {"data": data}, SEARCHED))
    assert "every score is theirs; the test part was not read." in alone
    told = methods(replace(facts(), attributes={"data": data}))
    assert "every score is theirs; none of its trials read the test part." in told
    assert "Trained again from the beginning for 2 epochs: the front of small (3 configs), and plain beside them," in told
    assert "with 2 fresh seeds (1000 and 1001) that the search never used; nothing was stopped early." in told
    assert "was read 8 times: once for each trial, after its last epoch, from 2 March 2026 to 3 March 2026." in told
    study, rows = again()
    own = methods(gather(study, {"data": data}, rows))
    assert "was read 8 times" in own and "the test part was not read" not in own


def test_what_a_page_does_not_show_follows() -> None:
    study, rows = again()
    told = [dict(limits(one))["Test accuracy"] for one in (gather(STUDY, {}, SEARCHED), facts(), gather(study, {}, rows))]
    assert "stays untouched until `harness confirm small`" in told[0]
    assert "but for what was confirmed" in told[1] and "was read 8 times" in told[2]


def test_the_section_draws_both_fronts_and_the_table_behind_them() -> None:
    told = facts()
    section, found = confirmation(told), confirmed(told)
    assert section is not None and found is not None
    assert section.title == "Confirmed: the front with 2 fresh seeds, on the test part"
    assert [type(block) for block in section.blocks if isinstance(block, Plot | Table)] == [Plot, Table]
    drawn = figure(told, found, "params")
    promised = next(trace for trace in drawn.data if trace.name == "the search, on validation pictures")
    assert sorted(promised.y) == [80, 85, 90]
    means = next(trace for trace in drawn.data if trace.name == "confirmed, on the test part")
    assert [round(value, 4) for value in means.y] == [84, 83, 77] and means.error_y.array[0] == pytest.approx(
        25.4124, abs=1e-3
    )
    assert all("<b>se" not in (trace.text or ("",))[0] for trace in drawn.data), "names are escaped in plotly's small HTML"
    texts = {row[0].text: [cell.text for cell in row[1:6]] for row in sheet(told, found).rows}
    assert texts["plain (baseline)"][:2] == ["", "-"] and texts["plain (baseline)"][3].startswith("82.00 ± ")
    assert texts["stage 3 <b>se</b>"][:2] == ["3", "90.00"] and texts["stage 3 <b>se</b>"][4] == "-6.00"


def test_a_confirmation_of_another_revision_or_without_results_says_so() -> None:
    assert (
        confirmed(gather(STUDY, {}, SEARCHED)) is None and confirmed(facts([])) is None and confirmation(facts([])) is None
    )
    study, rows = again()
    moved = replace(facts(), study=STUDY.model_copy(update={"name": "small@2"}))
    found = confirmed(moved)
    assert found is not None and found.by_test is None and "not known any more" in curse_words(found)
    single = gather(STUDY, {}, SEARCHED, gather(study, {}, [row for row in rows if row.seed == 1000]))
    assert (found := confirmed(single)) is not None and "interval" not in curse_words(found)


def test_the_page_holds_it_and_escapes_names(tmp_path: Path) -> None:
    study, rows = again()
    path = write_pages([Source(STUDY, {}, SEARCHED, gather(study, {}, rows))], tmp_path)
    page = path.read_text("utf-8")
    assert "Confirmed: the front with 2 fresh seeds, on the test part" in page and "short of what" in page
    assert "<b>se</b>" not in re.sub(r"<script.*?</script>", "", page, flags=re.DOTALL)
