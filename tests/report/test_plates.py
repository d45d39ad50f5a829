"""Figures for papers: numbers against hand-made records, vectors without rasters, fonts that go along."""

import csv
import io
import re
import sys
import zlib
from dataclasses import replace
from pathlib import Path
from xml.etree import ElementTree

import pytest

from harness.errors import HarnessError
from harness.report.facts import gather
from harness.report.plates import COLUMN, PAGE, Plate, plates, write
from harness.study import Exhaustive
from tests.report.sample import ATTRIBUTES, STUDY, records
from tests.report.test_facts import FOUR, SMALL, made

SEARCH = gather(STUDY, ATTRIBUTES, records())
ARMS = gather(
    SMALL.model_copy(update={"strategy": Exhaustive(), "seeds": (0, 1, 2)}),
    {},
    [replace(made(0, 0.9 + 0.02 * seed), number=seed, seed=seed) for seed in range(3)]
    + [replace(made(1, 0.95, 200, 2000), number=3 + seed, seed=seed) for seed in range(3)],
)


def table(plate: Plate) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(plate.csv())))


def test_fronts_hold_the_numbers_of_the_page() -> None:
    by_params, by_macs = plates(gather(SMALL, {}, FOUR), "front")
    assert (by_params.name, by_macs.name) == ("front-params", "front-macs")
    told = [(row["trials"], float(row["macs"]), float(row["accuracy"]), row["place"]) for row in table(by_macs)]
    assert told == [("2", 1000, 0.945, "front"), ("1", 2000, 0.95, "front"), ("0", 1000, 0.9, "beaten")]
    first, *_ = table(plates(ARMS, "front")[0])
    # Student's t with two degrees of freedom over 0.90, 0.92, 0.94
    assert first["trials"] == "0 1 2" and float(first["half of 95 % interval"]) == pytest.approx(0.0496828)


def test_effects_are_paired_differences_with_every_seed() -> None:
    (plate,) = plates(ARMS, "effects")
    mean, *seeds = table(plate)
    assert [float(row["difference"]) for row in seeds] == pytest.approx([0.05, 0.03, 0.01])
    # mean 0.03, deviation 0.02: 4.302653 * 0.02 / sqrt(3) to either side
    found = [float(mean[name]) for name in ("difference", "low", "high")]
    assert found == pytest.approx([0.03, 0.03 - 0.0496828, 0.03 + 0.0496828], abs=1e-6)


def test_radii_are_told_epoch_by_epoch() -> None:
    (plate,) = plates(SEARCH, "radii")
    rows = table(plate)
    trial = next(trial for trial in SEARCH.trials if trial.record.curve and trial.record.curve[0].radii)
    place, values = next(iter(trial.record.curve[2].radii.items()))
    stage, block = place.split(".")
    own = {"trial": str(trial.number), "stage": f"stage {stage}", "block": block, "head": "1", "epoch": "3"}
    (found,) = [row for row in rows if own.items() <= row.items()]
    assert float(found["radius"]) == values[0]


def test_what_is_not_there_is_one_line() -> None:
    for name, words in (("effects", "compares no arms"), ("radii", "no trial of study 'small' has a learned radius")):
        with pytest.raises(HarnessError, match=words):
            plates(gather(SMALL, {}, FOUR), name)  # type: ignore[arg-type]
    with pytest.raises(HarnessError, match="no two complete trials of different costs"):
        plates(gather(SMALL, {}, []), "front")


def test_vectors_hold_no_rasters_and_their_fonts(tmp_path: Path) -> None:
    found = [plates(SEARCH, "front")[0], *plates(ARMS, "effects"), *plates(SEARCH, "radii")]
    for path in write(found, tmp_path, "s", "svg", COLUMN):
        if path.suffix == ".svg":
            tree = ElementTree.fromstring(path.read_text())
            assert tree.get("width") == f"{COLUMN * 72:g}pt"
            tags = {element.tag.partition("}")[2] for element in tree.iter()}
            assert "path" in tags and not tags & {"image", "text"}
    for path in write(found, tmp_path, "s", "pdf", PAGE):
        if path.suffix == ".pdf":
            content = path.read_bytes()
            size = re.search(rb"/MediaBox \[ 0 0 ([\d.]+)", content)
            assert size is not None and float(size[1]) == pytest.approx(PAGE * 72, abs=0.1)
            streams = [part.partition(b"endstream")[0] for part in content.split(b"stream\n")[1:]]
            opened = content + b"".join(zlib.decompressobj().decompress(part) for part in streams if part[:1] == b"x")
            assert b"/FontFile2" in opened and b"/Subtype /Image" not in opened and b"/Type3" not in opened
    (picture, data) = write(found[1:2], tmp_path, "s", "png", COLUMN)
    assert picture.read_bytes()[:4] == b"\x89PNG" and data.name == "s-effects.csv"
    before = picture.read_bytes()
    assert write(found[1:2], tmp_path, "s", "png", COLUMN)[0].read_bytes() == before


def test_without_matplotlib_the_remedy_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(HarnessError, match=r"pip install 'attention-harness\[figures\]'") as told:
        write(plates(ARMS, "effects"), tmp_path, "s", "pdf", COLUMN)
    assert "\n" not in str(told.value)
