"""Keys: golden ones stay, one is derived by hand, and they tell apart what matters and nothing else."""

import hashlib
import json
from pathlib import Path
from typing import Annotated

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from harness import key
from harness.config import CBAM, ECA, Config, Custom, ExpAtt, Neutral, ResNet, SqueezeExcite, Training, part_from_json
from harness.key import canonical, identity, significant, trial_key

GOLDEN = json.loads((Path(__file__).parent / "golden" / "keys.json").read_text())
"""Keys of the first release. An entry changes only where its trial gives another number than it did; that is said in the
changelog. A raised ENGINE needs no change here: each entry names its own."""


def key_of(network=None, training=None, seed=0, data="d", source="s"):
    config = Config(network=ResNet() if network is None else network, training=training or Training())
    return trial_key(config, seed, data, lambda target: source)


def third(slot, **fields):
    return key_of(ResNet(stages=(None, None, slot), **fields))


# -- the format


@pytest.mark.parametrize("entry", GOLDEN, ids=[entry["name"] for entry in GOLDEN])
def test_golden_keys_stay(entry, monkeypatch):
    monkeypatch.setattr(key, "ENGINE", entry["engine"])
    config = part_from_json(entry["config"])
    assert trial_key(config, entry["seed"], entry["data"], lambda target: entry["source"]) == entry["key"]


def test_golden_keys_tell_trials_apart():
    """The last entry is the first one as it was written before a field existed."""
    keys = [entry["key"] for entry in GOLDEN]
    assert keys[-1] == keys[0]
    assert len(set(keys[:-1])) == len(keys) - 1 >= 12


def test_one_key_by_hand(monkeypatch):
    """SE of ratio 8 squeezes 32 channels to 4; a tenth of 64 channels, floored to a multiple of 8 and at least 8, is 8."""
    monkeypatch.setattr(key, "ENGINE", 1)
    spelled = (
        '{"data":"6b86b273ff34fce1","engine":1,'
        '"network":{"blocks":[3,3,3],"bottleneck":false,"kind":"resnet","shortcut":"padding","small_stem":true,'
        '"stages":[null,'
        '{"kind":"se","squeezed":4,"version":1},'
        '{"kernel":"gaussian","kind":"expatt","radii":1,"radius":2.0,"values":8,"version":1}],'
        '"version":1,"widths":[16,32,64]},'
        '"seed":3,'
        '"training":{"augment":"crop","batch_size":128,"epochs":20,"lr":0.1,"momentum":0.9,"precision":"fp32",'
        '"validation":0.1,"warmup":0.1,"weight_decay":0.0005}}'
    )
    config = Config(
        network=ResNet(depth=20, stages=(None, SqueezeExcite(ratio=8), ExpAtt())),
        training=Training(augment="crop", precision="fp32"),
    )
    assert trial_key(config, 3, "6b86b273ff34fce1") == hashlib.sha256(spelled.encode()).hexdigest()[:24]


def test_the_canonical_spelling():
    assert canonical({"b": (1, 2.0, True, None), "a": "é"}) == '{"a":"\\u00e9","b":[1,2.0,true,null]}'
    assert canonical([-0.0, {"x": -0.0}]) == '[0.0,{"x":0.0}]'
    with pytest.raises(ValueError):
        canonical(float("nan"))


# -- what matters

