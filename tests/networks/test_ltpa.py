"""LTPA: naive loops, what pc cannot do, maps, keys, refusals."""

import itertools
import math
from typing import Any

import pytest
import torch
from torch import Tensor

from harness.config import LTPA, VGG, Config, Network, PreActResNet, ResNet, WideResNet
from harness.cost import Shape
from harness.errors import ConfigError
from harness.key import canonical, identity
from harness.networks.attention.ltpa import AttendedHead
from harness.networks.build import build, initialise
from harness.networks.trunk import TrunkNetwork

WIDTHS = (3, 5, 4, 6)
"""Channels of the stages of a made-up trunk that ends in 6."""


def made(**knobs: Any) -> AttendedHead:
    """A head in double precision whose norms have statistics of their own."""
    head = AttendedHead(LTPA(**knobs), WIDTHS, 7)
    initialise(head, seed=1)
    generator = torch.Generator().manual_seed(0)
    for path, tensor in head.state_dict().items():
        if "norm" in path and tensor.dim():
            tensor.copy_(torch.rand(tensor.shape, generator=generator) + (0 if path.endswith("mean") else 0.5))
    return head.double().eval()


def features(batch: int = 3) -> tuple[list[Tensor], Tensor]:
    generator = torch.Generator().manual_seed(2)
    sizes = [(6, 5), (3, 4), (2, 3), (1, 2)]
    outputs = [torch.randn(batch, c, *size, generator=generator, dtype=torch.float64) for c, size in zip(WIDTHS, sizes)]
    return outputs, torch.randn(batch, WIDTHS[-1], generator=generator, dtype=torch.float64)


def rows(weights: dict[str, Tensor], path: str) -> tuple[list[list[float]], list[float]]:
    return weights[f"{path}.weight"].flatten(1).tolist(), weights[f"{path}.bias"].tolist()


def affine(weights: dict[str, Tensor], path: str, x: list[float]) -> list[float]:
    matrix, shift = rows(weights, path)
    return [sum(w * v for w, v in zip(row, x)) + b for row, b in zip(matrix, shift)]


def rectified(weights: dict[str, Tensor], path: str, x: list[float]) -> list[float]:
    names = ("running_mean", "running_var", "weight", "bias")
    statistics = zip(x, *(weights[f"{path}.norm.{name}"].tolist() for name in names))
    return [max(0.0, (v - mean) / math.sqrt(var + 1e-5) * w + b) for v, mean, var, w, b in statistics]


def softmax(scores: list[float]) -> list[float]:
    top = max(scores)
    parts = [math.exp(score - top) for score in scores]
    return [part / sum(parts) for part in parts]


def naive(head: AttendedHead, outputs: list[Tensor], pooled: Tensor, **knobs: Any) -> list[list[float]]:
    """Picture by picture, level by level, position by position, from papers' formulas alone: the probabilities."""
    weights, slot = head.state_dict(), {"score": "pc", "combine": "concat", "projection": "g", "average": "log"} | knobs
    found = []
    for picture in range(len(pooled)):
        g, sums = affine(weights, "g.linear", pooled[picture].tolist()), []
        for tap in sorted(slot["taps"]):
            path, grid = f"levels.{tap}", outputs[tap - 1][picture]
            places = [grid[:, y, x].tolist() for y, x in itertools.product(range(grid.shape[1]), range(grid.shape[2]))]
            own = g
            if len(places[0]) != len(g):
                own = rectified(weights, f"{path}.mapped", g)
                if slot["projection"] == "g":
                    own = affine(weights, f"{path}.mapped.linear", own)
                else:
                    places = [affine(weights, f"{path}.wider", place) for place in places]
            if slot["score"] == "dp":
                scores = [sum(a * b for a, b in zip(place, own)) for place in places]
            else:
                scores = [affine(weights, f"{path}.score", [a + b for a, b in zip(place, own)])[0] for place in places]
            shares = softmax(scores)
            attended = [sum(share * place[c] for share, place in zip(shares, places)) for c in range(len(places[0]))]
            sums.append((tap, rectified(weights, f"{path}.leave", attended)))
        if slot["combine"] == "concat":
            found.append(softmax(affine(weights, "classifier", [value for _, level in sums for value in level])))
            continue
        each = [softmax(affine(weights, f"classifier.{tap}", level)) for tap, level in sums]
        if slot["average"] == "probability":
            found.append([sum(column) / len(each) for column in zip(*each)])
        else:
            products = [math.prod(column) for column in zip(*each)]
            found.append([product / sum(products) for product in products])
    return found


