"""--tracker: trials in other tools, by Ray Tune's own callbacks; whatever they do, the study stays as it is."""

import struct
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from ray.tune.logger import LoggerCallback
from tensorboardX.proto.event_pb2 import Event

from harness.config import Training
from harness.errors import HarnessError
from harness.execution import tracking
from harness.execution.ledger import Ledger, Running, Watcher
from harness.run import Options, run_study
from harness.storage.reader import read_records
from harness.study import Random, Study
from tests import s3

MakeStudy = Callable[..., Study]
TWO = {"training": Training(epochs=2, limit=10, precision="fp32"), "strategy": Random(trials=2)}


@pytest.fixture
def storage(tmp_path: Path) -> str:
    """A tool does not ask where the rows are."""
    return f"sqlite:///{tmp_path}/harness.db"


def scalars(folder: Path) -> dict[str, dict[int, float]]:
    """What the event files of a folder hold, by name and epoch: length, checksum, event, checksum, and so on."""
    found: dict[str, dict[int, float]] = defaultdict(dict)
    for path in sorted(folder.glob("events.*")):
        content, at = path.read_bytes(), 0
        while at < len(content):
            (size,) = struct.unpack_from("<Q", content, at)
            event = Event.FromString(content[at + 12 : at + 12 + size])
            at += 16 + size
            for value in event.summary.value:
                if value.HasField("simple_value"):
                    found[value.tag.removeprefix("ray/tune/")][event.step] = value.simple_value
    return found


class Stopping(Watcher):
    """Asks for the end after one epoch."""

    asked = False

    def advanced(self, ledger: Ledger, running: Running) -> None:
        self.asked = True


def test_with_a_store_tensorboard_writes_beside_the_database(
    make_study: MakeStudy, storage: str, tmp_path: Path, store: s3.Server
) -> None:
    options = Options(storage=storage, backend="local", trackers=("tensorboard",), runs=f"{store.bucket()}/lab")
    done = run_study(make_study(strategy=Random(trials=1)), options)
    folder = tmp_path / "runs" / "tiny" / "tracked"
    assert done.notes == (f"TensorBoard: `tensorboard --logdir {folder}`",) and len(list(folder.iterdir())) == 1


def test_tensorboard_has_every_epoch_of_every_trial_also_of_one_that_went_on(
    make_study: MakeStudy, storage: str, tmp_path: Path
) -> None:
    options = Options(storage=storage, backend="local", trackers=("tensorboard",))
    watcher = Stopping()
    cut = run_study(make_study(**TWO), options, watcher=watcher, stop=lambda: watcher.asked)
    assert (cut.trained, cut.left) == (0, 2)
    done = run_study(make_study(**TWO), options)
    assert done.complete == 2
    folder = tmp_path / "runs" / "tiny" / "tracked"
    assert done.notes == (f"TensorBoard: `tensorboard --logdir {folder}`",)
    records, folders = read_records(storage, 1), sorted(folder.iterdir())
    assert [int(path.name[:4]) for path in folders] == [0, 1]
    for record, path in zip(records, folders, strict=True):
        found = scalars(path)
        assert found["accuracy"] == pytest.approx({point.epoch: point.accuracy for point in record.curve})
        assert found["train_loss"] == pytest.approx({point.epoch: point.train_loss for point in record.curve})
        assert found["macs"] == {2: record.costs["macs"]}
        radii = {name for name in found if name.startswith("radii")}
        assert len(radii) == sum(len(heads) for heads in record.curve[-1].radii.values())


def test_the_view_of_the_run_is_told_of_everything() -> None:
    def told(kind: type) -> set[str]:
        return {name for name in vars(kind) if not name.startswith("_")}

    assert told(Watcher) <= told(tracking.Tracking)


class Fragile(LoggerCallback):
    """A tool that goes away with the second result."""

    def __init__(self) -> None:
        self.told: list[Any] = []

    def log_trial_start(self, trial: Any) -> None:
        self.told.append(dict(trial.config))

    def log_trial_result(self, iteration: int, trial: Any, result: dict[str, Any]) -> None:
        self.told.append(result["training_iteration"])
        if len(self.told) > 2:
            raise ConnectionError("https://me:secret@lab, the server\nis away")


def test_a_tool_that_fails_is_left_out_and_the_study_goes_on(
    make_study: MakeStudy, storage: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = Fragile()
    monkeypatch.setitem(tracking.PACKAGES, "mlflow", "json")
    monkeypatch.setattr(tracking, "callback", lambda name, study: one)
    done = run_study(make_study(**TWO), Options(storage=storage, backend="local", trackers=("mlflow",)))
    assert done.complete == 2 and one.told[1:] == [1, 2]
    first = read_records(storage, 1)[0]
    assert one.told[0] == {**first.params, "seed": first.seed, "trial": 0}
    (note,) = done.notes
    said = "https://me:***@lab, the server is away; it has no more of this run"
    assert note.startswith("--tracker mlflow: ") and note.endswith(said)


def test_a_tool_that_fails_at_the_very_end_is_told_of_too(
    make_study: MakeStudy, storage: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Closing(LoggerCallback):
        def on_experiment_end(self, trials: list[Any], **info: Any) -> None:
            raise ConnectionError("the server is away")

    monkeypatch.setitem(tracking.PACKAGES, "mlflow", "json")
    monkeypatch.setattr(tracking, "callback", lambda name, study: Closing())
    done = run_study(make_study(**TWO), Options(storage=storage, backend="local", trackers=("mlflow",)))
    assert done.complete == 2 and "the server is away" in done.notes[0]


def test_what_cannot_be_reached_or_is_not_there_is_one_line_before_anything_is_trained(
    make_study: MakeStudy, storage: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def begin(*trackers: str) -> None:
        run_study(make_study(**TWO), Options(storage=storage, backend="local", trackers=trackers))

    with pytest.raises(HarnessError, match="--tracker board: there are tensorboard, mlflow and wandb"):
        begin("board")
    monkeypatch.setitem(tracking.PACKAGES, "mlflow", "not_there")
    with pytest.raises(HarnessError, match="--tracker mlflow: not_there is not installed: pip install not_there"):
        begin("mlflow")
    monkeypatch.setitem(tracking.PACKAGES, "wandb", "json")
    with pytest.raises(HarnessError, match="--tracker wandb writes from processes of Ray: leave --backend local out"):
        begin("wandb")

    def unreachable(name: str, study: str) -> LoggerCallback:
        raise OSError("no route to https://me:secret@host")

    monkeypatch.setattr(tracking, "callback", unreachable)
    with pytest.raises(HarnessError, match=r"--tracker tensorboard: .*no route to https://me:[*]{3}@host"):
        begin("tensorboard")
    assert not any(record.curve for record in read_records(storage, 1))


def test_where_one_tool_cannot_be_reached_those_before_it_are_closed(
    make_study: MakeStudy, storage: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    closed: list[LoggerCallback] = []

    class Closing(LoggerCallback):
        def on_experiment_end(self, trials: list[Any], **info: Any) -> None:
            closed.append(self)

    class Away(Closing):
        def setup(self, *_: Any, **__: Any) -> None:
            raise OSError("no route")

    made = {"tensorboard": Closing(), "mlflow": Away()}
    monkeypatch.setitem(tracking.PACKAGES, "mlflow", "json")
    monkeypatch.setattr(tracking, "callback", lambda name, study: made[name])
    with pytest.raises(HarnessError, match=r"--tracker mlflow: .*no route"):
        run_study(make_study(**TWO), Options(storage=storage, backend="local", trackers=tuple(made)))
    assert made["tensorboard"] in closed