DIFFERENT = {
    "seed": lambda: key_of(seed=1),
    "data": lambda: key_of(data="e"),
    "depth": lambda: key_of(ResNet(depth=26)),
    "width": lambda: key_of(ResNet(width=2.0)),
    "18": lambda: key_of(ResNet(depth=18)),
    "34": lambda: key_of(ResNet(depth=34)),
    "50 has the blocks of 34": lambda: key_of(ResNet(depth=50)),
    "stem": lambda: key_of(ResNet(depth=18, stem="cifar")),
    "se": lambda: third(SqueezeExcite()),
    "se in another stage": lambda: key_of(ResNet(stages=(None, SqueezeExcite(), None))),
    "se ratio": lambda: third(SqueezeExcite(ratio=8)),
    "eca": lambda: third(ECA()),
    "eca size": lambda: third(ECA(size=5)),
    "cbam": lambda: third(CBAM()),
    "cbam ratio": lambda: third(CBAM(ratio=8)),
    "cbam size": lambda: third(CBAM(size=3)),
    "expatt": lambda: third(ExpAtt()),
    "kernel": lambda: third(ExpAtt(kernel="linear")),
    "no radius": lambda: third(ExpAtt(kernel="uniform")),
    "radius": lambda: third(ExpAtt(radius=1.0)),
    "radii": lambda: third(ExpAtt(radius_per="head")),
    "heads": lambda: third(ExpAtt(radius_per="head", heads=4)),
    "share": lambda: third(ExpAtt(share=0.3)),
    "multiple": lambda: third(ExpAtt(multiple=4, heads=4)),
    "unit": lambda: third(ExpAtt(unit="share")),
    "parametrisation": lambda: third(ExpAtt(parametrisation="softplus")),
    "projection": lambda: third(ExpAtt(projection=False)),
    "largest": lambda: third(ExpAtt(largest=14)),
    "a kernel of the user's own": lambda: third(ExpAtt(kernel="a:b")),
    "custom": lambda: third(Custom("a:B")),
    "target": lambda: third(Custom("a:C")),
    "place": lambda: third(Custom("a:B", place="stage")),
    "knob": lambda: third(Custom("a:B", k=1)),
    "knob of another type": lambda: third(Custom("a:B", k=1.0)),
    "knob that is true": lambda: third(Custom("a:B", k=True)),
    "name of a knob": lambda: third(Custom("a:B", j=1)),
    "source": lambda: key_of(ResNet(stages=(None, None, Custom("a:B"))), source="t"),
    "validation": lambda: key_of(training=Training(validation=0.2)),
    "epochs": lambda: key_of(training=Training(epochs=21)),
    "batch_size": lambda: key_of(training=Training(batch_size=64)),
    "lr": lambda: key_of(training=Training(lr=0.2)),
    "momentum": lambda: key_of(training=Training(momentum=0.8)),
    "weight_decay": lambda: key_of(training=Training(weight_decay=0.0)),
    "warmup": lambda: key_of(training=Training(warmup=0.0)),
    "augment": lambda: key_of(training=Training(augment="none")),
    "padding": lambda: key_of(training=Training(padding="zero")),
    "cutout": lambda: key_of(training=Training(cutout=0.5)),
    "jitter": lambda: key_of(training=Training(jitter=0.4)),
    "policy": lambda: key_of(training=Training(policy="rand")),
    "another policy": lambda: key_of(training=Training(policy="trivial")),
    "magnitude": lambda: key_of(training=Training(policy="rand", magnitude=5)),
    "mixup": lambda: key_of(training=Training(mixup=0.2)),
    "cutmix": lambda: key_of(training=Training(cutmix=0.2)),
    "precision": lambda: key_of(training=Training(precision="fp32")),
    "accumulate": lambda: key_of(training=Training(accumulate=2)),
    "optimizer": lambda: key_of(training=Training(optimizer="adamw")),
    "nesterov": lambda: key_of(training=Training(nesterov=False)),
    "radius_lr": lambda: key_of(ResNet(stages=(None, None, ExpAtt())), Training(radius_lr=2.0)),
    "a rate of radii that a user's module may have": lambda: key_of(
        ResNet(stages=(None, None, Custom("a:B"))), Training(radius_lr=2.0)
    ),
    "schedule": lambda: key_of(training=Training(schedule="restarts")),
    "one-cycle": lambda: key_of(training=Training(schedule="onecycle")),
    "cycle": lambda: key_of(training=Training(schedule="restarts", cycle=5)),
    "milestones": lambda: key_of(training=Training(schedule="step", milestones=(5, 10))),
    "other milestones": lambda: key_of(training=Training(schedule="step", milestones=(5,))),
    "drop": lambda: key_of(training=Training(schedule="step", milestones=(5,), drop=0.5)),
    "clip": lambda: key_of(training=Training(clip=1.0)),
    "ema": lambda: key_of(training=Training(ema=0.99)),
    "select": lambda: key_of(training=Training(select="best")),
    "init": lambda: key_of(training=Training(init="timm:resnet18.a1_in1k")),
    "other weights of one name": lambda: key_of(training=Training(init="timm:resnet18.a1_in1k"), source="t"),
    "compile": lambda: key_of(training=Training(compile=True)),
    "label_smoothing": lambda: key_of(training=Training(label_smoothing=0.1)),
    "deterministic": lambda: key_of(training=Training(deterministic=True)),
    "a loop of the user's own": lambda: trial_key(Config(network=ResNet()), 0, "d", lambda _: "s", trial="a:run"),
    "another loop": lambda: trial_key(Config(network=ResNet()), 0, "d", lambda _: "s", trial="a:walk"),
}


