"""What a trial leaves in its folder: the last finished epoch while it runs, the final weights when it is done.

Written whole, read as tensors and plain values only. A checkpoint is named by the fencing token of its driver: an orphaned
worker of a dead driver writes beside its successor's checkpoint, never over it, and ends when it sees one.
"""

import hashlib
import io
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from harness.depot import Depot, checkpoint_file, closed, tokens
from harness.errors import DiskError, HarnessError
from harness.record import Epoch

FINAL = "final.pt"


class Fenced(HarnessError):
    """Another driver has taken the trial over; this worker is an orphan."""


def save(folder: Depot, token: int, key: str, state: Mapping[str, Any], curve: list[Epoch]) -> None:
    """Replaces the checkpoint of this driver's token; an interruption leaves the old one whole.

    Raises Fenced where there is one of a larger token, or where the trial's folder is gone because it was finished."""
    names = folder.names()
    if names is None or any(found > token for found in tokens(names)):
        raise Fenced(f"another driver has taken this trial over: {folder}")
    folder.write(checkpoint_file(token), serial({"key": key, **state, "curve": [point.row() for point in curve]}))
    folder.remove(checkpoint_file(found) for found in tokens(names) if found < token)


def serial(content: Mapping[str, Any]) -> bytes:
    """As a file holds it."""
    file = io.BytesIO()  # torch hides what a disk says behind an error of its own
    torch.save(content, file)
    return file.getvalue()


def load(folder: Depot, key: str, device: str) -> dict[str, Any] | None:
    """The newest whole checkpoint of this very trial, None where there is none; nothing in it is executed.

    Raises DiskError where one may not be read: then nothing is begun again."""
    for token in tokens(folder.names()):
        try:
            content: dict[str, Any] = torch.load(folder.file(checkpoint_file(token)), map_location=device, weights_only=True)
        except DiskError:  # what is there is not known
            raise
        except PermissionError as error:
            raise closed(f"{folder}/{checkpoint_file(token)}", error) from None
        except Exception:  # half of a disk's truth is none
            continue
        if content.get("key") == key:
            return content
    return None


def save_final(folder: Depot, key: str, weights: Mapping[str, Tensor]) -> str:
    """Writes the final weights; returns their hash."""
    folder.write(FINAL, serial({"key": key, "network": weights}))
    return weights_hash(weights)


def weights_hash(weights: Mapping[str, Tensor]) -> str:
    """16 hex digits of every weight, bit for bit, with its name and shape."""
    content = hashlib.sha256()
    for name in sorted(weights):
        tensor = weights[name].detach().cpu().contiguous()
        content.update(f"{name} {tuple(tensor.shape)} {tensor.dtype}".encode())
        content.update(tensor.reshape(-1).view(torch.uint8).numpy().tobytes())
    return content.hexdigest()[:16]
