"""Controls on request: matched networks and uniform maps become networks of the space and arms of the design."""

from typing import Any

import pytest

from harness.config import Config, ExpAtt, Network, ResNet, SqueezeExcite
from harness.control_arms import with_controls
from harness.cost import Cost, Shape, network_cost
from harness.design import AddOneIn, Design, Factorial, FractionalFactorial, LeaveOneOut, OneAtATime, arms
from harness.errors import ConfigError, StudyError
from harness.space import choose, same, vary
from harness.study import Study, at_most

CIFAR = Shape(3, 32, 32, 10)
TWO: Any = choose(None, SqueezeExcite(ratio=4))
ALL: Any = choose(None, SqueezeExcite(ratio=4), ExpAtt(share=0.5))
FULL = ResNet(depth=20, stages=(None, SqueezeExcite(ratio=4), ExpAtt(share=0.5)))
SPACE: Any = vary(ResNet, depth=20, stages=(None, TWO, ALL))
NAMES = ["plain, as many params", "plain, as many MACs", "uniform attention"]


def price(config: Config) -> Cost:
    return network_cost(config.network, CIFAR)


def study(strategy: Design, space: Any = SPACE, **fields: Any) -> Study:
    return Study(name="controls", space=space, strategy=strategy, seeds=(0, 1), **fields)


def resolved(strategy: Design, space: Any = SPACE, **fields: Any) -> dict[str, Network]:
    """The networks of the arms, by name."""
    found, _ = with_controls(study(strategy, space, **fields), CIFAR, price)
    opened = found.open_space()
    return {arm.name: opened.config(arm.params).network for arm in arms(strategy, opened)}


def test_controls_are_arms_matched_to_the_full_config() -> None:
    found = resolved(LeaveOneOut(full=FULL, controls=("params", "macs", "uniform")))
    assert list(found) == ["full", "stage 2 none", "stage 3 none", *NAMES]
    assert found["full"] == FULL
    wanted = network_cost(FULL, CIFAR)
    params, macs = (network_cost(found[name], CIFAR) for name in NAMES[:2])
    assert params.params == pytest.approx(wanted.params, rel=0.02) and macs.macs == pytest.approx(wanted.macs, rel=0.02)
    assert all(found[name].stages == (None, None, None) for name in NAMES[:2])
    last = found["uniform attention"].stages[2]
    assert isinstance(last, ExpAtt) and last.kernel == "uniform" and last.share == 0.5


def test_the_reference_is_the_primary_arm_else_the_dearest() -> None:
    base = ResNet(depth=20, stages=(None, None, None))
    primary = AddOneIn(base=base, primary="stage 3 ExpAtt", controls=("params",))
    of_primary = network_cost(resolved(primary)[NAMES[0]], CIFAR).params
    assert of_primary == pytest.approx(
        network_cost(ResNet(depth=20, stages=(None, None, ExpAtt(share=0.5))), CIFAR).params, rel=0.02
    )
    wide: Any = vary(ResNet, depth=20, width=choose(1.0, 2.0), stages=(None, None, TWO))
    dearest = network_cost(resolved(OneAtATime(controls=("macs",)), wide)["width 2"], CIFAR)
    assert network_cost(resolved(OneAtATime(controls=("params",)), wide)["width 2"], CIFAR) == dearest


def test_a_control_that_is_an_arm_already_is_a_note() -> None:
    wide: Any = vary(ResNet, depth=20, width=choose(1.0, 2.0), stages=(None, None, TWO))
    found, notes = with_controls(study(OneAtATime(controls=("macs",)), wide), CIFAR, price)
    assert notes == ("control 'plain, as many MACs' is 'width 2' itself: no arm of its own",)
    assert found.open_space().parameters.keys() == study(OneAtATime(), wide).open_space().parameters.keys()


def test_a_resolved_study_is_stored_whole_and_asks_for_nothing_again() -> None:
    asked = study(LeaveOneOut(full=FULL, controls=("params", "uniform")), same(SPACE))
    found, _ = with_controls(asked, CIFAR, price)
    again = Study.from_json(found.to_json())
    assert again.to_json() == found.to_json() != asked.to_json()
    assert arms(found.strategy, found.open_space()) == arms(again.strategy, again.open_space())  # type: ignore[arg-type]
    plain = study(LeaveOneOut(full=FULL))
    assert with_controls(plain, CIFAR, price) == (plain, ())


@pytest.mark.parametrize(
    "design",
    [
        Factorial(axes=("stages.2.attention", "stages.3.attention")),
        Factorial(),
        FractionalFactorial(axes=("stages.1.attention", "stages.2.attention", "stages.3.attention"), resolution=3),
        OneAtATime(),
        AddOneIn(),
    ],
)
def test_the_other_arms_stay_as_they_are(design: Design) -> None:
    large: Any = choose(None, SqueezeExcite(ratio=1))
    space: Any = vary(ResNet, depth=20, stages=(large, large, choose(None, ExpAtt(share=0.5))))
    without = resolved(design, space)
    with_them = resolved(design.model_copy(update={"controls": ("params",)}), space)
    assert dict(list(with_them.items())[:-1]) == without and list(with_them)[-1] == NAMES[0]


def test_uniform_maps_stand_for_those_of_the_dearest_arm_that_has_any() -> None:
    """Of added parts SE has the most MACs, as ExpAtt has fewer than the convolution that it replaces."""
    found = resolved(AddOneIn(controls=("params", "uniform")))
    last = found["uniform attention"].stages[2]
    assert isinstance(last, ExpAtt) and (last.kernel, last.share) == ("uniform", 0.5)
    assert found["uniform attention"].stages[:2] == (None, None) and "plain, as many params" in found


def test_a_control_may_be_the_primary_comparison() -> None:
    found = resolved(LeaveOneOut(full=FULL, controls=("uniform",), primary="uniform attention"))
    assert list(found)[-1] == "uniform attention"


@pytest.mark.parametrize(
    ("design", "fields", "words"),
    [
        (AddOneIn(primary="stage 2 SE", controls=("uniform",)), {}, "arm 'stage 2 SE': arm 'stage 2 SE' has no ExpAtt"),
        (
            LeaveOneOut(full=FULL, controls=("macs",)),
            {"constraints": (at_most("macs", network_cost(FULL, CIFAR).macs - 10**6),)},
            "'plain, as many MACs' breaks macs at most",
        ),
    ],
)
def test_what_cannot_be_had_is_one_line(design: Design, fields: dict[str, Any], words: str) -> None:
    with pytest.raises(StudyError) as error:
        with_controls(study(design, **fields), CIFAR, price)
    assert words in str(error.value) and "\n" not in str(error.value)


def test_what_cannot_be_matched_is_one_line() -> None:
    tiny: Any = vary(ResNet, depth=8, width=0.1, stages=(None, None, choose(None, SqueezeExcite(ratio=1))))
    with pytest.raises(StudyError, match=r"OneAtATime.controls: 'params' for arm '.*': matched: no width of") as error:
        with_controls(study(OneAtATime(controls=("params",)), tiny), Shape(3, 32, 32, 10), price)
    assert "\n" not in str(error.value)


def test_a_control_is_named_once() -> None:
    with pytest.raises(ConfigError, match=r"AddOneIn.controls = .*: name each control once"):
        AddOneIn(controls=("params", "params"))
