"""User code by name: found, hashed and loaded; what is missing, broken or changed is said in one line."""

import hashlib
import os
import sys

import pytest

from harness import code
from harness.errors import CodeError


@pytest.fixture
def lab(tmp_path, monkeypatch):
    """An empty folder on the path; what is imported from it is forgotten afterwards."""
    monkeypatch.setattr(sys, "path", [*sys.path])
    before = set(sys.modules)
    code.add_paths([str(tmp_path)])
    yield tmp_path
    for name in set(sys.modules) - before:
        del sys.modules[name]


def write(folder, name, text):
    path = folder / name
    path.parent.mkdir(exist_ok=True)
    path.write_text(text)
    code.importlib.invalidate_caches()
    return path


def refused(function, target):
    with pytest.raises(CodeError) as caught:
        function(target)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_a_module_is_found_and_hashed_without_being_imported(lab):
    path = write(lab, "gate_a.py", "raise RuntimeError('imported')\n")
    assert code.source_file("gate_a:Gate") == path
    assert code.source_hash("gate_a:Gate") == hashlib.sha256(b"raise RuntimeError('imported')\n").hexdigest()[:16]
    assert "gate_a" not in sys.modules


def test_the_hash_follows_the_content(lab):
    path = write(lab, "gate_b.py", "class Gate: pass\n")
    before = code.source_hash("gate_b:Gate")
    assert code.source_hash("gate_b:Other") == before
    path.write_text("class Gate: x = 1\n")
    assert code.source_hash("gate_b:Gate") != before


def test_a_module_in_a_package_is_loaded(lab):
    write(lab, "mylab_c/__init__.py", "")
    path = write(lab, "mylab_c/gate.py", "class Gate:\n    name = 'gate'\n")
    assert code.source_file("mylab_c.gate:Gate") == path
    assert code.load("mylab_c.gate:Gate").name == "gate"


def test_paths_are_added_once(monkeypatch):
    monkeypatch.setattr(sys, "path", ["here"])
    code.add_paths(["there", "here", "there"])
    assert sys.path == ["there", "here"]


def test_what_is_missing_says_how_to_find_it(lab):
    for function in (code.source_file, code.source_hash, code.load):
        assert refused(function, "no_such:Gate") == (
            "no_such:Gate: there is no module no_such; run where it lies, install it, or name its folder by --code"
        )
        message = refused(function, "no_such.gate:Gate")
        assert message.startswith("no_such.gate:Gate: no_such.gate cannot be found (ModuleNotFoundError: No module named")
        assert message.endswith("is its folder given by --code?")


def test_a_module_without_a_file_is_no_source():
    assert "there is no module sys" in refused(code.source_file, "sys:Gate")


def test_a_file_that_went_away_is_said(lab):
    path = write(lab, "gate_d.py", "class Gate: pass\n")
    code.load("gate_d:Gate")
    path.unlink()
    message = refused(code.source_hash, "gate_d:Gate")
    assert message.startswith("gate_d:Gate: its source cannot be read: FileNotFoundError")


def test_a_wrong_name_is_hinted_at(lab):
    write(lab, "gate_e.py", "class Gate: pass\n")
    assert refused(code.load, "gate_e:Gates") == "gate_e:Gates: gate_e has no Gates; did you mean 'Gate'?"


@pytest.mark.parametrize(
    "text, reason",
    [
        ("import math\nmath.no_such\n", "AttributeError: module 'math' has no attribute 'no_such'"),
        ("raise RuntimeError('one\\n two')\n", "RuntimeError: one two"),
        ("import no_such_library\n", "ModuleNotFoundError: No module named 'no_such_library'"),
        ("class Gate(:\n", "SyntaxError: invalid syntax (gate_f.py, line 1)"),
    ],
)
def test_a_module_that_breaks_says_why(lab, text, reason):
    write(lab, "gate_f.py", text)
    assert refused(code.load, "gate_f:Gate") == f"gate_f:Gate: importing gate_f failed: {reason}"
    sys.modules.pop("gate_f", None)


def test_defaults_are_read_without_importing_the_module_or_its_package(lab):
    write(lab, "mylab_g/__init__.py", "raise RuntimeError('imported')\n")
    head = "raise RuntimeError('imported')\nLEAST = 1\nclass Gate:\n"
    write(lab, "mylab_g/gate.py", head + "    def __init__(self, channels, a=4, b=LEAST, *, c=-0.5, d, e=None): ...\n")
    assert code.written_defaults("mylab_g.gate:Gate") == {"a": 4, "c": -0.5, "e": None}
    assert not any(name.startswith("mylab_g") for name in sys.modules)


@pytest.mark.parametrize(
    "text",
    [
        "class Other: ...\n",
        "class Gate:\n    size = 3\n",
        "def Gate(channels, a=4): ...\n",
        "class Gate(:\n",
        "if True:\n    class Gate:\n        def __init__(self, a=4): ...\n",
    ],
)
def test_no_defaults_are_read_where_no_constructor_is_written(lab, text):
    write(lab, "gate_h.py", text)
    assert code.written_defaults("gate_h:Gate") == {}


@pytest.mark.parametrize("target", ["no_such:Gate", "no_such.gate:Gate", "sys:Gate", "math:Gate"])
def test_no_defaults_are_read_where_there_is_no_source(target):
    assert code.written_defaults(target) == {}


def test_defaults_follow_the_source(lab):
    path = write(lab, "gate_i.py", "class Gate:\n    def __init__(self, channels, a=4): ...\n")
    assert code.written_defaults("gate_i:Gate") == {"a": 4}
    path.write_text("class Gate:\n    def __init__(self, channels, a=8): ...\n")
    os.utime(path, ns=(0, 10**18))
    assert code.written_defaults("gate_i:Gate") == {"a": 8}


def test_of_two_folders_with_a_module_the_first_named_has_it(lab):
    """`harness resume --code NEW` puts NEW before the folders that the study was begun with, though known already."""
    old, new = write(lab, "old/gate_h.py", "x = 1\n"), write(lab, "new/gate_h.py", "x = 2\n")
    code.add_paths([str(old.parent)])
    code.add_paths([str(new.parent), str(old.parent)])
    assert code.source_file("gate_h:Gate") == new
    assert sys.path.count(str(old.parent)) == 1
