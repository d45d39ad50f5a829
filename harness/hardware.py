"""What the devices of a study's trials can do, and whether a trial on them is long enough to be compiled."""

import json
import os
import subprocess
import sys
from typing import Literal, NamedTuple

from harness.gpus import VISIBLE


class Hardware(NamedTuple):
    """A device as a worker finds it."""

    device: Literal["cpu", "cuda"]
    precision: str
    """The fastest it multiplies in: bf16 or fp32."""
    tf32: bool
    compiler: bool
    """Whether torch.compile has the C++ compiler that it needs."""


def cores() -> int:
    """Cores that this process is granted: by its affinity mask, by the quota of its container, and by Slurm, which may count
    without holding anybody to it."""
    from joblib import cpu_count

    granted = [os.environ.get(name, "") for name in ("SLURM_CPUS_PER_TASK", "SLURM_CPUS_ON_NODE")]
    by_slurm = next((int(number) for number in granted if number.isdigit() and int(number)), None)
    here: int = cpu_count()
    return here if by_slurm is None else min(here, by_slurm)


ASK = "import json; from harness.training.device import hardware; print(json.dumps(hardware()))"


def hardware_here(*, gpu: bool = True) -> Hardware | None:
    """What a trial on this machine would run on, with a GPU if there is one or without; asked of a process of its own, as
    torch is slow to load and would keep hold of the GPU. None where it does not say."""
    hidden = {} if gpu else {VISIBLE: ""}
    try:
        asked = [sys.executable, "-c", ASK]
        done = subprocess.run(asked, env=os.environ | hidden, capture_output=True, text=True, check=True, timeout=120)
        return Hardware(*json.loads(done.stdout.splitlines()[-1]))
    except (OSError, subprocess.SubprocessError, ValueError, IndexError, TypeError):
        return None


class Compiling(NamedTuple):
    """What compiling costs and wins on a kind of device."""

    seconds: float
    """Of compiling one network, with an empty cache."""
    gain: float
    """Share of a trial's seconds that it saves."""
    rate: dict[str, float]
    """Operations (2 x MACs) a second of eager training, by precision."""
    step: float
    """Seconds that an eager step takes at least."""


COMPILING = {
    "cpu": Compiling(65, 0.05, {"bf16": 2.1e11, "fp32": 1.4e11}, 0.0),  # measured: ResNet-20 at 32x32, one thread
    "cuda": Compiling(60, 0.2, {"bf16": 1e14, "tf32": 5e13, "fp32": 2e13}, 5e-3),  # estimated
}
WORTH = 2.0
"""Compiling has to save so many times what it costs."""


def worth_compiling(hardware: Hardware, precision: str, macs: int, steps: int, batch_size: int) -> bool:
    """Whether a trial of so many steps, of a network of so many MACs a picture, is long enough to win by compiling."""
    known = COMPILING[hardware.device]
    forward_and_backward = 3 * 2 * macs * batch_size / known.rate.get(precision, known.rate["fp32"])
    seconds = steps * max(forward_and_backward, known.step)
    return hardware.compiler and known.gain * seconds > WORTH * known.seconds
