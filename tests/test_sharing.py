"""How many trials share a GPU: by what is free and what a trial takes, with a driver of GPUs that are not there."""

import contextlib
import os
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.config import Config, ResNet, Training
from harness.cost import Shape
from harness.errors import HarnessError
from harness.execution.backend import Resources
from harness.execution.ledger import Ledger, Rules, Running, Watcher
from harness.gpus import Gpu, holds_pictures, tensors_share
from harness.hardware import Hardware
from harness.preflight import Checked, checked
from harness.run import Options, run_study
from harness.sharing import HEADROOM, Sharing, assert_sensible, decide, fitting, largest, measure, packed, settled
from harness.space import choose, vary
from harness.storage.lease import ask_to_stop
from harness.storage.reader import read_studies
from harness.study import Random, Study, at_most
from tests.gpus import GB, DriveGpus

MakeStudy = Callable[..., Study]
AUTO = Resources(gpus_per_trial="auto")


@pytest.fixture(autouse=True)
def eight_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("harness.sharing.cores", lambda: 8)


def gpus(*free: float) -> list[Gpu]:
    return [Gpu(number, f"GPU-{number}", "H100", int(one * GB), 80 * GB) for number, one in enumerate(free)]


# -- packing ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("need", "free", "given", "count", "why"),
    [
        (10, (80,), {}, 7, ": 7 at once on it (its memory holds 7)"),
        (
            10,
            (80, 40),
            {},
            3,
            "10.0 GB of H100; 40.0 GB are free on GPU 1, the least: 3 at once on each (its memory holds 3)",
        ),
        (1, (80,), {}, 8, "(8 cores, 1 a trial; its memory holds 72)"),
        (1, (80, 80), {}, 4, "4 at once on each (8 cores, 1 a trial; its memory holds 72)"),
        (1, (80,), {"cpus_per_trial": 3}, 2, "(8 cores, 3 a trial; its memory holds 72)"),
        (1, (80,) * 16, {}, 1, "1 at once on each (8 cores, 1 a trial"),
        (10, (80, 80), {"concurrency": 3}, 2, "2 at once on each (--concurrency 3; its memory holds 7)"),
        (70, (80,), {}, 1, "(its memory holds 1)"),
        (73, (80,), {}, 1, "takes 73.0 GB of H100; 80.0 GB are free on GPU 0: 1 at once on it (and it may fail)"),
        (None, (80,), {}, 1, "takes too much of H100; 80.0 GB are free on GPU 0: 1 at once on it (and it may fail)"),
    ],
)
def test_as_many_as_fit_into_what_is_free(
    need: int | None, free: tuple[float, ...], given: dict[str, int], count: int, why: str
) -> None:
    found = decide(need and need * GB, 0, gpus(*free), Resources(gpus_per_trial="auto", **given))
    assert found.count == count
    assert why in found.words and "\n" not in found.words


@given(
    need=st.integers(10**6, 100 * GB),
    pictures=st.integers(0, 5 * GB),
    free=st.lists(st.floats(0.1, 80), min_size=1, max_size=8),
)
def test_what_shares_a_gpu_fits_into_it(need: int, pictures: int, free: list[float]) -> None:
    found = decide(need, pictures, gpus(*free), AUTO)
    least = min(free) * GB
    assert found.count >= 1 and found.count * len(free) <= max(8, len(free))
    if found.count > 1:
        if holds_pictures(pictures, tensors_share(found.memory, 80 * GB) * 80 * GB):
            need += pictures
        assert found.count * need <= (1 - HEADROOM) * least
        assert need <= found.memory * 80 * GB + 1, "a trial's share holds what was measured"
        assert found.count * found.memory * 80 * GB <= (1 - HEADROOM) * least + 1, "all shares together fit"
    else:
        assert found.memory == 1.0


