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


COMPILING = 60.0
"""Seconds of compiling one network, with an empty cache."""
GAIN = 0.2
"""Share of a trial's seconds on a GPU that compiling saves (estimated). On CPUs a compiled step of ResNet-20 takes 1.1 times
the eager one's seconds in bf16, as many in fp32; with ExpAtt 1.04 and 0.95 times (measured at 32x32, one thread)."""
RATE = {"bf16": 1e14, "tf32": 5e13, "fp32": 2e13}
"""Operations (2 x MACs) a second of eager training on a GPU, by precision (estimated)."""
STEP = 5e-3
"""Seconds that an eager step on a GPU takes at least (estimated)."""
WORTH = 2.0
"""Compiling has to save so many times what it costs."""


def worth_compiling(hardware: Hardware, precision: str, macs: int, steps: int, batch_size: int) -> bool:
    """Whether a trial of so many steps, of a network of so many MACs a picture, is long enough to win by compiling."""
    if hardware.device == "cpu" or not hardware.compiler:
        return False
    forward_and_backward = 3 * 2 * macs * batch_size / RATE[precision]
    return GAIN * steps * max(forward_and_backward, STEP) > WORTH * COMPILING
