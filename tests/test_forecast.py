"""What a plan foretells of a design: arms, aliases, the smallest effect, time, and what fits a deadline."""

import contextlib
import json
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from scipy import stats

from harness.analysis.arms import plan_of, plans_comparisons
from harness.config import Config, ExpAtt, ResNet, SqueezeExcite, Training
from harness.cost import Cost, Shape, network_cost
from harness.design import (
    AddOneIn,
    Design,
    Exhaustive,
    Factorial,
    FractionalFactorial,
    LeaveOneOut,
    OneAtATime,
    arms,
    changes,
    digest,
)
from harness.errors import StudyError
from harness.forecast import Clock, Forecast, deviation_seen, forecast, powers
from harness.key import trial_key
from harness.preflight import checked
from harness.record import Epoch, Record
from harness.space import choose, vary
from harness.study import Study, at_most, maximize
from tests.execution.desk import INFO

SHAPE = Shape(1, 8, 8, 10)
TWO: Any = choose(None, SqueezeExcite(ratio=4))


def price(config: Config) -> Cost:
    return network_cost(config.network, SHAPE)


def study(strategy: Any = AddOneIn(margin=0.005), **fields: Any) -> Study:  # noqa: B008
    given: dict[str, Any] = {
        "name": "parts",
        "space": vary(ResNet, depth=8, stages=(TWO, TWO, choose(None, ExpAtt()))),
        "training": Training(epochs=4),
        "strategy": strategy,
        "objectives": (maximize("accuracy"),),
        "seeds": (0, 1, 2, 3, 4),
    }
    return Study(**given | fields)


def told(one: Study, storage: str | None = None) -> Forecast:
    return forecast(one, one.open_space(), price, INFO, storage, one.training.model_dump(mode="json"))


def rows(one: Study, values: dict[str, list[float]], pace: float = 2.0) -> Iterator[Record]:
    """A complete record for each arm and seed, every epoch as long."""
    space, now = one.open_space(), datetime(2026, 1, 1, tzinfo=UTC)
    for arm in arms(one.strategy, space):  # type: ignore[arg-type]
        for seed, value in zip(one.seeds, values.get(arm.name, ())):
            config = space.config(arm.params)
            curve = tuple(Epoch(epoch, value, 1.0, 1.0, pace) for epoch in range(1, 5))
            yield Record(
                0,
                "complete",
                arm.params,
                trial_key(config, seed, "f1"),
                seed,
                config.model_dump(mode="json"),
                price(config)._asdict(),
                {"accuracy": value, "loss": 1.0, "seconds": 4 * pace},
                curve=curve,
                epochs=4,
                started=now,
                ended=now,
            )


def test_arms_cells_and_costs_are_exact() -> None:
    found = told(study())
    assert [arm.name for arm in found.arms] == ["base", "stage 1 SE", "stage 2 SE", "stage 3 ExpAtt"]
    assert found.cells == 20 and found.comparisons == 3 and found.seconds is None
    bare = price(Config(network=ResNet(depth=8)))
    assert (found.arms[0].params, found.arms[0].macs) == bare
    lines = list(found.lines())
    assert lines[0].startswith("design: 4 arms x 5 seeds = 20 cells, baseline base; margin: 0.5 points; plan ")
    assert "time: unknown (no past trial in the database on these pictures)" in lines
    assert json.loads(json.dumps(found.to_json(), allow_nan=False))["cells"] == 20


def test_an_arm_over_a_constraint_is_named() -> None:
    found = told(study(constraints=(at_most("params", price(Config(network=ResNet(depth=8))).params),)))
    assert [arm.name for arm in found.arms] == ["base", "stage 3 ExpAtt"] and found.left_out == ("stage 1 SE", "stage 2 SE")
    assert any("break a constraint: stage 1 SE and stage 2 SE" in line for line in found.lines())


def test_the_smallest_effect_has_80_percent_power() -> None:
    """By scipy's noncentral t, at the level and the degrees of freedom of the deciding test."""
    for others, seeds, comparisons, df in ((1, 5, 1, 4), (3, 5, 3, 12), (3, 5, 1, 12)):
        (found,) = powers([0.005], others, seeds, comparisons)
        limit, shift = stats.t.ppf(1 - 0.025 / comparisons, df), found.effect / 0.005 * seeds**0.5
        assert stats.nct.sf(limit, df, shift) + stats.nct.cdf(-limit, df, shift) == pytest.approx(0.8, abs=1e-6)
    assert powers([0.005], 3, 1, 3)[0].effect == float("inf")


def test_the_deviation_seen_is_that_of_paired_differences() -> None:
    one = study(OneAtATime(), space=vary(ResNet, depth=8, stages=(TWO, None, None)))
    base, other = [0.90, 0.91, 0.93, 0.92, 0.90], [0.91, 0.915, 0.935, 0.94, 0.905]
    values = {"base": base, "stage 1 SE": other}
    seen, pairs = deviation_seen(one, one.open_space(), list(rows(one, values)), "accuracy")
    assert seen == pytest.approx(stats.tstd([b - a for a, b in zip(base, other)])) and pairs == 5
    assert deviation_seen(one, one.open_space(), [], "accuracy") == (None, 0)


