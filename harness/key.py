"""The key: the identity of a trial, a hash of everything that can change its number beyond rounding.

In it: the network in its effective form (what has no effect is left out, so that equal networks have equal keys), the
training, the seed, the content of the data, the resolved precision, the revision of the engine, the version of each
built-in module used and the source hash of each module of the user's. Not in it: names and labels, the device, threads.
"""

import hashlib
import json
from collections.abc import Callable
from functools import cache
from typing import Any

from harness.code import source_hash
from harness.config import Attention, Backbone, Config, Network, Neutral, Part

ENGINE = 2
"""Revision of the numerics of training; raised when the same trial gives other numbers than before."""


def trial_key(
    config: Config,
    seed: int,
    data: str,
    source: Callable[[str], str] = source_hash,
    *,
    trial: str | None = None,
    test: str = "",
) -> str:
    """24 hex digits for one trial; `data` is the fingerprint of the pictures and labels, `source` hashes user code, `trial`
    names a training loop of the user's own, `test` is the fingerprint of the test part where the trial is scored on it: such
    a trial never stands in for one of a search, which must not see that score, nor the other way round."""
    content = {"engine": ENGINE, "data": data, "seed": seed, **identity(config, source)}
    if trial is not None:
        content["trial"] = {"target": trial, "source": source(trial)}
    if test:
        content["test"] = test
    return hashlib.sha256(canonical(content).encode()).hexdigest()[:24]


def identity(config: Config, source: Callable[[str], str] | None = None) -> dict[str, Any]:
    """What the config is, without names and without what has no effect; equal for equal trials."""
    return {"network": network_identity(config.network, source), "training": training_identity(config, source)}


def network_identity(network: Network, source: Callable[[str], str] | None = None) -> dict[str, Any]:
    if isinstance(network, Backbone):
        return backbone_identity(network, source)
    found: dict[str, Any] = {"kind": network.kind, "version": network.version, **network.structure(), "stages": []}
    for stage, slot in enumerate(network.stages, start=1):
        attention = attention_identity(slot, network.slot_channels(stage), source)
        if slot is not None and attention is not None and "place" in attention:
            attention["place"] = network.standing(slot)
        found["stages"].append(attention)
    if (head := network.head) is not None:
        widths = [network.outputs[tap - 1] for tap in head.levels]
        found["head"] = {"kind": head.kind, "version": head.version, **head.effective(widths, network.outputs[-1])}
    return found


def backbone_identity(network: Backbone, source: Callable[[str], str] | None = None) -> dict[str, Any]:
    """A model of others by its name (a user's also by its source) and the attention at each path; the release of a library
    is in the provenance. How wide a place is takes a built model to know, so that fields count unless they never matter."""
    found: dict[str, Any] = {"kind": network.kind, "version": network.version, "target": network.target, "places": {}}
    for path, slot in network.places.items():
        said = {name: value for name, value in significant(slot).items() if name not in ("label", "place")}
        found["places"][path] = said | {"version": slot.version} | _sources(slot, source)
    return found | _sources(network, source)


def _sources(part: Part, source: Callable[[str], str] | None) -> dict[str, str]:
    """The hash of the code of the user's that a part names."""
    return {"source": source(part.targets[0])} if part.targets and source is not None else {}


def attention_identity(
    slot: Attention | None, channels: int, source: Callable[[str], str] | None = None
) -> dict[str, Any] | None:
    if slot is None:
        return None
    found = {"kind": slot.model_dump()["kind"], "version": slot.version, **slot.effective(channels)}
    return found | _sources(slot, source)


def training_identity(config: Config, source: Callable[[str], str] | None = None) -> dict[str, Any]:
    """The recipe; which pictures is said by the fingerprint of the data, and which weights by the hash of their file, not by
    where they came from."""
    training, idle = config.training, config.training.without_effect()
    if not may_learn_radii(config.network):
        idle.add("radius_lr")
    found = {name: value for name, value in significant(training).items() if name not in idle}
    if training.init is not None and source is not None:
        found["init"] = source(training.init) or training.init
    return found


def may_learn_radii(node: Any) -> bool:
    """Whether a network has radii that are learned, or a module of the user's that may have some."""
    if isinstance(node, Part):
        own = bool(node.targets) or getattr(node, "radii", int)() > 0
        return own or any(may_learn_radii(getattr(node, name)) for name in type(node).model_fields)
    held = node.values() if isinstance(node, dict) else node if isinstance(node, tuple) else ()
    return any(map(may_learn_radii, held))


def significant(part: Part) -> dict[str, Any]:
    """The fields of a part that count: a field at its neutral value is left out, so that old keys stay."""
    neutral = _neutral(type(part))
    return {
        name: value
        for name, value in part.model_dump().items()
        if name not in neutral or all(getattr(part, name) != mark for mark in neutral[name])
    }


@cache
def _neutral(kind: type[Part]) -> dict[str, tuple[Any, ...]]:
    """The neutral values of the fields that have some."""
    fields = kind.model_fields.items()
    marks = {name: tuple(mark.value for mark in field.metadata if isinstance(mark, Neutral)) for name, field in fields}
    return {name: values for name, values in marks.items() if values}


def canonical(content: Any) -> str:
    """JSON with one spelling: sorted names, no spaces, no NaN, -0.0 written as 0.0."""
    return json.dumps(_plain(content), sort_keys=True, separators=(",", ":"), allow_nan=False)


def _plain(content: Any) -> Any:
    if isinstance(content, dict):
        return {str(name): _plain(value) for name, value in content.items()}
    if isinstance(content, (list, tuple)):
        return [_plain(value) for value in content]
    return content + 0.0 if isinstance(content, float) else content
