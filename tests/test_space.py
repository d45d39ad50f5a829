"""Spaces: names, sizes, enumeration, draws, JSON and refusals, by hand and over random spaces."""

import json
import math
import random
import time
from dataclasses import astuple

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from harness.config import CBAM, ECA, Config, Custom, ExpAtt, ResNet, SqueezeExcite, Training
from harness.errors import ConfigError, HarnessError, SpaceError
from harness.space import Space, Span, choose, same, span, vary

SETTINGS = settings(
    deadline=None, derandomize=True, max_examples=120, database=None, suppress_health_check=[HealthCheck.too_slow]
)


def through_json(space):
    return Space.from_json(json.loads(json.dumps(space.to_json())))


def facts(space):
    """All that a space says of itself."""
    domains = {
        name: astuple(d) if isinstance(d, Span) else [(type(v), v) for v in d] for name, d in space.parameters.items()
    }
    return space.to_json(), list(domains.items()), space.conditions, space.size


def one_slot(slot, **fields):
    """A space with one open slot, the third of ResNet-20."""
    return Space(vary(ResNet, stages=(None, None, slot), **fields), check=False)


# -- random spaces ----------------------------------------------------------------------------------------------------


@st.composite
def spaces(draw, finite):
    """Nested spaces of residual networks in which every combination is valid; finite ones have no continuous span."""

    def value(tie, *values):
        """A constant, a choice, a tied choice or, of numbers, a span."""
        chosen = draw(st.lists(st.sampled_from(values), min_size=1, max_size=3, unique=True))
        forms = ["constant", "choice", "choice", "tied"]
        numbers = all(isinstance(v, (int, float)) and not isinstance(v, bool) for v in values)
        form = draw(st.sampled_from(forms + ["span"] * numbers))
        if form == "constant":
            return chosen[0]
        if form == "tied":
            return ties.setdefault(tie, same(choose(*chosen)))
        if form == "choice":
            return choose(*chosen)
        low, high = min(values), max(values)
        if all(isinstance(v, int) for v in values):
            return span(low, high, step=draw(st.integers(1, high - low)))
        if finite:
            return span(low, high, step=(high - low) / draw(st.sampled_from([1, 2, 2.5, 3])))
        return span(low, high, log=draw(st.booleans()))

    def attention(label):
        kind = draw(st.sampled_from(["se", "eca", "cbam", "expatt", "custom", "plain", "plain custom"]))
        if kind == "se":
            return vary(SqueezeExcite, label=label, ratio=value("ratio", 2, 4, 8))
        if kind == "eca":
            return vary(ECA, label=label, size=draw(st.sampled_from([None, choose(None, span(3, 7, step=2))])))
        if kind == "cbam":
            return vary(CBAM, label=label, ratio=value("ratio", 2, 4, 8), size=choose(3, 5, 7))
        if kind == "expatt":
            return vary(
                ExpAtt,
                label=label,
                kernel=value("kernel", "gaussian", "laplacian", "uniform"),
                radius=value("radius", 0.5, 1.0, 8.0),
                heads=choose(1, 2, 4, 8) if draw(st.booleans()) else 8,
                radius_per=value("radius_per", "layer", "head"),
            )
        if kind == "custom":
            place = choose("branch", "stage") if draw(st.booleans()) else "block"
            knob = draw(st.sampled_from(["reduction", "span", "kind", "same", "choose", "vary"]))
            knobs = {knob: value("knob", 1, 2, 5), "on": value("on", True, False, None), "p": value("p", 0.1, 0.5)}
            return vary(Custom, "mylab.gate:Gate", label=label, place=place, **knobs)
        return ExpAtt(label=label) if kind == "plain" else Custom("mylab:Gate", label=label, kind="soft", on=True)

    def slot():
        options = [attention(f"o{index}") for index in range(draw(st.integers(1, 3)))]
        options += [None] * draw(st.booleans())
        found = options[0] if len(options) == 1 else choose(*options)
        return same(found) if draw(st.booleans()) else found

    def network(label):
        pool = [slot() for _ in range(draw(st.integers(1, 2)))]
        if draw(st.integers(0, 4)) == 0:
            one, two = attention(None), attention(None)
            stages = choose((None, None, one), (None, two, two), (ECA(), None, two))
        else:
            stages = tuple(draw(st.sampled_from([None, *pool])) for _ in range(3))
        depth = value("depth", 20, 26, 32) if draw(st.booleans()) else 20
        return vary(ResNet, label=label, depth=choose(20, 32) if isinstance(depth, Span) else depth, stages=stages)

    ties = {}
    networks = [network(label) for label in ("a", "b")[: draw(st.sampled_from([1, 1, 2]))]]
    training = Training(epochs=3)
    if draw(st.booleans()):
        training = vary(Training, lr=value("lr", 0.01, 0.1), epochs=value("epochs", 1, 2, 4), augment=choose("none", "crop"))
    return Space(networks[0] if len(networks) == 1 else choose(*networks), training, check=False)