def test_a_fraction_tells_its_aliases() -> None:
    axes = ("stages.1.attention", "stages.2.attention", "stages.3.attention")
    found = told(study(FractionalFactorial(axes=axes, resolution=3)))
    main = {frozenset(group) for group in found.aliases}
    assert main == {
        frozenset({"stage 1 attention", "stage 2 attention x stage 3 attention"}),
        frozenset({"stage 2 attention", "stage 1 attention x stage 3 attention"}),
        frozenset({"stage 3 attention", "stage 1 attention x stage 2 attention"}),
    }
    assert found.tells[0] == "4 of 8 combinations: resolution III, which tells main effects from each other"
    assert found.tells[1].startswith("cannot separate: stage 1 attention = ") and len(found.tells) == 4


def test_a_fraction_of_resolution_five_says_what_it_tells_and_names_no_network_beside_its_controls() -> None:
    """2^(5-1) with E = ABCD: nothing up to two-way interactions is confounded (Box, Hunter and Hunter 2005, table 6.22)."""
    axes = ("stages.1.attention", "stages.2.attention", "stages.3.attention", "width", "depth")
    space = vary(ResNet, depth=choose(8, 14), width=choose(0.5, 1.0), stages=(TWO, TWO, TWO))
    design = FractionalFactorial(axes=axes, resolution=5)
    (only,) = told(study(design, space=space)).tells
    assert only == (
        "16 of 32 combinations: resolution V, which tells main effects from each other, from two-way interactions, and these"
        " from each other"
    )
    beside = choose(space, ResNet(depth=8, label="plain, as many params"))
    weaker = FractionalFactorial(axes=axes, resolution=3, controls=("params",))
    tells = told(study(weaker, space=beside)).tells
    assert "cannot separate: stage 2 attention x stage 3 attention = width x depth" in tells


def test_every_config_with_several_seeds_is_a_design_with_a_plan() -> None:
    space = vary(ResNet, depth=8, stages=(TWO, TWO, None))
    one = study(Exhaustive(base=ResNet(depth=8, stages=(SqueezeExcite(ratio=4), None, None)), margin=0.01), space=space)
    found = told(one)
    assert [arm.name for arm in found.arms] == [
        "stage 1 SE; stage 2 none",
        "stage 1 none; stage 2 none",
        "stage 1 none; stage 2 SE",
        "stage 1 SE; stage 2 SE",
    ]
    assert (found.comparisons, found.margin, found.tells[0][:27]) == (3, 0.01, "separates the effects of st")
    seeds, df = len(one.seeds), 3 * (len(one.seeds) - 1)
    level = float(stats.t.isf(0.05 / 3 / 2, df))
    shift = found.power[0].effect / 0.003 * seeds**0.5
    assert stats.nct.sf(level, df, shift) == pytest.approx(0.8, abs=1e-6)
    assert plans_comparisons(one) and not plans_comparisons(study(Exhaustive(), space=space, seeds=(0,)))
    with pytest.raises(StudyError, match=r"Exhaustive\.primary = 'stage 1 SEE': no such arm; it has "):
        told(study(Exhaustive(primary="stage 1 SEE"), space=space))


SQUEEZED = ResNet(depth=8, stages=(None, None, SqueezeExcite(ratio=4)))


@pytest.mark.parametrize(
    ("strategy", "said"),
    [
        (Exhaustive(primary="stage 3 none"), r"the baseline 'stage 3 SE' breaks params at most .* name another by base="),
        (
            Exhaustive(base=ResNet(depth=8), primary="stage 3 SE"),
            r"the primary arm 'stage 3 SE' breaks params at most .* name another by primary=",
        ),
        (LeaveOneOut(full=SQUEEZED), r"LeaveOneOut: the baseline 'full' breaks params at most .* name another by full="),
        (OneAtATime(base=SQUEEZED), r"OneAtATime: the baseline 'base' breaks params at most .* name another by base="),
        (OneAtATime(base=ResNet(depth=8), primary="stage 3 SE"), r"the primary arm .* name another by primary="),
        (Factorial(base=SQUEEZED, primary="stage 3 none"), None),
    ],
)
def test_a_declared_comparison_that_a_constraint_refuses_is_told(
    strategy: Design | Exhaustive, said: str | None, tmp_path: Path
) -> None:
    space = vary(ResNet, depth=8, stages=(None, None, choose(SqueezeExcite(ratio=4), None)))
    plain = price(Config(network=ResNet(depth=8), training=Training()))
    one = study(strategy, space=space, constraints=(at_most("params", plain.params),), seeds=(0, 1))
    with pytest.raises(StudyError, match=said) if said else contextlib.nullcontext():
        checked(one, f"sqlite:///{tmp_path}/none.db", tmp_path)


