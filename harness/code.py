"""User code by name: found, hashed and loaded, never pickled."""

import hashlib
import importlib
import importlib.util
import sys
from pathlib import Path
from typing import Any

from harness.errors import CodeError, hint, one_line


def add_paths(folders: list[str]) -> None:
    """Let `package.module` be found in these folders too."""
    for folder in folders:
        if folder not in sys.path:
            sys.path.insert(0, folder)
    importlib.invalidate_caches()


def source_file(target: str) -> Path:
    """The file of `package.module:Name`, without importing the module itself."""
    module = target.partition(":")[0]
    try:
        spec = importlib.util.find_spec(module)
    except Exception as error:
        raise CodeError(f"{target}: {module} cannot be found ({one_line(error)}); is its folder given by --code?") from None
    if spec is None or spec.origin is None or not spec.has_location:
        raise CodeError(
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
        raise CodeError(f"{target}: importing {module} failed: {one_line(error)}") from None
    if not hasattr(found, name):
        raise CodeError(f"{target}: {module} has no {name}{hint(name, vars(found))}")
    return getattr(found, name)