@SETTINGS
@given(spaces(finite=False))
def test_json_gives_an_equal_space(space):
    again = through_json(space)
    assert facts(again) == facts(space)
    assert [again.draw(random.Random(seed)) for seed in range(5)] == [space.draw(random.Random(seed)) for seed in range(5)]
    if space.size < 200:
        assert list(again.enumerate()) == list(space.enumerate())


@SETTINGS
@given(spaces(finite=False), st.integers(0, 99))
def test_params_and_config_carry_the_same(space, seed):
    params = space.draw(random.Random(seed))
    config = space.config(params)
    assert space.params(config) == params
    assert [type(v) for v in space.params(config).values()] == [type(v) for v in params.values()]
    assert space.config(space.params(config)) == config
    assert space.active(params | {"foreign": 1}) == params
    assert space.draw(random.Random(seed + 1), forced=params) == params


@SETTINGS
@given(spaces(finite=True))
def test_enumeration_is_complete_and_distinct(space):
    if not space.size <= 400:
        return
    every = [tuple(params.items()) for params in space.enumerate()]
    assert len(set(every)) == len(every) == space.size
    assert {tuple(space.draw(random.Random(seed)).items()) for seed in range(30)} <= set(every)
    configs = [repr(space.config(dict(params))) for params in every]
    assert len(set(configs)) == len(configs)


@SETTINGS
@given(spaces(finite=False))
def test_what_is_active_follows_from_what_was_chosen(space):
    assert space.parameters.keys() == space.conditions.keys()
    draws = [space.draw(random.Random(seed)) for seed in range(10)]
    assert {name for params in draws for name in params} <= space.parameters.keys()
    for name, chosen in space.conditions.items():
        assert name in space.draw(random.Random(0), forced=chosen)
        assert chosen or all(name in params for params in draws)


@settings(SETTINGS, max_examples=40)
@given(spaces(finite=False))
def test_what_the_check_accepts_it_accepts_again_from_json(space):
    def verdict(data):
        try:
            return Space.from_json(data, check=True).size
        except HarnessError as error:
            return str(error)

    first = verdict(space.to_json())
    assert "\n" not in str(first)
    assert verdict(through_json(space).to_json()) == first


# -- names ------------------------------------------------------------------------------------------------------------

attention = choose(None, vary(ExpAtt, kernel=choose("gaussian", "laplacian")))


def test_names_are_places():
    space = Space(
        vary(ResNet, depth=choose(20, 32), stages=(None, attention, attention)), vary(Training, lr=choose(0.1, 0.2))
    )
    assert list(space.parameters) == [
        "depth",
        "stages.2.attention",
        "stages.2.expatt.kernel",
        "stages.3.attention",
        "stages.3.expatt.kernel",
        "training.lr",
    ]
    assert space.parameters["stages.3.attention"] == ("none", "expatt")
    assert space.conditions["stages.3.expatt.kernel"] == {"stages.3.attention": "expatt"}
    assert space.conditions["training.lr"] == {}
    assert space.size == 2 * 3 * 3 * 2


