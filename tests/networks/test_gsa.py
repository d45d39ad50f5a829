"""GSA against the paper's own loops, its published counts, its symmetries, its precision."""

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from harness.config import GSA, ResNet, Site
from harness.cost import Shape, network_cost
from harness.errors import ConfigError
from harness.measure.complexity import count_dispatch, count_ptflops
from harness.networks.attention.gsa import Axis, GSA2d
from harness.networks.build import build, seeded_attention

IMAGENET = Shape(3, 224, 224, 1000)


def naive_gsa(module: GSA2d, x: Tensor) -> Tensor:
    """The layer as the paper tells it, head by head and position by position."""
    projected = F.conv2d(x, module.qkv.weight).split(module.outputs, 1)
    query, value = projected[0], projected[-1]
    out = torch.zeros_like(query)
    if module.content is not None:
        heads = zip(*(part.chunk(module.content.heads, 1) for part in projected))
        out = out + torch.cat([naive_content(*head, softmax=module.content.softmax_query) for head in heads], 1)
    if module.columns is not None and module.rows is not None:
        columns = naive_axis(module.columns, query, value)
        rows = naive_axis(module.rows, query.mT, module.norm(columns).mT).mT
        out = out + rows
    if module.stride == 1:
        return out
    tiles = [
        [out[:, :, y : y + 2, x : x + 2].mean((2, 3)) for x in range(0, out.shape[3], 2)] for y in range(0, out.shape[2], 2)
    ]
    return torch.stack([torch.stack(row, -1) for row in tiles], -2)


def naive_content(query: Tensor, key: Tensor, value: Tensor, *, softmax: bool) -> Tensor:
    """One head: every query reads one summary of the picture, a weighted mean of the values for each channel of the keys."""
    batch, features, height, width = query.shape
    summary = torch.zeros(batch, features, features, dtype=query.dtype)
    weights = key.flatten(2).softmax(2).view_as(key)
    for y in range(height):
        for x in range(width):
            summary = summary + weights[:, :, y, x, None] * value[:, None, :, y, x]
    out = torch.empty_like(query)
    for y in range(height):
        for x in range(width):
            q = query[:, :, y, x].softmax(1) if softmax else query[:, :, y, x]
            out[:, :, y, x] = (q[:, :, None] * summary).sum(1)
    return out


