"""A design of 24 cells in four parts side by side, one of them killed and begun again: merged, it is the whole study."""

from collections.abc import Callable
from typing import Any

import pytest
from lab import STUDY, THREE, Driver, Lab

from harness.storage.copying import copy
from harness.storage.reader import read_records, read_studies

SPACE = """
attention = choose(None, *(SqueezeExcite(ratio=ratio, label="se" + str(ratio)) for ratio in (2, 4, 8, 16)), ExpAtt())
SPACE = vary(ResNet, depth=8, width={width}, stages=(None, None, attention))
"""
KINDS = {
    "fakes": {"training": "Training(epochs=3)", "trial": "fakes:run"},
    "digits": {"training": 'Training(epochs=2, limit=20, batch_size=32, precision="fp32")', "trial": None},
}


def design(kind: str, strategy: str = "AddOneIn()", seeds: str = "(0, 1, 2, 3)") -> str:
    """Six arms, the bare network among them."""
    space = SPACE.format(width=0.5 if kind == "digits" else 1.0)
    text = STUDY.format(name="cells", space=space, strategy=strategy, stopping=None, objectives=THREE, **KINDS[kind])
    return "from harness.design import AddOneIn\n" + text.replace("    stopping=None,\n", f"    seeds={seeds},\n")


def part(lab: Lab, shard: str, *options: str, **environment: object) -> Driver:
    plain = {name: str(value) for name, value in environment.items()}
    words = ("run", "studies/study.py", "--backend", "local", "--shard", shard, *options)
    lab.drivers.append(Driver(lab, words, False, plain))
    return lab.drivers[-1]


def rows(url: str) -> dict[str, Any]:
    """What there is of each key, times apart."""
    return {
        record.key: (
            record.state,
            record.seed,
            record.params,
            record.costs,
            {name: value for name, value in record.metrics.items() if name in ("accuracy", "loss")},
            record.provenance.get("weights"),
            [(point.epoch, point.accuracy, point.loss) for point in record.curve],
        )
        for record in read_records(url, 1)
    }


@pytest.mark.parametrize("kind", ["fakes", pytest.param("digits", marks=pytest.mark.faults_long)])
def test_four_shards_are_the_whole_study(make_lab: Callable[[str, str], Lab], kind: str) -> None:
    lab = make_lab(design(kind), f"kill -9 of one of four shards ({kind})")
    shards = [part(lab, f"{index}/4", FAKE_PAUSE=0.05) for index in range(1, 5)]
    folder, victim = lab.folder / "shards", shards[2]
    lab.wait_for(victim, lambda: list((folder / "runs" / "3-of-4").rglob("*")) != [] or "[2/6]" in victim.printed)
    assert victim.shoot()
    assert [shards[index].wait() for index in (0, 1, 3)] == [0, 0, 0], [shard.printed for shard in shards]
    sources, merged = [f"sqlite:///{path}" for path in sorted(folder.glob("*.db"))], f"sqlite:///{lab.folder}/all.db"
    (found,) = copy(sources, merged)
    assert 18 <= found.copied < 24 and found.left <= 1  # none where it was shot between two trials
    assert found.notes == ["1 trial is not finished and stays behind"] * found.left
    status = Driver(lab, ("status", "cells", "--storage", merged), False, {})
    assert "of the plan missing:" in status.end() and "seed 2" in status.printed, status.printed

    again = part(lab, "3/4")
    assert again.wait() == 0 and "harness copy 'shards/cells.*-of-4.db' all.db" in again.printed, again.printed
    (found,) = copy(sources, merged)
    assert found.conflicts == [] and found.notes == []
    (stored,) = read_studies(merged)
    assert stored.counts == {"complete": 24} and "shard" not in stored.attributes
    lab.run_to_the_end()
    assert rows(merged) == rows(f"sqlite:///{lab.database}") and len(rows(merged)) == 24
    last = Driver(lab, ("run", "studies/study.py", "--backend", "local", "--storage", merged), False, {})
    assert "nothing to train, all 24 trials are finished" in last.end(), last.printed
    lab.epochs_log.write_text("")  # which tells no seeds apart, and has the whole study in it too
    lab.assert_whole(24, caused=1)


@pytest.mark.parametrize(
    ("strategy", "seeds", "count", "options", "said"),
    [
        ("Random(trials=5)", "(0,)", 3, (), "one cell in 3"),
        ("Exhaustive()", "(0,)", 2, (), "one cell in 2"),
        ("AddOneIn()", "(0, 1)", 3, ("--split-arms",), "one cell in 3"),
    ],
)
def test_what_looks_at_no_results_is_dealt(
    make_lab: Callable[[str, str], Lab], strategy: str, seeds: str, count: int, options: tuple[str, ...], said: str
) -> None:
    lab = make_lab(design("fakes", strategy, seeds), "shards that are dealt")
    drivers = [part(lab, f"{index}/{count}", *options) for index in range(1, count + 1)]
    assert [driver.wait() for driver in drivers] == [0] * count, [driver.printed for driver in drivers]
    assert said in drivers[0].printed
    sources, merged = (
        [f"sqlite:///{path}" for path in (lab.folder / "shards").glob("*.db")],
        f"sqlite:///{lab.folder}/all.db",
    )
    (found,) = copy(sources, merged)
    assert found.there == 0, "shards overlap"
    lab.run_to_the_end()
    assert rows(merged) == rows(f"sqlite:///{lab.database}")


def test_searches_of_their_own(make_lab: Callable[[str, str], Lab]) -> None:
    text = design("fakes", "Evolution(trials=5, population=2)", "(0,)")
    lab = make_lab(text.replace("ratio in (2, 4, 8, 16)", "ratio in range(1, 17)"), "shards that search")
    for index, count in ((1, 3), (2, 2)):
        driver = part(lab, f"{index}/2")
        assert driver.wait() == 0 and f"{count} of 5 trials" in driver.printed, driver.printed
        assert len(read_records(f"sqlite:///{lab.folder}/shards/cells.{index}-of-2.db", 1)) == count


@pytest.mark.parametrize(
    ("shard", "options", "said"),
    [
        ("5/5", (), "the design has 4 seeds, and a seed's arms stay together to be compared, so use 4 shards at most"),
        ("0/4", (), "write a part and how many there are, as in 3/32"),
        ("1/4", ("--storage", "sqlite:///whole.db"), "the database holds the whole of it"),
    ],
)
def test_what_cannot_be_a_shard(
    make_lab: Callable[[str, str], Lab], shard: str, options: tuple[str, ...], said: str
) -> None:
    lab = make_lab(design("fakes"), "no shard")
    if options:
        first = Driver(lab, ("run", "studies/study.py", "--backend", "local", "--trials", "1", *options), False, {})
        assert first.wait() == 0, first.printed
    driver = part(lab, shard, *options)
    assert driver.wait() == 2 and said in driver.printed, driver.printed
    assert not (lab.folder / "shards").exists()