@pytest.mark.parametrize(
    ("need", "pictures", "count", "taken"),
    [
        (4, 3, 10, "7.0 GB"),  # 7.2 GB each, 6.6 for tensors: twice 3
        (4, 4, 18, "4.0 GB"),  # 8 GB each, 7.4 for tensors: not twice 4, so 4 GB each
        (4, 35, 18, "4.0 GB"),  # alone it would hold them
        (30, 10, 1, "40.0 GB"),  # of two, each would hold them, and would have too little
        (30, 41, 2, "30.0 GB"),
    ],
)
def test_pictures_are_counted_where_the_worker_holds_them(
    need: int, pictures: int, count: int, taken: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of 80 GB: what a worker finds that it may take is what was divided by."""
    monkeypatch.setattr("harness.sharing.cores", lambda: 64)
    found = decide(need * GB, pictures * GB, gpus(80), AUTO)
    allowed = tensors_share(found.memory, 80 * GB) * 80 * GB
    assert (found.count, taken in found.words) == (count, True), found.words
    assert holds_pictures(pictures * GB, allowed) == (taken == f"{need + pictures}.0 GB")


def test_more_cores_never_give_fewer_trials(monkeypatch: pytest.MonkeyPatch) -> None:
    found = []
    for number in (1, 2, 6, 12, 64):
        monkeypatch.setattr("harness.sharing.cores", lambda number=number: number)
        found.append(fitting(20, 2, AUTO)[0])
    assert found == [1, 1, 3, 6, 20]


# -- what is measured -------------------------------------------------------------------------------------------------


def made(make_study: MakeStudy, tmp_path: Path, **fields: Any) -> Checked:
    return checked(make_study(**fields), f"sqlite:///{tmp_path}/harness.db", tmp_path)


def test_the_largest_are_those_with_most_pictures_times_macs_and_most_parameters(
    make_study: MakeStudy, tmp_path: Path
) -> None:
    found = made(
        make_study,
        tmp_path,
        space=vary(ResNet, depth=choose(8, 14), width=choose(1.0, 2.0)),
        training=vary(Training, batch_size=choose(32, 256), accumulate=choose(1, 8), epochs=1, limit=20, precision="fp32"),
        strategy=Random(trials=2),
    )
    first, *_, most = largest(found)
    assert (first.network.depth, first.network.width) == (14, 2.0)
    assert (first.training.batch_size, first.training.accumulate) == (256, 1)
    assert found.price(most).params == max(found.price(one).params for one in largest(found))
    assert (most.network.depth, most.network.width) == (14, 2.0)


def test_what_breaks_a_bound_is_not_measured(make_study: MakeStudy, tmp_path: Path) -> None:
    space = vary(ResNet, depth=8, width=choose(0.5, 1.0, 2.0))
    found = made(make_study, tmp_path, space=space, strategy=Random(trials=2), constraints=(at_most("params", 100_000),))
    assert {config.network.width for config in largest(found)} == {0.5, 1.0}


def test_a_step_that_cannot_be_measured_is_one_line() -> None:
    """The real process, which finds no GPU of this name."""
    with pytest.raises(HarnessError, match=r"^--gpus-per-trial auto: a training step cannot be measured \(.+\); name"):
        measure([Config(network=ResNet(depth=8))], Shape(1, 8, 8, 10), gpus(80)[0], 1)


# -- a run ------------------------------------------------------------------------------------------------------------


MEASURES = "--gpus-per-trial auto: measures a training step of the largest configs on GPU 2"


class Told(Watcher):
    """Remembers how GPUs are shared."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def shares(self, words: str) -> None:
        self.lines.append(words)


@pytest.fixture
def hardware(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a process would say that loads torch to look."""
    monkeypatch.setattr("harness.run.hardware_here", lambda gpu: Hardware("cpu", "fp32", tf32=False, compiler=False))


class Ending(Told):
    """Asks for the end once a step is measured, in one of the ways there are."""

    def __init__(self, storage: str, way: str) -> None:
        super().__init__()
        self.storage, self.way, self.since = storage, way, 0.0

    def shares(self, words: str) -> None:
        super().shares(words)
        self.since = time.monotonic()
        if self.way == "harness stop":
            ask_to_stop(self.storage, 1)

    def asked(self) -> bool:
        """Ctrl-C, once the process that measures is there."""
        return self.way == "Ctrl-C" and bool(measuring())


def measuring() -> list[str]:
    """Processes that measure a step for this one."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            parent = (folder / "stat").read_text().rpartition(")")[2].split()[1]
            if parent == str(os.getpid()) and b"harness.measure.footprint" in (folder / "cmdline").read_bytes():
                found.append(folder.name)
    return found


@pytest.mark.parametrize("way", ["Ctrl-C", "harness stop", "--for"])
def test_who_measures_ends_at_once_and_goes_on_later(
    make_study: MakeStudy, tmp_path: Path, drive_gpus: DriveGpus, hardware: None, way: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The real process, which takes longer than that to load torch, and which a fault holds up for a minute."""
    held = tmp_path / "held"
    held.mkdir()
    (held / "sitecustomize.py").write_text("import sys, time\nif 'footprint' in str(sys.orig_argv): time.sleep(60)\n")
    monkeypatch.setenv("PYTHONPATH", str(held))
    drive_gpus(40 * GB)
    storage = f"sqlite:///{tmp_path}/harness.db"
    watcher = Ending(storage, way)
    rules = Rules(seconds=1.5) if way == "--for" else Rules()
    done = run_study(
        make_study(), Options(storage=storage, resources=AUTO, rules=rules), watcher=watcher, stop=watcher.asked
    )
    assert time.monotonic() - watcher.since < 10 and not measuring()
    assert (done.trained, done.left, done.late) == (0, 4, way == "--for")
    assert len(watcher.lines) == 1 and "sharing" not in read_studies(storage)[0].attributes


@pytest.fixture
def measured(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The GPUs that were measured on, where a trial takes 9 GB."""
    seen: list[str] = []

    def one(configs: Sequence[Config], shape: Shape, gpu: Gpu, threads: int, stop: Callable[[], bool]) -> int:
        assert not stop() and configs and shape == (1, 8, 8, 10) and threads == 1
        seen.append(gpu.uuid)
        return 9 * GB

    monkeypatch.setattr("harness.run.measure", one)
    return seen


def test_a_run_measures_once_and_looks_anew_at_what_is_free(
    make_study: MakeStudy, storage: str, measured: list[str], drive_gpus: DriveGpus, hardware: None
) -> None:
    """Each run ends once it is decided how GPUs are shared."""
    driver = drive_gpus(20 * GB, 50 * GB, 70 * GB, 80 * GB)
    options = Options(storage=storage, resources=Resources(gpus_per_trial="auto", gpus=(1, 2)))

    def decided() -> list[str]:
        told = Told()
        done = run_study(make_study(), options, watcher=told, stop=lambda: "at once on each" in str(told.lines))
        assert (done.trained, done.left) == (0, 4)
        return told.lines

    lines = decided()
    (kept,) = [stored.attributes["sharing"] for stored in read_studies(storage)]
    assert Sharing(**kept).count == 4 and kept["bytes"] == 9 * GB and kept["gpu"] == driver.name
    assert lines == [MEASURES, kept["words"]] and "50.0 GB are free on GPU 1, the least" in kept["words"]
    assert measured == ["GPU-22aa-bb"], "on the one with most room"

    driver.free[1] = 30 * GB
    (line,) = decided()
    assert "30.0 GB are free on GPU 1, the least: 2 at once on each" in line
    driver.name = "another"
    assert len(decided()) == 2 and len(measured) == 2, "another kind of GPU is another measurement"


def test_a_backend_that_was_opened_to_be_asked_is_opened_again_with_what_was_measured(
    make_study: MakeStudy, storage: str, measured: list[str], drive_gpus: DriveGpus, monkeypatch: pytest.MonkeyPatch
) -> None:
    drive_gpus(80 * GB)
    seen: list[str] = []

    @contextlib.contextmanager
    def opened(options: Options, *_: Any) -> Iterator[Any]:
        share = options.resources.gpus_per_trial
        seen.append(f"opened {share if isinstance(share, str) else f'1 in {1 / (share or 1):.0f}'}")
        backend = SimpleNamespace(hardware=lambda: Hardware("cuda", "bf16", True, False), run=lambda _: seen.append("run"))
        yield backend
        seen.append("closed")

    monkeypatch.setattr("harness.run.opened", opened)
    monkeypatch.setattr("harness.run.hardware_here", lambda gpu: None)
    run_study(make_study(), Options(storage=storage, resources=Resources(gpus_per_trial="auto")))
    (kept,) = [stored.attributes["sharing"]["count"] for stored in read_studies(storage)]
    assert kept > 1 and seen == ["opened auto", "closed", f"opened 1 in {kept}", "run", "closed"]


def test_what_was_decided_is_what_trials_get(make_study: MakeStudy, tmp_path: Path, drive_gpus: DriveGpus) -> None:
    drive_gpus(20 * GB, 25 * GB)
    resources, sharing = packed(AUTO, made(make_study, tmp_path), lambda *_: 2 * GB)
    assert sharing.count == 4
    assert (resources.share, resources.concurrency) == (0.25, 8)
    assert resources.memory_share == pytest.approx(0.9 * 20 / 4 / 80)


def test_three_on_a_gpu_are_three_for_ray(make_study: MakeStudy, tmp_path: Path, drive_gpus: DriveGpus) -> None:
    drive_gpus(11 * GB)
    resources, _ = packed(AUTO, made(make_study, tmp_path), lambda *_: 3 * GB)
    assert resources.share == 0.3333 and 3 * resources.share <= 1 < 4 * resources.share


def test_who_trains_one_trial_at_a_time_divides_nothing(
    make_study: MakeStudy, storage: str, measured: list[str], drive_gpus: DriveGpus
) -> None:
    """Its whole GPU is also there for a trial that needs more than was measured."""
    drive_gpus(80 * GB)
    shares: list[float] = []

    class Handed(Told):
        def began(self, ledger: Ledger, running: Running) -> None:
            shares.append(running.assignment.memory)

    told = Handed()
    done = run_study(
        make_study(strategy=Random(trials=1)), Options(storage=storage, backend="local", resources=AUTO), watcher=told
    )
    assert done.complete == 1 and shares == [1.0] and not measured
    assert told.lines == [
        "--gpus-per-trial auto: --backend local trains one trial at a time, with all the memory that is free on its GPU"
    ]


def test_without_gpus_trials_run_on_cores(make_study: MakeStudy, storage: str, drive_gpus: DriveGpus) -> None:
    drive_gpus()
    told = Told()
    options = Options(storage=storage, backend="local", resources=AUTO)
    done = run_study(make_study(strategy=Random(trials=1)), options, watcher=told)
    assert done.complete == 1 and "no GPU tells its memory" in told.lines[0]


@pytest.mark.parametrize(
    ("resources", "said"),
    [
        (Resources(gpus_per_trial=4), "--gpus-per-trial 4: this machine has 1 to use; name as many, or fewer"),
        (Resources(gpus_per_trial=1.5), "--gpus-per-trial 1.5: a trial has a share of one GPU, as 0.5, or whole ones, as 2"),
        (Resources(gpus=(2,)), "--gpus 2: there is no GPU 2 to use; this machine has 0"),
        (Resources(gpus=(0,), address="auto"), "--gpus chooses GPUs of this machine, and --address auto names a cluster"),
        (Resources(gpus_per_trial="auto", address="auto"), "a fixed share works there"),
    ],
)
def test_what_cannot_be_given_is_one_line(drive_gpus: DriveGpus, resources: Resources, said: str) -> None:
    drive_gpus(GB)
    with pytest.raises(HarnessError, match=said):
        assert_sensible(resources)


def test_a_loop_of_ones_own_is_not_measured(make_study: MakeStudy, tmp_path: Path, drive_gpus: DriveGpus) -> None:
    (tmp_path / "unmeasured.py").write_text("def run(context):\n    yield {'accuracy': 1.0}\n")
    drive_gpus(GB, GB)
    found = checked(make_study(trial="unmeasured:run"), f"sqlite:///{tmp_path}/harness.db", tmp_path, (str(tmp_path),))
    with pytest.raises(HarnessError, match=r"--gpus-per-trial 2: our own loop shares batches .* unmeasured:run does not"):
        settled(Resources(gpus_per_trial=2), found.study)
    with pytest.raises(HarnessError, match=r"it measures steps of our own loop, and the study has unmeasured:run"):
        settled(AUTO, found.study)


def test_shares_of_memory_follow_shares_of_gpus() -> None:
    assert Resources(gpus_per_trial=0.25).memory_share == 0.25
    assert Resources().memory_share == Resources(gpus_per_trial=0).memory_share == 1.0
    assert Resources(gpus_per_trial=0.5, memory=0.1).memory_share == 0.1
    assert [Resources(gpus_per_trial=share).devices for share in (None, "auto", 0, 0.5, 1, 4)] == [1, 1, 1, 1, 1, 4]
    assert Resources(gpus_per_trial=4).memory_share == 1.0