def test_a_tied_choice_is_named_by_its_places():
    tied = same(attention)
    space = Space(vary(ResNet, stages=(None, tied, tied)))
    assert list(space.parameters) == ["stages.2+3.attention", "stages.2+3.expatt.kernel"]
    assert space.size == 3


def test_ties_of_one_choice_are_one_tie():
    space = Space(vary(ResNet, stages=(None, same(attention), same(attention))))
    assert list(space.parameters) == ["stages.2+3.attention", "stages.2+3.expatt.kernel"]
    assert facts(through_json(space)) == facts(space)


def test_a_tied_knob_in_free_slots():
    kernel = same(choose("gaussian", "laplacian"))
    slot = choose(None, vary(ExpAtt, kernel=kernel))
    space = Space(vary(ResNet, stages=(None, slot, slot)))
    assert list(space.parameters) == ["stages.2.attention", "stages.2+3.expatt.kernel", "stages.3.attention"]
    assert space.size == 1 + 3 * 2  # no attention, or one of three placements with one of two kernels
    assert space.conditions["stages.2+3.expatt.kernel"] == {"stages.2.attention": "expatt"}  # as the third would do
    always = Space(vary(ResNet, stages=(None, slot, vary(ExpAtt, kernel=kernel))))
    assert always.conditions["stages.2.expatt.kernel=stages.3.kernel"] == {}


def test_a_label_tells_two_options_of_one_kind_apart():
    narrow, wide = vary(ExpAtt, heads=8), vary(ExpAtt, label="wide", share=choose(0.2, 0.3))
    space = Space(vary(ResNet, stages=(None, None, choose(narrow, wide))))
    assert space.parameters == {"stages.3.attention": ("expatt", "wide"), "stages.3.wide.share": (0.2, 0.3)}
    assert space.config({"stages.3.attention": "wide", "stages.3.wide.share": 0.3}).network.stages[2].share == 0.3


def test_networks_and_recipes_can_be_chosen():
    networks = choose(vary(ResNet, depth=choose(20, 32)), vary(ResNet, depth=18, label="big"))
    recipes = choose(vary(Training, lr=choose(0.1, 0.2)), Training(epochs=90, label="long"))
    space = Space(networks, recipes)
    assert space.parameters == {
        "network": ("resnet", "big"),
        "resnet.depth": (20, 32),
        "training.recipe": ("training", "long"),
        "training.training.lr": (0.1, 0.2),
    }


def test_stages_can_be_chosen_as_a_whole():
    space = Space(vary(ResNet, stages=choose((None, None, ECA()), (None, ECA(), ECA()))))
    assert space.parameters == {"stages": ("none+none+eca", "none+eca+eca")}


def test_custom_knobs_are_named_without_the_word_knobs():
    space = Space(vary(ResNet, stages=(None, None, vary(Custom, "mylab.gate:Gate", reduction=choose(4, 8)))))
    assert space.parameters == {"stages.3.reduction": (4, 8)}
    assert space.config({"stages.3.reduction": 4}).network.stages[2] == Custom("mylab.gate:Gate", reduction=4)


def test_lists_are_tuples_of_slots():
    slots = Space(vary(ResNet, stages=[None, attention, attention]))
    assert facts(slots) == facts(Space(vary(ResNet, stages=(None, attention, attention))))
    space = Space(vary(ResNet, stages=choose([None, None, ECA()], [None, ECA(), ECA()])))
    params = {"stages": "none+eca+eca"}
    assert space.params(space.config(params)) == params == through_json(space).params(space.config(params))


# -- values -----------------------------------------------------------------------------------------------------------


def test_whole_numbers_for_a_real_field_come_back_as_they_were_chosen():
    for radius in (choose(1, 2, 4), span(1, 4)):
        space = one_slot(vary(ExpAtt, radius=radius))
        params = space.draw(random.Random(0))
        assert type(params["stages.3.radius"]) is int
        assert repr(space.params(space.config(params))) == repr(params)


