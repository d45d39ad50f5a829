"""Shards on machines that differ: what is `auto` is settled once for all of them, so that they stay parts of one study."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from harness.config import Training
from harness.errors import StorageError, StudyError
from harness.execution.ledger import Rules
from harness.hardware import Hardware
from harness.run import Options, Summary, run_study
from harness.shard import Shard, agreed
from harness.storage.copying import copy
from harness.storage.reader import read_records, read_studies
from harness.study import Random, Study

OLD, NEW = Hardware("cpu", "fp32", tf32=False, compiler=False), Hardware("cpu", "bf16", tf32=False, compiler=True)
Run = Callable[..., Summary]


@pytest.fixture
def run(make_study: Callable[..., Study], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    def run(shard: str, here: Hardware, **training: Any) -> Summary:
        """A shard on a machine of its own, which compiles if it can."""
        monkeypatch.setattr("harness.training.device.hardware", lambda: here)
        monkeypatch.setattr("harness.run.long_enough", lambda _, hardware: hardware.compiler)
        study = make_study(training=Training(epochs=1, limit=10, **training), strategy=Random(trials=2), trial="fakes:run")
        part = Shard.parse(shard)
        return run_study(study, Options(f"sqlite:///{tmp_path}/tiny.{part.name}.db", "local", rules=Rules(shard=part)))

    (tmp_path / "fakes.py").write_text("def run(context):\n    yield {'accuracy': 0.5}\n")
    monkeypatch.syspath_prepend(tmp_path)
    return run


def test_what_is_auto_is_settled_by_the_shard_that_begins_first(run: Run, tmp_path: Path) -> None:
    assert "auto" not in " ".join(run("2/2", OLD).notes)
    (note,) = [note for note in run("1/2", NEW).notes if "auto" in note]
    assert "training.precision: 'bf16' -> 'fp32'; training.compile: True -> False" in note and f"({tmp_path}/tiny." in note
    parts, merged = [f"sqlite:///{tmp_path}/tiny.{index}-of-2.db" for index in (1, 2)], f"sqlite:///{tmp_path}/all.db"
    definitions = [read_studies(part)[0].attributes["definition"]["training"] for part in parts]
    assert definitions[0] == definitions[1] and definitions[0]["precision"] == "fp32"
    (found,) = copy(parts, merged)
    assert (found.copied, found.conflicts, len(read_records(merged, 1))) == (2, [], 2)
    assert run("1/2", NEW).left == 0  # goes on as it is stored


def test_a_machine_that_cannot_do_what_is_settled_says_so(run: Run) -> None:
    run("1/2", NEW)
    with pytest.raises(StudyError, match=r"Training\.compile = True: there is no C\+\+ compiler"):
        run("2/2", OLD)


def test_what_is_asked_for_by_name_is_nobody_elses_to_settle(run: Run, tmp_path: Path) -> None:
    run("1/2", OLD, precision="fp32", compile=False)
    assert not [note for note in run("2/2", NEW, precision="fp32", compile=False).notes if "auto" in note]
    run("1/1", NEW)  # another recipe of the name agrees with its own siblings alone
    assert (
        read_studies(f"sqlite:///{tmp_path}/tiny.1-of-1.db")[0].attributes["definition"]["training"]["precision"] == "bf16"
    )


def test_a_disk_without_links_will_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def link(*_: object) -> None:
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr("os.link", link)
    assert [agreed(tmp_path / "settled.json", {"number": number}) for number in (1, 2)] == [{"number": 1}] * 2
    assert [path.name for path in tmp_path.iterdir()] == ["settled.json"]


def test_shards_that_begin_at_one_instant_agree(tmp_path: Path) -> None:
    def begin(number: int) -> dict[str, Any]:
        return agreed(tmp_path / "settled.json", {"number": number})

    with ThreadPoolExecutor(16) as pool:
        found = list(pool.map(begin, range(200)))
    assert all(one == found[0] for one in found)
    assert [path.name for path in tmp_path.iterdir()] == ["settled.json"]
    (tmp_path / "settled.json").write_text("{")
    with pytest.raises(StorageError, match=r"settled\.json: JSONDecodeError: .* or remove the file$"):
        begin(0)
