"""What a trial leaves on disk: the last finished epoch while it runs, the final weights when it is done.

Written beside and renamed, read as tensors and plain values only. A checkpoint is named by the fencing token of its driver:
an orphaned worker of a dead driver writes beside its successor's checkpoint, never over it, and ends when it sees one.
"""

import contextlib
import errno
import hashlib
import io
import os
import re
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from harness.errors import DiskError, HarnessError
from harness.record import Epoch

FINAL = "final.pt"


class Fenced(HarnessError):
    """Another driver has taken the trial over; this worker is an orphan."""


def save(folder: Path, token: int, key: str, state: Mapping[str, Any], curve: list[Epoch]) -> None:
    """Replaces the checkpoint of this driver's token; an interruption leaves the old one whole.

    Raises Fenced where there is one of a larger token, or where the trial's folder is gone because it was finished."""
    if not folder.is_dir() or any(found > token for found, _ in checkpoints(folder)):
        raise Fenced(f"another driver has taken this trial over: {folder}")
    write(folder / f"last-{token}.pt", {"key": key, **state, "curve": [point.row() for point in curve]})
    for found, path in checkpoints(folder):
        if found < token:
            path.unlink(missing_ok=True)


def prepare(folder: Path) -> None:
    """Makes a trial's folder."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise DiskError(f"{folder} cannot be made ({error.strerror}); mend it, or name another place by --runs") from None


def write(path: Path, content: Mapping[str, Any]) -> None:
    """Writes a file whole or not at all; raises DiskError where it cannot."""
    try:
        _write(path, content)
    except OSError as error:
        full = error.errno in (errno.ENOSPC, errno.EDQUOT)
        remedy = "free some space" if full else "mend it, or name another place by --runs"
        raise DiskError(f"{path.parent} cannot be written ({error.strerror}): {remedy}") from None


def _write(path: Path, content: Mapping[str, Any]) -> None:
    handle, made = tempfile.mkstemp(dir=path.parent, suffix=".part")
    try:
        with os.fdopen(handle, "wb") as file:
            serial = io.BytesIO()  # torch hides what the disk says behind an error of its own
            torch.save(content, serial)
            file.write(serial.getbuffer())
            file.flush()
            os.fsync(file.fileno())
        Path(made).replace(path)
    except BaseException:
        with contextlib.suppress(OSError):
            Path(made).unlink()
        raise


def checkpoints(folder: Path) -> list[tuple[int, Path]]:
    """Token and path of each checkpoint, the largest token first."""
    found = [(re.fullmatch(r"last-(\d+)\.pt", path.name), path) for path in folder.glob("last-*.pt")]
    return sorted(((int(match[1]), path) for match, path in found if match), reverse=True)


def load(folder: Path, key: str, device: str) -> dict[str, Any] | None:
    """The newest readable checkpoint of this very trial, None where there is none; nothing in it is executed."""
    for _, path in checkpoints(folder):
        try:
            content: dict[str, Any] = torch.load(path, map_location=device, weights_only=True)
        except Exception:  # half of a disk's truth is none
            continue
        if content.get("key") == key:
            return content
    return None


def save_final(folder: Path, key: str, weights: Mapping[str, Tensor]) -> str:
    """Writes the final weights; returns their hash."""
    write(folder / FINAL, {"key": key, "network": weights})
    return weights_hash(weights)


def weights_hash(weights: Mapping[str, Tensor]) -> str:
    """16 hex digits of every weight, bit for bit, with its name and shape."""
    content = hashlib.sha256()
    for name in sorted(weights):
        tensor = weights[name].detach().cpu().contiguous()
        content.update(f"{name} {tuple(tensor.shape)} {tensor.dtype}".encode())
        content.update(tensor.reshape(-1).view(torch.uint8).numpy().tobytes())
    return content.hexdigest()[:16]
