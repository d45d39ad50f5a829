"""Maps of distance kernels against a double loop written from the papers' formulas, and the user's own kernels."""

import math
import re
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from harness.config import Config, ExpAtt, Kernel, ResNet
from harness.errors import CodeError, ConfigError
from harness.key import trial_key
from harness.networks.attention.expatt import DistanceMap
from harness.networks.attention.kernels import KERNELS, axis_maps, dense_map, kernel_named
from harness.preflight import checked
from harness.space import choose, vary
from harness.study import Study

FACTORISE: list[Kernel] = ["gaussian", "laplacian"]
sides, radii = st.integers(1, 6), st.floats(0.05, 50)


def reference(kernel: str, dy: int, dx: int, r: float) -> float:
    d = math.sqrt(dy * dy + dx * dx)
    return {
        "gaussian": math.exp(-d * d / (2 * r * r)),
        "laplacian": math.exp(-(abs(dy) + abs(dx)) / r),
        "laplacian_l2": math.exp(-d / r),
        "cauchy": 1 / (1 + d * d / (r * r)),
        "linear": max(0.0, 1 - d / r),
        "uniform": 1.0,
    }[kernel]


def reference_map(kernel: str, height: int, width: int, r: float) -> Tensor:
    places = [(y, x) for y in range(height) for x in range(width)]
    rows = [[reference(kernel, y - v, x - u, r) for v, u in places] for y, x in places]
    return torch.tensor([[weight / sum(row) for weight in row] for row in rows], dtype=torch.float64)


def radius(*values: float) -> Tensor:
    return torch.tensor(values, dtype=torch.float64)


@given(kernel=st.sampled_from(list(KERNELS)), height=sides, width=sides, r=radii)
@settings(deadline=None, max_examples=60)
def test_the_dense_map_is_the_formula(kernel: Kernel, height: int, width: int, r: float) -> None:
    found = dense_map(KERNELS[kernel], height, width, radius(r))
    torch.testing.assert_close(found[0], reference_map(kernel, height, width, r), rtol=1e-9, atol=1e-12)
    transposed = dense_map(KERNELS[kernel], height, width, radius(r), transposed=True)
    torch.testing.assert_close(transposed.mT, found)


@given(kernel=st.sampled_from(FACTORISE), height=sides, width=sides, r=radii)
@settings(deadline=None, max_examples=60)
def test_a_factorised_map_is_the_dense_one(kernel: Kernel, height: int, width: int, r: float) -> None:
    rows, columns = axis_maps(KERNELS[kernel], height, width, radius(r, 2 * r))
    for head in range(2):
        product = torch.kron(rows[head], columns[head])
        torch.testing.assert_close(product, dense_map(KERNELS[kernel], height, width, radius(r, 2 * r))[head])


@pytest.mark.parametrize("kernel", KERNELS)
def test_what_is_said_to_factorise_does_and_nothing_else(kernel: Kernel) -> None:
    rows, columns = axis_maps(KERNELS[kernel], 4, 4, radius(3.0))
    wrong = (torch.kron(rows[0], columns[0]) - dense_map(KERNELS[kernel], 4, 4, radius(3.0))[0]).abs().max()
    assert KERNELS[kernel].factorises == ExpAtt(kernel=kernel).separable() == (kernel in FACTORISE)
    assert wrong < 1e-12 if kernel in FACTORISE else wrong > 1e-3


@pytest.mark.parametrize("kernel", KERNELS)
def test_rows_sum_to_one_and_limits_are_uniform_and_identity(kernel: Kernel) -> None:
    maps = dense_map(KERNELS[kernel], 3, 5, torch.tensor([1e-6, 1.0, 1e6]))
    torch.testing.assert_close(maps.sum(-1), torch.ones(3, 15))
    torch.testing.assert_close(maps[2], torch.full((15, 15), 1 / 15), rtol=1e-4, atol=0)
    torch.testing.assert_close(maps[0], torch.eye(15))


# -- the user's own

