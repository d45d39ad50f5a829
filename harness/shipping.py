"""What a worker on another machine has to be given: this package, and those of the user's modules that are not installed."""

import ast
import contextlib
import importlib.machinery
import os
import sys
from collections import Counter
from collections.abc import Iterable, Iterator
from fnmatch import fnmatch
from pathlib import Path

from harness.errors import HarnessError

INSTALLED = {"site-packages", "dist-packages"}
UNSHIPPED = (
    *("*.pt", "*.pth", "*.ckpt", "*.db", "*.db-*", "*.npy", "*.npz", "*.zip", "*.tar*"),
    *("runs/", "shards/", "venv/", "__pycache__/", ".*/"),
)
"""Of packages, by patterns as git ignores files and folders: what is no code, and large."""
LIMIT = 500 * 2**20
"""Bytes of a package that Ray sends."""


def needed(targets: Iterable[str]) -> list[Path]:
    """Folders of packages, and files of modules: this package itself, so that every machine runs one engine; those which
    hold `package.module:Name`; and what their files import, as far as it is installed nowhere.

    Raises HarnessError for a package that is larger than can be sent."""
    found: dict[str, Path] = {}
    wanted = [target.partition(":")[0] for target in targets]
    while wanted:
        name = wanted.pop()
        first = name.partition(".")[0]
        if first not in found and (place := own(name)) is not None:
            assert_sendable(place)
            found[first] = place
            wanted += imports(place)
    return [Path(__file__).parent, *(found[name] for name in sorted(found))]


def own(name: str) -> Path | None:
    """Where the package, or the single module, lies that holds a `package.module` of the user's; None for what is built in,
    installed, ours, or not there. A folder of that name that is no such package is not."""
    first, _, rest = name.partition(".")
    if first in sys.stdlib_module_names or first == __package__:
        return None
    spec = importlib.machinery.PathFinder.find_spec(first)
    if spec is None:
        return None
    if spec.origin is not None:
        place = next(iter(spec.submodule_search_locations or ()), spec.origin)
    else:  # any folder is a namespace package: is there a file for what is to be imported of it?
        parts = [Path(part) for part in spec.submodule_search_locations or ()]
        place = str(next((part for part in parts if has_module(part, rest)), ""))
    if place in ("", ".") or not INSTALLED.isdisjoint(Path(place).parts):
        return None
    return None if Path(place).is_file() and not place.endswith(".py") else Path(place)


def has_module(folder: Path, name: str) -> bool:
    """Whether a folder has the file of `module`, or of `package.module` or a package on that way."""
    first, _, rest = name.partition(".")
    if not first:
        return False
    spec = importlib.machinery.PathFinder.find_spec(first, [str(folder)])
    return spec is not None and (spec.origin is not None or has_module(folder / first, rest))


def imports(place: Path) -> Iterator[str]:
    """What the files of a package, or a module, import: `package.module`, and names in it, which may be modules too."""
    for file in files(place):
        tree = None
        if file.suffix == ".py":
            with contextlib.suppress(OSError, SyntaxError, ValueError):
                tree = ast.parse(file.read_bytes())
        for node in ast.walk(tree) if tree else ():
            if isinstance(node, ast.Import):
                yield from (alias.name for alias in node.names)
            elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
                yield from (f"{node.module}.{alias.name}" for alias in node.names)


def files(place: Path) -> Iterator[Path]:
    """Those of a package that are sent; a module is one file."""
    if place.is_file():
        yield place
    folders = [pattern.rstrip("/") for pattern in UNSHIPPED]
    plain = [pattern for pattern in UNSHIPPED if not pattern.endswith("/")]
    for folder, inner, names in os.walk(place):
        inner[:] = [name for name in inner if not any(fnmatch(name, pattern) for pattern in folders)]
        yield from (Path(folder, name) for name in names if not any(fnmatch(name, pattern) for pattern in plain))


def assert_sendable(place: Path) -> None:
    """Raises HarnessError for a package that is larger than Ray sends, before Ray has packed it."""
    sizes: Counter[str] = Counter()
    for file in files(place):
        with contextlib.suppress(OSError):
            sizes[file.relative_to(place).parts[0] if file != place else file.name] += file.stat().st_size
        if sizes.total() >= LIMIT:
            largest, size = sizes.most_common(1)[0]
            raise HarnessError(
                f"--address: {place} would be sent to the other machines, but a package may have {LIMIT >> 20} MiB, and in"
                f" {largest} alone are {size >> 20} or more: keep data outside of it, or install it on every machine"
            )