def test_one_and_true_are_two_values():
    space = one_slot(vary(Custom, "a:B", on=choose(True, False)))
    with pytest.raises(SpaceError, match=r"stages.3.on = 1: use one of True, False"):
        space.config({"stages.3.on": 1})
    with pytest.raises(SpaceError, match="not in the space"):
        space.params(Config(network=ResNet(stages=(None, None, Custom("a:B", on=1)))))


def test_spans():
    assert [value for value in range(20) if span(2, 9, step=3).holds(value)] == [2, 5, 8]
    assert (span(2, 9, step=3).high, span(2, 9, step=3).size) == (8, 3)
    assert span(1, 8).size == 8
    assert span(0.5, 8.0).size == math.inf
    assert (span(0.1, 0.7, step=0.2).size, span(0.1, 0.75, step=0.2).high) == (4, pytest.approx(0.7))
    assert not span(0.5, 8.0).holds(2)
    assert not span(1, 8).holds(2.0)
    assert not span(1, 8).holds(True)
    assert not span(0.5, 8.0).holds(8.1)
    assert not span(0.5, 8.0).holds(math.nan)
    assert not span(0.5, 8.0, step=0.5).holds(math.nan)
    assert not span(0.5, 8.0, step=0.5).holds(math.inf)


def test_a_stepped_span_holds_each_of_its_own_values():
    for low, high, step in [(0.1, 0.9, 0.1), (1e-4, 1e-3, 1e-4), (-1.0, 1.0, 0.3), (0.0, 5.0, 0.7)]:
        steps = span(low, high, step=step)
        values = [steps.value(index) for index in range(steps.size)]
        assert all(map(steps.holds, values))
        assert values[-1] == steps.high
        assert not any(steps.holds(value + step / 3) for value in values)


def test_stepped_spans_count_in_decimals_as_optuna_does():
    """Else a draw and an enumeration of one value would be two trials; a range that Optuna must mend is a warning."""
    from optuna.distributions import FloatDistribution
    from optuna.samplers import RandomSampler

    for low, high, step in [(0.1, 0.75, 0.2), (0.1, 0.9, 0.1), (1e-4, 1e-3, 1e-4), (0.0, 5.0, 0.7)]:
        steps = span(low, high, step=step)
        known = FloatDistribution(steps.low, steps.high, step=steps.step)
        assert known.high == steps.high
        space = one_slot(vary(ExpAtt, share=steps))
        every = {params["stages.3.share"] for params in space.enumerate()}
        sampler = RandomSampler(seed=0)
        drawn = [sampler.sample_independent(None, None, "x", known) for _ in range(100)]
        assert {space.active({"stages.3.share": value})["stages.3.share"] for value in drawn} == every
    assert [span(0.1, 0.5, step=0.1).value(index) for index in range(5)] == [0.1, 0.2, 0.3, 0.4, 0.5]


def test_draws_stay_inside_and_a_log_span_is_even_over_magnitudes():
    rng = random.Random(0)
    draws = [span(0.01, 100.0, log=True).draw(rng) for _ in range(2000)]
    assert 0.01 <= min(draws) <= max(draws) <= 100.0
    assert abs(sum(draw < 1.0 for draw in draws) / 2000 - 0.5) < 0.05
    assert {span(1, 4, log=True).draw(rng) for _ in range(200)} == {1, 2, 3, 4}
    assert {span(1, 7, step=3).draw(rng) for _ in range(100)} == {1, 4, 7}


def test_config_says_what_is_wrong_with_params():
    space = Space(vary(ResNet, width=span(0.5, 2.0), stages=(None, None, attention)))
    right = {"width": 1.0, "stages.3.attention": "none"}
    assert space.config(right | {"stages.3.expatt.kernel": "not looked at"}).network.stages == (None, None, None)
    for wrong, words in [
        ({"stages.3.attention": "expatt"}, "stages.3.expatt.kernel is missing"),
        ({"stages.3.attention": "se"}, "stages.3.attention = 'se': use one of 'none', 'expatt'"),
        ({"width": 3.0}, "width = 3.0: outside 0.5 to 2.0"),
        ({"width": None}, "width = None: outside 0.5 to 2.0"),
    ]:
        for read in (space.config, space.active):
            with pytest.raises(SpaceError) as caught:
                read(right | wrong)
            assert str(caught.value) == words


