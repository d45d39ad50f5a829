"""Spaces: a config with choices in place of values.

    attention = choose(None, vary(ExpAtt, kernel=choose("gaussian", "laplacian"), radius=span(0.5, 8.0, log=True)))
    SPACE = vary(ResNet, depth=20, stages=(None, attention, attention))

Nesting gives conditional parameters: a kernel exists only where ExpAtt was chosen. Every choice has a flat name made of
its place, `stages.3.attention` or `stages.3.expatt.kernel`, under which Optuna knows it. One object used in two slots is
two choices; `same(...)` ties them into one. Two options of one kind are told apart by `label=`.
"""

import math
import random
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from decimal import Decimal
from functools import cached_property
from itertools import count
from typing import Any, ParamSpec, TypeVar, cast, overload

from harness.config import PARTS, Attention, Config, Part, Scalar, Training, Trunk, name_of, part_from_json
from harness.errors import ConfigError, SpaceError, hint, one_line
from harness.key import canonical, identity

P = ParamSpec("P")
T = TypeVar("T")
Params = dict[str, Scalar]
"""Flat parameters: the name of each active choice and its value, or the name of the chosen option."""


# -- the grammar ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class Choice:
    """One of several options: values, parts or tuples of slots, which may hold choices of their own."""

    options: tuple[Any, ...]

    def __repr__(self) -> str:
        return f"choose({', '.join(map(repr, self.options))})"

    @cached_property
    def values(self) -> tuple[Scalar, ...]:
        """What a flat parameter holds for each option: the value itself, or the name of a part."""
        return tuple(option if _is_value(option) and option is not None else _option_name(option) for option in self.options)

    def option(self, value: Scalar) -> Any:
        """The option that a flat parameter's value stands for; 1, 1.0 and True are three values."""
        return self._by_value[type(value), value]

    @cached_property
    def _by_value(self) -> dict[tuple[type, Scalar], Any]:
        return {(type(value), value): option for value, option in zip(self.values, self.options)}

    @cached_property
    def role(self) -> str:
        """What is chosen where it is a whole part: it becomes the last piece of the choice's name."""
        held = [option.of if isinstance(option, Same) else option for option in self.options]
        kinds = [option.part if isinstance(option, Vary) else type(option) for option in held]
        roles = {Attention: "attention", Trunk: "network", Training: "recipe"}
        return next((role for base, role in roles.items() if any(issubclass(kind, base) for kind in kinds)), "")


@dataclass(frozen=True, eq=False)
class Span:
    """A range of numbers, both ends included; whole numbers where both ends are."""

    low: float
    high: float
    log: bool = False
    step: float | None = None

    def __repr__(self) -> str:
        return f"span({self.low!r}, {self.high!r})"

    @property
    def whole(self) -> bool:
        return isinstance(self.low, int)

    @property
    def size(self) -> float:
        """How many values; infinite for a continuous range."""
        return math.inf if self.step is None else math.floor((self.high - self.low) / self.step + 1e-9) + 1

    def value(self, index: int) -> float:
        """The value at a place of a stepped range, in decimals: 0.1 + 2 * 0.1 is 0.3, as Optuna has it."""
        step = cast(float, self.step)
        return self.low + index * step if self.whole else float(Decimal(repr(self.low)) + index * Decimal(repr(step)))

    def nearest(self, value: float) -> float:
        """The value of the range that rounding has moved to here."""
        return value if self.step is None else self.value(round((value - self.low) / self.step))

    def draw(self, rng: random.Random) -> float:
        """A value, uniform on the span's own scale."""
        if self.log:
            found = math.exp(rng.uniform(math.log(self.low), math.log(self.high)))
            return min(max(round(found) if self.whole else found, self.low), self.high)
        return rng.uniform(self.low, self.high) if self.step is None else self.value(rng.randrange(int(self.size)))

    def holds(self, value: object) -> bool:
        if isinstance(value, bool) or not isinstance(value, (int, float)) or isinstance(value, int) != self.whole:
            return False
        slack = 0.0 if self.step is None else 1e-9 * self.step
        inside = self.low - slack <= value <= self.high + slack
        return inside and math.isclose(value, self.nearest(value), abs_tol=slack)


