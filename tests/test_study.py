"""Studies: JSON, what changed between two, and refusals."""

import json
import math

import pytest

from harness.config import ExpAtt, OwnData, ResNet, SqueezeExcite, Training
from harness.errors import ConfigError, HarnessError, StudyError
from harness.space import choose, same, span, vary
from harness.study import (
    EXACT,
    LATE,
    METRICS,
    STOPPINGS,
    STRATEGIES,
    Asha,
    Constraint,
    Evolution,
    Exhaustive,
    Objective,
    Random,
    Study,
    SuccessiveHalving,
    Tpe,
    at_least,
    at_most,
    differences,
    maximize,
    minimize,
)

tied = same(choose(None, vary(ExpAtt, kernel=choose("gaussian", "laplacian"), radius=span(0.5, 8.0, log=True))))
SPACE = vary(ResNet, depth=choose(20, 32), stages=(None, tied, tied))


def study(**changes):
    fields = {"name": "kernels-cifar10", "space": SPACE, "strategy": Evolution(trials=60)}
    return Study(**fields | changes)


STUDIES = {
    "defaults": study(),
    "all": study(
        question="Does the kernel matter?",
        training=vary(Training, dataset="cifar10", lr=choose(0.05, 0.1)),
        strategy=Evolution(trials=60, population=20),
        objectives=(maximize("accuracy"), minimize("seconds")),
        stopping=SuccessiveHalving(first_rung=2, reduction_factor=4, quorum=8),
        constraints=(at_most("macs", 60e6), at_least("params", 1000)),
        seeds=(7,),
        threads=2,
    ),
    "exhaustive": study(strategy=Exhaustive(), space=ResNet(), training=Training(epochs=2), seeds=(0, 1, 2)),
    "random": study(strategy=Random(trials=3), training=same(vary(Training, lr=choose(0.05, 0.1)))),
    "asha": study(stopping=Asha()),
    "tpe": study(strategy=Tpe(trials=3), space=choose(vary(ResNet, depth=choose(20, 32)), ResNet(depth=18, label="big"))),
}


@pytest.mark.parametrize("one", STUDIES.values(), ids=STUDIES.keys())
def test_json_gives_the_same_study(one):
    plain = json.loads(json.dumps(one.to_json()))
    again = Study.from_json(plain)
    assert again.to_json() == one.to_json() == plain
    assert differences(one.to_json(), again.to_json()) == []
    kept = [name for name in Study.model_fields if name not in ("space", "training")]
    assert [getattr(again, name) for name in kept] == [getattr(one, name) for name in kept]
    assert again.open_space().conditions == one.open_space().conditions
    assert again.open_space().size == one.open_space().size


def test_a_study_opens_its_space():
    space = STUDIES["all"].open_space()
    assert list(space.parameters) == [
        "depth",
        "stages.2+3.attention",
        "stages.2+3.expatt.kernel",
        "stages.2+3.expatt.radius",
        "training.lr",
    ]
    assert space.size == math.inf
    assert STUDIES["defaults"].objectives == (maximize("accuracy"), minimize("params"), minimize("macs"))


def test_json_without_a_later_field_takes_its_default():
    plain = STUDIES["all"].to_json()
    del plain["threads"], plain["constraints"], plain["strategy"]["population"], plain["stopping"]
    again = Study.from_json(plain)
    assert (again.threads, again.constraints, again.strategy) == (1, (), Evolution(trials=60, population=16))
    assert again.stopping is None


def test_every_strategy_is_known_by_its_kind():
    for kinds in (STRATEGIES, STOPPINGS):
        assert {kind: part.model_fields["kind"].default for kind, part in kinds.items()} == {kind: kind for kind in kinds}


def test_metrics_have_words_and_exact_ones_can_be_bounded():
    for metric in METRICS:
        assert minimize(metric).metric == metric
    for metric in EXACT:
        assert at_most(metric, 1.0).metric == metric


