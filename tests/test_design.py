"""Designs plan the arms that a textbook would, in a fixed order, and refuse what they cannot plan in one line."""

from typing import Any

import pytest

from harness.analysis.arms import arms_of
from harness.config import ExpAtt, ResNet, SqueezeExcite, Training
from harness.cost import Shape
from harness.design import (
    GENERATORS,
    AddOneIn,
    Design,
    Exhaustive,
    Factorial,
    FractionalFactorial,
    LeaveOneOut,
    OneAtATime,
    aliases,
    arms,
    fraction,
    levels,
    resolution_of,
)
from harness.errors import StudyError
from harness.space import Space, Span, choose, span, vary
from harness.strategies.proposers import Cells
from harness.study import Study, at_most

ATTENTION: Any = choose(
    None, vary(ExpAtt, kernel=choose("gaussian", "laplacian"), radius=span(0.5, 8.0, log=True)), SqueezeExcite()
)
SPACE = Space(vary(ResNet, depth=20, stages=(None, ATTENTION, ATTENTION), width=choose(1.0, 0.5)), Training())
FULL = ResNet(depth=20, stages=(None, ExpAtt(kernel="laplacian", radius=4.0), SqueezeExcite()))
TWO: Any = choose(None, SqueezeExcite())
SWITCHES = Space(
    vary(ResNet, depth=20, stages=(TWO, TWO, TWO), width=choose(1.0, 0.5)),
    vary(Training, label_smoothing=choose(0.0, 0.1)),
)


def names(design: Design, space: Space = SPACE) -> list[str]:
    return [arm.name for arm in arms(design, space)]


def test_leave_one_out_switches_each_part_off_alone() -> None:
    found = arms(LeaveOneOut(full=FULL), SPACE)
    assert [arm.name for arm in found] == ["full", "stage 2 none", "stage 3 none"]
    assert SPACE.config(found[0].params).network == FULL
    assert SPACE.config(found[1].params).network == ResNet(depth=20, stages=(None, None, SqueezeExcite()))


def test_add_one_in_switches_each_absent_part_on_alone() -> None:
    assert names(AddOneIn()) == ["base", "stage 2 ExpAtt", "stage 2 SE", "stage 3 ExpAtt", "stage 3 SE"]
    only_third = names(AddOneIn(base=ResNet(depth=20, stages=(None, SqueezeExcite(), None))))
    assert only_third == ["base", "stage 3 ExpAtt", "stage 3 SE"]


def test_an_option_switched_on_starts_with_its_first_values() -> None:
    added = SPACE.config(arms(AddOneIn(), SPACE)[1].params).network.stages[1]
    assert isinstance(added, ExpAtt) and added.kernel == "gaussian" and added.radius == pytest.approx(2.0)


def test_one_at_a_time_moves_each_active_choice_alone() -> None:
    base = ResNet(depth=20, stages=(None, ExpAtt(radius=0.5), None))
    assert names(OneAtATime(base=base)) == [
        "base",
        "stage 2 none",
        "stage 2 SE",
        "stage 2 laplacian",
        "stage 2 radius 2",
        "stage 2 radius 8",
        "stage 3 ExpAtt",
        "stage 3 SE",
        "width 0.5",
    ]


def test_a_factorial_is_every_combination_once() -> None:
    found = arms(Factorial(axes=("stages.2.attention", "width")), SPACE)
    assert len(found) == 3 * 2 and found[0].name == "base"
    assert len({str(SPACE.config(arm.params)) for arm in found}) == 6
    assert len(arms(Factorial(), SWITCHES)) == 2**5


def test_the_same_design_always_plans_the_same_cells() -> None:
    for design in (LeaveOneOut(full=FULL), OneAtATime(), Factorial(axes=("width", "stages.3.attention"))):
        assert arms(design, SPACE) == arms(design, Space(SPACE.root.fields["network"], Training()))


def test_levels_of_a_span_have_its_ends() -> None:
    assert levels(Span(0.5, 8.0, log=True), 3) == pytest.approx((0.5, 2.0, 8.0))
    assert levels(Span(1, 9, step=2), 3) == (1, 5, 9) and levels(Span(1, 3, step=1), 5) == (1, 2, 3)
    assert levels(Span(0.0, 1.0), 5) == pytest.approx((0, 0.25, 0.5, 0.75, 1))