CHOICES = list(itertools.product(["pc", "dp"], [("concat", "log"), ("indep", "log"), ("indep", "probability")], ["g", "l"]))


@pytest.mark.parametrize(("score", "how", "projection"), CHOICES)
def test_it_is_the_naive_loop(score: str, how: tuple[str, str], projection: str) -> None:
    knobs = {"taps": (2, 4, 1), "score": score, "combine": how[0], "average": how[1], "projection": projection}
    head, (outputs, pooled) = made(**knobs), features()
    expected = torch.tensor(naive(head, outputs, pooled, **knobs), dtype=torch.float64)
    torch.testing.assert_close(head(outputs, pooled).softmax(1), expected, rtol=1e-9, atol=1e-12)


def loss(head: AttendedHead, outputs: list[Tensor], pooled: Tensor) -> Tensor:
    total: Tensor = (head(outputs, pooled) * torch.arange(7)).sin().sum()
    return total


@pytest.mark.parametrize("projection", ["g", "l"])
@pytest.mark.parametrize("combine", ["concat", "indep"])
def test_pc_does_not_use_the_global_feature(combine: str, projection: str) -> None:
    """Softmax cancels <u, g>: any g gives the same logits, and nothing that only g depends on gets a gradient."""
    head, (outputs, pooled) = made(taps=(1, 2, 4), combine=combine, projection=projection), features()
    pooled.requires_grad_()
    torch.testing.assert_close(head(outputs, 100 * pooled.flip(0) - 3), head(outputs, pooled), rtol=1e-9, atol=1e-9)
    torch.autograd.backward(loss(head, outputs, pooled))
    gradients = {path: parameter.grad for path, parameter in head.named_parameters()}
    dead = [path for path in gradients if path.startswith("g.") or ".mapped." in path or path.endswith("score.bias")]
    assert len(dead) == 2 + 3 + 2 * (2 if projection == "l" else 4)
    largest = max(float(gradient.abs().max()) for gradient in gradients.values() if gradient is not None)
    assert pooled.grad is not None and pooled.grad.abs().max() < 1e-12 * largest
    for path, gradient in gradients.items():
        assert gradient is not None
        assert (gradient.abs().max() < 1e-12 * largest) == (path in dead), path


def test_dp_uses_the_global_feature() -> None:
    head, (outputs, pooled) = made(taps=(1, 4), score="dp"), features()
    assert (head(outputs, 2 * pooled) - head(outputs, pooled)).abs().max() > 1e-3
    torch.autograd.backward(loss(head, outputs, pooled))
    assert all(parameter.grad is not None and parameter.grad.abs().max() > 1e-6 for parameter in head.parameters())


def test_the_paper_s_end_of_the_trunk_gets_no_gradient_under_pc() -> None:
    for score, learns in (("pc", False), ("dp", True)):
        network = VGG(trunk="attention", width=0.05, head=LTPA(taps=(3, 5), score=score))  # type: ignore[arg-type]
        model = build(network, Shape(3, 16, 16, 4)).double()
        torch.autograd.backward(model(torch.randn(8, 3, 16, 16, dtype=torch.float64))[:, 0].sum())
        end = [p.grad.abs().max() for p in model.get_submodule("end").parameters() if p.dim() == 4 and p.grad is not None]
        trunk = model.get_parameter("stages.3.1.conv.weight").grad
        assert trunk is not None and len(end) == 2
        assert all((gradient > 1e-9 * trunk.abs().max()) == learns for gradient in end)


