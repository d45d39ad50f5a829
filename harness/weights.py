"""Weights to begin with: where they lie on this machine, and the hash that stands for them in a key."""

import hashlib
from functools import lru_cache
from pathlib import Path

from harness.errors import DataError, one_line

LIBRARY = "timm:"
FILES = ("model.safetensors", "pytorch_model.bin")
"""What timm's models are called on the Hugging Face hub, the first that is there."""


def find_weights(init: str) -> Path:
    """The file of `timm:NAME` in the cache of the Hugging Face hub, or of a path; raises DataError where it is not there."""
    if not init.startswith(LIBRARY):
        path = Path(init).expanduser()
        if not path.is_file():
            raise DataError(f"Training.init = {init!r}: there is no such file; give a checkpoint's path, or timm:NAME")
        return path
    from huggingface_hub import try_to_load_from_cache

    found = (try_to_load_from_cache(_repository(init), name) for name in FILES)
    kept = next((path for path in found if isinstance(path, str)), None)
    if kept is None:
        raise DataError(
            f"Training.init = {init!r}: its weights are not on this machine; add --download where there is a network, or"
            " give a checkpoint's path"
        )
    return Path(kept)


def anywhere(init: str) -> str:
    """As a worker finds it whatever folder it works in: the path of a file in full, on all machines the same."""
    return init if init.startswith(LIBRARY) else str(Path(init).expanduser().absolute())


def download_weights(init: str) -> None:
    """Fetches the weights of `timm:NAME`; of a path there is nothing to fetch."""
    if not init.startswith(LIBRARY):
        return
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import EntryNotFoundError

    try:
        try:
            hf_hub_download(_repository(init), FILES[0])
        except EntryNotFoundError:
            hf_hub_download(_repository(init), FILES[1])
    except Exception as error:
        raise DataError(f"--download: the weights of {init!r} cannot be fetched: {one_line(error, 200)}") from None


def weights_source(init: str) -> str:
    """16 hex digits of the file's content; raises DataError where there is none."""
    path = find_weights(init)
    state = path.stat()
    return _hash(path, state.st_size, state.st_mtime_ns)


@lru_cache(maxsize=64)
def _hash(path: Path, size: int, changed: int) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()[:16]


def _repository(init: str) -> str:
    return f"timm/{init.removeprefix(LIBRARY)}"
