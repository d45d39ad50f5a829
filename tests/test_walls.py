"""The walls: which part may import what, directly or through others, at the top of a file or inside a function.

An import inside a function, or for types alone, is `late`; it counts everywhere, except in the composition root, where the
verbs pick up what they need when they run.
"""

import ast
import subprocess
import sys
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

import pytest

ROOT = Path(__file__).parents[1]

READERS = (
    "analysis",
    "code",
    "config",
    "controls",
    "cost",
    "errors",
    "key",
    "latency",
    "parts",
    "presets",
    "provenance",
    "record",
    "report",
    "space",
)
READERS += ("storage", "study")
"""Listing, planning, resuming and reporting start in well under a second: neither torch nor ray."""
PORTABLE = ("data", "measure", "networks", "training", "trial")
"""What runs where only torch is installed: neither ray nor optuna nor plotly."""
COMPOSITION = ("cli", "results", "run")
"""Where the parts are put together: their late imports are their own business, the others are a reader's."""
PLACES = {
    "ray": ("execution",),
    "optuna": ("storage", "strategies"),
    "sqlalchemy": ("storage",),
    "plotly": ("report",),
    "matplotlib": ("report",),
    "ptflops": ("measure",),
    "timm": ("networks",),
    "pynvml": ("gpus",),
}
"""Each outside library is met in one place."""


# -- reading imports --------------------------------------------------------------------------------------------------


class Import(NamedTuple):
    """One imported name and whether it waits for a function to run."""

    target: str
    late: bool


Graph = dict[str, list[Import]]
"""What each module imports: modules of the project by their full names, libraries by their first."""


