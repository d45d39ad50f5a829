"""What a study rests on, as BibTeX, and how it was done, as a paragraph of plain words."""

import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

from harness.design import Design, Exhaustive, FractionalFactorial, Sequential
from harness.report.choices import factor_sheet
from harness.report.comparison import compared
from harness.report.confirmed import how_words, looks_words, order_words
from harness.report.facts import Facts
from harness.report.sentences import counts, done
from harness.report.words import DATASETS, NOUNS, counted, duration, listed

HERE = Path(__file__).parent
KINDS = {
    "resnet": "he2016resnet",
    "preact": "he2016preact",
    "wide": "zagoruyko2016wide",
    "vgg": "simonyan2015vgg",
    "se": "hu2018se",
    "ese": "lee2020centermask",
    "eca": "wang2020eca",
    "cbam": "woo2018cbam",
    "bam": "park2018bam",
    "gc": "cao2019gcnet",
    "ge": "hu2018gather",
    "coord": "hou2021coordinate",
    "simam": "yang2021simam",
    "triplet": "misra2021triplet",
    "nl": "wang2018nonlocal",
    "bottleneck": "srinivas2021botnet",
    "halo": "vaswani2021halo",
    "sasa": "ramachandran2019sasa",
    "lambda": "bello2021lambda",
    "aa": "bello2019aa",
    "gsa": "shen2020gsa",
    "ltpa": "jetley2018ltpa",
    "expatt": "tan2021expatt",
}
"""The paper of each network and of each kind of attention."""
FROM_TIMM = ("se", "ese", "eca", "cbam", "gc", "coord", "nl", "bottleneck", "halo")
"""Kinds whose module is timm's."""
SETTINGS: dict[tuple[str, Any], str] = {
    ("optimizer", "adamw"): "loshchilov2019adamw",
    ("schedule", "cosine"): "loshchilov2017sgdr",
    ("schedule", "restarts"): "loshchilov2017sgdr",
    ("policy", "trivial"): "muller2021trivial",
    ("policy", "rand"): "cubuk2019rand",
    ("dataset", "digits"): "pedregosa2011sklearn",
    ("dataset", "cifar10"): "krizhevsky2009cifar",
    ("dataset", "cifar100"): "krizhevsky2009cifar",
}
"""Of a setting's value."""
AMOUNTS = {"cutout": "devries2017cutout", "mixup": "zhang2018mixup", "cutmix": "yun2019cutmix"}
"""Of a setting that is not zero."""
METHODS = {"evolution": "deb2002nsga", "tpe": "bergstra2011tpe", "asha": "li2020asha", "halving": "schmucker2021moasha"}
METHODS |= {"fractional-factorial": "box1961fractional"}
"""Of a strategy, or of what stops trials early."""


def keys(facts: Facts) -> list[str]:
    """What to cite, each once: networks and attention, training, search, statistics, software."""
    return list(dict.fromkeys(_keys(facts)))


def _keys(facts: Facts) -> Iterator[str]:
    kinds = sorted({kind for trial in facts.trials for kind in _kinds(trial.record.config_json)})
    yield from (KINDS[kind] for kind in kinds if kind in KINDS)
    for (setting, value), key in SETTINGS.items():
        if value in facts.settings(setting):
            yield key
    for setting, key in AMOUNTS.items():
        if any(facts.settings(setting)):
            yield key
    for rule in (facts.study.strategy, facts.study.stopping):
        if rule is not None and rule.kind in METHODS:
            yield METHODS[rule.kind]
    found = compared(facts)
    if found is not None:
        yield from ["holm1979"] * (len(found.effects) > 1 and not _primary(facts))
        yield from ["pocock1977", "jennison1989", "tamhane2021"] * (found.table.course is not None)
        yield from ["schuirmann1987"] * any(effect.margin for effect in found.effects)
        yield from ["holm1979", "seabold2010statsmodels"] * (factor_sheet(facts) is not None)
    yield from ("akiba2019optuna", "liaw2018tune", "paszke2019pytorch")
    targets = [str(init) for init in facts.settings("init")] + [str(name) for name in _targets(facts)]
    if set(kinds) & set(FROM_TIMM) or any(target.startswith("timm:") for target in targets):
        yield "wightman2019timm"


def _kinds(node: Any) -> Iterator[str]:
    """The kinds of all parts in plain JSON."""
    if isinstance(node, dict):
        if "kind" in node:
            yield str(node["kind"])
        node = list(node.values())
    if isinstance(node, list):
        for item in node:
            yield from _kinds(item)


