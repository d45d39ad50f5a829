"""Where a number came from: commit, versions, host."""

import platform
import subprocess
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from typing import Any

PACKAGES = ("attention-harness", "torch", "torchvision", "timm", "ray", "optuna", "numpy")


@cache
def provenance() -> dict[str, Any]:
    """Commit of the folder worked in (with + where it has uncommitted changes), versions, host and system."""
    return {
        "commit": commit(),
        "versions": {name: found for name in PACKAGES if (found := _version(name))} | {"python": platform.python_version()},
        "host": platform.node(),
        "system": f"{platform.system()} {platform.machine()}",
    }


def commit() -> str:
    """The short hash of the checkout, empty outside of one."""
    head = _git("rev-parse", "--short=12", "HEAD")
    return head + ("+" if head and _git("status", "--porcelain", "--untracked-files=no") else "")


def _git(*words: str) -> str:
    try:
        done = subprocess.run(["git", *words], capture_output=True, text=True, timeout=10, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout.strip() if done.returncode == 0 else ""


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return ""