@dataclass(frozen=True, eq=False)
class Vary:
    """A part with choices in place of some of its fields."""

    part: type[Part]
    fields: dict[str, Any]

    def __repr__(self) -> str:
        return f"vary({self.part.__name__}, ...)"


@dataclass(frozen=True, eq=False)
class Same:
    """One choice, however often it is used: ties of one object are one tie."""

    of: Any

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Same) and self.of is other.of

    def __hash__(self) -> int:
        return id(self.of)


def choose(*options: T) -> T:
    """One of the options. A choice kept in a variable of its own wants its type said: `kernel: Kernel = choose(...)`."""
    if not options:
        raise SpaceError("choose() has no options: give at least one value")
    options = cast(tuple[T, ...], _plain(options))
    for index, option in enumerate(options):
        if not _is_option(option):
            remedy = (
                f"write {option.__name__}(...)"
                if isinstance(option, type)
                else "use numbers, names, parts or tuples of slots"
            )
            raise SpaceError(f"choose: {option!r} is no option; {remedy}")
        twin = next((other for other in options[:index] if _equal(option, other)), _NOTHING)
        if twin is not _NOTHING:
            raise SpaceError(f"choose: {twin!r} and {option!r} are equal under ==, so one would never be seen; drop one")
    names = Counter(_option_name(option) for option in options)
    name, times = names.most_common(1)[0]
    if times > 1:
        alike = [option for option in options if _option_name(option) == name]
        remedy = (
            "tell them apart by label=, as in ..., label='wide')"
            if all(map(_can_have_label, alike))
            else "rename or drop one"
        )
        raise SpaceError(f"choose: {times} options are called {name!r}; {remedy}")
    return cast(T, Choice(options))


@overload
def span(low: int, high: int, *, log: bool = False, step: int = 1) -> int: ...
@overload
def span(low: float, high: float, *, log: bool = False, step: float | None = None) -> float: ...
def span(low: float, high: float, *, log: bool = False, step: float | None = None) -> float:
    """A range with both ends; whole numbers where both are ints. `log` spreads the draws evenly over magnitudes."""
    for end in (low, high):
        if isinstance(end, bool) or not isinstance(end, (int, float)) or not math.isfinite(end):
            raise SpaceError(f"span({low!r}, {high!r}): both ends are finite numbers")
    whole = isinstance(low, int) and isinstance(high, int)
    if not low < high:
        raise SpaceError(f"span({low!r}, {high!r}): the first end is the smaller one; a single value needs no span")
    if log and low <= 0:
        raise SpaceError(f"span({low!r}, {high!r}, log=True): magnitudes need a lower end above 0")
    if log and step is not None and not (whole and step == 1):
        raise SpaceError(f"span({low!r}, {high!r}, log=True, step={step!r}): log and step exclude each other")
    step = 1 if step is None and whole else step
    if step is not None and (isinstance(step, bool) or not isinstance(step, int if whole else (int, float)) or not step > 0):
        raise SpaceError(f"span({low!r}, {high!r}, step={step!r}): a step is above 0, and whole between whole ends")
    if step is not None and step > high - low:
        raise SpaceError(f"span({low!r}, {high!r}, step={step!r}): the first step leaves the range; use a smaller one")
    ends = (low, high) if whole else (float(low), float(high))
    found = Span(*ends, log=log, step=step if step is None or whole else float(step))
    if found.step is not None:  # the last step inside the range is its end, as Optuna has it too
        found = replace(found, high=found.value(int(found.size) - 1))
    return cast(float, found)