def test_time_is_that_of_the_same_network_else_by_macs() -> None:
    one = study()
    past = [record for record in rows(one, {"base": [0.9] * 5}, pace=3.0)]
    clock, space = Clock(past), one.open_space()
    base, dearer = (space.config(arm.params) for arm in arms(one.strategy, space)[:2])  # type: ignore[arg-type]
    assert clock.seconds(base, price(base).macs) == pytest.approx(4 * 3.0)
    scaled = 4 * 3.0 * price(dearer).macs / price(base).macs
    assert clock.seconds(dearer, price(dearer).macs) == pytest.approx(scaled)
    assert clock.words([base, dearer]) == "by 5 past trials on these pictures, 1 of 2 arms scaled by their MACs"
    assert Clock([]).seconds(base, 1) is None


def timed(seconds: tuple[float, ...], **fields: Any) -> Forecast:
    found = told(study())
    made = tuple(replace(arm, seconds=second) for arm, second in zip(found.arms, seconds))
    return replace(found, arms=made, **fields)


def test_a_deadline_proposes_what_fits() -> None:
    found = timed((10, 20, 30, 40))
    assert found.seconds == 500
    assert list(found.fitting(500)) == ["deadline 8.3 minutes: fits, 8.3 minutes"]
    assert list(found.fitting(250, at_once=2)) == ["deadline 4.2 minutes: fits, 4.2 minutes, 2 trials at once"]
    head, seeds, epochs, fewer = found.fitting(300)
    assert head == "deadline 5.0 minutes: does not fit, 8.3 minutes; what would:"
    assert seeds.startswith("  fewer seeds: 3 of 5; smallest effect then ")
    assert epochs == "  fewer epochs: 2 of 4; another recipe, another question"
    assert fewer == "  fewer arms: 3 of 4, without stage 3 ExpAtt"


def test_a_deadline_keeps_the_primary_arm_and_says_what_cannot_be() -> None:
    found = timed((10, 20, 30, 40), primary="stage 3 ExpAtt")
    assert list(found.fitting(300))[-1] == "  fewer arms: 2 of 4, without stage 1 SE and stage 2 SE"
    words = list(found.fitting(20))
    assert words[1:] == [
        "  fewer seeds: not even two of each arm",
        "  fewer epochs: not even one",
        "  fewer arms: not even two",
    ]
    assert "the time of a trial is unknown" in next(told(study()).fitting(20))


def test_a_plan_has_one_hash_and_says_what_changed() -> None:
    def plan(**fields: Any) -> dict[str, Any]:
        one = study(**fields)
        found = plan_of(one, one.training.model_dump(mode="json"))
        assert found is not None
        return found

    before = plan()
    assert digest(before) == digest(json.loads(json.dumps(plan(question="Other words?", threads=2)))) == told(study()).hash
    assert changes(before, plan()) == []
    wider = vary(ResNet, depth=8, stages=(TWO, TWO, choose(None, ExpAtt(), SqueezeExcite())))
    later = plan(space=wider, seeds=(0, 1, 2, 3, 4, 7), strategy=AddOneIn(margin=0.01), training=Training(epochs=5))
    said = ["arm 'stage 3 SE' added", "seed 7 added", "margin 0.005 -> 0.01", "the recipe changed"]
    assert changes(before, later) == said
    assert changes(before, plan(space=vary(ResNet, depth=14, stages=(TWO, TWO, choose(None, ExpAtt())))))[0].endswith(
        "changed"
    )


def test_a_plan_learns_from_the_database_and_is_stored_before_training(tmp_path: Path) -> None:
    from harness.execution.ledger import Rules
    from harness.plan import make_plan
    from harness.report.comparison import compared, plan_words
    from harness.report.facts import gather
    from harness.results import open_study
    from harness.run import Options, run_study

    storage = f"sqlite:///{tmp_path}/harness.db"
    training = Training(epochs=1, limit=10, precision="fp32")
    one = study(space=vary(ResNet, depth=8, stages=(TWO, None, None)), training=training, seeds=(0, 1))
    before = make_plan(one, tmp_path, storage)
    assert before.trials == 4 and before.design is not None and before.design.seconds is None
    run_study(one, Options(storage=storage, backend="local", rules=Rules(trials=2)))
    after = make_plan(one, tmp_path, storage)
    assert after.design is not None and (after.design.seconds or 0) > 0 and after.design.hash == before.design.hash
    found = open_study("parts", storage)
    assert found.attributes["plan"] == before.design.hash == digest(found.attributes["planned"])
    comparison = compared(gather(found.study, found.attributes, found.records))
    assert comparison is not None and plan_words(comparison) == f"As planned before training (plan {before.design.hash})."
    widened = found.attributes | {"planned": found.attributes["planned"] | {"seeds": [0]}}
    comparison = compared(gather(found.study, widened, found.records))
    assert comparison is not None and plan_words(comparison).endswith(": seed 1 added.")