def test_a_foreign_config_is_not_in_the_space():
    space = Space(vary(ResNet, stages=(None, attention, attention)))
    for network in (
        ResNet(depth=32),
        ResNet(stages=(None, ECA(), None)),
        ResNet(stages=(None, ExpAtt(kernel="linear"), None)),
    ):
        with pytest.raises(SpaceError, match="the config is not in the space"):
            space.params(Config(network=network))
    tied = same(attention)
    with pytest.raises(SpaceError, match="the config is not in the space"):
        Space(vary(ResNet, stages=(None, tied, tied))).params(Config(network=ResNet(stages=(None, ExpAtt(), None))))


def test_a_default_of_today_is_written_down():
    space = one_slot(vary(ExpAtt, kernel=choose("gaussian", "linear")))
    assert space.to_json()["network"]["fields"]["stages"][2]["fields"]["radius"] == 2.0


# -- sizes ------------------------------------------------------------------------------------------------------------


def test_the_size_of_a_million_millions_is_computed():
    knobs = {f"knob{index}": choose(*range(10)) for index in range(12)}
    started = time.perf_counter()
    space = Space(vary(ResNet, stages=(None, None, choose(None, vary(Custom, "a:B", **knobs)))))
    assert space.size == 1 + 10**12
    assert time.perf_counter() - started < 1.0


def test_the_size_of_nested_ties():
    """A tie in a tie in a tie, the innermost used outside too: none with 2 kernels, or the module with 2."""
    for _ in range(10):  # the order of a set of ties is not fixed
        kernel = same(choose("gaussian", "laplacian"))
        inner = same(vary(ExpAtt, kernel=kernel))
        outer = same(choose(None, inner))
        space = Space(vary(ResNet, stages=(outer, outer, vary(ExpAtt, kernel=kernel))), check=False)
        assert space.size == len(list(space.enumerate())) == 4


def test_many_ties_are_counted_quickly():
    ties = [same(choose(1, 2, 3)) for _ in range(12)]
    module = vary(Custom, "a:B", **{f"k{index}": tie for index, tie in enumerate(ties)})
    started = time.perf_counter()
    assert one_slot(choose(None, module)).size == 1 + 3**12
    assert time.perf_counter() - started < 1.0


def test_a_choice_of_a_thousand_stagings_is_read_quickly():
    kinds = [None, SqueezeExcite(), ECA(), CBAM(), ExpAtt(), ECA(size=5, label="five")]
    options = [(one, two, three) for one in kinds for two in kinds for three in kinds]
    started = time.perf_counter()
    space = Space(vary(ResNet, stages=choose(*options)))
    assert len(list(space.enumerate())) == space.size == 216
    assert time.perf_counter() - started < 2.0


def test_a_continuous_space_cannot_be_enumerated():
    space = one_slot(vary(ExpAtt, radius=span(0.5, 8.0)))
    assert space.size == math.inf
    with pytest.raises(SpaceError, match=r"stages.3.radius is continuous and cannot be enumerated: give it a step="):
        next(space.enumerate())


# -- refusals ---------------------------------------------------------------------------------------------------------

