"""Attention in place of a convolution against the papers' sums, written naively; and the published counts."""

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from harness.config import Attention, BottleneckAttention, Halo, LambdaLayer, NonLocal, ResNet, Site, StandAlone
from harness.cost import Shape, network_cost
from harness.errors import ConfigError
from harness.networks.attention.catalog import attention
from harness.networks.attention.standalone import WindowAttention

INPUTS, CHANNELS, HEIGHT, WIDTH = 5, 8, 5, 4
PLACES = [(row, column) for row in range(HEIGHT) for column in range(WIDTH)]


def made(slot: Attention, stride: int = 1) -> nn.Module:
    torch.manual_seed(1)
    module = attention(slot, Site(INPUTS, CHANNELS, HEIGHT, WIDTH, stride)).eval()
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.add_(torch.randn(parameter.shape), alpha=0.1)
    return module


def picture() -> Tensor:
    return torch.randn(1, INPUTS, HEIGHT, WIDTH, generator=torch.Generator().manual_seed(2))


def heads_of(x: Tensor, heads: int) -> Tensor:
    """(heads, channels of a head, height, width)"""
    return x[0].unflatten(0, (heads, -1))  # type: ignore[no-untyped-call, no-any-return]


def test_botnet_attends_by_content_and_by_offset_of_rows_and_of_columns() -> None:
    module, x, heads = made(BottleneckAttention(heads=2)), picture(), 2
    q, k, v = (heads_of(part, heads) for part in module.get_submodule("qkv")(x).chunk(3, 1))
    rows, columns = (module.get_parameter(f"pos_embed.{side}_rel") for side in ("height", "width"))
    expected = torch.zeros(CHANNELS // heads * heads, HEIGHT, WIDTH)
    for head in range(heads):
        for i, j in PLACES:
            own = q[head, :, i, j] / (CHANNELS // heads) ** 0.5
            logits = torch.stack(
                [own @ (k[head, :, r, c] + rows[r - i + HEIGHT - 1] + columns[c - j + WIDTH - 1]) for r, c in PLACES]
            )
            seen = torch.stack([v[head, :, r, c] for r, c in PLACES])
            expected[head * 4 : head * 4 + 4, i, j] = logits.softmax(0) @ seen
    torch.testing.assert_close(module(x)[0], expected)


def test_stand_alone_attends_to_a_window() -> None:
    module, x, heads = made(StandAlone(heads=2, size=3)), picture(), 2
    q, k, v = (heads_of(F.pad(part, (1, 1, 1, 1)), heads) for part in module.get_submodule("project")(x).chunk(3, 1))
    rows, columns = (module.get_parameter(f"attend.{name}") for name in ("rows", "columns"))
    around = [(r, c) for r in range(3) for c in range(3)]
    expected = torch.zeros(CHANNELS, HEIGHT, WIDTH)
    for head in range(heads):
        for i, j in PLACES:
            offsets = [torch.cat([rows[head, :, r, 0], columns[head, :, 0, c]]) for r, c in around]
            keys = torch.stack([k[head, :, i + r, j + c] + offset for (r, c), offset in zip(around, offsets, strict=True)])
            logits = keys @ q[head, :, i + 1, j + 1] / 2
            seen = torch.stack([v[head, :, i + r, j + c] for r, c in around])
            expected[head * 4 : head * 4 + 4, i, j] = logits.softmax(0) @ seen
    torch.testing.assert_close(module(x)[0], expected)


@pytest.mark.parametrize("size", [3, 7])
@pytest.mark.parametrize("grid", [(9, 17), (1, 8), (5, 2)])
def test_stand_alone_in_blocks_is_as_the_paper_writes_it(grid: tuple[int, int], size: int, monkeypatch: Any) -> None:
    module = WindowAttention(StandAlone(heads=2, size=size), 8).double()
    parts = [torch.randn(2, 8, *grid, dtype=torch.float64).requires_grad_() for _ in range(3)]
    found, slope = module(*parts), torch.randn(2, 8, *grid, dtype=torch.float64)
    monkeypatch.setattr(Tensor, "is_meta", True)
    expected, given = module(*parts), [*parts, *module.parameters()]
    torch.testing.assert_close(found, expected)
    slopes = (torch.autograd.grad(out, given, slope) for out in (found, expected))
    torch.testing.assert_close(*slopes)


def test_halo_attends_to_the_block_and_what_surrounds_it() -> None:
    slot, heads = Halo(heads=2, block=2, halo=1), 2
    module, x = made(slot), F.pad(picture(), (0, 0, 0, 1))  # five rows are three blocks of two
    q = heads_of(module.get_submodule("attend.q")(x), heads)
    kv = heads_of(F.pad(module.get_submodule("attend.kv")(x), (1, 1, 1, 1)), heads)
    rows, columns = (module.get_parameter(f"attend.pos_embed.{side}_rel") for side in ("height", "width"))
    window = [(r, c) for r in range(4) for c in range(4)]
    expected = torch.zeros(CHANNELS, HEIGHT, WIDTH)
    for head in range(heads):
        for i, j in PLACES:
            top, left, own = i // 2 * 2, j // 2 * 2, q[head, :, i, j] / 2
            cells = torch.stack([kv[head, :, top + r, left + c] for r, c in window])
            offsets = torch.stack([rows[r - i % 2 + 3] + columns[c - j % 2 + 3] for r, c in window])
            logits = (cells[:, :4] + offsets) @ own
            expected[head * 4 : head * 4 + 4, i, j] = logits.softmax(0) @ cells[:, 4:]
    torch.testing.assert_close(module(picture())[0], expected)


def test_a_lambda_is_of_all_content_and_of_near_positions() -> None:
    slot, heads = LambdaLayer(heads=2, keys=3, reach=3), 2
    module, x = made(slot), picture()
    q, k, v = module.get_submodule("project")(x).split((6, 3, 4), 1)
    q, v = module.get_submodule("norm_queries")(q), module.get_submodule("norm_values")(v)
    keys = k[0].flatten(1).softmax(1).view(3, HEIGHT, WIDTH)
    weight, bias = module.get_parameter("near.weight"), module.get_parameter("near.bias")
    padded = F.pad(v[0], (1, 1, 1, 1))
    expected = torch.zeros(CHANNELS, HEIGHT, WIDTH)
    for i, j in PLACES:
        linear = sum(torch.outer(keys[:, r, c], v[0, :, r, c]) for r, c in PLACES)
        near = bias[:, None] + sum(
            torch.outer(weight[:, 0, r, c], padded[:, i + r, j + c]) for r in range(3) for c in range(3)
        )
        for head in range(heads):
            expected[head * 4 : head * 4 + 4, i, j] = q[0, head * 3 : head * 3 + 3, i, j] @ (linear + near)
    torch.testing.assert_close(module(x)[0], expected, rtol=1e-4, atol=1e-5)


def test_a_non_local_block_starts_as_nothing() -> None:
    x = torch.randn(2, 6, 5, 4)
    module = attention(NonLocal(), Site(6, 6, 5, 4))
    assert torch.equal(module(x), x)


@pytest.mark.parametrize("slot", [BottleneckAttention(heads=2), Halo(heads=2, block=2), StandAlone(heads=2), LambdaLayer()])
def test_a_stride_averages_what_was_attended(slot: Any) -> None:
    whole, halved = made(slot)(picture()), made(slot, stride=2)(picture())
    assert halved.shape == (1, CHANNELS, 3, 2)
    torch.testing.assert_close(halved[:, :, 0, 1], whole[:, :, :2, 2:].mean((2, 3)))
    torch.testing.assert_close(halved[:, :, 2, 0], whole[:, :, 4, :2].mean(2))  # the odd row by itself


def test_a_small_map_has_one_answer_with_any_block_that_holds_it() -> None:
    module, x = made(Halo(heads=2, block=8, halo=2)), picture()
    spread = F.pad(x, (0, 4, 0, 3))  # as if the picture had been 8x8, zero beyond
    torch.testing.assert_close(module(x), module(spread)[:, :, :HEIGHT, :WIDTH])


PUBLISHED: list[tuple[tuple[Attention | None, ...], float]] = [
    ((None, None, None, BottleneckAttention()), 20.852),
    ((LambdaLayer(),) * 4, 14.996),
    ((StandAlone(),) * 4, 18.04),
]


@pytest.mark.parametrize(("stages", "millions"), PUBLISHED, ids=str)
def test_published_parameters_on_resnet_50(stages: Any, millions: float) -> None:
    found = network_cost(ResNet(depth=50, stages=stages), Shape(3, 224, 224, 1000)).params
    assert found / 1e6 == pytest.approx(millions, rel=0.0005)


@pytest.mark.parametrize(
    ("slot", "words"),
    [
        (
            BottleneckAttention(heads=3),
            "BottleneckAttention.heads = 3: must divide 16 channels; use one of [1, 2, 4, 8, 16]",
        ),
        (StandAlone(size=4), "StandAlone.size = 4: a centred window has an odd side; use 5"),
        (StandAlone(heads=16), "no halves for rows and columns; use one of [1, 2, 4, 8]"),
        (LambdaLayer(reach=8), "LambdaLayer.reach = 8: a centred convolution has an odd side; use 9"),
    ],
    ids=repr,
)
def test_what_does_not_fit_is_refused_in_one_line(slot: Any, words: str) -> None:
    with pytest.raises(ConfigError) as error:
        ResNet(depth=8, stages=(slot, None, None))
    assert words in str(error.value) and "\n" not in str(error.value)
