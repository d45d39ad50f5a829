import pytest

from harness.report.words import choice_title, counted, differences, duration, listed, place_of, spelled, unit

NBSP = "\N{NO-BREAK SPACE}"


@pytest.mark.parametrize(
    ("metric", "values", "value", "text"),
    [
        ("accuracy", [0.5], 0.9341, "93.41 %"),
        ("loss", [2.0], 0.25, "0.250"),
        ("params", [272_474, 300_000], 272_474, "272.5 k"),
        ("params", [25_557_032], 25_557_032, "25.56 M"),
        ("params", [950], 950, "950"),
        ("macs", [41_200_000], 41_200_000, "41.20 M"),
        ("macs", [4.09e9], 4.09e9, "4.090 G"),
        ("seconds", [9.04], 9.04, "9.0 s"),
        ("seconds", [1800], 1800, "30.00 min"),
        ("seconds", [7200 * 4], 7200 * 4, "8.000 h"),
        ("accuracy", [], None, "\N{EN DASH}"),
    ],
)
def test_one_unit_for_a_column(metric, values, value, text):
    assert unit(metric, values).text(value).replace(NBSP, " ") == text


def test_quantities_as_in_a_sentence():
    assert unit("params", [272_474]).noun(272_474).replace(NBSP, " ") == "272.5 k parameters"
    assert unit("params", [950]).noun(950) == f"950{NBSP}parameters"
    assert unit("loss", [2]).noun(0.25) == "a loss of 0.250"
    assert unit("accuracy", []).noun(0.9).replace(NBSP, " ") == "90.00 % accuracy"


def test_numbers_in_words():
    assert [duration(seconds).replace(NBSP, " ") for seconds in (3.14, 42, 600, 14_760, 90_000, 864_000)] == [
        "3.1 s",
        "42 s",
        "10 minutes",
        "4.1 hours",
        "25 hours",
        "10 days",
    ]
    assert [counted(1, "class", "classes"), counted(2000, "trial")] == ["1 class", "2,000 trials"]
    assert [spelled(1, "is", "are"), spelled(54, "is", "are")] == ["One is", "54 are"]
    assert [listed(["a"]), listed("abc")] == ["a", "a, b and c"]


@pytest.mark.parametrize(
    ("name", "place"),
    [
        ("depth", ("", "depth")),
        ("stages.2.attention", ("stage 2", "attention")),
        ("stages.2+3.expatt.kernel", ("stages 2+3", "kernel")),
        ("stages.choice+choice+none.1.se.ratio", ("stage 1", "ratio")),
        ("training.lr", ("training", "lr")),
        ("stages", ("", "stages")),
    ],
)
def test_names_tell_the_place(name, place):
    assert place_of(name) == place


def test_differences_follow_the_space_and_speak_for_themselves():
    params = {
        "training.lr": 0.0712345,
        "stages.3.attention": "none",
        "stages.2.expatt.radius": 2.3456,
        "stages.2.expatt.kernel": "gaussian",
        "stages.2.attention": "expatt",
        "own": True,
    }
    order = ["stages.2.attention", "stages.2.expatt.kernel", "stages.2.expatt.radius", "stages.3.attention", "training.lr"]
    found = differences(params, order)
    assert list(map(str, found)) == [
        "stage 2 ExpAtt · gaussian · radius 2.35",
        "stage 3 none",
        "training lr 0.0712",
        "own yes",
    ]
    assert found[0].prose == "ExpAtt (gaussian, radius 2.35) in stage 2"
    assert choice_title("stages.3.attention") == "stage 3 attention"
    assert choice_title("vgg.stages.3.expatt.kernel") == "VGG stage 3 kernel"
    assert choice_title("resnet.depth") == "ResNet depth"
    assert choice_title("head.ltpa.score") == "score"