def test_rungs_are_a_factor_apart_and_before_the_last_epoch():
    assert SuccessiveHalving().rungs(20) == (1, 3, 9)
    assert Asha(first_rung=2, reduction_factor=2).rungs(16) == (2, 4, 8)
    assert [SuccessiveHalving(first_rung=5).rungs(epochs) for epochs in (1, 5, 6)] == [(), (), (5,)]


@pytest.mark.parametrize("metric", LATE)
def test_early_stopping_by_what_is_known_at_the_end_is_refused(metric):
    with pytest.raises(StudyError, match=f"{metric} is known only when a trial has ended"):
        study(objectives=(maximize("accuracy"), minimize(metric)), stopping=Asha())


# -- objectives and constraints


def test_the_sign_makes_smaller_better():
    assert (maximize("accuracy").sign, minimize("loss").sign) == (-1, 1)


def test_bounds_include_their_value():
    costs = {"params": 100, "macs": 2000}
    assert [at_most("params", bound).holds(costs) for bound in (99, 100, 101)] == [False, True, True]
    assert [at_least("macs", bound).holds(costs) for bound in (1999, 2000, 2001)] == [True, True, False]
    assert (str(at_most("macs", 60e6)), str(at_least("params", 1000))) == ("macs at most 6e+07", "params at least 1000")


# -- what changed


def test_differences_name_place_and_values():
    one, other = study(training=Training(epochs=20)), study(training=Training(epochs=5), question="Why?", seeds=(1,))
    assert differences(one.to_json(), other.to_json()) == [
        "question: '' -> 'Why?'",
        "seeds.1: 0 -> 1",
        "training.epochs: 20 -> 5",
    ]


def test_differences_name_the_options_objectives_and_constraints_that_came_and_went():
    def made(slots, **fields):
        return Study(name="s", space=vary(ResNet, stages=(None, choose(*slots))), strategy=Exhaustive(), **fields).to_json()

    se, many = SqueezeExcite(ratio=4), ExpAtt(kernel="uniform", label="flat")
    one = made([None, se], objectives=(maximize("accuracy"), minimize("params"), minimize("macs")))
    other = made(
        [None, se, many], objectives=(maximize("accuracy"), minimize("latency")), constraints=(at_most("macs", 9e6),)
    )
    assert differences(one, other) == [
        "objectives: minimize latency added",
        "objectives: minimize params, minimize macs dropped",
        "constraints: macs at most 9e+06 added",
        "network.stages.2: flat: ExpAtt(kernel='uniform') added",
    ]
    swapped = made([ExpAtt(), None], objectives=(maximize("accuracy"), minimize("macs"), minimize("params")))
    assert differences(one, swapped) == [
        "objectives: in another order",
        "network.stages.2: ExpAtt() added",
        "network.stages.2: SqueezeExcite(ratio=4) dropped",
    ]
    assert differences(one, made([None, SqueezeExcite(ratio=8)])) == ["network.stages.2.choose.2.ratio: 4 -> 8"]
    plain, gated = (made([None, se]) | {"network": {"stages": stages}} for stages in ([None, 1], [{"kind": "se"}, 1]))
    assert differences(plain, gated) == ["network.stages.1: None -> se"]


def test_differences_of_shapes():
    assert differences({"a": [1, 2]}, {"a": [1, 2, 3]}) == ["a: [1, 2] -> [1, 2, 3]"]
    assert differences({"a": 1}, {"b": 2}) == ["a: 1 -> None", "b: None -> 2"]
    assert differences({"a": 1}, {"a": True}) == ["a: 1 -> True"]
    assert differences({"a": {"kind": "se", "ratio": 4}}, {"a": {"kind": "se", "ratio": 8}}) == ["a.ratio: 4 -> 8"]
    assert differences({"a": {"vary": "expatt", "fields": {}}}, {"a": None}) == ["a: expatt -> None"]
    assert differences({"a": "x" * 100}, {"a": 1}) == ["a: '" + "x" * 56 + "... -> 1"]
    assert differences({"a": [1, {"b": 2}]}, {"a": [1, {"b": 2}]}) == []
    wide, reach = {"choose": [8, {"kind": "se", "ratio": 8}]}, {"span": [0.5, 4.0], "log": True, "step": None}
    assert differences({"a": 8, "b": 1.0}, {"a": wide, "b": reach}) == [
        "a: 8 -> 8 | SqueezeExcite(ratio=8)",
        "b: 1.0 -> 0.5 to 4",
    ]
    assert differences({"a": [None, wide]}, {"a": None}) == ["a: [None, 8 | SqueezeExcite(ratio=8)] -> None"]