@pytest.mark.parametrize(
    "network",
    [
        ResNet(depth=8, head=LTPA(taps=(1, 3), score="dp")),
        PreActResNet(depth=11, width=0.5, head=LTPA(taps=(2,))),
        WideResNet(depth=10, factor=1, head=LTPA(taps=(3,), score="dp")),
        VGG(trunk="attention", width=0.1, head=LTPA(taps=(3, 4, 5))),
    ],
)
def test_maps_are_where_the_head_looks(network: Network) -> None:
    model, x = build(network, Shape(3, 13, 10, 5)).eval(), torch.randn(2, 3, 13, 10)
    assert isinstance(model, TrunkNetwork) and network.head is not None
    maps, outputs = model.maps(x), model.outputs(x)
    assert tuple(maps) == network.head.levels
    for tap, weights in maps.items():
        assert weights.shape == (2, *outputs[tap - 1].shape[2:])
        torch.testing.assert_close(weights.sum((1, 2)), torch.ones(2))
    plain = build(ResNet(depth=8), Shape(3, 13, 10, 5))
    assert isinstance(plain, TrunkNetwork) and plain.maps(x) == {}


def test_scores_of_dp_are_exact_under_bf16() -> None:
    """Features of a trained network give scores of tens, where bf16 would round by tenths."""
    head, (outputs, pooled) = made(taps=(1, 4), score="dp").float(), features()
    outputs, pooled = [(10 * x).bfloat16() for x in outputs], pooled.bfloat16()
    with torch.autocast("cpu", torch.bfloat16):
        g = head.g(pooled)
        scores = head.levels["4"].score(outputs[3], g)  # type: ignore[operator]
    exact = torch.einsum("bchw,bc->bhw", outputs[3].double(), g.double())[:, None]
    torch.testing.assert_close(scores.double(), exact, rtol=1e-5, atol=1e-4)


# -- keys and refusals


def key(network: Network) -> str:
    return canonical(identity(Config(network=network)))


DIFFERENT = [
    None,
    LTPA(taps=(2,)),
    LTPA(taps=(3,)),
    LTPA(taps=(2, 3)),
    LTPA(taps=(2, 3), score="dp"),
    LTPA(taps=(2, 3), combine="indep"),
    LTPA(taps=(2, 3), combine="indep", average="probability"),
    LTPA(taps=(2, 3), projection="l"),
    LTPA(taps=(2, 3), dropout=0.3),
]
EQUAL = [
    (LTPA(taps=(2, 3)), LTPA(taps=(3, 2), label="mine")),
    (LTPA(taps=(3,), projection="g"), LTPA(taps=(3,), projection="l")),  # the last stage is as wide as the trunk's end
    (LTPA(taps=(2,), combine="indep"), LTPA(taps=(2,))),
    (LTPA(taps=(2, 3), average="probability"), LTPA(taps=(2, 3))),
]


def test_what_matters_changes_the_key() -> None:
    assert len({key(ResNet(head=head)) for head in DIFFERENT}) == len(DIFFERENT)
    assert '"head"' not in key(ResNet())


@pytest.mark.parametrize(("one", "other"), EQUAL, ids=str)
def test_equal_heads_have_equal_keys_and_logits(one: LTPA, other: LTPA) -> None:
    assert key(ResNet(head=one)) == key(ResNet(head=other))
    x = torch.randn(2, 3, 9, 9)
    first, second = (build(ResNet(depth=8, head=head), Shape(3, 9, 9, 5)).eval()(x) for head in (one, other))
    assert torch.equal(first, second)


@pytest.mark.parametrize(
    ("taps", "words"),
    [
        ((), "LTPA.taps = (): nothing would be classified; name one stage or more, as in taps=(3, 4)"),
        ((2, 2), "LTPA.taps = (2, 2): a stage is one level; name each once"),
        ((2, 4), "LTPA.taps = (2, 4): there is no stage 4; use numbers from 1 to 3"),
        ((0,), "LTPA.taps = (0,): there is no stage 0; use numbers from 1 to 3"),
        ((1.0,), "LTPA.taps.1 = 1.0: input should be a valid integer"),
    ],
)
def test_wrong_taps_are_refused_in_one_line(taps: Any, words: str) -> None:
    with pytest.raises(ConfigError) as error:
        ResNet(head=LTPA(taps=taps))
    assert str(error.value) == words
