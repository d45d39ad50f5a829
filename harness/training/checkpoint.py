"""The last finished epoch of a running trial, on disk: written beside and renamed, read as tensors and plain values only."""

import contextlib
import os
import tempfile
from dataclasses import astuple
from pathlib import Path
from typing import Any

import torch

from harness.record import Epoch

NAME = "last.pt"


def save(folder: Path, key: str, network: torch.nn.Module, optim: torch.optim.Optimizer, curve: list[Epoch]) -> None:
    """Replaces the folder's checkpoint; an interruption leaves the old one whole."""
    folder.mkdir(parents=True, exist_ok=True)
    content = {
        "key": key,
        "network": network.state_dict(),
        "optimiser": optim.state_dict(),
        "curve": [astuple(point) for point in curve],
    }
    handle, made = tempfile.mkstemp(dir=folder, suffix=".part")
    try:
        with os.fdopen(handle, "wb") as file:
            torch.save(content, file)
            file.flush()
            os.fsync(file.fileno())
        Path(made).replace(folder / NAME)
    except BaseException:
        with contextlib.suppress(OSError):
            Path(made).unlink()
        raise


def load(folder: Path, key: str, device: str) -> dict[str, Any] | None:
    """The folder's checkpoint if it is of this very trial, None otherwise; nothing in it is executed."""
    path = folder / NAME
    if not path.exists():
        return None
    try:
        content: dict[str, Any] = torch.load(path, map_location=device, weights_only=True)
    except Exception:  # half of a disk's truth is none: the trial starts again
        return None
    return content if content.get("key") == key else None