MODULE = """
import torch

def cosine(rows, columns, radius):
    return 1.001 + torch.cos(torch.clamp(torch.hypot(rows, columns) / radius, max=3.14159))

def hats(rows, columns, radius):
    return 1 / (1 + rows / radius) / (1 + 2 * columns / radius)

hats.factorises = True

def raises(rows, columns, radius):
    return rows + missing

def flat(rows, columns, radius):
    return rows / radius

def listed(rows, columns, radius):
    return [rows]

def infinite(rows, columns, radius):
    return 1 / (rows + columns + 0 * radius)

def negative(rows, columns, radius):
    return 1 - (rows + columns) / radius

def deaf(rows, columns, radius):
    return torch.clamp((rows + columns) * radius, min=0) * 0

def steep(rows, columns, radius):
    return torch.exp(-torch.hypot(rows, columns)) + (radius - radius).sqrt()

def unfactorised(rows, columns, radius):
    return torch.exp(-torch.hypot(rows, columns) / radius)

unfactorised.factorises = True
constant = 3
"""


@pytest.fixture(scope="module", autouse=True)
def own_kernels(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("own")
    (folder / "own_kernels.py").write_text(MODULE)
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(folder))
        import own_kernels  # type: ignore[import-not-found]  # noqa: F401
    return folder


def test_a_kernel_of_ones_own_is_applied_as_it_is_written() -> None:
    x = torch.randn(2, 8, 11, 12, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    for name, factorises in (("cosine", False), ("hats", True)):
        slot = ExpAtt(kernel=f"own_kernels:{name}", radius=3.0, radius_per="head", heads=2)
        assert slot.factorises(11, 12) == factorises and slot.radii() == 2
        module = DistanceMap(slot).double()
        weights = dense_map(kernel_named(slot.kernel), 11, 12, radius(3.0))[0]
        torch.testing.assert_close(module(x), torch.einsum("ij,bcj->bci", weights, x.flatten(2)).view_as(x))
    here = torch.tensor([0.0, 2.0], dtype=torch.float64)
    by_hand = (2.001, 1.001 + math.cos(2 / 3))
    rows, columns = here[:, None, None, None], torch.zeros(1, dtype=torch.float64)[:, None]
    found = kernel_named("own_kernels:cosine").function(rows, columns, radius(3.0)).flatten()
    torch.testing.assert_close(found, torch.tensor(by_hand, dtype=torch.float64))


WRONG = {
    "nowhere": "own_kernels has no nowhere",
    "constant": "is no function; write def constant(rows, columns, radius)",
    "raises": "(rows, columns, radius) raised NameError",
    "flat": "here of shape (4, 4, 5, 4, 5); it returned (4, 4, 1, 4, 1)",
    "listed": "it returned list",
    "infinite": "its weights must be finite at every radius",
    "negative": "weights must not be negative; the least is",
    "deaf": "a position must listen to something",
    "steep": "its gradient in the radius must be finite",
    "unfactorised": "it says `factorises`, but is no function of rows times one of columns",
}


@pytest.mark.parametrize("name", WRONG)
def test_a_kernel_that_cannot_be_used_is_refused_in_one_line(name: str) -> None:
    with pytest.raises(CodeError, match=re.escape(WRONG[name])) as error:
        DistanceMap(ExpAtt(kernel=f"own_kernels:{name}"))
    assert str(error.value).startswith(f"own_kernels:{name}") and "\n" not in str(error.value)


def test_a_name_that_is_no_kernel_is_refused() -> None:
    for name in ("gausian", "mylab.kernels", "my lab:cosine", ":cosine"):
        with pytest.raises(ConfigError, match=r"ExpAtt.kernel = .*'package.module:function'"):
            ExpAtt(kernel=name)


def test_the_source_of_ones_own_kernel_is_in_the_key() -> None:
    def key(kernel: str, source: str) -> str:
        config = Config(network=ResNet(depth=8, stages=(None, None, ExpAtt(kernel=kernel))))
        return trial_key(config, 0, "d", lambda target: source + target)

    assert key("own_kernels:cosine", "s") != key("own_kernels:cosine", "t")
    assert key("own_kernels:cosine", "s") != key("own_kernels:hats", "s")
    assert key("gaussian", "s") == key("gaussian", "t")


def test_a_study_finds_a_bad_kernel_before_it_runs(make_study: Callable[..., Study], storage: str) -> None:
    def study(*kernels: str) -> Study:
        slot = vary(ExpAtt, kernel=choose("gaussian", *(f"own_kernels:{name}" for name in kernels)))
        return make_study(space=vary(ResNet, depth=8, stages=(None, None, slot)))

    found = checked(study("cosine", "hats"), storage, Path())
    assert set(found.sources) == {"own_kernels:cosine", "own_kernels:hats"}
    with pytest.raises(CodeError, match="own_kernels:negative: weights must not be negative"):
        checked(study("cosine", "negative"), storage, Path())
