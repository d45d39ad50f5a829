"""What is sent to the workers of another machine; addresses and folders that cannot serve."""

from pathlib import Path

import pytest

import harness
from harness.errors import HarnessError
from harness.execution.cluster import endpoint, prepare, why
from harness.shipping import LIMIT, needed

OURS = Path(harness.__file__).parent


def test_what_user_code_imports_goes_with_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "shipped_lab" / "deep").mkdir(parents=True)
    (tmp_path / "shipped_lab" / "gate.py").write_text(
        "import os, torch\nfrom . import other\nfrom shipped_tricks.more import trick"
    )
    (tmp_path / "shipped_lab" / "deep" / "late.py").write_text("def use():\n    import shipped_single\n")
    (tmp_path / "shipped_tricks").mkdir()
    (tmp_path / "shipped_tricks" / "more.py").write_text("import shipped_lab.gate, nowhere\n")
    (tmp_path / "shipped_single.py").write_text("this is no Python")
    (tmp_path / "unused.py").touch()
    monkeypatch.syspath_prepend(tmp_path)
    assert needed(["shipped_lab.gate:Gate"]) == [
        OURS,
        tmp_path / "shipped_lab",
        tmp_path / "shipped_single.py",
        tmp_path / "shipped_tricks",
    ]


def test_a_folder_is_not_sent_for_its_name_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Any folder is a namespace package for Python; it is one here where what is imported of it is a file."""
    for name in ("scans/2024", "plots", "tools/deep/er"):
        (tmp_path / f"shipped_{name}").mkdir(parents=True)
    (tmp_path / "shipped_scans" / "one.png").touch()
    (tmp_path / "shipped_scans" / "2024" / "notes.py").touch()
    (tmp_path / "shipped_plots" / "draw.py").touch()
    (tmp_path / "shipped_tools" / "deep" / "er" / "trick.py").write_text("import shipped_plots")
    (tmp_path / "other" / "shipped_tools").mkdir(parents=True)
    (tmp_path / "shipped_user.py").write_text(
        "try:\n    import shipped_scans, shipped_scans.late\nexcept ImportError:\n    pass\n"
        "from shipped_scans import one\nfrom shipped_tools.deep.er import trick\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.syspath_prepend(tmp_path / "other")
    assert needed(["shipped_user:Gate"]) == [OURS, tmp_path / "shipped_tools", tmp_path / "shipped_user.py"]
    assert needed(["shipped_plots.draw:draw"]) == [OURS, tmp_path / "shipped_plots"]
    assert needed(["shipped_plots:draw"]) == [OURS]


def test_a_package_that_is_too_large_is_one_line_before_ray_packs_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    package = tmp_path / "shipped_large"
    (package / "scans").mkdir(parents=True)
    (package / "runs").mkdir()
    (package / "__init__.py").touch()
    monkeypatch.syspath_prepend(tmp_path)
    for name in ("runs/best.bin", "weights.pt", "scans/all.tar.gz"):  # what is not sent does not count
        with (package / name).open("wb") as file:
            file.truncate(2 * LIMIT)
    assert needed(["shipped_large:Gate"]) == [OURS, package]
    with (package / "scans" / "all.raw").open("wb") as file:
        file.truncate(LIMIT)
    said = rf"^--address: {package} would be sent .* may have 500 MiB, and in scans alone are 500 or more: keep data outside"
    with pytest.raises(HarnessError, match=said):
        needed(["shipped_large:Gate"])


@pytest.mark.parametrize("target", ["torch.nn:Linear", "json:loads", "harness.parts.gates:ECA", "nowhere.at:All"])
def test_what_is_installed_built_in_or_ours_is_not_sent_by_itself(target: str) -> None:
    assert needed([target]) == [OURS]


def test_addresses() -> None:
    assert endpoint("head:6379") == ("head", 6379) and endpoint("[::1]:80") == ("::1", 80) and endpoint("auto") is None
    for address, said in (
        ("head", "write HOST:PORT"),
        ("head:\N{SUPERSCRIPT TWO}", "write HOST:PORT"),
        ("ray://head:10001", "has to be on a machine of the cluster"),
        (".head:6379", "cannot be reached"),
    ):
        with pytest.raises(HarnessError, match=said):
            prepare(address)


def test_a_cluster_of_other_versions_is_one_line() -> None:
    words = (
        "Version mismatch: The cluster was started with:\n    Ray: 2.58.0\n    Python: 3.12.1\n"
        "This process on 10.0.0.1 was started with:\n    Ray: 2.60.0\n    Python: 3.11.7\n"
    )
    said = (
        "the cluster has Ray 2.58.0 and Python 3.12.1, this process Ray 2.60.0 and Python 3.11.7: use the same environment"
    )
    assert why(RuntimeError(words)).startswith(said)