GRAMMAR = {
    "empty": (choose, "choose() has no options: give at least one value"),
    "1 and True": (lambda: choose(1, True), "choose: 1 and True are equal under ==, so one would never be seen; drop one"),
    "1 and 1.0": (lambda: choose(1, 1.0), "choose: 1 and 1.0 are equal under =="),
    "twice": (lambda: choose(ECA(), ECA()), "are equal under =="),
    "one kind twice": (
        lambda: choose(None, vary(ExpAtt, heads=4), vary(ExpAtt, heads=8)),
        "choose: 2 options are called 'expatt'; tell them apart by label=, as in ..., label='wide')",
    ),
    "one class twice": (lambda: choose(Custom("a:Gate"), vary(Custom, "b:Gate")), "2 options are called 'gate'; tell them"),
    "none twice": (lambda: choose(None, "none"), "2 options are called 'none'; rename or drop one"),
    "two spans": (lambda: choose(span(1, 2), span(3, 4)), "2 options are called 'choice'; rename or drop one"),
    "not a number": (lambda: choose(1.0, float("nan")), "choose: nan is no option"),
    "a class": (
        lambda: choose(None, ExpAtt),
        "choose: <class 'harness.parts.expatt.ExpAtt'> is no option; write ExpAtt(...)",
    ),
    "a thing": (lambda: choose({"a": 1}), "choose: {'a': 1} is no option; use numbers, names, parts or tuples of slots"),
    "span upside down": (lambda: span(8, 1), "span(8, 1): the first end is the smaller one; a single value needs no span"),
    "span of one": (lambda: span(1, 1), "a single value needs no span"),
    "span of words": (lambda: span("a", "b"), "span('a', 'b'): both ends are finite numbers"),
    "endless span": (lambda: span(0.0, math.inf), "both ends are finite numbers"),
    "span of bools": (lambda: span(False, True), "both ends are finite numbers"),
    "log of zero": (lambda: span(0.0, 1.0, log=True), "span(0.0, 1.0, log=True): magnitudes need a lower end above 0"),
    "log and step": (lambda: span(1.0, 9.0, log=True, step=2.0), "log and step exclude each other"),
    "log and step of 1": (lambda: span(0.5, 8.5, log=True, step=1), "log and step exclude each other"),
    "step of zero": (lambda: span(1, 9, step=0), "span(1, 9, step=0): a step is above 0, and whole between whole ends"),
    "step of nan": (lambda: span(0.0, 1.0, step=math.nan), "a step is above 0"),
    "half steps": (lambda: span(1, 9, step=0.5), "a step is above 0, and whole between whole ends"),
    "a step of words": (lambda: span(1.0, 9.0, step="2"), "a step is above 0"),
    "a step too far": (lambda: span(1, 3, step=5), "span(1, 3, step=5): the first step leaves the range; use a smaller one"),
    "not a part": (lambda: vary(dict, a=1), "vary(<class 'dict'>, ...): give a config class, such as ResNet, ExpAtt or"),
    "unknown field": (
        lambda: vary(ResNet, dept=20),
        "vary(ResNet, dept=...): it has label, depth, stages, head, stem, width; did",
    ),
    "did you mean": (lambda: vary(ExpAtt, kernl="linear"), "; did you mean 'kernel'?"),
    "by position": (lambda: vary(ExpAtt, "gaussian"), "vary(ExpAtt, 'gaussian'): fields are given by name"),
    "two targets": (lambda: vary(Custom, "a:B", "c:D"), "vary(Custom, 'a:B', 'c:D'): fields are given by name"),
    "an open label": (lambda: vary(ECA, label=choose("a", "b")), "vary(ECA, label=choose('a', 'b')): a label is a string"),
}


@pytest.mark.parametrize("build, words", GRAMMAR.values(), ids=GRAMMAR.keys())
def test_the_grammar_refuses_in_one_line(build, words):
    with pytest.raises(SpaceError) as caught:
        build()
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)


def expatt(**fields):
    return lambda: Space(vary(ResNet, stages=(None, None, choose(None, vary(ExpAtt, **fields)))))


def se_ratios(*ratios):
    return lambda: Space(vary(ResNet, stages=(vary(SqueezeExcite, ratio=choose(*ratios)), None, None)))


