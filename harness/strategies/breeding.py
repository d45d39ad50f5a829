"""Evolution that looks before it trains: of many children, the one that promises to add most to the front.

The exact costs of a child are known before training; what is learned is guessed from the trials so far, by a model that
sees a config's choices and costs. The promise of a child is the hypervolume that it would add beside the front and all that
is still being trained, by one draw of what the model holds possible (Thompson sampling): those made side by side differ, and
what is little known is tried too.

A search begins with a Gaussian process, which has an opinion before the first trial (all that is known then are the costs)
and knows how little it knows; every other of its first children is the one least like all before it. Later a forest guesses
(as SMAC's does, Hutter et al. 2011), a draw being the word of a few of its trees: it is as good then and grows no slower
than linearly.
"""

import math
import random
from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from harness.config import Config, Scalar
from harness.cost import Cost
from harness.errors import ConfigError
from harness.key import canonical, identity
from harness.space import Domain, Params, Space, Span
from harness.study import EXACT, Study

if TYPE_CHECKING:
    import numpy as np

    Matrix = np.ndarray[Any, np.dtype[np.float64]]

REMEMBERED = 20_000
"""Children that are not made anew when they come again."""
TREES, HEARD = 40, 5
"""Of the forest, and of those that a proposal listens to."""
LENGTH, NOISE = 1.0, 0.3
"""Of the Gaussian process: how far it sees, as a share of the space's diagonal; and the variance of seeds, as a share of
that of the trials."""
MOST = 400
"""Trials that the forest learns from: the newest."""
MARGIN = 0.1
"""How far beyond the worst trial the reference point lies, as a share of the range."""
NUDGE = 0.2
"""Standard deviation of a span's mutation, as a share of its range."""


@dataclass(frozen=True)
class Child:
    """A config that may be trained: every parameter of it, active or not, its features and its exact costs."""

    name: str
    params: Params
    features: tuple[float, ...]
    costs: Mapping[str, int]


def choice(active: Params) -> int:
    """A number for what was chosen: the same for the same active parameters, in this process."""
    return hash(frozenset((name, type(value), value) for name, value in active.items()))


class Nursery:
    """Makes children: of parents, by crossing and mutating what is active, and out of nothing."""

    def __init__(self, space: Space, price: Callable[[Config], Cost]) -> None:
        self._space, self._price = space, price
        self._met: dict[int, Child | None] = {}

    def child(self, params: Params) -> Child | None:
        """What a full set of parameters stands for; None where that is no network or breaks a constraint."""
        active = self._space.active(params)
        chosen = choice(active)
        if chosen not in self._met:
            if len(self._met) >= REMEMBERED:
                self._met.clear()
            self._met[chosen] = self._made(active)
        met = self._met[chosen]
        return met and replace(met, params=params)

    def _made(self, active: Params) -> Child | None:
        try:
            config = self._space.config(active)
            costs = self._price(config)._asdict()
        except ConfigError:
            return None
        features = (*(math.log(1 + costs[metric]) for metric in EXACT), *_encoded(self._space, active))
        return Child(canonical(identity(config)), active, features, costs)

    def children(
        self, parents: Sequence[Params], rng: random.Random, count: int, taken: Collection[int | str]
    ) -> list[Child]:
        """So many different children, if there are as many, of which neither name nor `choice` is taken: a third drawn, the
        others bred."""
        found: dict[str, Child] = {}
        for attempt in range(3 * count):
            drawn = not parents or attempt % 3 == 0
            params = self._drawn(rng) if drawn else self._bred(parents, rng)
            child = self.child(params) if choice(self._space.active(params)) not in taken else None
            if child is not None and child.name not in taken:
                found.setdefault(child.name, child)
                if len(found) == count:
                    break
        return list(found.values())

    def _drawn(self, rng: random.Random) -> Params:
        return {
            name: domain.draw(rng) if isinstance(domain, Span) else rng.choice(domain)
            for name, domain in self._space.parameters.items()
        }

    def _bred(self, parents: Sequence[Params], rng: random.Random) -> Params:
        one, other = rng.choice(parents), rng.choice(parents)
        params = {name: rng.choice((one, other))[name] for name in one} if rng.random() < 0.5 else dict(one)
        active = list(self._space.active(params))
        for name in rng.sample(active, min(len(active), 1 + (rng.random() < 0.3))):
            params[name] = moved(self._space.parameters[name], params[name], rng)
        return params