def test_what_matters_changes_the_key():
    keys = {key_of(): "nothing"}
    for name, build in DIFFERENT.items():
        found = build()
        assert found not in keys, f"{name} has the key of {keys[found]}"
        keys[found] = name


def test_every_field_of_training_is_in_the_key_or_known_to_have_no_effect():
    tried = {name for name in DIFFERENT if name in Training.model_fields}
    pictures = {"dataset", "limit", "image_size", "loading", "skip_bad_images"}  # in the fingerprint of the data
    assert set(Training.model_fields) - tried == {"kind", "label"} | pictures


def test_the_revision_and_the_versions_change_the_key(monkeypatch):
    keys = [third(ExpAtt()), third(SqueezeExcite())]
    with monkeypatch.context() as patch:
        patch.setattr(ExpAtt, "version", 2)
        assert third(ExpAtt()) != keys[0]
        assert third(SqueezeExcite()) == keys[1]
    monkeypatch.setattr(key, "ENGINE", key.ENGINE + 1)
    assert third(SqueezeExcite()) != keys[1]


# -- what has no effect

EQUAL = {
    "labels": (
        lambda: third(ExpAtt()),
        lambda: key_of(ResNet(label="mine", stages=(None, None, ExpAtt(label="x"))), Training(label="y")),
    ),
    "a radius of the uniform map": (
        lambda: third(ExpAtt(kernel="uniform", radius=1.0)),
        lambda: third(ExpAtt(kernel="uniform", radius=8.0, radius_per="head", heads=2)),
    ),
    "heads with one radius a layer": (lambda: third(ExpAtt(heads=2)), lambda: third(ExpAtt(heads=8))),
    "one head's radius is the layer's": (lambda: third(ExpAtt(heads=1, radius_per="head")), lambda: third(ExpAtt(heads=8))),
    "ratios that squeeze to one channel": (lambda: third(SqueezeExcite(ratio=64)), lambda: third(SqueezeExcite(ratio=100))),
    "ratios of CBAM": (lambda: third(CBAM(ratio=40)), lambda: third(CBAM(ratio=60))),
    "the size that ECA adapts to": (lambda: third(ECA()), lambda: third(ECA(size=3))),
    "shares of as many channels": (lambda: third(ExpAtt(share=0.13)), lambda: third(ExpAtt(share=0.24))),
    "the stem a CIFAR depth has": (lambda: key_of(ResNet(stem="cifar")), key_of),
    "widths that round alike": (lambda: key_of(ResNet(width=1.0)), lambda: key_of(ResNet(width=1.001))),
    "a rate of radii where there are none": (lambda: key_of(training=Training(radius_lr=2.0)), key_of),
    "a drop without steps": (lambda: key_of(training=Training(drop=0.5)), key_of),
    "a cycle without restarts": (lambda: key_of(training=Training(cycle=5)), key_of),
    "Nesterov without momentum": (
        lambda: key_of(training=Training(momentum=0.0, nesterov=False)),
        lambda: key_of(training=Training(momentum=0.0)),
    ),
    "the padding of parts that reach beyond no border": (
        lambda: key_of(training=Training(loading="stream", padding="zero", augment="crop")),
        lambda: key_of(training=Training(loading="stream", augment="crop")),
    ),
    "what is not compiled": (lambda: key_of(training=Training(compile=False)), key_of),
    "where equal weights lie": (
        lambda: key_of(training=Training(init="here.pt")),
        lambda: key_of(training=Training(init="there.pt")),
    ),
    "the name of the data": (
        lambda: key_of(training=Training(dataset="folder", limit=5, image_size=32)),
        lambda: key_of(training=Training(dataset="cifar10")),
    ),
    "the sign of zero": (
        lambda: key_of(training=Training(weight_decay=-0.0)),
        lambda: key_of(training=Training(weight_decay=0.0)),
    ),
    "the sign of a neutral zero": (lambda: key_of(training=Training(label_smoothing=-0.0)), key_of),
    "the sign of a knob's zero": (lambda: third(Custom("a:B", k=-0.0)), lambda: third(Custom("a:B", k=0.0))),
    "the order of knobs": (lambda: third(Custom("a:B", j=1, k=2)), lambda: third(Custom("a:B", k=2, j=1))),
    "whole numbers of a real field": (lambda: third(ExpAtt(radius=2)), lambda: third(ExpAtt(radius=2.0))),
    "empty slots": (lambda: key_of(ResNet(stages=(None, None, None))), lambda: key_of(ResNet())),
}