# -- refusals

REFUSALS = {
    "name": (lambda: study(name="my study"), "Study.name = 'my study': use letters, digits and . _ - (100 at most)"),
    "no name": (lambda: Study(space=SPACE, strategy=Exhaustive()), "Study.name is missing: give Study(name=...)"),
    "unknown field": (lambda: study(seed=0), "Study.seed: Study has no such field ("),
    "did you mean": (lambda: study(objective=()), "; did you mean 'objectives'?"),
    "no objectives": (lambda: study(objectives=()), "Study.objectives = []: give one or more, each metric once"),
    "one metric twice": (
        lambda: study(objectives=(maximize("params"), minimize("params"))),
        "Study.objectives = ['params', 'params']: give one or more, each metric once",
    ),
    "metric": (
        lambda: study(objectives=(maximize("acuracy"),)),
        "Study.objectives: 'acuracy' is no metric of ours (accuracy, top5, loss,",
    ),
    "metric, did you mean": (lambda: study(objectives=(maximize("acuracy"),)), "; did you mean 'accuracy'?"),
    "metric that is no word": (lambda: maximize("m iou"), "Objective.metric = 'm iou': use letters, digits and _"),
    "unit of our own metric": (lambda: minimize("macs", unit="G"), "Objective.unit = 'G': macs has its own; leave unit out"),
    "speed of a loop of one's own": (
        lambda: study(trial="a:run", objectives=(maximize("pictures_per_second"),)),
        "Study.objectives: pictures_per_second is measured in our own loop",
    ),
    "data that our loop would have to read": (
        lambda: study(data=OwnData(name="shapes", shape=(3, 8, 8))),
        "Study.data = 'shapes': only a loop of your own reads it",
    ),
    "direction": (lambda: Objective(metric="loss", direction="down"), "Objective.direction = 'down': input should be"),
    "bound of what is not known before": (lambda: at_most("accuracy", 1), "Constraint.metric = 'accuracy': input should be"),
    "bound of zero": (lambda: at_most("macs", 0), "Constraint.at_most = 0: input should be greater than 0"),
    "no bound": (lambda: Constraint(metric="macs"), "Constraint on macs: give either at_most or at_least"),
    "two bounds": (lambda: Constraint(metric="macs", at_most=2, at_least=1), "two bounds are two constraints"),
    "no seeds": (lambda: study(seeds=()), "Study.seeds = (): give one or more different numbers from 0"),
    "a seed twice": (lambda: study(strategy=Exhaustive(), seeds=(1, 1)), "Study.seeds = (1, 1): give one or more different"),
    "a seed below 0": (lambda: study(seeds=(-1,)), "Study.seeds = (-1,): give one or more different numbers from 0"),
    "a search with seeds": (
        lambda: study(seeds=(0, 1)),
        "a search trains each config with one seed; give one, or use a design",
    ),
    "no trials": (Evolution, "Evolution.trials is missing: give Evolution(trials=...)"),
    "trials": (lambda: Tpe(trials=0), "Tpe.trials = 0: input should be greater than or equal to 1"),
    "strategy by name": (
        lambda: study(strategy="evolution"),
        "Study.strategy = 'evolution': give Exhaustive(...) or Random(...) or Evolution(...) or Tpe(...)",
    ),
    "a class for a strategy": (lambda: study(strategy=Exhaustive), "give Exhaustive(...) or Random(...) or Evolution(...)"),
    "another part for a space": (lambda: study(space=ExpAtt()), "or vary(ResNet, ...) here; got "),
    "a class for a space": (lambda: study(space=ResNet), "or vary(ResNet, ...) here; got <class"),
    "a number for a space": (lambda: study(space=5), "or vary(ResNet, ...) here; got 5"),
    "attention for a space": (
        lambda: study(space=choose(SqueezeExcite(), ResNet())),
        "or vary(ResNet, ...) here; got SqueezeExcite(",
    ),
    "another part for a training": (
        lambda: study(training=same(vary(ResNet, depth=20))),
        "Study wants Training(...) or vary(Training, ...) here; got vary(ResNet, ...)",
    ),
    "stopping by costs": (
        lambda: study(stopping=Asha(), objectives=(minimize("params"), minimize("macs"))),
        "no objective of ['params', 'macs'] is learned epoch by epoch; leave stopping out, or add accuracy or top5 or loss",
    ),
    "stopping by name": (
        lambda: study(stopping="asha"),
        "Study.stopping = 'asha': give SuccessiveHalving(...) or Asha(...)",
    ),
    "a rung before the first epoch": (lambda: Asha(first_rung=0), "Asha.first_rung = 0: input should be greater than"),
    "nobody left out": (
        lambda: SuccessiveHalving(reduction_factor=1),
        "SuccessiveHalving.reduction_factor = 1: input should be greater than or equal to 2",
    ),
    "a quorum of one": (lambda: Asha(quorum=1), "Asha.quorum = 1: input should be greater than or equal to 2"),
    "threads": (lambda: study(threads=0), "Study.threads = 0: input should be greater than or equal to 1"),
}


