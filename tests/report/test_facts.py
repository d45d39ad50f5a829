import math
from dataclasses import replace

import pytest

from harness.config import ResNet, SqueezeExcite, Training
from harness.record import Epoch, Measurement, Record
from harness.report import notes, sentences
from harness.report.facts import gather
from harness.report.figures import epochs
from harness.report.views import axes, curves, explained, grouping, thinned
from harness.space import choose, vary
from harness.study import Exhaustive, Random, Study, at_most, maximize, minimize
from tests.report.sample import ATTRIBUTES, STUDY, records

SMALL = Study(
    name="small",
    question="Does squeezing help?",
    space=vary(ResNet, depth=choose(8, 14), stages=(None, None, choose(None, SqueezeExcite()))),
    training=Training(epochs=2),
    strategy=Random(trials=4),
)


def made(number: int, accuracy: float | None = None, params: int = 100, macs: int = 1000, **more) -> Record:
    """A trial of SMALL, complete where it has an accuracy."""
    depth, slot = [(8, "none"), (14, "none"), (8, "se"), (14, "se")][number % 4]
    fields = {
        "state": "complete" if accuracy is not None else "failed",
        "params": {"depth": depth, "stages.3.attention": slot},
        "config_json": {"training": {"dataset": "digits", "epochs": 2, "batch_size": 128}},
        "costs": {"params": params, "macs": macs},
        "metrics": {} if accuracy is None else {"accuracy": accuracy, "loss": 1 - accuracy, "seconds": 3.0},
        "epochs": 2,
        "device": "cpu",
    }
    return Record(number=number, key=f"key{number}", seed=0, **(fields | more))


FOUR = [made(0, 0.90, 100), made(1, 0.95, 200, 2000), made(2, 0.945, 150), made(3, None, 300)]


def test_counts_and_the_best():
    facts = gather(SMALL, {}, FOUR[::-1])
    assert [trial.number for trial in facts.trials] == [0, 1, 2, 3]
    assert facts.states == {"complete": 3, "failed": 1}
    assert facts.planned == 4
    assert (facts.epochs, facts.seconds) == (8, 9.0)
    assert facts.best.number == 1
    assert facts.thrifty.number == 2
    assert [trial.number for trial in facts.front] == [1, 2, 0]
    assert facts.devices == {"cpu": 4}


def test_fronts_over_one_cost_and_over_all():
    by_params, by_macs = axes(gather(SMALL, {}, FOUR))
    assert numbers(by_params.front) == [[0], [2], [1]]
    assert numbers(by_macs.front) == [[2], [1]]
    assert numbers(by_macs.beaten) == [[0]] and by_macs.beaten[0].on_front
    assert not by_params.wide
    (wide,) = axes(gather(SMALL, {}, [made(0, 0.9, 10), made(1, 0.95, 100)]))
    assert wide.wide and wide.cost == minimize("params")


def numbers(spots):
    return [[trial.number for trial in spot.trials] for spot in spots]


def test_a_cost_that_all_share_is_a_sentence():
    facts = gather(SMALL, {}, [made(0, 0.9), made(1, 0.95)])
    assert axes(facts) == []
    words = [line.replace("\N{NO-BREAK SPACE}", " ") for line in notes.constants(facts, [])]
    assert words == ["Every trial has 100 parameters.", "Every trial has 1,000 MACs."]


def test_the_choice_that_tells_trials_apart():
    apart = [made(n, 0.9 + 0.05 * (n % 4 >= 2) + 0.001 * (n % 2)) for n in range(8)]
    assert grouping(gather(SMALL, {}, apart)).name == "stages.3.attention"
    assert grouping(gather(SMALL, {}, apart)).options == ("none", "se")
    assert grouping(gather(SMALL, {}, [made(n, 0.9) for n in range(8)])) is None
    assert grouping(gather(SMALL, {}, [])) is None
    assert explained([[1.0, 1.0], [2.0, 2.0]]) == 1
    assert explained([[1.0, 2.0], [1.0, 2.0]]) < 0


def test_what_was_not_measured_is_none():
    diverged = made(0, math.nan, curve=(Epoch(1, 0.1, math.nan, math.inf, 1.0),))
    facts = gather(SMALL, {}, [diverged, made(1, 0.5)])
    assert facts.trials[0].value("accuracy") is None
    assert facts.trials[0].value("other") is None
    assert facts.best.number == 1
    assert [trial.number for trial in facts.front] == [1]


