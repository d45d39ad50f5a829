"""The controls that a design asks for, made once its pictures are known: networks of the study's space, and arms."""

from typing import Literal

from harness.config import ExpAtt, Network
from harness.controls import matched, uniform
from harness.cost import Counter, Shape
from harness.design import CONTROLS, Arm, Design, arms
from harness.errors import ConfigError, StudyError
from harness.execution.ledger import Price
from harness.key import canonical, network_identity
from harness.space import Choice, Same, Space, choose
from harness.study import Study


def with_controls(study: Study, shape: Shape, price: Price, counter: Counter | None = None) -> tuple[Study, tuple[str, ...]]:
    """The study with a network for each control of its design beside those of its space, and notes on how near
    they come, or which arm they are already. Raises StudyError for one that cannot be matched, or breaks a constraint."""
    design = study.strategy
    if not isinstance(design, Design) or not design.controls:
        return study, ()
    space = study.open_space()
    planned = arms(design, space)
    known = {_identity(space.config(arm.params).network): arm.name for arm in planned}
    made: list[Network] = []
    notes = []
    for control in design.controls:
        reference = _reference(design, control, planned, space, price)
        network, note = _control(design, control, reference.name, space.config(reference.params).network, shape, counter)
        cost = price(space.config(reference.params).model_copy(update={"network": network}))._asdict()
        if broken := [str(constraint) for constraint in study.constraints if not constraint.holds(cost)]:
            raise StudyError(
                f"{type(design).__name__}.controls: {CONTROLS[control]!r} breaks {broken[0]} ({cost['params']:,} params,"
                f" {cost['macs']:,} MACs); loosen the constraint, or leave {control!r} out"
            )
        if twin := known.get(_identity(network)):
            notes.append(f"control {CONTROLS[control]!r} is {twin!r} itself: no arm of its own")
        else:
            known[_identity(network)] = CONTROLS[control]
            made.append(network)
            notes.append(note)
    return _beside(study, made), tuple(notes)


def _beside(study: Study, made: list[Network]) -> Study:
    """The study with more networks to choose from, behind its own."""
    if not made:
        return study
    node = study.space.of if isinstance(study.space, Same) else study.space
    before = node.options if isinstance(node, Choice) else (node,)
    fields = {name: getattr(study, name) for name in Study.model_fields}
    return Study(**fields | {"space": choose(*before, *made)})


def _identity(network: Network) -> str:
    return canonical(network_identity(network))


def _reference(design: Design, control: str, planned: list[Arm], space: Space, price: Price) -> Arm:
    """What a control is matched to: the full config, else the primary arm, else the arm with the most MACs; of uniform maps
    the one of those that have a map to replace."""
    if hasattr(design, "full"):
        return planned[0]
    primary = next((arm for arm in planned if arm.name == design.primary), None)
    mapped = [arm for arm in planned if any(isinstance(slot, ExpAtt) for slot in space.config(arm.params).network.stages)]
    fit = mapped or planned if control == "uniform" else planned
    return primary or max(fit, key=lambda arm: price(space.config(arm.params)).macs)


def _control(
    design: Design, control: str, name: str, network: Network, shape: Shape, counter: Counter | None
) -> tuple[Network, str]:
    """A control for an arm, and how near it comes."""
    label = CONTROLS[control]
    by: Literal["params", "macs"] = "params" if control == "params" else "macs"
    try:
        if control == "uniform":
            stages = tuple(uniform(slot) if isinstance(slot, ExpAtt) else slot for slot in network.stages)
            if stages == network.stages:
                raise ConfigError(f"arm {name!r} has no ExpAtt to replace; leave 'uniform' out")
            return network.model_copy(update={"stages": stages, "label": label}), f"control {label!r}: of arm {name!r}"
        plain = network.model_copy(update={"stages": (None,) * len(network.stages), "head": None})
        match = matched(plain, network, shape, by=by, within=design.within, counter=counter)
        note = f"control {label!r}: {100 * match.error:+.2g} % {by} of arm {name!r}"
        return match.network.model_copy(update={"label": label}), note
    except ConfigError as error:
        raise StudyError(f"{type(design).__name__}.controls: {control!r} for arm {name!r}: {error}") from None