CHECKED = {
    "heads of one radius": (
        expatt(heads=choose(2, 4)),
        "stages.3.expatt.heads: every value gives the same network everywhere (2, 4); drop the choice, or change",
    ),
    "ratios that squeeze to one channel": (
        se_ratios(16, 32),
        "stages.1.ratio: every value gives the same network everywhere",
    ),
    "a radius of the uniform map": (expatt(kernel="uniform", radius=span(0.5, 8.0)), "stages.3.expatt.radius: every value"),
    "the name of the data": (
        lambda: Space(ResNet(), vary(Training, limit=choose(10, 20))),
        "training.limit: every value gives the same network everywhere",
    ),
    "labels alone": (lambda: Space(choose(ResNet(), ResNet(label="twin"))), "network: every value gives the same network"),
    "never valid": (
        expatt(heads=choose(2, 3, 5), radius_per="head"),
        "stages.3.expatt.heads = 3 is never valid: stage 3: ExpAtt.heads = 3: must divide the 8 attention channels",
    ),
    "never valid, in its own words": (
        expatt(heads=choose(1, 3), radius_per="head", kernel=choose("gaussian", "linear")),
        "stages.3.expatt.heads = 3 is never valid: stage 3: ExpAtt.heads = 3",
    ),
    "a wrong name": (expatt(kernel=choose("gaussian", "gausian")), "stages.3.expatt.kernel = 'gausian' is never valid: Exp"),
    "an end of a span": (expatt(radius=span(0.0, 8.0)), "stages.3.expatt.radius = 0.0 is never valid: ExpAtt.radius = 0.0"),
    "a slot too many": (lambda: Space(vary(ResNet, stages=(attention,) * 4)), "ResNet.stages has 4 slots: depth 20 has 3"),
    "no slots": (
        lambda: Space(vary(ResNet, stages=choose(None, (None, None, ECA())))),
        "stages = 'none' is never valid: Re",
    ),
}


@pytest.mark.parametrize("build, words", CHECKED.values(), ids=CHECKED.keys())
def test_a_space_that_is_none_is_refused_in_one_line(build, words):
    with pytest.raises(SpaceError) as caught:
        build()
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_space_without_choices_is_checked_too():
    with pytest.raises(ConfigError, match=r"ResNet.depth = 21: use one of"):
        Space(vary(ResNet, depth=21))
    assert Space(ResNet()).size == 1
    assert list(Space(ResNet()).enumerate()) == [{}]


def test_what_matters_somewhere_is_kept():
    assert expatt(heads=choose(2, 4), radius_per=choose("layer", "head"))().size == 5
    assert expatt(kernel=choose("uniform", "linear"), radius=choose(2.0, 4.0))().size == 5
    assert (
        Space(vary(ResNet, width=choose(1.0, 4.0), stages=(vary(SqueezeExcite, ratio=choose(16, 32)), None, None))).size == 4
    )


def test_a_tied_value_is_valid_where_one_of_its_places_allows_it():
    heads = same(choose(1, 16))  # 16 heads need the 16 attention channels of the third stage
    first = choose(None, vary(ExpAtt, heads=heads, radius_per="head"))
    third = choose(None, vary(ExpAtt, heads=heads, radius_per="head", share=0.3))
    assert "stages.1+3.expatt.heads" in Space(vary(ResNet, stages=(first, None, third))).parameters


def test_names_that_meet_are_refused():
    slot = choose(
        vary(Custom, "a:B", label="x.y", knob=choose(1, 2)), vary(Custom, "a:B", label="x", **{"y.knob": choose(1, 2)})
    )
    with pytest.raises(SpaceError, match=r"two choices are called stages.3.x.y.knob: tell their options apart by label="):
        one_slot(slot)


def test_json_of_an_unknown_part_says_what_is_known():
    data = one_slot(vary(ECA, size=choose(3, 5))).to_json()
    data["network"]["fields"]["stages"][2]["vary"] = "transformer"
    with pytest.raises(SpaceError, match="vary 'transformer': unknown part; this version knows se, "):
        Space.from_json(data)


@pytest.mark.parametrize(
    "wrong", [5, {"choose": 5}, {"span": [1]}, {"same": 7}, {"vary": "eca"}, {"vary": []}, {"kind": []}]
)
def test_json_that_is_no_space_is_refused_in_one_line(wrong):
    data = one_slot(vary(ECA, size=choose(3, 5))).to_json()
    data["network"]["fields"]["stages"][2] = wrong
    with pytest.raises(HarnessError) as caught:
        Space.from_json(data, check=True)
    assert "\n" not in str(caught.value)