@pytest.mark.parametrize(
    ("objectives", "main", "thrift", "costs"),
    [
        ((maximize("accuracy"),), "accuracy", "macs", ["params", "macs"]),
        ((minimize("params"), minimize("loss")), "loss", "params", ["params", "macs"]),
        ((minimize("seconds"), maximize("accuracy")), "seconds", "macs", ["params", "macs", "accuracy"]),
        ((minimize("macs"),), "accuracy", "macs", ["params", "macs"]),
    ],
)
def test_any_objectives_have_a_main_one_and_costs(objectives, main, thrift, costs):
    facts = gather(SMALL.model_copy(update={"objectives": objectives}), {}, FOUR)
    assert facts.main.metric == main
    assert facts.thrift.metric == thrift
    assert [cost.metric for cost in facts.costs] == costs
    assert facts.best is not None and facts.front


def test_an_axis_of_few_epochs_has_a_mark_at_each_and_none_between():
    assert (epochs(2)["dtick"], epochs(9)["dtick"]) == (1, 1) and "dtick" not in epochs(10)


def test_curves_are_thinned_and_hold_the_front():
    facts = gather(STUDY, ATTRIBUTES, records(300))
    drawn = curves(facts, limit=40)
    assert len(drawn.drawn) == 40 < drawn.total
    assert {trial.number for trial in facts.front} <= {trial.number for trial in drawn.drawn}
    assert drawn.drawn[-1] is facts.front[0]
    assert drawn.since == 5 and 0 < drawn.edge < 1
    assert [trial.number for trial in thinned(facts.trials, 3)] == [0, 100, 200]


def test_the_answer_in_a_sentence():
    words = sentences.answer(gather(SMALL, {}, FOUR)).replace("\N{NO-BREAK SPACE}", " ")
    assert words == (
        "The best of 3 trials reaches 95.00 % accuracy with depth 14 and none in stage 3. Within 1 point of it, trial 2"
        " needs 50 % fewer MACs. Three trials are on the front of accuracy, parameters and MACs."
    )


@pytest.mark.parametrize(
    ("found", "words"),
    [
        ([], "No answer yet: no trial has started."),
        ([made(0)], "No answer: the only trial failed."),
        ([made(0), made(1)], "No answer: all 2 trials failed."),
        ([made(0), made(1, state="running")], "No answer yet: no trial is complete (1 failed and 1 running)."),
        ([made(0, 0.9)], "One trial so far: 90.00 % accuracy, with depth 8 and none in stage 3."),
    ],
)
def test_the_answer_of_little(found, words):
    assert sentences.answer(gather(SMALL, {}, found)).replace("\N{NO-BREAK SPACE}", " ") == words


def test_what_was_done_in_a_few_lines():
    lines = dict(sentences.done(gather(STUDY, ATTRIBUTES, records())))
    assert list(lines) == ["Searched", "Trained", "Stopped", "Ran"]
    assert lines["Stopped"].startswith(
        "Successive halving by accuracy, parameters and MACs after epochs 2, 6 and 18 of 20: one"
    )
    assert "population 16" in lines["Searched"] and "80\N{NO-BREAK SPACE}M" in lines["Searched"]
    assert "CIFAR-10 (50,000 training pictures, 10 classes, 32 x 32), 20 epochs" in lines["Trained"]
    assert "54 complete, 3 stopped early, 2 failed and 1 running of 60 planned" in lines["Ran"]
    assert "(42 epochs saved by early stopping)" in lines["Ran"]
    assert list(dict(sentences.done(gather(SMALL, {}, FOUR)))) == ["Searched", "Trained", "Ran"]


def test_a_promoted_trial_counts_its_epochs_once():
    (whole,) = records(1)
    old = replace(whole, number=1, state="stopped", metrics={}, curve=whole.curve[:6], epochs=6)
    new = replace(whole, number=2, promotes=1, inherited=6)
    assert new.remark == "goes on with trial 1, which was stopped early" and whole.remark == ""
    alone, both = gather(STUDY, {}, [whole]), gather(STUDY, {}, [old, new])
    assert (both.epochs, both.saved, gather(STUDY, {}, [old]).saved) == (alone.epochs, 0, 14)
    assert both.seconds == pytest.approx(alone.seconds)