def imports(source: str, module: str, *, package: bool = False) -> Iterator[Import]:
    """Everything a source imports, by full name; of `from a import b` it is `a.b`."""

    def visit(node: ast.AST, late: bool) -> Iterator[Import]:
        if isinstance(node, ast.Import):
            yield from (Import(alias.name, late) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            above = module.split(".")[: len(module.split(".")) - node.level + package] if node.level else []
            base = ".".join([*above, *([node.module] if node.module else [])])
            yield from (Import(f"{base}.{alias.name}", late) for alias in node.names)
        elif isinstance(node, ast.Call) and ast.unparse(node.func).endswith(("import_module", "__import__")):
            yield from (Import(str(name.value), late) for name in node.args[:1] if isinstance(name, ast.Constant))
        waits = isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
        for name, value in ast.iter_fields(node):
            typing_only = isinstance(node, ast.If) and name == "body" and "TYPE_CHECKING" in ast.unparse(node.test)
            for child in value if isinstance(value, list) else [value]:
                if isinstance(child, ast.AST):
                    yield from visit(child, late or typing_only or (waits and name == "body"))

    yield from visit(ast.parse(source), False)


def graph_of(sources: dict[str, str], packages: frozenset[str] = frozenset()) -> Graph:
    """The imports of every source: a name in a module of ours stands for that module, any other for its library."""

    def resolved(target: str) -> str:
        pieces = target.split(".")
        names = (".".join(pieces[:count]) for count in range(len(pieces), 0, -1))
        return next((name for name in names if name in sources), pieces[0])

    return {
        module: [
            found
            for item in imports(source, module, package=module in packages)
            if (found := Import(resolved(item.target), item.late)).target != module
        ]
        for module, source in sources.items()
    }


def chains(graph: Graph, start: str, *, late: bool = True) -> dict[str, str]:
    """Everything reached from a module, with the chain of imports that reaches it."""
    found, waiting = {start: start}, [start]
    while waiting:
        module = waiting.pop(0)
        for item in graph.get(module, ()):
            if item.target not in found and (late or not item.late):
                found[item.target] = f"{found[module]} -> {item.target}"
                waiting.append(item.target)
    return found


def circle(graph: Graph) -> list[str]:
    """One circle of imports, or nothing."""
    done: set[str] = set()

    def walk(module: str, path: list[str]) -> list[str]:
        if module in path:
            return [*path[path.index(module) :], module]
        if module in done or module not in graph:
            return []
        for item in graph[module]:
            if found := walk(item.target, [*path, module]):
                return found
        done.add(module)
        return []

    return next((found for module in graph if (found := walk(module, []))), [])


# -- the project ------------------------------------------------------------------------------------------------------


def name_of(path: Path) -> str:
    pieces = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(pieces[:-1] if pieces[-1] == "__init__" else pieces)


FILES = {name_of(path): path for path in sorted((ROOT / "harness").rglob("*.py"))}
GRAPH = graph_of(
    {module: path.read_text() for module, path in FILES.items()},
    frozenset(module for module, path in FILES.items() if path.name == "__init__.py"),
)


def modules_in(parts: tuple[str, ...]) -> list[str]:
    """The modules of some parts, as far as they are there."""
    homes = [f"harness.{part}" for part in parts]
    return [module for module in FILES if any(module == home or module.startswith(f"{home}.") for home in homes)]


def never(parts: tuple[str, ...], libraries: tuple[str, ...], *, late: bool = True) -> list[str]:
    """The chains by which parts reach libraries that they must not."""
    reached = [chains(GRAPH, module, late=late) for module in modules_in(parts)]
    return [found[library] for found in reached for library in libraries if library in found]


def test_the_project_is_read():
    assert {"harness.config", "harness.space", "harness.key"} <= GRAPH.keys()
    assert Import("harness.config", False) in GRAPH["harness.space"]
    assert Import("pydantic", False) in GRAPH["harness.config"]


def test_readers_import_neither_torch_nor_ray():
    assert never(READERS, ("torch", "torchvision", "timm", "ptflops", "ray")) == []


def test_what_runs_with_torch_alone_imports_no_scheduler_no_store_and_no_plots():
    assert never(PORTABLE, ("ray", "optuna", "sqlalchemy", "plotly")) == []


def test_verbs_start_without_torch_and_ray():
    assert never(COMPOSITION, ("torch", "torchvision", "timm", "ptflops", "ray"), late=False) == []


def test_the_engine_imports_no_search_space_and_no_study():
    users = [(module, item.target) for module, found in GRAPH.items() for item in found]
    assert [user for user in users if user[1] in ("search_spaces", "studies", "tests")] == []


@pytest.mark.parametrize("library", PLACES)
def test_a_library_is_met_in_one_place(library):
    users = [module for module, found in GRAPH.items() if any(item.target == library for item in found)]
    assert sorted(set(users) - set(modules_in(PLACES[library]))) == []


def test_no_import_goes_in_a_circle():
    assert circle(GRAPH) == []


def test_packages_are_empty_doors():
    full = [module for module, path in FILES.items() if path.name == "__init__.py" and path.read_text().strip()]
    assert full == []


def run_imports(modules: list[str], forbidden: tuple[str, ...]) -> str:
    """The forbidden libraries that are loaded once the modules are, in a process of its own."""
    script = f"import sys, {', '.join(modules)}; print(*[name for name in {forbidden!r} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_readers_and_verbs_load_neither_torch_nor_ray():
    """What their libraries bring along counts too."""
    assert run_imports(modules_in(READERS + COMPOSITION), ("torch", "ray")) == ""


def test_what_runs_with_torch_alone_loads_no_scheduler_no_store_and_no_plots():
    assert run_imports(modules_in(PORTABLE), ("ray", "optuna", "sqlalchemy", "plotly")) == ""


# -- the tests can fail -----------------------------------------------------------------------------------------------


def targets(source, module="a.b.c", **kwargs):
    return [tuple(item) for item in imports(source, module, **kwargs)]


def test_every_form_of_import_is_seen():
    assert targets("import x.y as z, w") == [("x.y", False), ("w", False)]
    assert targets("from x.y import z, w") == [("x.y.z", False), ("x.y.w", False)]
    assert targets("from . import z\nfrom .z import w\nfrom ..z import w") == [
        ("a.b.z", False),
        ("a.b.z.w", False),
        ("a.z.w", False),
    ]
    assert targets("from .z import w", "a.b", package=True) == [("a.b.z.w", False)]
    assert targets("import importlib\nx = importlib.import_module('y.z')") == [("importlib", False), ("y.z", False)]
    assert targets("text = 'import x'  # import y") == []


def test_late_imports_are_told_apart():
    assert targets("def f():\n    import x\n    def g():\n        import y") == [("x", True), ("y", True)]
    assert targets("class A:\n    import x\n    async def f(self):\n        from y import z") == [
        ("x", False),
        ("y.z", True),
    ]
    assert targets("try:\n    import x\nexcept ImportError:\n    import y") == [("x", False), ("y", False)]
    assert targets("if TYPE_CHECKING:\n    import x\nelse:\n    import y") == [("x", True), ("y", False)]
    assert targets("if typing.TYPE_CHECKING:\n    import x\nif ready:\n    import y") == [("x", True), ("y", False)]
    assert targets("f = lambda: __import__('x')") == [("x", True)]


FAKE = graph_of(
    {
        "p": "",
        "p.reader": "from p.middle import thing",
        "p.middle": "import os\ndef f():\n    from p import late",
        "p.late": "from torch.nn import functional",
        "p.one": "from p import two",
        "p.two": "def f():\n    from p.three import g",
        "p.three": "import p.one",
        "p.self": "from p.self import me",
    },
    frozenset({"p"}),
)


def test_names_stand_for_their_modules():
    assert FAKE["p.reader"] == [Import("p.middle", False)]
    assert FAKE["p.middle"] == [Import("os", False), Import("p.late", True)]
    assert FAKE["p.late"] == [Import("torch", False)]
    assert FAKE["p.self"] == []


def test_a_library_is_found_through_others():
    assert chains(FAKE, "p.reader")["torch"] == "p.reader -> p.middle -> p.late -> torch"
    assert "torch" not in chains(FAKE, "p.reader", late=False)
    assert "os" in chains(FAKE, "p.reader", late=False)


def test_a_circle_is_found_through_a_late_import():
    found = circle(FAKE)
    assert found[0] == found[-1]
    assert set(found) == {"p.one", "p.two", "p.three"}
    assert all(any(item.target == other for item in FAKE[one]) for one, other in pairwise(found))
    assert circle({name: items for name, items in FAKE.items() if name != "p.two"}) == []


def test_modules_of_tests_have_names_of_their_own():
    """pytest knows them by these alone, and collects none where two are equal."""
    names = [path.name for path in (ROOT / "tests").rglob("test_*.py")]
    assert sorted(names) == sorted(set(names))