@pytest.mark.parametrize("one, other", EQUAL.values(), ids=EQUAL.keys())
def test_what_has_no_effect_leaves_the_key(one, other):
    assert one() == other()


def test_ratios_differ_where_the_slot_is_wide():
    first = [key_of(ResNet(stages=(SqueezeExcite(ratio=ratio), None, None))) for ratio in (16, 32)]
    assert first[0] == first[1]  # 16 channels squeeze to one
    assert third(SqueezeExcite(ratio=16)) != third(SqueezeExcite(ratio=32))  # 64 channels to four and to two


def test_a_field_at_its_neutral_value_is_left_out():
    """A field added later must not give old trials new keys."""

    class Later(Training):
        mixup: Annotated[float, Neutral(0.0)] = 0.3

    assert "mixup" not in significant(Later(mixup=0.0))
    assert significant(Later(mixup=0.0)) == significant(Training())
    assert significant(Later())["mixup"] == 0.3  # left out at the neutral value, not at the default
    assert "label_smoothing" not in significant(Training())


def test_a_knob_at_the_default_of_its_class_is_the_class_alone(tmp_path, monkeypatch):
    (tmp_path / "key_lab.py").write_text("class Gate:\n    def __init__(self, channels, ratio=4, scale=1.0): ...\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    alone = third(Custom("key_lab:Gate"))
    assert third(Custom("key_lab:Gate", ratio=4)) == third(Custom("key_lab:Gate", scale=1.0, ratio=4)) == alone
    others = [third(Custom("key_lab:Gate", **knobs)) for knobs in ({"ratio": 8}, {"ratio": 4.0}, {"scale": 1}, {"more": 4})]
    assert len({alone, *others}) == 5


def test_the_default_source_is_the_file_that_holds_the_module():
    config = Config(network=ResNet(stages=(None, None, Custom("harness.errors:HarnessError"))))
    content = Path(key.__file__).with_name("errors.py").read_bytes()
    expected = hashlib.sha256(content).hexdigest()[:16]
    assert trial_key(config, 0, "d") == trial_key(config, 0, "d", lambda target: expected)
    assert "source" not in identity(config)["network"]["stages"][2]


# -- any config

slots = st.one_of(
    st.none(),
    st.builds(SqueezeExcite, ratio=st.integers(1, 64)),
    st.builds(ECA, size=st.sampled_from([None, 3, 5])),
    st.builds(CBAM, ratio=st.integers(1, 64), size=st.sampled_from([3, 5, 7])),
    st.builds(
        ExpAtt,
        kernel=st.sampled_from(["gaussian", "cauchy", "uniform"]),
        radius=st.floats(0.1, 10),
        radius_per=st.sampled_from(["layer", "head"]),
        heads=st.sampled_from([1, 2, 4, 8]),
    ),
    st.builds(
        Custom,
        st.just("a:B"),
        place=st.sampled_from(["branch", "stage"]),
        k=st.floats(allow_nan=False, allow_infinity=False),
    ),
)
networks = st.builds(ResNet, depth=st.sampled_from([8, 20]), stages=st.tuples(slots, slots, slots))
recipes = st.builds(Training, lr=st.floats(1e-6, 1), epochs=st.integers(1, 300), precision=st.sampled_from(["fp32", "bf16"]))
configs = st.builds(Config, network=networks, training=recipes)
SETTINGS = settings(deadline=None, derandomize=True, max_examples=150, database=None)


@SETTINGS
@given(configs, st.integers(0, 2**40))
def test_the_key_survives_json(config, seed):
    again = part_from_json(json.loads(json.dumps(config.model_dump(mode="json"))))
    found = trial_key(config, seed, "d", str)
    assert trial_key(again, seed, "d", str) == found
    assert len(found) == 24
    assert set(found) <= set("0123456789abcdef")
