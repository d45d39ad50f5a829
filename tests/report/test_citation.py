"""Everything that can be used has an entry; a study cites what it used and nothing else; its methods are its own."""

import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from typer.testing import CliRunner

from harness.cli.main import app
from harness.config import ATTENTIONS, LTPA, NETWORKS
from harness.design import AddOneIn
from harness.report.citation import AMOUNTS, KINDS, METHODS, SETTINGS, bibtex, keys, methods, own, references
from harness.report.facts import Facts, gather
from harness.run import Options, run_study
from harness.study import Study
from tests.report.sample import ATTRIBUTES, STUDY, records

FACTS = gather(STUDY, ATTRIBUTES, records())


def test_every_part_of_a_paper_has_its_entry() -> None:
    kinds = {str(part.model_fields["kind"].default) for part in (*ATTENTIONS, *NETWORKS, LTPA)}
    assert kinds - KINDS.keys() == {"custom", "backbone"} and KINDS.keys() <= kinds
    told = {*KINDS.values(), *SETTINGS.values(), *AMOUNTS.values(), *METHODS.values()}
    rest = {"akiba2019optuna", "liaw2018tune", "paszke2019pytorch", "wightman2019timm", "holm1979", "schuirmann1987"}
    rest |= {"pocock1977", "jennison1989", "tamhane2021"}  # of seeds in sequence
    rest |= {"seabold2010statsmodels"}  # of main effects and interactions
    assert references().keys() == told | rest


@pytest.mark.parametrize("entry", [*references().values(), own()], ids=[*references(), "own"])
def test_an_entry_is_whole(entry: str) -> None:
    assert entry.count("{") == entry.count("}") and entry.isascii()
    assert {"title", "author", "year"} <= set(re.findall(r"^  (\w+) = \{.*\},?$", entry, re.MULTILINE))
    assert entry.count("\n") == len(re.findall(r"^  \w+ = \{.*\}(?:,$|$\n\})", entry, re.MULTILINE)) + 1


def test_a_search_cites_what_it_used_and_nothing_else() -> None:
    assert keys(FACTS) == [
        "tan2021expatt",
        "he2016resnet",
        "hu2018se",
        "loshchilov2017sgdr",
        "krizhevsky2009cifar",
        "deb2002nsga",
        "schmucker2021moasha",
        "akiba2019optuna",
        "liaw2018tune",
        "paszke2019pytorch",
        "wightman2019timm",
    ]
    assert bibtex(FACTS).endswith(own() + "\n")


def changed(**training: object) -> Facts:
    """One trial with another recipe."""
    record = records(1)[0]
    plain = record.config_json | {"training": record.config_json["training"] | training}
    return gather(STUDY, ATTRIBUTES, [replace(record, config_json=plain)])


def test_a_recipe_is_cited_by_its_values() -> None:
    found = keys(changed(optimizer="adamw", schedule="step", mixup=0.2, policy="rand", init="timm:resnet18"))
    assert {"loshchilov2019adamw", "zhang2018mixup", "cubuk2019rand"} <= set(found)
    assert not {"loshchilov2017sgdr", "yun2019cutmix", "devries2017cutout"} & set(found)
    assert "with AdamW, batches of 128" in methods(changed(optimizer="adamw"))
    assert "CutMix 1" in methods(changed(cutmix=1.0))


def test_the_methods_of_a_search_are_told_in_words() -> None:
    told = methods(FACTS)
    assert (
        "We trained on CIFAR-10 (10 classes, 50,000 training pictures). For each seed 10 % of the training pictures" in told
    )
    assert "trained for 20 epochs with SGD with momentum 0.9, batches of 128, a peak learning rate of 0.1 after" in told
    assert "Of 60 trials, 54 complete, 3 stopped early, 2 failed and 1 running." in told
    assert "2.9 hours in all on NVIDIA H200, with PyTorch 2.15.0, Ray 2.60.0 and Optuna 5.0.0 (commit f4ed666)." in told
    assert "\n" not in told and "  " not in told


def test_a_study_without_trials_is_cited_too() -> None:
    facts = gather(STUDY, {}, [])
    assert keys(facts)[0] == "deb2002nsga" and methods(facts).startswith("Evolution (the most promising of 64 children")


def test_a_design_tells_its_test_and_its_margin(
    make_study: Callable[..., Study], storage: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    study = make_study(strategy=AddOneIn(margin=0.02), seeds=(0, 1, 2), trial="cited_loop:run")
    (tmp_path / "cited_loop.py").write_text("def run(context):\n    yield {'accuracy': 0.8 + 0.01 * context.seed}\n")
    run_study(study, Options(storage=storage, backend="local", code=(str(tmp_path),)))
    found = CliRunner().invoke(app, ["cite", "tiny", "--storage", storage]).output
    assert {"holm1979", "schuirmann1987", "pedregosa2011sklearn"} <= set(re.findall(r"^@\w+\{(.*),", found, re.MULTILINE))
    paragraph = CliRunner().invoke(app, ["cite", "tiny", "--storage", storage, "--only", "methods"]).output
    assert "Every arm was trained with the same seeds (0, 1 and 2), hence the same split" in paragraph
    assert "with Holm's correction over 2 comparisons at a familywise level of 0.05" in paragraph
    assert "No difference larger than 2" in paragraph and "The plan was stored before training (hash " in paragraph
    assert "Trials ran the loop cited_loop:run." in paragraph
