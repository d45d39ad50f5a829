"""Recipes: rates against PyTorch's own schedulers, who decays, one step of each optimiser by hand, ready recipes."""

import math
import warnings
from typing import Any

import pytest
import torch
from torch import nn
from torch.optim import lr_scheduler

from harness import recipes
from harness.config import CBAM, ECA, ExpAtt, ResNet, Training
from harness.cost import Shape
from harness.errors import ConfigError
from harness.networks.build import build
from harness.training.recipe import learning_rate, optimiser, parameters, spared


def rates(steps: int, **fields: Any) -> list[float]:
    training = Training(**{"lr": 0.4, "warmup": 0.0} | fields)
    return [learning_rate(step, steps, training) for step in range(steps)]


def of_torch(make: Any, steps: int, lr: float = 0.4) -> list[float]:
    """The rates that a scheduler of PyTorch gives."""
    optim = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=lr)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        scheduler, found = make(optim), []
        for _ in range(steps):
            found.append(optim.param_groups[0]["lr"])
            scheduler.step()
    return found


# -- rates


def test_the_rate_rises_linearly_and_falls_as_a_cosine() -> None:
    found = rates(100, warmup=0.2)
    assert found[:20] == pytest.approx([0.4 * (step + 1) / 20 for step in range(20)])
    assert found[20] == 0.4 and found[60] == pytest.approx(0.2)
    assert found[20:] == pytest.approx(of_torch(lambda optim: lr_scheduler.CosineAnnealingLR(optim, 80), 80))
    assert rates(1) == [0.4]


def test_steps_fall_at_their_epochs() -> None:
    found = rates(60, epochs=20, schedule="step", milestones=(10, 15), drop=0.5)
    assert found == pytest.approx(of_torch(lambda optim: lr_scheduler.MultiStepLR(optim, [30, 45], gamma=0.5), 60))
    assert found[29:31] == [0.4, 0.2] and found[45] == pytest.approx(0.1)


def test_one_cycle_is_pytorchs() -> None:
    def made(optim: torch.optim.Optimizer) -> lr_scheduler.OneCycleLR:
        return lr_scheduler.OneCycleLR(optim, 0.4, total_steps=100, pct_start=0.3, cycle_momentum=False)

    assert rates(100, schedule="onecycle", warmup=0.3) == pytest.approx(of_torch(made, 100))


def test_restarts_are_those_of_expatt() -> None:
    """Linear over 15 epochs, restarts at 25, 45, 85, 165 and 325: cycles of 10 epochs, doubled each time."""
    steps = 3 * 450
    found = rates(steps, epochs=450, schedule="restarts", warmup=15 / 450, cycle=10)
    tail = of_torch(lambda optim: lr_scheduler.CosineAnnealingWarmRestarts(optim, 30, T_mult=2), steps - 45)
    assert found[45:] == pytest.approx(tail)
    jumps = [step / 3 for step in range(46, steps) if found[step] > found[step - 1]]
    assert jumps == [25, 45, 85, 165, 325]
    assert found[44] == found[45] == found[3 * 165] == 0.4 and found[0] == pytest.approx(0.4 / 45)


# -- who decays


class Zoo(nn.Module):
    """Parameters of every kind and shape."""

    def __init__(self) -> None:
        super().__init__()
        self.norms = nn.ModuleList(
            [nn.BatchNorm2d(4), nn.GroupNorm(2, 4), nn.LayerNorm([4, 3, 3]), nn.InstanceNorm2d(4, True)]
        )
        self.conv1d = nn.Conv1d(1, 1, 3)
        self.embedding = nn.Parameter(torch.zeros(7, 4))  # positions, as of GSA and AA
        self.log_radius = nn.Parameter(torch.zeros(2, 3))
        self.gain = nn.Parameter(torch.zeros(4))
        self.wide_bias = nn.Parameter(torch.zeros(1, 4, 1, 1))
        self.scale = nn.Parameter(torch.zeros(4, 1, 1))


def test_norms_biases_radii_and_gains_do_not_decay_and_everything_else_does() -> None:
    zoo = Zoo()
    names = {id(weight): name for name, weight in zoo.named_parameters()}
    decaying = {names[id(weight)] for module, name, weight in parameters(zoo) if not spared(module, name, weight)}
    assert decaying == {"conv1d.weight", "embedding", "scale"}


