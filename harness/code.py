"""User code by name: found, hashed and loaded, never pickled."""

import ast
import contextlib
import hashlib
import importlib
import importlib.util
import sys
from functools import lru_cache
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType
from typing import Any

from harness.errors import CodeError, hint, one_line


class CannotImport(CodeError):
    """A module is not there, or does not import: something is missing on this machine."""


def add_paths(folders: list[str]) -> None:
    """Let `package.module` be found in these folders too: before all others, and in the first of them that has it."""
    sys.path[:] = [*dict.fromkeys(folders), *(place for place in sys.path if place not in folders)]
    importlib.invalidate_caches()


def source_file(target: str) -> Path:
    """The file of `package.module:Name`, without importing the module itself."""
    module = target.partition(":")[0]
    try:
        spec = importlib.util.find_spec(module)
    except Exception as error:
        raise CannotImport(
            f"{target}: {module} cannot be found ({one_line(error)}); is its folder given by --code?"
        ) from None
    if spec is None or spec.origin is None or not spec.has_location:
        raise CannotImport(
            f"{target}: there is no module {module}; run where it lies, install it, or name its folder by --code"
        )
    return Path(spec.origin)


def source_hash(target: str) -> str:
    """16 hex digits of the content of the file that holds `package.module:Name` (what it imports is not followed)."""
    try:
        content = source_file(target).read_bytes()
    except OSError as error:
        raise CodeError(f"{target}: its source cannot be read: {one_line(error)}") from None
    return hashlib.sha256(content).hexdigest()[:16]


def written_defaults(target: str) -> dict[str, Any]:
    """Defaults of what a class takes, read from its source without importing anything of it: those that are written in its
    own `__init__` as plain values. Nothing where there is no such source."""
    module, _, name = target.partition(":")
    spec = _spec(module)
    if spec is None or not spec.has_location or spec.origin is None or not spec.origin.endswith(".py"):
        return {}
    try:
        return _defaults(spec.origin, Path(spec.origin).stat().st_mtime_ns, name)
    except (OSError, SyntaxError, ValueError):
        return {}


def _spec(module: str) -> ModuleSpec | None:
    """Where a module is, without importing its packages, as importlib's own function does."""
    if isinstance(known := sys.modules.get(module), ModuleType):
        return known.__spec__
    path, spec, pieces = None, None, module.split(".")
    for count in range(1, len(pieces) + 1):
        name = ".".join(pieces[:count])
        found = (finder.find_spec(name, path) for finder in sys.meta_path)
        spec = next((each for each in found if each is not None), None)
        if spec is None:
            return None
        path = spec.submodule_search_locations
    return spec


@lru_cache(maxsize=256)
def _defaults(path: str, stamp: int, name: str) -> dict[str, Any]:
    """`written_defaults` of a class of a file, as it was at `stamp`."""
    classes = [
        node for node in ast.parse(Path(path).read_bytes()).body if isinstance(node, ast.ClassDef) and node.name == name
    ]
    inits = [
        node for one in classes[-1:] for node in one.body if isinstance(node, ast.FunctionDef) and node.name == "__init__"
    ]
    found = {}
    for init in inits[-1:]:
        given = init.args
        places = [*given.posonlyargs, *given.args]
        pairs = [
            *zip(places[len(places) - len(given.defaults) :], given.defaults),
            *zip(given.kwonlyargs, given.kw_defaults),
        ]
        for argument, default in pairs:
            with contextlib.suppress(ValueError):
                if default is not None:
                    found[argument.arg] = ast.literal_eval(default)
    return found


_imported: dict[str, str] = {}
"""Source hash of each of the user's modules when this process imported it."""


class SourceChanged(CodeError):
    """A module was edited after the run that uses it began."""


def import_as(target: str, source: str) -> None:
    """Imports the module of a target, with just this source; raises SourceChanged where it is another by now."""
    module = target.partition(":")[0]
    if module not in _imported:
        _imported[module] = source_hash(target)
        load(target)
    if _imported[module] != source:
        raise SourceChanged(f"the source of {module} was edited while the study ran")


def load(target: str) -> Any:
    """The object that `package.module:Name` names; raises CodeError in one line when it does not import."""
    module, _, name = target.partition(":")
    source_file(target)
    try:
        found = importlib.import_module(module)
    except (Exception, SystemExit) as error:
        raise CannotImport(f"{target}: importing {module} failed: {one_line(error)}") from None
    if not hasattr(found, name):
        raise CodeError(f"{target}: {module} has no {name}{hint(name, vars(found))}")
    return getattr(found, name)
