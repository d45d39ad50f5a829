"""Which GPUs there are and which are used, by what a driver says; and the cores that a process is granted."""

import os
import subprocess
import sys

import pytest

from harness import gpus
from harness.cli.options import GPU_NUMBERS, numbers
from harness.errors import HarnessError
from harness.gpus import allowed, chosen, only, present
from harness.hardware import cores
from tests.gpus import GB, DriveGpus


def test_where_there_is_no_driver_there_are_no_gpus(monkeypatch: pytest.MonkeyPatch) -> None:
    import pynvml

    def missing() -> None:
        raise pynvml.NVMLError(pynvml.NVML_ERROR_LIBRARY_NOT_FOUND)

    monkeypatch.setattr(pynvml, "nvmlInit", missing)
    monkeypatch.setattr(gpus, "_driver", gpus._driver.__wrapped__)
    assert present() == () and chosen(None) == () and gpus.joules("GPU-0") is None


def test_a_driver_tells_what_is_free(drive_gpus: DriveGpus) -> None:
    drive_gpus(70 * GB, None, 20 * GB)
    assert [(gpu.number, gpu.free) for gpu in present()] == [(0, 70 * GB), (2, 20 * GB)]
    assert gpus.joules("GPU-2aa") == 5.002


@pytest.mark.parametrize(
    ("visible", "numbers"),
    [
        (None, [0, 1, 2, 3]),
        ("2,3", [2, 3]),
        ("3, 1", [3, 1]),
        ("", []),
        ("-1", []),
        ("1,-1,2", [1]),
        ("GPU-22aa,0", [2, 0]),
        ("GPU-2", [2]),
        ("9", []),
        ("NoDevFiles", []),
    ],
)
def test_what_others_have_chosen_holds(drive_gpus: DriveGpus, visible: str | None, numbers: list[int]) -> None:
    drive_gpus(*[GB] * 4, visible=visible)
    assert [gpu.number for gpu in allowed(present())] == numbers


@pytest.mark.parametrize(
    ("wanted", "visible", "said"),
    [
        ((4,), None, r"--gpus 4: there is no GPU 4 to use; this machine has 0, 1, 2, 3"),
        ((1, 7), None, r"--gpus 1,7: there is no GPU 7 to use"),
        ((0,), "2,3", r"--gpus 0: there is no GPU 0 to use; CUDA_VISIBLE_DEVICES=2,3 leaves 2, 3"),
        ((0,), "", r"CUDA_VISIBLE_DEVICES= leaves none"),
    ],
)
def test_a_gpu_that_is_not_there_is_refused(drive_gpus: DriveGpus, wanted: tuple[int, ...], visible: str, said: str) -> None:
    drive_gpus(*[GB] * 4, visible=visible)
    with pytest.raises(HarnessError, match=said):
        chosen(wanted)


def test_numbers_of_gpus_are_read() -> None:
    assert numbers("2,3", "--gpus", GPU_NUMBERS) == (2, 3) and numbers(" 3 , 1,3", "--gpus", GPU_NUMBERS) == (3, 1)
    for wrong in ("", "2;3", "a", "-1", "1.5", "2,", "\N{SUPERSCRIPT TWO}"):
        with pytest.raises(HarnessError, match=r"--gpus .*write numbers"):
            numbers(wrong, "--gpus", GPU_NUMBERS)


@pytest.mark.parametrize("visible", [None, "1,2,3"])
def test_what_is_started_sees_the_chosen_alone(drive_gpus: DriveGpus, visible: str | None) -> None:
    drive_gpus(*[GB] * 4, visible=visible)
    asked = "import os; print(os.environ['CUDA_VISIBLE_DEVICES'], os.environ['CUDA_DEVICE_ORDER'])"
    with only((3, 2)):
        done = subprocess.run([sys.executable, "-c", asked], capture_output=True, text=True, check=True)
        assert done.stdout.split() == ["3,2", "PCI_BUS_ID"]
        assert [gpu.number for gpu in chosen(None)] == [3, 2]
    assert os.environ.get("CUDA_VISIBLE_DEVICES") == visible and "CUDA_DEVICE_ORDER" not in os.environ
    with only(None):
        assert os.environ.get("CUDA_VISIBLE_DEVICES") == visible


def test_a_process_that_uses_gpus_already_cannot_choose(drive_gpus: DriveGpus, monkeypatch: pytest.MonkeyPatch) -> None:
    import torch

    drive_gpus(GB, GB)
    monkeypatch.setattr(torch.cuda, "is_initialized", lambda: True)
    with pytest.raises(HarnessError, match="this process uses GPUs already"), only((1,), here=True):
        pass
    with only((1,)):
        assert os.environ["CUDA_VISIBLE_DEVICES"] == "1"


# -- cores ------------------------------------------------------------------------------------------------------------

HERE = len(os.sched_getaffinity(0))


@pytest.fixture
def no_slurm(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("SLURM_CPUS_PER_TASK", "SLURM_CPUS_ON_NODE"):
        monkeypatch.delenv(name, raising=False)


@pytest.mark.usefixtures("no_slurm")
@pytest.mark.parametrize(
    ("slurm", "granted"),
    [
        ({}, HERE),
        ({"SLURM_CPUS_PER_TASK": "1"}, 1),
        ({"SLURM_CPUS_ON_NODE": "1"}, 1),
        ({"SLURM_CPUS_PER_TASK": "512"}, HERE),
        ({"SLURM_CPUS_PER_TASK": "1", "SLURM_CPUS_ON_NODE": "512"}, 1),
        ({"SLURM_CPUS_PER_TASK": "0"}, HERE),
        ({"SLURM_CPUS_PER_TASK": "many"}, HERE),
    ],
)
def test_slurm_grants_cores_without_holding_anybody_to_them(
    monkeypatch: pytest.MonkeyPatch, slurm: dict[str, str], granted: int
) -> None:
    for name, value in slurm.items():
        monkeypatch.setenv(name, value)
    assert cores() == granted


@pytest.mark.usefixtures("no_slurm")
def test_an_affinity_mask_is_a_grant() -> None:
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(before)})
    try:
        assert cores() == 1
    finally:
        os.sched_setaffinity(0, before)