def _encoded(space: Space, active: Params) -> Iterator[float]:
    """A column for each option of a choice, two for a span: whether it is active, and where in its range."""
    for name, domain in space.parameters.items():
        if isinstance(domain, Span):
            yield float(name in active)
            yield _place(domain, float(active[name])) if name in active else 0.5  # type: ignore[arg-type]
        else:
            yield from (float(name in active and active[name] == option) for option in domain)


def _place(span: Span, value: float) -> float:
    low, high, value = (math.log(x) if span.log else x for x in (span.low, span.high, value))
    return (value - low) / (high - low)


def moved(domain: Domain, value: Scalar, rng: random.Random) -> Scalar:
    """Another option of a choice, or a value of a span near this one."""
    if not isinstance(domain, Span):
        others = [option for option in domain if option != value or type(option) is not type(value)]
        return rng.choice(others or list(domain))
    place = min(max(rng.gauss(_place(domain, float(value)), NUDGE), 0.0), 1.0)  # type: ignore[arg-type]
    low, high = (math.log(domain.low), math.log(domain.high)) if domain.log else (domain.low, domain.high)
    found = math.exp(low + place * (high - low)) if domain.log else low + place * (high - low)
    found = min(max(domain.nearest(found), domain.low), domain.high)
    return round(found) if domain.whole else found


# -- promises -----------------------------------------------------------------------------------------------------------


class Guess(ABC):
    """What trials so far tell of others, the smaller the better. Of those before the last `MOST` their values are enough."""

    def __init__(
        self,
        study: Study,
        trials: Sequence[tuple[Child, Sequence[float]]],
        seed: int,
        before: Sequence[Sequence[float]] = (),
    ) -> None:
        import numpy as np

        self._objectives = study.objectives
        self._learned = [place for place, objective in enumerate(study.objectives) if objective.metric not in EXACT]
        self._random = np.random.default_rng(seed)
        newest = trials[-MOST:]
        self._features = np.array([child.features for child, _ in newest])
        targets = [[values[place] for place in self._learned] for _, values in newest]
        self._targets = np.array(targets, float).reshape(len(newest), len(self._learned))
        self.points = self._scaled([*before, *(values for _, values in trials)])

    def expected(self, pending: Sequence[Child], children: Sequence[Child]) -> "tuple[Matrix, Matrix]":
        """The values of what is being trained, as they are expected, and one draw of those of children; costs are exact."""
        import numpy as np

        every = (*pending, *children)
        found = np.array([[child.costs.get(o.metric, 0.0) for o in self._objectives] for child in every], float)
        if self._learned:
            features = np.array([child.features for child in every])
            found[:, self._learned] = self._drawn(features, len(pending))
        scaled = self._scaled(found.tolist())
        return scaled[: len(pending)], scaled[len(pending) :]

    @abstractmethod
    def _drawn(self, features: "Matrix", first: int) -> "Matrix":
        """The learned objectives: the first so many as expected, the others as drawn."""

    def _scaled(self, values: Sequence[Sequence[float]]) -> "Matrix":
        import numpy as np

        found = np.array(values, float).reshape(len(values), len(self._objectives))
        for place, objective in enumerate(self._objectives):
            column = np.log(1 + found[:, place]) if objective.metric in EXACT else found[:, place]
            found[:, place] = objective.sign * column
        return found