def naive_axis(module: Axis, query: Tensor, value: Tensor) -> Tensor:
    """Every position of a column hears every other with the weight <q, r> of their offset, head by head."""
    height, width = query.shape[2:]
    out = []
    for q, v in zip(query.chunk(module.heads, 1), value.chunk(module.heads, 1)):
        head = torch.zeros_like(v)
        for x in range(width):
            for y in range(height):
                for y_j in range(height):
                    relative = module.table[len(module.table) // 2 + y_j - y]
                    head[:, :, y, x] += (q[:, :, y, x] @ relative)[:, None] * v[:, :, y_j, x]
        out.append(head)
    return torch.cat(out, 1)


def layer(slot: GSA, site: Site) -> GSA2d:
    module = seeded_attention(slot, site, seed=0, path="here")
    assert isinstance(module, GSA2d)
    return module.double()


def pictures(*size: int, seed: int = 1) -> Tensor:
    return torch.randn(*size, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize(
    ("knobs", "site"),
    [
        ({}, Site(4, 8, 4, 5)),
        ({}, Site(4, 8, 5, 4, 2)),
        ({"softmax_query": True}, Site(4, 8, 4, 4, 2)),
        ({"norm": False}, Site(4, 8, 1, 6)),
        ({"position": False}, Site(4, 8, 3, 4)),
        ({"position": False, "softmax_query": True, "heads": 4}, Site(4, 8, 3, 4)),
        ({"content": False}, Site(4, 8, 5, 3, 2)),
        ({"content": False, "norm": False, "heads": 1}, Site(4, 8, 4, 4)),
        ({}, Site(4, 8, 1, 1, 2)),
        ({"heads": 4}, Site(4, 8, 3, 5)),
        ({"heads": 8}, Site(4, 8, 5, 3)),
    ],
)
def test_the_layer_is_the_naive_loop(knobs: dict[str, Any], site: Site) -> None:
    module = layer(GSA(**{"heads": 2} | knobs), site)
    x = pictures(2, site.inputs, site.height, site.width)
    found = module(x)
    assert found.shape == (2, site.channels, *site.grid)
    torch.testing.assert_close(found, naive_gsa(module, x), rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize(
    ("depth", "stages", "slot", "params", "gflops"),
    [  # computed from the paper: all digits, or three decimals of a million
        (38, (1, 2, 3, 4), GSA(), 14_202_728, 5.89),
        (50, (1, 2, 3, 4), GSA(), 18_052_856, 7.17),
        (50, (1, 2, 3, 4), GSA(position=False), 18.012, None),
        (50, (4,), GSA(), 20.848, None),
        (50, (3, 4), GSA(), 18.504, None),
        (50, (2, 3, 4), GSA(), 18.121, None),
    ],
)
def test_published_counts(depth: int, stages: tuple[int, ...], slot: GSA, params: float, gflops: float | None) -> None:
    slots: Any = tuple(slot if stage in stages else None for stage in (1, 2, 3, 4))
    network = ResNet(depth=depth, stem="imagenet", stages=slots)
    found = network_cost(network, IMAGENET)
    assert params in (found.params, round(found.params / 1e6, 3))
    assert gflops is None or abs(2 * found.macs / 1e9 - gflops) < 0.01
    model = build(network, IMAGENET, device="meta")
    assert count_dispatch(model, IMAGENET) == count_ptflops(model, IMAGENET) == found


def test_the_cost_of_a_layer_by_hand() -> None:
    content, position = 2 * 30 * 64 * 16, 2 * 30 * (6 + 5) * 64  # 30 positions, 16 channels in each of 4 heads
    tables, norm = 2 * 11 * 16, 2 * 64
    three, site = 32 * 3 * 64, Site(32, 64, 6, 5, 2)
    assert GSA(heads=4).cost(site) == (three + tables + norm, three * 30 + content + position)
    assert GSA(heads=4, norm=False).cost(site) == (three + tables, three * 30 + content + position)
    assert GSA(heads=4, position=False).cost(site) == (three, three * 30 + content)
    two = 32 * 2 * 64
    assert GSA(heads=4, content=False).cost(site) == (two + tables + norm, two * 30 + position)


@pytest.mark.parametrize("knobs", [{}, {"softmax_query": True, "norm": False}])
def test_gradients(knobs: dict[str, Any]) -> None:
    module = layer(GSA(heads=2, **knobs), Site(2, 4, 3, 2, 2)).eval()
    names, weights = zip(*[(name, weight.detach().requires_grad_()) for name, weight in module.named_parameters()])

    def run(x: Tensor, *weights: Tensor) -> Tensor:
        out = torch.func.functional_call(module, dict(zip(names, weights)), (x,))
        assert isinstance(out, Tensor)
        return out

    assert torch.autograd.gradcheck(run, (pictures(1, 2, 3, 2).requires_grad_(), *weights), fast_mode=True)


@pytest.mark.parametrize("knobs", [{}, {"content": False}, {"position": False}])
def test_bf16_is_close_to_fp32(knobs: dict[str, Any]) -> None:
    module = layer(GSA(**knobs), Site(64, 64, 14, 12)).float()
    x = pictures(4, 64, 14, 12).float()
    exact = module(x)
    with torch.autocast("cpu", torch.bfloat16):
        assert (module(x) - exact).abs().max() < 0.02 * exact.abs().max()
    assert (module.bfloat16()(x.bfloat16()).float() - exact).abs().max() < 0.02 * exact.abs().max()


def test_content_does_not_see_where_things_are() -> None:
    order = torch.randperm(20, generator=torch.Generator().manual_seed(0))

    def mixed(x: Tensor) -> Tensor:
        return x.flatten(2)[..., order].view_as(x)

    x, site = pictures(2, 8, 4, 5), Site(8, 8, 4, 5)
    content, both = layer(GSA(position=False), site), layer(GSA(), site)
    torch.testing.assert_close(content(mixed(x)), mixed(content(x)))
    assert (both(mixed(x)) - mixed(both(x))).abs().max() > 0.01


@pytest.mark.parametrize("softmax_query", [False, True])
def test_content_is_linear_in_the_values(softmax_query: bool) -> None:
    module, x = layer(GSA(position=False, softmax_query=softmax_query), Site(8, 8, 4, 5)), pictures(2, 8, 4, 5)
    out = module(x)
    with torch.no_grad():
        module.qkv.weight[16:] *= 3
    torch.testing.assert_close(module(x), 3 * out)


def test_softmax_on_the_query_gives_means_of_the_values() -> None:
    """Weights over the summaries sum to one, so that equal values stay as they are."""
    module = layer(GSA(heads=2, position=False, softmax_query=True), Site(8, 8, 3, 4))
    assert module.content is not None
    out = module.content(pictures(2, 8, 3, 4), pictures(2, 8, 3, 4, seed=2), torch.ones(2, 8, 3, 4, dtype=torch.float64))
    torch.testing.assert_close(out, torch.ones_like(out))


@pytest.mark.parametrize(("axis", "dims"), [(2, (1, 0)), (3, (0, 1))])
def test_an_axis_looks_along_itself_by_offset(axis: int, dims: tuple[int, int]) -> None:
    """A table that is one at the next position, for queries of one, shifts the picture by one; a shift commutes."""
    module = Axis(GSA(heads=2), Site(4, 4, 6, 5), axis).double()
    nn.init.zeros_(module.table)
    with torch.no_grad():
        module.table[len(module.table) // 2 + 1] = 0.5  # two channels a head
    value, one = pictures(2, 4, 6, 5), torch.ones(2, 4, 6, 5, dtype=torch.float64)
    shifted = value.roll((-dims[0], -dims[1]), (2, 3))
    shifted.select(axis, -1).zero_()  # nothing lies beyond the edge
    torch.testing.assert_close(module(one, value), shifted)


@pytest.mark.parametrize("axis", [2, 3])
def test_both_orders_and_pieces_of_a_batch_give_the_same(axis: int, monkeypatch: pytest.MonkeyPatch) -> None:
    module = Axis(GSA(heads=4), Site(8, 8, 5, 6), axis).double()
    query, value = pictures(5, 8, 5, 6), pictures(5, 8, 5, 6, seed=2)
    values_first = module(query, value)
    monkeypatch.setattr(module, "_values_first", module._weights_first)
    torch.testing.assert_close(module(query, value), values_first)
    large = Axis(GSA(heads=2), Site(8, 8, 40, 40), axis).double()
    query, value = pictures(3, 8, 40, 40), pictures(3, 8, 40, 40, seed=2)  # one picture's maps fill the cache
    torch.testing.assert_close(large(query, value)[1:2], large(query[1:2], value[1:2]))


def test_the_weights_of_one_channel_a_head_are_no_product() -> None:
    network: Any = ResNet(depth=8, stages=(GSA(heads=16), GSA(heads=8), None))
    shape = Shape(3, 9, 8, 10)
    model, claimed = build(network, shape, device="meta"), network_cost(network, shape)
    assert count_dispatch(model, shape) == count_ptflops(model, shape) == claimed


@pytest.mark.parametrize("axis", [2, 3])
def test_a_shift_of_the_picture_shifts_what_an_axis_gives(axis: int) -> None:
    module = Axis(GSA(heads=2), Site(4, 4, 9, 9), axis).double()
    query, value = (F.pad(pictures(1, 4, 5, 5, seed=seed), (2, 2, 2, 2)) for seed in (1, 2))
    moved = module(query.roll((1, -2), (2, 3)), value.roll((1, -2), (2, 3)))
    torch.testing.assert_close(moved, module(query, value).roll((1, -2), (2, 3)))


def test_a_stride_pools_what_stride_one_gives() -> None:
    x, site = pictures(2, 8, 6, 4), Site(8, 8, 6, 4)
    torch.testing.assert_close(layer(GSA(), site._replace(stride=2))(x), F.avg_pool2d(layer(GSA(), site)(x), 2))


def test_another_grid_is_refused_where_there_are_tables() -> None:
    with pytest.raises(ConfigError, match=r"^GSA: a map of 5x4 positions, built for 4x5: .*position=False$"):
        layer(GSA(), Site(8, 8, 4, 5))(pictures(1, 8, 5, 4))
    assert layer(GSA(position=False), Site(8, 8, 4, 5))(pictures(1, 8, 7, 3)).shape == (1, 8, 7, 3)


def test_what_cannot_be_built_is_refused() -> None:
    with pytest.raises(
        ConfigError, match=r"^stage 2: GSA.heads = 12: must divide the 32 channels; use one of \[1, 2, 4, 8, 16, 32\]"
    ):
        ResNet(depth=8, stages=(None, GSA(heads=12), None))
    with pytest.raises(ConfigError, match=r"^GSA.content = GSA.position = False: no branch is left"):
        GSA(content=False, position=False)


def test_equal_layers_are_equal() -> None:
    assert GSA(position=False, norm=False).effective(64) == GSA(position=False).effective(64)
    assert GSA(content=False, softmax_query=True).effective(64) == GSA(content=False).effective(64)
    different = [GSA(), GSA(heads=4), GSA(content=False), GSA(position=False), GSA(softmax_query=True), GSA(norm=False)]
    assert len({str(slot.effective(64)) for slot in different}) == len(different)


def test_it_compiles_whole_and_exports() -> None:
    module, x = layer(GSA(heads=2), Site(4, 8, 6, 5, 2)).float().eval(), pictures(2, 4, 6, 5).float()
    torch.testing.assert_close(torch.compile(module, fullgraph=True, backend="aot_eager")(x), module(x))
    exported = torch.export.export(module, (x,), dynamic_shapes=({0: torch.export.Dim("batch")},)).module()
    more = pictures(3, 4, 6, 5).float()
    torch.testing.assert_close(exported(more), module(more))