def _targets(facts: Facts) -> Iterator[Any]:
    for trial in facts.trials:
        yield trial.record.config_json.get("network", {}).get("target", "")


@cache
def references() -> dict[str, str]:
    """Every known entry by its key."""
    text = (HERE / "references.bib").read_text("utf-8")
    return {entry[1]: entry[0].strip() for entry in re.finditer(r"^@\w+\{([^,\s]+),.*?^\}", text, re.DOTALL | re.MULTILINE)}


def own() -> str:
    """The entry of the harness itself, from CITATION.cff."""
    places = (HERE.parents[1] / "CITATION.cff", HERE.parent / "CITATION.cff")  # a checkout; an installed package
    text = next((place.read_text("utf-8") for place in places if place.is_file()), "")
    fields = {
        name: value.strip(' "') for name, value in re.findall(r"^(title|version|date-released): *(.+)$", text, re.MULTILINE)
    }
    names = re.findall(r'^ +- name: *"?([^"\n]+)', text, re.MULTILINE)
    lines = {
        "title": f"{{{fields.get('title', 'attention-harness')}}}",
        "author": " and ".join(f"{{{name}}}" for name in names or ["The harness authors"]),
        "year": fields.get("date-released", "")[:4],
        "version": fields.get("version", ""),
    }
    told = ",\n".join(f"  {name} = {{{value}}}" for name, value in lines.items() if value)
    return f"@software{{attentionharness,\n{told}\n}}"


def bibtex(facts: Facts) -> str:
    """An entry for everything that the study's trials used, the harness last."""
    return "\n\n".join([*(references()[key] for key in keys(facts)), own()]) + "\n"


# -- the methods ------------------------------------------------------------------------------------------------------


def methods(facts: Facts) -> str:
    """How the study was done, in one paragraph; what its trials do not tell is left out."""
    costs = "MACs are multiply-accumulates of convolutions, linear maps and matrix products of one forward pass."
    again = "" if facts.confirmed is None else " ".join([how_words(facts.confirmed), *order_words(facts)])
    parts = [_data(facts), _recipe(facts), _trials(facts), _test(facts), again, costs, _hours(facts)]
    return " ".join(filter(None, parts))


def _some(facts: Facts, name: str) -> str:
    """The values of a setting, in words; its range where there are many."""
    found = facts.settings(name)
    numbers = [value for value in found if isinstance(value, int | float) and not isinstance(value, bool)]
    if len(numbers) == len(found) > 3:
        return f"{min(numbers):g} to {max(numbers):g}"
    return listed([f"{value:g}" if isinstance(value, float) else str(value) for value in found], "or")


def _data(facts: Facts) -> str:
    names = [DATASETS.get(str(name), str(name)) for name in facts.settings("dataset")]
    if not names:
        return ""
    data = facts.attributes.get("data") or {}
    size = (
        f" ({data['classes']} classes, {data['train']:,} training pictures)" if {"classes", "train"} <= data.keys() else ""
    )
    limit = f", of which the first {_some(facts, 'limit')} of each class were used" if facts.settings("limit") else ""
    held = listed([f"{100 * share:g} %" for share in facts.settings("validation")], "or")
    words = (
        f"We trained on {listed(names)}{size}{limit}. For each seed {held} of the training pictures, stratified by class,"
        " were held out"
    )
    if facts.study.scores_test:
        return f"{words}. {how_words(facts)} {looks_words(facts)}"
    unread = "the test part was not read" if facts.confirmed is None else "none of its trials read the test part"
    return f"{words}, and every score is theirs; {unread}."


def _recipe(facts: Facts) -> str:
    if facts.study.trial:
        return f"Trials ran the loop {facts.study.trial}."
    if not facts.settings("epochs"):
        return ""
    how = {"sgd": f"SGD with momentum {_some(facts, 'momentum')}", "adamw": "AdamW"}
    optimizers = listed([how.get(str(name), str(name)) for name in facts.settings("optimizer")], "or")
    words = [
        f"batches of {_some(facts, 'batch_size')}",
        f"a peak learning rate of {_some(facts, 'lr')} after a warm-up over {_percent(facts, 'warmup')} of the steps"
        f" ({_some(facts, 'schedule')} schedule)",
        f"weight decay {_some(facts, 'weight_decay')}",
        f"augmentation by {_some(facts, 'augment').replace('crop+flip', 'crops and flips')}",
    ]
    more = {
        "policy": "policy",
        "cutout": "cutout",
        "mixup": "mixup",
        "cutmix": "CutMix",
        "label_smoothing": "label smoothing",
    }
    words += [f"{told} {_some(facts, name)}" for name, told in more.items() if any(facts.settings(name))]
    precision = f", in {_some(facts, 'precision')}" if facts.settings("precision") else ""
    epochs = "epoch" if facts.settings("epochs") == [1] else "epochs"
    return f"Networks were trained for {_some(facts, 'epochs')} {epochs} with {optimizers}, {listed(words)}{precision}."