class Process(Guess):
    """A Gaussian process, for a search that begins: it may know no trial at all."""

    def _drawn(self, features: "Matrix", first: int) -> "Matrix":
        import numpy as np
        from sklearn.gaussian_process import GaussianProcessRegressor
        from sklearn.gaussian_process.kernels import Matern

        known, count = self._targets, len(self._targets)
        every = unit(np.vstack([*self._features, features]))
        every /= max(1, int(np.count_nonzero(np.ptp(every, axis=0)))) ** 0.5
        mean = known.mean(axis=0) if count else np.zeros(known.shape[1])
        spread = known.std(axis=0) if count > 1 else np.ones(known.shape[1])
        spread = np.where(spread > 0, spread, 1.0)
        model = GaussianProcessRegressor(Matern(LENGTH, nu=2.5), alpha=NOISE, optimizer=None)
        found = np.empty((len(features), known.shape[1]))
        for place in range(known.shape[1]):
            if count:
                model.fit(every[:count], (known[:, place] - mean[place]) / spread[place])
            likely, covariance = model.predict(every[count:], return_cov=True)
            drawn = self._random.multivariate_normal(likely, covariance, method="eigh", check_valid="ignore")
            found[:, place] = mean[place] + spread[place] * np.concatenate([likely[:first], drawn[first:]])
        return found


class Forest(Guess):
    """Trees, of which a few are heard at a time."""

    def _drawn(self, features: "Matrix", first: int) -> "Matrix":
        import numpy as np
        from sklearn.ensemble import ExtraTreesRegressor

        forest = ExtraTreesRegressor(
            TREES, min_samples_leaf=2, max_features=0.7, random_state=int(self._random.integers(2**31))
        )
        forest.fit(self._features, self._targets.squeeze(1) if len(self._learned) == 1 else self._targets)
        heard = self._random.choice(TREES, HEARD, replace=False)
        told = [tree.predict(features.astype(np.float32)).reshape(len(features), -1) for tree in forest.estimators_]
        return np.concatenate([np.mean(told, axis=0)[:first], np.mean([told[tree] for tree in heard], axis=0)[first:]])


def promising(guess: Guess, children: Sequence[Child], pending: Sequence[Child]) -> Child:
    """The child that would add most hypervolume to the front, what is being trained counted as it is expected to end."""
    import moocore
    import numpy as np

    awaited, hoped = guess.expected(pending, children)
    known = np.concatenate([guess.points, awaited])
    seen = np.vstack([known, hoped])
    low, reach = seen.min(axis=0), np.maximum(np.ptp(seen, axis=0), 1e-12)
    front = (known - low) / reach
    front = front[moocore.is_nondominated(np.ascontiguousarray(front))] if len(front) else front
    reference = np.full(front.shape[1], 1 + MARGIN)
    already = moocore.hypervolume(front, ref=reference) if len(front) else 0.0
    scaled = (hoped - low) / reach

    def gain(point: "Matrix") -> float:
        beaten = (front <= point).all(axis=1).any()
        return 0.0 if beaten else float(moocore.hypervolume(np.vstack([front, point]), ref=reference)) - already

    gains = [gain(point) for point in scaled]
    if max(gains) > 0 or not len(front):
        return children[int(np.argmax(gains))]
    depth = [(point - front).max(axis=1).min() for point in scaled]  # how far behind the front
    return children[int(np.argmin(depth))]


def farthest(children: Sequence[Child], before: Sequence[Child]) -> Child:
    """The child that is least like those before it, in its choices and costs: how a search begins."""
    import numpy as np

    if not before:
        return children[0]
    every = unit(np.array([child.features for child in (*children, *before)]))
    new, old = every[: len(children)], every[len(children) :]
    return children[int(np.abs(new[:, None] - old[None]).sum(axis=2).min(axis=1).argmax())]


def unit(features: "Matrix") -> "Matrix":
    """Every column from 0 to 1, one that never changes 0."""
    import numpy as np

    low: Matrix = features.min(axis=0)
    scaled: Matrix = (features - low) / np.maximum(features.max(axis=0) - low, 1e-12)
    return scaled