@pytest.mark.parametrize("build, words", REFUSALS.values(), ids=REFUSALS.keys())
def test_a_refusal_names_field_value_rule_and_remedy(build, words):
    with pytest.raises(HarnessError) as caught:
        build()
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)


def test_json_of_something_else_is_refused():
    with pytest.raises(
        StudyError, match="this is not the definition of a study: it has no network, no training, no strategy"
    ):
        Study.from_json({"name": "x", "objectives": [], "seeds": [0]})
    plain = STUDIES["defaults"].to_json()
    plain["strategy"]["kind"] = "annealing"
    with pytest.raises(
        StudyError, match="strategy 'annealing': unknown; this version knows exhaustive, random, evolution, tpe"
    ):
        Study.from_json(plain)
    with pytest.raises(StudyError, match="stopping 'median': unknown; this version knows halving, asha"):
        Study.from_json(STUDIES["asha"].to_json() | {"stopping": {"kind": "median"}})
    for name, value, words in [
        ("seeds", 5, "Study.seeds = 5: input should be a valid tuple"),
        ("seeds", ["a"], "Study.seeds.1 = 'a': input should be a valid integer"),
        ("objectives", "accuracy", "Study.objectives = 'accuracy': input should be a valid tuple"),
        ("objectives", ["accuracy"], "Study.objectives.1 = 'accuracy': give Objective(...)"),
        ("constraints", {"metric": "macs"}, "Study.constraints = {'metric': 'macs'}: input should be a valid tuple"),
        ("strategy", "evolution", "Study.strategy = 'evolution': give Exhaustive(...) or Random(...)"),
        ("training", "long", "Study wants Training(...) or vary(Training, ...) here; got 'long'"),
    ]:
        with pytest.raises(HarnessError) as caught:
            Study.from_json(STUDIES["defaults"].to_json() | {name: value})
        assert words in str(caught.value)
    plain = STUDIES["defaults"].to_json() | {"budget": 5}
    with pytest.raises(ConfigError, match=r"Study.budget: Study has no such field"):
        Study.from_json(plain)
