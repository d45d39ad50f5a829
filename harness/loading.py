"""Finding a study: a file, a dotted module, or a name in the database; and overriding single values of it."""

import contextlib
import hashlib
import importlib
import importlib.util
import json
import re
import sys
import traceback
from pathlib import Path
from types import ModuleType
from typing import Any

from harness.code import add_paths
from harness.errors import StudyError, hint, one_line
from harness.study import Study

WITHOUT_KEYS = ("strategy.trials", "question")
"""Values that change how much is trained or how it is shown, and no trial's key."""


def load_study(target: str) -> tuple[Study, list[str]]:
    """The STUDY of a file or a dotted module, and the folders its user code is found in."""
    path = Path(target)
    if path.suffix == ".py" or path.is_file():
        if not path.is_file():
            near = [str(found) for found in sorted(path.parent.glob("*.py"))] if path.parent.is_dir() else []
            raise StudyError(f"{target}: there is no such study file{hint(target, near)}")
        folders = _folders(path.resolve())
        add_paths(folders)
        module = _execute(path)
    else:
        folders = [str(Path.cwd())]
        add_paths(folders)
        module = _import(target)
    study = getattr(module, "STUDY", None)
    if not isinstance(study, Study):
        raise StudyError(f"{target}: it exports no STUDY; write STUDY = Study(name=..., space=..., strategy=...)")
    return study, folders


def is_study_file(target: str) -> bool:
    """Whether the target is meant as a file or a dotted module, rather than a study's name."""
    return target.endswith(".py") or "/" in target or Path(target).is_file() or _module_exists(target)


def _module_exists(target: str) -> bool:
    if not re.fullmatch(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)+", target):
        return False
    add_paths([str(Path.cwd())])
    try:
        return importlib.util.find_spec(target) is not None
    except (ImportError, ValueError):
        return False


def _folders(path: Path) -> list[str]:
    """Where a study file's imports are looked for: its project, its own folder, the working folder."""
    marks = ("pyproject.toml", ".git", "search_spaces")
    project = next((above for above in path.parents if any((above / mark).exists() for mark in marks)), path.parent)
    return [str(folder) for folder in dict.fromkeys((Path.cwd(), path.parent, project))]


def _execute(path: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location(f"study_file_{path.stem}", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    try:
        sys.dont_write_bytecode, before = True, sys.dont_write_bytecode
        try:
            with contextlib.redirect_stdout(sys.stderr):  # stdout is the command's own
                spec.loader.exec_module(module)
        finally:
            sys.dont_write_bytecode = before
    except (Exception, SystemExit) as error:
        raise StudyError(f"{path}{_line_in(error, path)}: {one_line(error)}") from None
    return module


def _line_in(error: BaseException, path: Path) -> str:
    """':12' for the last line of this file that the error passed through."""
    if isinstance(error, SyntaxError):
        return f":{error.lineno}" if error.filename and Path(error.filename).name == path.name else ""
    lines = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if Path(frame.filename).name == path.name]
    return f":{lines[-1]}" if lines else ""


def _import(target: str) -> ModuleType:
    try:
        return importlib.import_module(target)
    except (Exception, SystemExit) as error:
        raise StudyError(f"{target}: {one_line(error)}") from None


def override(study: Study, settings: list[str]) -> Study:
    """The study with `path=value` settings; one that changes keys gets a name of its own, NAME~path=value."""
    if not settings:
        return study
    plain = study.to_json()
    names = []
    for setting in settings:
        path, equals, text = setting.partition("=")
        if path == "name":
            raise StudyError(f"--set {setting}: a study is renamed in its file; an override names itself")
        if not equals or not path:
            raise StudyError(f"--set {setting}: write path=value, for instance training.epochs=5")
        _set(plain, path, plain_value(text), setting)
        if path not in WITHOUT_KEYS:
            names.append(re.sub(r"[^\w.=+,-]", "-", setting))
    if names:
        plain["name"] = _short_enough(f"{study.name}~{','.join(sorted(names))}")
    return Study.from_json(plain)


def _short_enough(name: str, limit: int = 100) -> str:
    """The name, its end replaced by a hash where it is too long."""
    return name if len(name) <= limit else f"{name[: limit - 9]}-{hashlib.sha256(name.encode()).hexdigest()[:8]}"


def plain_value(text: str) -> Any:
    """A value as a user types it: JSON, or else the words themselves."""
    try:
        return json.loads(text)
    except json.JSONDecodeError:
        return text


def _set(plain: dict[str, Any], path: str, value: Any, setting: str) -> None:
    """Changes one dotted value of a study's JSON in place."""
    here: Any = plain
    pieces = path.replace("space.", "network.", 1).split(".")
    for depth, piece in enumerate(pieces):
        if isinstance(here, dict) and "vary" in here:
            here = here["fields"]
        if isinstance(here, list) and piece.isdigit() and 1 <= int(piece) <= len(here):
            piece = int(piece) - 1  # type: ignore[assignment]  # noqa: PLW2901
        elif not isinstance(here, dict) or piece not in here or piece == "kind":
            known = [name for name in here if name != "kind"] if isinstance(here, dict) else []
            place = ".".join(pieces[:depth]) or "the study"
            has = ", ".join(known) if known else f"{len(here)} stages, from 1" if isinstance(here, list) else "no parts"
            raise StudyError(f"--set {setting}: {place} has no {piece!r} (it has {has}){hint(piece, known)}")
        if depth == len(pieces) - 1:
            here[piece] = value
        else:
            here = here[piece]