def test_what_it_does_not_show():
    limits = dict(sentences.limits(gather(STUDY, ATTRIBUTES, records())))
    told = ["Other data", "Longer training", "Late starters", "Chance", "Test accuracy", "All configs", "Unfinished trials"]
    assert list(limits) == told
    assert "`harness run expatt-kernels-cifar10 --promote 10`" in limits["Late starters"]
    grid = SMALL.model_copy(update={"strategy": Exhaustive(), "seeds": (0, 1), "constraints": (at_most("params", 999),)})
    found = dict(sentences.limits(gather(grid, {}, FOUR)))
    assert found["All configs"] == "3 of 8 combinations of config and seed are complete."
    assert found["Chance"].startswith("Means rest on 2 seeds a config; intervals of so few seeds are wide")


def test_provenance_names_everything_that_differs():
    other = [replace(FOUR[0], provenance={"commit": "b", "versions": {"torch": "2"}, "host": "h", "precision": "fp32"})]
    facts = gather(SMALL, {"provenance": {"commit": "a", "versions": {"torch": "1", "ray": "3"}}}, other)
    found = dict(notes.provenance(facts))
    assert found["Commit"] == "b and a"
    assert found["Versions"] == "ray 3, torch 2 / 1"
    assert found["Devices"] == "cpu (1 trial)"
    assert "Data" not in found and found["Energy"] == "not measured: the devices do not tell it"


def test_arms_are_means_with_intervals():
    """Three seeds of 0.90, 0.92 and 0.94: Student's t with two degrees of freedom."""
    study = SMALL.model_copy(update={"strategy": Exhaustive(), "seeds": (0, 1, 2)})
    plain = [replace(made(0, 0.9 + 0.02 * seed), number=seed, seed=seed) for seed in range(3)]
    deep = [replace(made(1, 0.95, 200, 2000), number=3 + seed, seed=seed) for seed in range(2)]
    by_params, _ = axes(gather(study, {}, plain + deep))
    first, second = by_params.front
    assert (first.value, first.half, first.cost) == (pytest.approx(0.92), pytest.approx(0.0496828), 100)
    assert numbers([first, second]) == [[0, 1, 2], [3, 4]] and second.half == pytest.approx(0)
    assert by_params.references[0].value == pytest.approx(0.92)


def test_marks_to_compare_with():
    (by_params, _), facts = axes(gather(STUDY, ATTRIBUTES, records())), gather(STUDY, ATTRIBUTES, records())
    plain, *published = by_params.references
    bare = [t for t in facts.complete if {t.record.params[f"stages.{n}.attention"] for n in (2, 3)} == {"none"}]
    assert plain.value == bare[0].value("accuracy") and plain.name == f"no attention (trial {bare[0].number})"
    assert {mark.name: mark.cost for mark in published} == {"ResNet-20": 269_722, "ResNet-32": 464_154}


def test_hover_tells_against_the_baseline_or_what_most_have():
    facts = gather(SMALL, {}, [made(0, 0.9), made(1, 0.9), made(3, 0.9)])
    assert facts.reference == {"depth": 14, "stages.3.attention": "none"}


def test_each_latency_is_a_cost_by_its_place():
    def timed(number: int, one: float, many: float) -> Record:
        places = (Measurement("phone", 1, one), Measurement("phone", 32, many), Measurement("phone", 1, one + 0.5))
        return made(
            number, 0.9 + number / 100, measured=places, metrics={"accuracy": 0.9 + number / 100, "latency": one + 0.5}
        )

    facts = gather(SMALL, {}, [timed(0, 0.001, 0.02), timed(1, 0.002, 0.03)])
    assert facts.timed == ("latency, batch 1 on phone", "latency, batch 32 on phone")
    (small, large) = axes(facts)
    assert [spot.cost for spot in large.front] == [0.02, 0.03] and small.front[0].cost == 0.501
    assert facts.units[large.cost.metric].text(0.02) == "20.00\N{NO-BREAK SPACE}ms"


def test_failures_are_told_by_reason():
    some = [made(n, state="failed", reason="boom" if n else "other", traceback=f"trace {n}") for n in range(20)]
    first, second = notes.failures(gather(SMALL, {}, some))
    assert (first.reason, first.count, first.first, first.traceback) == ("boom", "19 trials", 1, "trace 1")
    assert first.trials.endswith("trial 12 and more") and second.trials == "trial 0"