def _percent(facts: Facts, name: str) -> str:
    return listed([f"{100 * share:g} %" for share in facts.settings(name)], "or")


def _trials(facts: Facts) -> str:
    told = dict(done(facts))
    seeds = facts.study.seeds
    paired = (
        f" {_given(facts)}Every arm was trained with the same seeds ({listed(seeds)}), hence the same split, order of"
        " pictures, augmentation and initial weights of shared modules."
        if isinstance(facts.study.strategy, Design | Exhaustive) and len(seeds) > 1
        else ""
    )
    stopped = f" {told['Stopped']}" if "Stopped" in told else ""
    part = ""
    if isinstance(facts.study.strategy, FractionalFactorial):
        part = f" The fraction has resolution {facts.study.strategy.resolution} or more."
    ended = counts(facts.states, facts.untrained)
    whole = f" Of {counted(len(facts.trials), 'trial')}, {ended}." if facts.trials else ""
    return f"{told['Searched']}{part}{paired}{stopped}{whole}"


def _given(facts: Facts) -> str:
    """That seeds came in sequence, where they did."""
    seeds = facts.study.seeds
    if not isinstance(seeds, Sequential):
        return ""
    return (
        f"Each arm was given {seeds.first} seeds, and one more at a time, up to {seeds.most}, as long as its comparison was"
        " undecided (a group-sequential design). "
    )


def _primary(facts: Facts) -> str | None:
    strategy = facts.study.strategy
    return strategy.primary if isinstance(strategy, Design | Exhaustive) else None


def _test(facts: Facts) -> str:
    found = compared(facts)
    if found is None:
        return ""
    pooled = any(effect.pooled for effect in found.effects)
    test = "a t-test with seeds as blocks and one variance for all arms" if pooled else "paired t-tests over seeds"
    several = len(found.effects) > 1
    before = facts.attributes.get("planned")
    primary = _primary(facts)
    when = "before training" if before and before["primary"] == primary else "after training had begun"
    over = (
        f"; {primary!r} was declared {when} as the one comparison to decide, without correction"
        if primary
        else f", with Holm's correction over {len(found.effects)} comparisons at a familywise level of 0.05"
        if several
        else " at a level of 0.05"
    )
    if found.table.course is not None:
        test += (
            f" after each seed from {found.table.course.rule.first} on, at a constant nominal level that pays for all looks"
        )
    words = (
        f"Arms were compared with {found.arms.baseline!r} in {NOUNS[found.table.metric]} by"
        f" {test}{over}; intervals are"
        f" {'of 95 %' if found.table.course is None else 'repeated confidence intervals of 95 % or more'}."
    )
    if margin := next((effect.margin for effect in found.effects if effect.margin), None):
        words += (
            f" No difference larger than {found.table.number(margin)}{found.table.unit} was claimed where two one-sided"
            " tests said so at the same level."
        )
    if factor_sheet(facts) is not None:
        pairs = "" if isinstance(facts.study.strategy, FractionalFactorial) else " and two-way interactions"
        words += (
            f" Main effects{pairs} were tested by an analysis of variance with seeds as blocks (type II), with Holm's"
            " correction over all of them."
        )
    if found.planned and not found.later:
        words += f" The plan was stored before training (hash {found.planned})."
    if found.arms.missing:
        words += f" {counted(sum(map(len, found.arms.missing.values())), 'planned trial')} had no complete result."
    return words


def _hours(facts: Facts) -> str:
    if not facts.seconds:
        return ""
    devices = f" on {listed(facts.devices)}" if facts.devices else ""
    versions = facts.versions
    software = listed(
        f"{title} {' and '.join(versions[name])}"
        for name, title in (("torch", "PyTorch"), ("ray", "Ray"), ("optuna", "Optuna"), ("timm", "timm"))
        if name in versions
    )
    commit = listed(facts.origins("commit"))
    return f"Training took {duration(facts.seconds)} in all{devices}{f', with {software}' if software else ''}" + (
        f" (commit {commit})." if commit else "."
    )