def vary(part: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """`part(...)` with choices in place of some values; what is constant is checked when the space is."""
    if not (isinstance(part, type) and issubclass(part, Part)):
        raise SpaceError(f"vary({part!r}, ...): give a config class, such as ResNet, ExpAtt or Training")
    fields: dict[str, Any] = {name: _plain(value) for name, value in kwargs.items()}
    if len(args) > (part.rest is not None):
        raise SpaceError(f"vary({part.__name__}, {', '.join(map(repr, args))}): fields are given by name")
    if part.rest is not None:
        named = [name for name in part.model_fields if name in fields and name not in ("kind", part.rest)]
        ours: dict[str, Any] = {"target": args[0]} if args else {}
        fields = {"target": None, **{name: fields.pop(name) for name in named}, **ours, part.rest: fields}
    if not isinstance(fields.get("label"), str | None):
        raise SpaceError(f"vary({part.__name__}, label={fields['label']!r}): a label is a string")
    for name in fields:
        if name not in part.model_fields:
            known = [field for field in part.model_fields if field != "kind"]
            raise SpaceError(f"vary({part.__name__}, {name}=...): it has {', '.join(known)}{hint(name, known)}")
    # the defaults of today are written down, so that a later default does not change a stored space
    own = {name: field.default for name, field in part.model_fields.items() if not field.is_required() and name != "kind"}
    given = {name: default for name, default in own.items() if default != ()} | fields
    return cast(T, Vary(part, {name: given[name] for name in part.model_fields if name in given}))


def same(choice: T) -> T:
    """Ties one choice across all the places where the returned value stands."""
    return cast(T, Same(choice))


_NOTHING = object()


def _equal(one: Any, other: Any) -> bool:
    nodes = (Choice, Span, Vary, Same)
    return one is other if isinstance(one, nodes) or isinstance(other, nodes) else bool(one == other)


def _is_value(option: object) -> bool:
    return isinstance(option, (str, int, float, bool)) or option is None


def _is_option(option: object) -> bool:
    if isinstance(option, tuple):
        return all(map(_is_option, option))
    if isinstance(option, float):
        return math.isfinite(option)
    return _is_value(option) or isinstance(option, (Part, Choice, Span, Vary, Same))


def _can_have_label(option: object) -> bool:
    part = option.part if isinstance(option, Vary) else type(option)
    return issubclass(part, Part) and "label" in part.model_fields


def _plain(value: Any) -> Any:
    """Lists as tuples and floats of other libraries as our own, so that JSON gives the same back."""
    if isinstance(value, (list, tuple)):
        return tuple(map(_plain, value))
    return float(value) if isinstance(value, float) else value


def _option_name(option: Any) -> str:
    """The name of an option in a flat parameter and in the names of the choices inside it."""
    if isinstance(option, Same):
        return _option_name(option.of)
    if isinstance(option, tuple):
        return "+".join(map(_option_name, option))
    if isinstance(option, (Choice, Span)):
        return "choice"
    if isinstance(option, Vary):
        label, target = option.fields.get("label"), option.fields.get("target")
        own = str(target).partition(":")[2].lower() if isinstance(target, str) else option.part.model_fields["kind"].default
        return str(label or own)
    return name_of(option)


# -- a space ----------------------------------------------------------------------------------------------------------

Domain = tuple[Scalar, ...] | Span
"""What a flat parameter ranges over: the values (or the names of the options) of a choice, or a span."""


def join(path: str, name: object) -> str:
    return f"{path}.{name}" if path else str(name)


class Space:
    """Every config that a network and a training with choices stand for.

    Raises SpaceError where names overlap, an option is never valid, or a choice has no effect anywhere.
    """

    def __init__(self, network: Any, training: Any = None, *, check: bool = True) -> None:
        self.root = Vary(Config, {"network": network, "training": Training() if training is None else training})
        self._tied = self._name_ties()
        self.parameters: dict[str, Domain] = {}
        """Every flat parameter, active or not, in the order of the config."""
        self.conditions: dict[str, Params] = {}
        """What to choose for a parameter to be active, nothing where it always is; of a tied one, its shortest way."""
        self._nodes: dict[str, Choice | Span] = {}
        self._open: dict[tuple[int, str], list[tuple[Any, str]]] = {}
        """By node and path: the nodes inside it that have parameters."""
        self._routes: dict[str, list[Params]] = {}
        """Every way to make a parameter active; a tied one has one for each of its places."""
        self._collect(self.root, "", {})
        for name, routes in self._routes.items():
            self.conditions[name] = min(routes, key=len)
        if check:
            self._check()

    # names

    def _name_ties(self) -> dict[Same, str]:
        """A tied choice is named by all its places at once: stages.2+3."""
        places: dict[Same, list[str]] = {}

        def visit(node: Any, path: str) -> None:
            if isinstance(node, Same):
                places.setdefault(node, []).append(path)
                visit(node.of, path)
            for child, below in self._children(node, path):
                visit(child, below)

        visit(self.root, "")
        return {tie: _merged(found) for tie, found in places.items()}

    def _children(self, node: Any, path: str) -> Iterator[tuple[Any, str]]:
        """The nodes inside a node and their paths; `network` and `knobs` leave no trace in a name."""
        if isinstance(node, Vary):
            for name, value in node.fields.items():
                yield value, path if name in ("network", "knobs") else join(path, name)
        elif isinstance(node, dict):
            yield from ((value, join(path, name)) for name, value in node.items())
        elif isinstance(node, tuple):
            yield from ((value, join(path, index)) for index, value in enumerate(node, start=1))
        elif isinstance(node, Choice):
            yield from ((option, join(path, _option_name(option))) for option in node.options if not _is_value(option))

    def _collect(self, node: Any, path: str, given: Params) -> bool:
        """Takes up the parameters of a node; whether it has any."""
        if isinstance(node, Same):
            return self._collect(node.of, self._tied[node], given)
        if isinstance(node, (Choice, Span)):
            name = _parameter(node, path)
            if self._nodes.setdefault(name, node) is not node:
                raise SpaceError(f"two choices are called {name}: tell their options apart by label=")
            self.parameters[name] = node if isinstance(node, Span) else node.values
            self._routes.setdefault(name, []).append(given)
        found = []
        for child, below in self._children(node, path):
            chosen: Params = {_parameter(node, path): _option_name(child)} if isinstance(node, Choice) else {}
            if self._collect(child, below, given | chosen):
                found.append((child, below))
        self._open[id(node), path] = found
        return bool(found) or isinstance(node, (Choice, Span))

    # params -> config

    def _build(self, node: Any, path: str, decide: Callable[[str, Domain], Scalar]) -> Any:
        """The value a node stands for, asking `decide` at every active choice."""
        if isinstance(node, Same):
            return self._build(node.of, self._tied[node], decide)
        if isinstance(node, Span):
            return decide(path, node)
        if isinstance(node, Choice):
            name = _parameter(node, path)
            option = node.option(decide(name, self.parameters[name]))
            return option if _is_value(option) else self._build(option, join(path, _option_name(option)), decide)
        if isinstance(node, Vary):
            paths = self._children(node, path)
            return node.part(**{name: self._build(value, below, decide) for name, (value, below) in zip(node.fields, paths)})
        if isinstance(node, dict):
            return {name: self._build(value, join(path, name), decide) for name, value in node.items()}
        if isinstance(node, tuple):
            return tuple(self._build(value, join(path, index), decide) for index, value in enumerate(node, start=1))
        return node

    def config(self, params: Mapping[str, Scalar]) -> Config:
        """The config of flat parameters; those of choices that are not active are not looked at.

        Raises ConfigError where the combination is not a network, SpaceError for a missing or foreign value."""
        return cast(Config, self._build(self.root, "", self._decisions(params)))

    def _decisions(self, params: Mapping[str, Scalar]) -> Callable[[str, Domain], Scalar]:
        """Looks a parameter up and refuses what is not in its domain."""

        def decide(name: str, domain: Domain) -> Scalar:
            if name not in params:
                raise SpaceError(f"{name} is missing")
            value = params[name]
            if isinstance(domain, Span):
                if not domain.holds(value):
                    raise SpaceError(f"{name} = {value!r}: outside {_domain_words(domain)}")
                return domain.nearest(cast(float, value))
            if not any(_identical(value, option) for option in domain):
                raise SpaceError(f"{name} = {value!r}: use one of {_domain_words(domain)}")
            return value

        return decide

    def active(self, params: Mapping[str, Scalar]) -> Params:
        """Only the parameters that the others leave active; raises SpaceError for a missing or foreign value."""
        found: Params = {}
        decide = self._decisions(params)
        self._shape(lambda name, domain: found.setdefault(name, decide(name, domain)))
        return found

    def _shape(self, decide: Callable[[str, Domain], Scalar]) -> None:
        """Walks the active choices as `_build` does, without building parts: invalid combinations pass."""

        def visit(node: Any, path: str) -> None:
            if isinstance(node, Same):
                visit(node.of, self._tied[node])
            elif isinstance(node, Span):
                decide(path, node)
            elif isinstance(node, Choice):
                name = _parameter(node, path)
                option = node.option(decide(name, self.parameters[name]))
                if not _is_value(option):
                    visit(option, join(path, _option_name(option)))
            else:
                for child, below in self._open[id(node), path]:
                    visit(child, below)

        visit(self.root, "")

    # config -> params

    def params(self, config: Config) -> Params:
        """The flat parameters of a config; raises SpaceError when it is not in the space."""
        found: Params = {}
        if not self._match(self.root, "", config, found):
            raise SpaceError("the config is not in the space")
        return found

    def _match(self, node: Any, path: str, value: Any, found: Params) -> bool:
        if isinstance(node, Same):
            return self._match(node.of, self._tied[node], value, found)
        if isinstance(node, Span):
            number = int(value) if node.whole and isinstance(value, float) and value.is_integer() else value
            return node.holds(number) and _identical(found.setdefault(path, number), number)
        if isinstance(node, Choice):
            return any(self._match_option(node, chosen, path, value, found) for chosen in node.values)
        if isinstance(node, Vary):
            if type(value) is not node.part:
                return False
            inside = all(
                self._match(field, below, getattr(value, name), found)
                for name, (field, below) in zip(node.fields, self._children(node, path))
            )
            return inside and self._build(node, path, lambda name, _: found[name]) == value
        if isinstance(node, dict):
            same_names = isinstance(value, dict) and value.keys() == node.keys()
            return same_names and all(self._match(node[name], join(path, name), value[name], found) for name in node)
        if isinstance(node, tuple):
            fits = isinstance(value, tuple) and len(value) == len(node)
            return fits and all(
                self._match(item, join(path, index), value[index - 1], found) for index, item in enumerate(node, start=1)
            )
        return bool(value == node)

    def _match_option(self, node: Choice, chosen: Scalar, path: str, value: Any, found: Params) -> bool:
        name, option, trial = _parameter(node, path), node.option(chosen), dict(found)
        if not _identical(trial.setdefault(name, chosen), chosen):
            return False
        if _is_value(option):
            fits = option == value and isinstance(option, bool) == isinstance(value, bool)  # a field may make 2 a 2.0
        else:
            fits = self._match(option, join(path, _option_name(option)), value, trial)
        if fits:
            found.update(trial)
        return fits

    # size, enumeration, draws

    @cached_property
    def size(self) -> float:
        """How many combinations of active choices there are; infinite with a continuous span. Computed, never counted."""
        total = self._count(self.root)
        while ties := set().union(*total):
            outermost = next(tie for tie in ties if not any(tie in self._ties_inside(other) for other in ties))
            inside = self._count(outermost.of)
            expanded: Counter[frozenset[Same]] = Counter()
            for group, times in total.items():
                for more, ways in inside.items() if outermost in group else [(frozenset(), 1)]:
                    expanded[group - {outermost} | more] += times * ways
            total = expanded
        return total[frozenset()]

    def _ties_inside(self, tie: Same) -> set[Same]:
        """The ties in a tie, however deep."""
        direct = set[Same]().union(*self._count(tie.of))
        return direct.union(*map(self._ties_inside, direct))

    def _count(self, node: Any) -> "Counter[frozenset[Same]]":
        """Combinations, apart for each set of tied choices met, whose own combinations are multiplied in once."""
        if isinstance(node, Same):
            return Counter({frozenset({node}): 1})
        if isinstance(node, Span):
            return Counter({frozenset(): cast(int, node.size)})
        if isinstance(node, Choice):
            total: Counter[frozenset[Same]] = Counter()
            for option in node.options:
                for group, ways in self._count(option).items():
                    total[group] += ways
            return total
        product: Counter[frozenset[Same]] = Counter({frozenset(): 1})
        for child, _ in self._children(node, ""):
            wider, inside = Counter[frozenset[Same]](), self._count(child)
            for group, ways in product.items():
                for more, times in inside.items():
                    wider[group | more] += ways * times
            product = wider
        return product

    def enumerate(self) -> Iterator[Params]:
        """Every combination of active choices once, the last choice changing fastest; invalid ones included.

        Raises SpaceError for a space with a continuous span."""
        if self.size == math.inf:
            spans = [name for name, domain in self.parameters.items() if isinstance(domain, Span) and domain.step is None]
            raise SpaceError(f"{spans[0]} is continuous and cannot be enumerated: give it a step= or use choose(...)")
        indices: list[int] = []
        while True:
            found, sizes = self._replay(indices)
            yield found
            indices += [0] * (len(sizes) - len(indices))
            while indices and indices[-1] + 1 == sizes[len(indices) - 1]:
                indices.pop()
            if not indices:
                return
            indices[-1] += 1

    def _replay(self, indices: list[int]) -> tuple[Params, list[int]]:
        """The combination that takes the given option at each active choice in turn, the first one beyond; and how many
        options each of these choices had."""
        found: Params = {}
        sizes: list[int] = []

        def decide(name: str, domain: Domain) -> Scalar:
            if name not in found:
                index = indices[len(sizes)] if len(sizes) < len(indices) else 0
                sizes.append(int(domain.size) if isinstance(domain, Span) else len(domain))
                found[name] = domain.value(index) if isinstance(domain, Span) else domain[index]
            return found[name]

        self._shape(decide)
        return found, sizes

    def draw(self, rng: random.Random, forced: Mapping[str, Scalar] | None = None) -> Params:
        """A random combination of active choices, `forced` ones kept; it may be an invalid one."""
        return self.active(self._draw_all(rng) | dict(forced or {}))

    def _draw_all(self, rng: random.Random) -> Params:
        """A value for every parameter, active or not."""
        return {name: d.draw(rng) if isinstance(d, Span) else rng.choice(d) for name, d in self.parameters.items()}

    # checks

    def _check(self, contexts: int = 300) -> None:
        """Every option is valid somewhere and every choice changes the network or its training somewhere."""
        if not self.parameters:
            self.config({})
        for name, domain in self.parameters.items():
            values = (domain.low, domain.high) if isinstance(domain, Span) else domain
            problems: dict[Scalar, ConfigError] = {}
            valid: set[Scalar] = set()
            distinct = len(values) == 1
            for context in range(contexts):
                route = self._routes[name][context % len(self._routes[name])]
                others = self._draw_all(random.Random(context)) | route
                seen = set()
                for value in values:
                    try:
                        seen.add(canonical(identity(self.config(others | {name: value}))))
                        valid.add(value)
                    except ConfigError as error:
                        problems.setdefault(value, error)
                distinct = distinct or len(seen) > 1
                if distinct and len(valid) == len(values):
                    break
            for value in values:
                if value not in valid:
                    raise SpaceError(f"{name} = {value!r} is never valid: {problems[value]}")
            if not distinct:
                raise SpaceError(
                    f"{name}: every value gives the same network everywhere ({_domain_words(domain)}); drop the choice,"
                    " or change what hides it (heads, for instance, need radius_per='head')"
                )

    # JSON

    def to_json(self) -> dict[str, Any]:
        """The space as plain JSON; `from_json` gives an equal one, tied choices included."""
        numbers, seen = count(), dict[Same, int]()

        def plain(node: Any) -> Any:
            if isinstance(node, Same):
                if node in seen:
                    return {"same": seen[node]}
                seen[node] = next(numbers)
                return {"same": seen[node], "of": plain(node.of)}
            if isinstance(node, Choice):
                return {"choose": [plain(option) for option in node.options]}
            if isinstance(node, Span):
                return {"span": [node.low, node.high], "log": node.log, "step": node.step}
            if isinstance(node, Vary):
                fields = {name: plain(value) for name, value in node.fields.items()}
                return {"vary": node.part.model_fields["kind"].default, "fields": fields}
            if isinstance(node, tuple):
                return [plain(item) for item in node]
            if isinstance(node, dict):
                return {name: plain(value) for name, value in node.items()}
            return node.model_dump(mode="json") if isinstance(node, Part) else node

        return {name: plain(value) for name, value in self.root.fields.items()}

    @staticmethod
    def from_json(data: Mapping[str, Any], *, check: bool = False) -> "Space":
        """The space that `to_json` wrote; known parts only, nothing is executed."""
        ties: dict[int, Same] = {}

        def node(plain: Any) -> Any:
            if isinstance(plain, list):
                return tuple(node(item) for item in plain)
            if not isinstance(plain, dict):
                return plain
            if "same" in plain:
                if "of" in plain:
                    ties[plain["same"]] = Same(node(plain["of"]))
                return ties[plain["same"]]
            if "choose" in plain:
                return Choice(tuple(node(option) for option in plain["choose"]))
            if "span" in plain:
                low, high = plain["span"]
                return Span(low, high, log=plain["log"], step=plain["step"])
            if "vary" in plain:
                if plain["vary"] not in PARTS:
                    raise SpaceError(f"vary {plain['vary']!r}: unknown part; this version knows {', '.join(PARTS)}")
                return Vary(PARTS[plain["vary"]], {name: field(name, value) for name, value in plain["fields"].items()})
            return part_from_json(plain)

        def field(name: str, value: Any) -> Any:
            """The knobs of a user's module, and slots, have names of their own, be they `span` or `kind`."""
            named = name in ("knobs", "slots", "at")
            return {own: node(inner) for own, inner in value.items()} if named else node(value)

        try:
            network, training = node(data["network"]), node(data["training"])
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            raise SpaceError(f"this is not the definition of a space: {one_line(error)}") from None
        return Space(network, training, check=check)


def _parameter(node: Choice | Span, path: str) -> str:
    """The flat name of a choice: its place, and what is chosen there where it is a whole part."""
    return join(path, node.role) if isinstance(node, Choice) and node.role else path


def _identical(one: object, other: object) -> bool:
    """Equal and of one type: 1, 1.0 and True are three values."""
    return type(one) is type(other) and one == other


def _domain_words(domain: Domain) -> str:
    if isinstance(domain, Span):
        kind = "whole numbers from " if domain.whole else ""
        return f"{kind}{domain.low} to {domain.high}" + ("" if domain.step in (None, 1) else f" in steps of {domain.step}")
    return ", ".join(map(repr, domain))


def _merged(paths: list[str]) -> str:
    """stages.2.x and stages.3.x as stages.2+3.x; paths that differ in more than one piece are joined whole."""
    pieces = [path.split(".") for path in dict.fromkeys(paths)]
    if len({len(piece) for piece in pieces}) == 1:
        merged = ["+".join(dict.fromkeys(column)) for column in zip(*pieces)]
        if sum("+" in piece for piece in merged) <= 1:
            return ".".join(merged)
    return "=".join(".".join(piece) for piece in pieces)