@pytest.mark.parametrize(
    ("axes", "resolution", "runs"),
    [(3, 3, 4), (4, 4, 8), (5, 3, 8), (7, 3, 8), (5, 5, 16), (8, 4, 16), (6, 5, 32), (10, 5, 128)],
)
def test_fractions_are_as_small_as_the_textbooks(axes: int, resolution: int, runs: int) -> None:
    found = fraction(axes, resolution)
    assert len(found) == runs == len(set(found)) and resolution_of(found) >= resolution
    assert all(sum(run[axis] for run in found) == runs / 2 for axis in range(axes))


def test_generators_have_the_resolution_of_the_tables() -> None:
    """Montgomery, Design and Analysis of Experiments, table 8.14."""
    from pyDOE3 import fracfact

    found = [resolution_of([tuple(int(x > 0) for x in row) for row in fracfact(generator)]) for generator in GENERATORS]
    assert found == [3, 4, 3, 3, 3, 5, 4, 4, 4, 3, 3, 6, 4, 4, 7, 5, 6, 5]


def test_aliases_are_the_textbooks() -> None:
    """2^(5-2) with D = AB and E = AC (Montgomery, section 8.4): A = BD = CE and so on; 2^(4-1) with D = ABC."""
    five = {frozenset(map("".join, group)) for group in aliases("ABCDE", fraction(5, 3))}
    assert five == {frozenset(group.split()) for group in ("A BD CE", "B AD", "C AE", "D AB", "E AC", "BC DE", "BE CD")}
    four = {frozenset(map("".join, group)) for group in aliases("ABCD", fraction(4, 4))}
    assert four == {frozenset(group.split()) for group in ("AB CD", "AC BD", "AD BC")}
    assert aliases("ABC", [(a, b, c) for a in (0, 1) for b in (0, 1) for c in (0, 1)]) == []


def test_a_fraction_plans_balanced_arms() -> None:
    axes = ("stages.1.attention", "stages.2.attention", "stages.3.attention", "width", "training.label_smoothing")
    found = arms(FractionalFactorial(axes=axes, resolution=5), SWITCHES)
    assert len(found) == 16 and found[0].name == "base"
    for axis in axes:
        assert sum(arm.params[axis] == found[0].params[axis] for arm in found) == 8


@pytest.mark.parametrize(
    ("design", "words"),
    [
        (
            LeaveOneOut(full=ResNet(depth=20)),
            "LeaveOneOut: nothing differs from 'full'; give the space more choices around it",
        ),
        (LeaveOneOut(full=ResNet(depth=14)), "LeaveOneOut.full is no config of the study's space"),
        (Factorial(axes=("stage.2",)), "Factorial.axes: 'stage.2' is no choice of the base; it has stages.2.attention"),
        (Factorial(axes=("width", "width")), "name each choice once"),
        (FractionalFactorial(axes=("width", "stages.2.attention", "stages.3.attention")), "stages.2.attention has 3 values"),
        (AddOneIn(primary="stage 2 SEE"), "AddOneIn.primary = 'stage 2 SEE': no such arm; it has 'stage 2 ExpAtt'"),
    ],
)
def test_what_cannot_be_planned_is_told_in_one_line(design: Design, words: str) -> None:
    with pytest.raises(StudyError) as error:
        arms(design, SPACE)
    assert words in str(error.value) and "\n" not in str(error.value)


def test_an_unknown_fraction_is_told() -> None:
    with pytest.raises(StudyError, match="no fraction of 12 axes and resolution 5 is known"):
        fraction(12, 5)


def test_reading_a_study_imports_no_kernel_of_the_users() -> None:
    """A constraint on MACs is not looked at where only the user's code could say them."""
    slot: Any = choose(None, ExpAtt(kernel="nowhere_at_all:f"), SqueezeExcite())
    space = vary(ResNet, depth=8, stages=(slot, None, None))
    for most, told in ((1e9, ("base", "stage 1 ExpAtt", "stage 1 SE")), (1.0, ("base", "stage 1 ExpAtt"))):
        study = Study(name="s", space=space, strategy=AddOneIn(), seeds=(0,), constraints=(at_most("macs", most),))
        found = arms_of(study, study.open_space(check=False), [], Shape(3, 32, 32, 10))
        assert found is not None and found.names == told


def test_the_baseline_of_every_config_is_the_one_that_is_trained_first() -> None:
    space = vary(ResNet, depth=8, width=span(1.0, 3.0, step=1.0))
    study = Study(name="all", space=space, training=Training(epochs=1), strategy=Exhaustive(), seeds=(0, 1))
    opened = study.open_space()
    first, *_ = arms(Exhaustive(), opened)
    proposal = Cells(study, opened).propose()
    assert proposal is not None and first.params == proposal.params and first.name == "width 1"