def test_networks_are_divided_whole() -> None:
    network = build(ResNet(depth=20, stages=(ECA(), CBAM(ratio=4), ExpAtt())), Shape(3, 8, 8, 10), 0)
    decayed, free = optimiser(network, Training(weight_decay=0.01)).param_groups
    assert (decayed["weight_decay"], free["weight_decay"]) == (0.01, 0.0)
    names = {id(weight): name for name, weight in network.named_parameters()}
    spare = {names[id(weight)] for weight in free["params"]}
    assert spare == {
        name for name in names.values() if "log_radius" in name or name.endswith("bias") or "norm" in name or ".bn." in name
    }
    assert len(names) == len(decayed["params"]) + len(free["params"])
    assert any("attention.conv.weight" in names[id(weight)] and weight.ndim == 3 for weight in decayed["params"])  # ECA's


def test_shared_parameters_are_trained_once() -> None:
    layer = nn.Linear(2, 2)
    assert len(list(parameters(nn.Sequential(layer, layer)))) == 2


# -- one step by hand


def one_step(training: Training, name: str = "weight") -> float:
    """What a weight of 2 with a gradient of 1 becomes in the second of two equal steps."""
    module = nn.Module()
    weight = nn.Parameter(torch.full((1, 1), 2.0))
    module.register_parameter(name, weight)
    optim = optimiser(module, training)
    for _ in range(2):
        weight.grad = torch.ones(1, 1)
        for group in optim.param_groups:
            group["lr"] = training.lr * group["times"]
        optim.step()
    return weight.item()


def test_optimisers_by_hand() -> None:
    plain = {"lr": 0.1, "momentum": 0.5, "weight_decay": 0.2}
    first = 2 - 0.1 * (1 + 0.4 + 0.5 * 1.4)  # Nesterov: gradient and decay, and half the new velocity ahead
    velocity = 0.5 * 1.4 + 1 + 0.2 * first
    assert one_step(Training(**plain)) == pytest.approx(first - 0.1 * (1 + 0.2 * first + 0.5 * velocity))
    first = 2 - 0.1 * 1.4
    assert one_step(Training(**plain, nesterov=False)) == pytest.approx(first - 0.1 * (0.7 + 1 + 0.2 * first))
    shrunk = 2 * 0.98 - 0.1  # AdamW: decay apart, a step of the rate where gradients are constant
    assert one_step(Training(**plain, optimizer="adamw")) == pytest.approx(shrunk * 0.98 - 0.1)


def test_radii_have_a_rate_of_their_own_and_no_decay() -> None:
    recipe = Training(lr=0.1, momentum=0.0, weight_decay=0.2, radius_lr=5.0)
    assert one_step(recipe, "log_radius") == pytest.approx(2 - 2 * 0.5)
    assert one_step(recipe) == pytest.approx(2 - 0.14 - 0.1 * (1 + 0.2 * 1.86))


# -- what is refused, and what is in the key


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"schedule": "step"}, "milestones = (): give milestones=(82, 123) or so"),
        ({"milestones": (3,)}, "leave milestones out"),
        ({"schedule": "step", "milestones": (5, 3)}, "epochs rise, each is given once"),
        ({"accumulate": 65}, "a batch of 128 has not two pictures for each piece; use at most 64"),
        ({"clip": 0.0}, "input should be greater than 0"),
        ({"init": "timmm:resnet50"}, "write timm:NAME, or a path without a colon"),
    ],
)
def test_recipes_that_make_no_sense_are_refused(fields: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigError) as caught:
        Training(**fields)
    assert words in str(caught.value) and "\n" not in str(caught.value)


# -- ready recipes


def test_ready_recipes_say_what_the_papers_say() -> None:
    assert {name for name in dir(recipes) if name.isupper()} == {
        "AA_CIFAR",
        "EXPATT_CIFAR",
        "EXPATT_IMAGENET",
        "EXPATT_TINY_IMAGENET",
        "LTPA_CIFAR",
    }
    expatt = recipes.EXPATT_IMAGENET
    steps = 164 * 10
    assert learning_rate(149, steps, expatt) == learning_rate(150, steps, expatt) == pytest.approx(0.05)
    assert [epoch for epoch in range(16, 164) if learning_rate(epoch * 10, steps, expatt) == pytest.approx(0.05)] == [
        25,
        45,
        85,
    ]
    aa = recipes.AA_CIFAR
    assert aa.lr == pytest.approx(0.2 * aa.batch_size / 256) and learning_rate(25 * 10, 5000, aa) == aa.lr
    ltpa = recipes.LTPA_CIFAR
    assert learning_rate(0, 300, ltpa) == 0.1 and learning_rate(299, 300, ltpa) == pytest.approx(0.1 * math.pow(0.5, 11))
    assert not any(recipe.nesterov for recipe in (expatt, aa, ltpa))
