"""What a worker on another machine has to be given: this package, and those of the user's modules that are not installed."""

import ast
import contextlib
import importlib.machinery
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path

INSTALLED = {"site-packages", "dist-packages"}
UNSHIPPED = ("*.pt", "*.pth", "*.ckpt", "*.db", "*.db-*", "*.npy", "*.npz", "*.zip", "*.tar*", "runs/", "shards/")
"""Of packages, by patterns as git ignores files: what is no code, and large."""


def needed(targets: Iterable[str]) -> list[Path]:
    """Folders of packages, and files of modules: this package itself, so that every machine runs one engine; those which
    hold `package.module:Name`; and what their files import, as far as it is installed nowhere."""
    found: dict[str, Path] = {}
    wanted = [target.partition(":")[0].partition(".")[0] for target in targets]
    while wanted:
        name = wanted.pop()
        if name not in found and (place := own(name)) is not None:
            found[name] = place
            wanted += imports(place)
    return [Path(__file__).parent, *(found[name] for name in sorted(found))]


def own(name: str) -> Path | None:
    """Where a module of the user's lies; None for what is built in, installed, ours, or not there."""
    if name in sys.stdlib_module_names or name == __package__:
        return None
    spec = importlib.machinery.PathFinder.find_spec(name)
    if spec is None:
        return None
    place = next(iter(spec.submodule_search_locations or ()), spec.origin)
    if place is None or not INSTALLED.isdisjoint(Path(place).parts) or (Path(place).is_file() and not place.endswith(".py")):
        return None
    return Path(place)


def imports(place: Path) -> Iterator[str]:
    """First names of what the files of a package, or a module, import."""
    for file in [place] if place.is_file() else place.rglob("*.py"):
        tree = None
        with contextlib.suppress(OSError, SyntaxError, ValueError):
            tree = ast.parse(file.read_bytes())
        for node in ast.walk(tree) if tree else ():
            if isinstance(node, ast.Import):
                yield from (alias.name.partition(".")[0] for alias in node.names)
            elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
                yield node.module.partition(".")[0]
