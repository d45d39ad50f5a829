"""AA against the paper's own loops, its published counts, its symmetries, its precision."""

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from harness.config import AA, ResNet, Site, WideResNet
from harness.cost import Shape, network_cost
from harness.errors import ConfigError
from harness.measure.complexity import count_dispatch, count_ptflops
from harness.networks.attention.augmented import AAConv2d, MultiHead, coordinates, fused, softmax_attention
from harness.networks.build import build, seeded_attention

IMAGENET = Shape(3, 224, 224, 1000)


def naive_aa(module: AAConv2d, x: Tensor) -> Tensor:
    """The layer as the paper tells it: for each head and each pair of positions a logit, then a softmax, then a sum."""
    attend, batch = module.attend, len(x)
    if not module.pooled:
        qkv = F.conv2d(x, module.qkv.weight, stride=module.stride)
    elif module.projects_whole:
        qkv = pooled(F.conv2d(x, module.qkv.weight, stride=module.stride))
    else:
        qkv = F.conv2d(pooled(x), module.qkv.weight, stride=module.stride)
    height, width = qkv.shape[2:]
    positions = [(y, x) for y in range(height) for x in range(width)]
    dk = attend.heads * attend.keys
    q, k, v = qkv[:, :dk], qkv[:, dk : 2 * dk], qkv[:, 2 * dk :]
    heads = []
    for q_h, k_h, v_h in zip(q.chunk(attend.heads, 1), k.chunk(attend.heads, 1), v.chunk(attend.heads, 1)):
        out = torch.empty_like(v_h)
        for y, x_ in positions:
            query = q_h[:, :, y, x_] / attend.keys**0.5
            logits = torch.empty(batch, len(positions), dtype=x.dtype)
            for j, (y_j, x_j) in enumerate(positions):
                logit = (query * k_h[:, :, y_j, x_j]).sum(1)
                if attend.rows is not None and attend.columns is not None:
                    logit = logit + query @ offset_row(module, attend.rows, y_j - y)
                    logit = logit + query @ offset_row(module, attend.columns, x_j - x_)
                logits[:, j] = logit
            weights = logits.softmax(1)
            out[:, :, y, x_] = sum(weights[:, j, None] * v_h[:, :, y_j, x_j] for j, (y_j, x_j) in enumerate(positions))
        heads.append(out)
    attended = F.conv2d(torch.cat(heads, 1), module.project.weight)
    if module.pooled:
        size = [(side + module.stride - 1) // module.stride for side in x.shape[2:]]
        attended = F.interpolate(attended, size, mode="bilinear", align_corners=False)
    if module.kept is None:
        return attended
    return torch.cat((F.conv2d(x, module.kept.weight, stride=module.stride, padding=1), attended), 1)


def pooled(x: Tensor) -> Tensor:
    """The mean of those of the 3x3 neighbours, at every second position, that lie in the picture."""
    return F.avg_pool2d(x, 3, 2, padding=1) / F.avg_pool2d(torch.ones_like(x), 3, 2, padding=1)


def offset_row(module: AAConv2d, table: Tensor, offset: int) -> Tensor:
    """The embedding of an offset on the attended grid: on a pooled one, the mean of those of twice the offset and its two
    neighbours, as far as the map has them."""
    middle = len(table) // 2
    if not module.pooled:
        return table[middle + offset]
    near = range(middle + 2 * offset - 1, middle + 2 * offset + 2)
    return torch.stack([table[row] for row in near if 0 <= row < len(table)]).mean(0)


def layer(slot: AA, site: Site) -> AAConv2d:
    module = seeded_attention(slot, site, seed=0, path="here")
    assert isinstance(module, AAConv2d)
    return module.double()


def pictures(*size: int, seed: int = 1) -> Tensor:
    return torch.randn(*size, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


SMALL: dict[str, Any] = {"heads": 2, "min_keys": 3, "upsilon": 0.5}


@pytest.mark.parametrize(
    ("knobs", "site"),
    [
        ({}, Site(4, 16, 4, 5)),
        ({}, Site(4, 16, 5, 4, 2)),
        ({"position": "none"}, Site(4, 16, 3, 4)),
        ({"largest": 3}, Site(4, 16, 5, 6)),
        ({"largest": 3}, Site(4, 16, 8, 7, 2)),
        ({"largest": 3, "position": "none"}, Site(4, 16, 4, 1)),
        ({"largest": 3, "pooled": "qkv"}, Site(4, 16, 5, 6)),
        ({"largest": 3, "pooled": "qkv"}, Site(4, 16, 8, 7, 2)),
        ({"largest": 5, "pooled": "qkv"}, Site(4, 16, 4, 5)),
        ({"upsilon": 1.0, "kappa": 1.0, "heads": 4}, Site(4, 16, 3, 3)),
        ({"heads": 1}, Site(4, 16, 1, 1)),
    ],
)
def test_the_layer_is_the_naive_loop(knobs: dict[str, Any], site: Site) -> None:
    module = layer(AA(**SMALL | knobs), site)
    x = pictures(2, site.inputs, site.height, site.width)
    found = module(x)
    assert found.shape == (2, site.channels, *site.grid)
    torch.testing.assert_close(found, naive_aa(module, x), rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize(
    ("network", "millions", "gflops"),
    [  # parameters as computed from the paper (it says 25.8 and 20.7), 2 x MACs as it says
        (ResNet(depth=50, stages=(None, *[AA()] * 3)), 25.814, 8.3),
        (ResNet(depth=34, stages=(None, *[AA(kappa=0.25, upsilon=0.25)] * 3)), 20.750, 7.1),
        (ResNet(depth=50, stages=(None, *[AA(kappa=0.25, upsilon=0.25)] * 3)), 24.308, None),
    ],
)
def test_published_counts(network: ResNet, millions: float, gflops: float | None) -> None:
    params, macs = network_cost(network, IMAGENET)
    assert round(params / 1e6, 3) == millions
    assert gflops is None or abs(2 * macs / 1e9 / gflops - 1) < 0.02
    model = build(network, IMAGENET, device="meta")
    assert count_dispatch(model, IMAGENET) == count_ptflops(model, IMAGENET) == (params, macs)


def test_a_wide_network_by_hand() -> None:
    """AA-WRN-28-10 on CIFAR-100: 36.31 M parameters and 10.89 GFLOPs; printed 36.2 and 10.9 (plain: 36.54 and 10.49; 36.3
    and 10.4), the first 3x3 of every block, 160 key dimensions, the map of 32x32 projected and then pooled."""
    shape, params, macs = Shape(3, 32, 32, 100), 36_536_884, 5_243_386_368  # the plain network's
    for inputs, width, values, grid, attended in ((16, 160, 16, 32, 16), (160, 320, 32, 16, 16), (320, 640, 64, 8, 8)):
        for entering in (inputs, width, width, width):
            fewer, projections = 9 * entering * values, entering * (2 * 160 + values) + values**2
            params += projections - fewer + 2 * (2 * grid - 1) * 20
            macs += entering * (2 * 160 + values) * grid**2 + values**2 * attended**2 - fewer * grid**2
            macs += attended**4 * (160 + values) + attended**2 * 2 * attended * 160
    assert network_cost(WideResNet(), shape) == (36_536_884, 5_243_386_368)
    network = WideResNet(stages=(AA(pooled="qkv"),) * 3)
    assert network_cost(network, shape) == (params, macs)
    assert abs(params / 36.2e6 - 1) < 0.005 and abs(2 * macs / 10.9e9 - 1) < 0.002
    model = build(network, shape, device="meta")
    assert count_dispatch(model, shape) == count_ptflops(model, shape) == (params, macs)


def test_at_a_stride_of_one_it_is_the_same_before_and_after_the_projection() -> None:
    before, after = (layer(AA(**SMALL, largest=3, pooled=what), Site(4, 16, 5, 6)) for what in ("input", "qkv"))
    x = pictures(2, 4, 5, 6)
    torch.testing.assert_close(before(x), after(x))
    for site in (Site(160, 160, 32, 32), Site(160, 160, 64, 64, 2)):
        one, other = (AA(pooled=what).cost(site) for what in ("input", "qkv"))
        assert one.params == other.params and one.macs < other.macs


def test_the_cost_of_a_layer_by_hand() -> None:
    slot = AA(kappa=0.5, upsilon=0.25, heads=4, min_keys=8, largest=None)  # 64 channels: dv 16, 8 key dimensions a head
    positions = 6 * 5
    products = positions * positions * (32 + 16) + positions * (6 + 5) * 32
    weights = 9 * 32 * 48 + 32 * (2 * 32 + 16) + 16 * 16
    assert slot.cost(Site(32, 64, 6, 5)) == (weights + (11 + 9) * 8, weights * positions + products)
    assert AA(position="none", **slot.model_dump(include={"kappa", "upsilon", "heads", "min_keys", "largest"})).cost(
        Site(32, 64, 6, 5)
    ) == (weights, weights * positions + positions * positions * 48)


def test_pooling_saves_macs_and_no_parameters() -> None:
    full, pooled = AA(largest=None).cost(Site(128, 128, 28, 28)), AA().cost(Site(128, 128, 28, 28))
    assert full.params == pooled.params and full.macs > 2 * pooled.macs
    assert AA().cost(Site(256, 256, 28, 28, 2)) == AA(largest=None).cost(Site(256, 256, 28, 28, 2))


@pytest.mark.parametrize("grid", [(3, 2), (5, 4)])
def test_gradients(grid: tuple[int, int]) -> None:
    module = layer(AA(**SMALL, largest=4), Site(2, 16, *grid))
    names, weights = zip(*[(name, weight.detach().requires_grad_()) for name, weight in module.named_parameters()])

    def run(x: Tensor, *weights: Tensor) -> Tensor:
        out = torch.func.functional_call(module, dict(zip(names, weights)), (x,))
        assert isinstance(out, Tensor)
        return out

    x = pictures(1, 2, *grid).requires_grad_()
    assert torch.autograd.gradcheck(run, (x, *weights), fast_mode=True)


@pytest.mark.parametrize("largest", [16, 8])
def test_bf16_is_close_to_fp32(largest: int) -> None:
    module = layer(AA(largest=largest), Site(64, 64, 14, 12)).float()
    x = pictures(4, 64, 14, 12).float()
    exact = module(x)
    with torch.autocast("cpu", torch.bfloat16):
        assert (module(x) - exact).abs().max() < 0.02 * exact.abs().max()
    assert (module.bfloat16()(x.bfloat16()).float() - exact).abs().max() < 0.02 * exact.abs().max()


def attention(slot: AA, height: int, width: int) -> tuple[MultiHead, Tensor]:
    module = MultiHead(slot, Site(16, 16, height, width)).double()
    return module, pictures(2, 2 * module.heads * module.keys + slot.values(16), height, width)


def test_without_positions_it_does_not_see_where_things_are() -> None:
    module, qkv = attention(AA(position="none", **SMALL), 4, 5)
    order = torch.randperm(20, generator=torch.Generator().manual_seed(0))

    def mixed(x: Tensor) -> Tensor:
        return x.flatten(2)[..., order].view_as(x)

    torch.testing.assert_close(module(mixed(qkv)), mixed(module(qkv)))
    placed, _ = attention(AA(**SMALL), 4, 5)
    assert (placed(mixed(qkv)) - mixed(placed(qkv))).abs().max() > 0.01


def test_a_flip_of_the_picture_is_a_flip_of_the_tables() -> None:
    module, qkv = attention(AA(**SMALL), 4, 5)
    out = module(qkv)
    assert module.rows is not None and module.columns is not None
    module.rows.data, module.columns.data = module.rows.flip(0), module.columns.flip(0)
    torch.testing.assert_close(module(qkv.flip((2, 3))), out.flip((2, 3)))


def test_rows_of_the_map_sum_to_one() -> None:
    module, qkv = attention(AA(**SMALL), 4, 5)
    qkv[:, -8:] = 1
    torch.testing.assert_close(module(qkv), torch.ones(2, 8, 4, 5, dtype=torch.float64))


def test_an_offset_of_large_weight_shifts_the_picture() -> None:
    """All of the attention on the right-hand neighbour: the tables mean what they say."""
    module, qkv = attention(AA(heads=1, min_keys=3, upsilon=0.5), 4, 5)
    assert module.rows is not None and module.columns is not None
    qkv[:, :3], qkv[:, 3:6] = 1, 0
    for table, offset in ((module.rows, 0), (module.columns, 1)):
        nn.init.zeros_(table)
        with torch.no_grad():
            table[len(table) // 2 + offset] = 1e4
    torch.testing.assert_close(module(qkv)[..., :-1], qkv[:, 6:, :, 1:])


def test_every_form_gives_the_same_sum() -> None:
    query, key, value = pictures(6, 20, 7), pictures(6, 20, 7, seed=2), pictures(6, 20, 3, seed=3)
    whole = (query @ key.mT).softmax(-1) @ value
    torch.testing.assert_close(softmax_attention(query, key, value), whole)
    torch.testing.assert_close(fused(query, key, value), whole)
    places = coordinates(torch.empty(1, 1, 2, 3, 1))[0, 0].int().tolist()
    assert places == [
        [[1, 0, 1, 0, 0], [1, 0, 0, 1, 0], [1, 0, 0, 0, 1]],
        [[0, 1, 1, 0, 0], [0, 1, 0, 1, 0], [0, 1, 0, 0, 1]],
    ]


@pytest.mark.parametrize("position", ["relative", "none"])
def test_slopes_by_hand_are_those_of_autograd(position: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    module = MultiHead(AA(**SMALL, position=position), Site(16, 16, 9, 8)).double()
    qkv, slope = pictures(30, 20, 9, 8), pictures(30, 8, 9, 8, seed=2)  # more maps than are made at a time, a few over

    def slopes(qkv: Tensor) -> list[Tensor]:
        given = qkv.clone().requires_grad_()
        out = module(given)
        return [out, *torch.autograd.grad(out, [given, *module.parameters()], slope)]

    by_hand, ordered = slopes(qkv), slopes(qkv.contiguous(memory_format=torch.channels_last))
    with torch.no_grad():
        assert torch.equal(module(qkv), by_hand[0])
    monkeypatch.setattr(torch.compiler, "is_compiling", lambda: True)
    for found in (by_hand, ordered):
        torch.testing.assert_close(found, slopes(qkv))


def test_the_form_that_is_counted_is_the_form_that_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    module, qkv = attention(AA(**SMALL), 4, 5)
    appended = module(qkv)
    monkeypatch.setattr(Tensor, "is_meta", True)
    torch.testing.assert_close(module(qkv), appended)


def test_another_grid_is_refused_where_there_are_tables() -> None:
    with pytest.raises(ConfigError, match=r"^AA: a map of 5x4 positions, built for 4x5: .*position='none'$"):
        layer(AA(**SMALL), Site(4, 16, 4, 5))(pictures(1, 4, 5, 4))
    free = layer(AA(**SMALL, position="none"), Site(4, 16, 4, 5))
    assert free(pictures(1, 4, 7, 3)).shape == (1, 16, 7, 3)


@pytest.mark.parametrize(
    ("slot", "channels", "message"),
    [
        (AA(heads=3), 128, r"^AA.heads = 3: must divide the 8 attention channels; use one of \[1, 2, 4, 8\]$"),
        (AA(), 4, r"^AA.upsilon = 0.1: takes at least 8 channels, here are 4; use a wider network$"),
    ],
)
def test_what_cannot_be_built_is_refused(slot: AA, channels: int, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        slot.check(channels)


def test_equal_layers_are_equal() -> None:
    assert AA(kappa=0.1).effective(128) == AA(kappa=0.2).effective(128) != AA(kappa=2.0).effective(128)
    assert AA(upsilon=0.1).effective(64) == AA(upsilon=0.2).effective(64) != AA(upsilon=0.25).effective(64)
    different = [AA(), AA(heads=4), AA(min_keys=30), AA(position="none"), AA(largest=None), AA(largest=8)]
    different.append(AA(pooled="qkv"))
    assert len({str(slot.effective(128)) for slot in different}) == len(different)
    assert AA(largest=None, pooled="qkv").effective(64) == AA(largest=None).effective(64)


@pytest.mark.parametrize("largest", [16, 4])
def test_it_compiles_whole_and_exports(largest: int) -> None:
    module, x = layer(AA(**SMALL, largest=largest), Site(4, 16, 6, 5)).float(), pictures(2, 4, 6, 5).float()
    torch.testing.assert_close(torch.compile(module, fullgraph=True, backend="aot_eager")(x), module(x))
    exported = torch.export.export(module, (x,), dynamic_shapes=({0: torch.export.Dim("batch")},)).module()
    more = pictures(3, 4, 6, 5).float()
    torch.testing.assert_close(exported(more), module(more))
