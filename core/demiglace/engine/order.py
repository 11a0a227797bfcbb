"""Whether the passes can run in the order in which the recipe has them, judged by their contracts."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from demiglace.engine.checked import Checked, Given, Step
from demiglace.errors import Fault
from demiglace.passes import Kind
from demiglace.passes import contract as facts
from demiglace.recipe import ORIGINAL, did_you_mean

MODEL_FACTS = frozenset({facts.WEIGHTS_FLOAT, facts.WEIGHTS_EXCHANGEABLE, facts.MODEL_TRAINABLE})
"""What holds of a model that comes from a source or from a caller."""

_STORED = frozenset({facts.WEIGHTS_QUANTIZED, facts.WEIGHTS_BFLOAT16, facts.WEIGHTS_FLOAT16})

MEASURED = ("parameters", "zeros", "sparsity", "bits", "macs", "bytes")
"""Figures that the engine measures after every step, which a gate may bound."""


def order_faults(checked: Checked, given: Given) -> list[Fault]:
    """The steps whose needs are not met where they stand, and gates that nothing measures."""
    start = initial_facts(checked, given)
    found: list[Fault] = []
    held = start
    for index, step in enumerate(checked.steps):
        contract = step.contract()
        found += _excluded(checked, step)
        found += _final(checked, step)
        found += [_unmet(checked, given, index, need, start) for need in sorted(contract.needs - held)]
        # What is missing was reported here: later steps are judged as if it had been there.
        held = contract.after(held | contract.needs)
    return found + list(_evaluation_faults(checked, given, start)) + _gate_faults(checked)


def _evaluation_faults(checked: Checked, given: Given, start: frozenset[str]) -> Iterator[Fault]:
    """Evaluators of `evaluate` whose needs are not met; they run before the first step and after each."""
    for one in checked.evaluations:
        place, needs = checked.recipe.place(one.path), one.contract().needs
        for need in sorted(needs - start):
            message = f"{one.spec.name!r} in `evaluate` needs {need} from the beginning, which nothing gives"
            yield Fault(message, place, _missing_hint(checked, given, need))
        held = start
        for step in checked.steps:
            before, held = held, step.contract().after(held)
            for need in sorted(needs & before - held):
                message = f"{_named(step)} destroys {need}, which {one.spec.name!r} in `evaluate` needs"
                yield Fault(message, place, "make it a pass of its own before that step")


def initial_facts(checked: Checked, given: Given) -> frozenset[str]:
    """What holds before the first pass."""
    held = set(MODEL_FACTS | given.facts)
    if checked.model is not None and checked.model.config is not None:
        contract = checked.model.config.contract()
        held = (held - contract.destroys) | contract.gives
    if given.splits is not None:
        held |= {f"data.{name}" for name in given.splits} | {facts.LABELS}
    elif checked.data is not None and checked.data.config is not None:
        held |= checked.data.config.contract().gives
    elif given.later and checked.data is None and checked.model is None:
        # A recipe for a caller who brings the model brings the data too.
        held |= {
            facts.DATA_TRAIN,
            facts.DATA_VALIDATION,
            facts.DATA_CALIBRATION,
            facts.DATA_TEST,
            facts.LABELS,
        }
    if facts.DATA_TRAIN in held:
        held |= {facts.DATA_CALIBRATION, facts.DATA_FIXED}
    if checked.teacher is not None:
        held.add(facts.TEACHER)
    return frozenset(held)


def _unmet(checked: Checked, given: Given, index: int, need: str, start: frozenset[str]) -> Fault:
    """Why a step's need is not met, and what would meet it."""
    step = checked.steps[index]
    place = checked.recipe.place((*step.path, "use"))
    earlier = checked.steps[:index]
    was_there = need in start or any(need in one.contract().gives for one in earlier)
    destroyer = next(
        (one for one in reversed(earlier) if was_there and need in one.contract().destroys), None
    )
    giver = next((one for one in checked.steps[index + 1 :] if need in one.contract().gives), None)
    if destroyer is not None:
        message = f"{_named(step)} needs {need}, which {_named(destroyer)} destroys"
        return Fault(message, place, _order_hint(checked.steps, start))
    if giver is not None:
        message = f"{_named(step)} needs {need}, which only the later {_named(giver)} gives"
        return Fault(message, place, _order_hint(checked.steps, start))
    return Fault(
        f"{_named(step)} needs {need}, which nothing before it gives",
        place,
        _missing_hint(checked, given, need),
    )


def _excluded(checked: Checked, step: Step) -> list[Fault]:
    """Participants of one training that cannot be in it together."""
    found = []
    for one in step.participants:
        for other in step.participants:
            unwanted = one.config.contract().excludes & other.config.contract().gives
            if other is not one and unwanted:
                found.append(
                    Fault(
                        f"{_named(other)} gives {', '.join(sorted(unwanted))}, which {_named(one)} does not "
                        "take in the training that both take part in",
                        checked.recipe.place((*other.path, "use")),
                        f"give {other.id!r} a training of its own before that of {one.id!r}",
                    )
                )
    return found


def _final(checked: Checked, step: Step) -> Iterator[Fault]:
    """Editors in a training that could not go on after them: the optimizer remembers other weights."""
    for one in step.participants:
        contract = one.config.contract()
        last = facts.MODEL_TRAINABLE in contract.destroys or contract.gives & _STORED
        if last and one.spec.kind is Kind.EDITOR:
            instead = [
                name
                for name, spec in checked.registry.passes.items()
                if spec.kind is Kind.PARTICIPANT and _default_gives(spec.config) & contract.gives
            ]
            hint = f"make it a pass of its own after {step.id!r}"
            yield Fault(
                f"{_named(one)} cannot act inside training, which could not go on after it",
                checked.recipe.place((*one.path, "use")),
                hint + (f", or take {' or '.join(instead)} in its place" if instead else ""),
            )


def _named(step: Step) -> str:
    return f"step {step.id!r} ({step.spec.name})"


def _missing_hint(checked: Checked, given: Given, need: str) -> str:
    if need == facts.TEACHER:
        return "add a [teacher] table"
    if need == facts.ORIGINAL:
        return "put it after the pass that takes something from the model, and before any training"
    if need == facts.LABELS or need.startswith("data."):
        split = need.removeprefix("data.")
        what = "labels" if need == facts.LABELS else f"a {split} split"
        if given.splits is not None:
            return f"hand it in: data={{{split!r}: ...}}; the data has {', '.join(sorted(given.splits))}"
        if checked.data is None or checked.data.spec is None:
            return f"add a [data] table whose source has {what}"
        return f"the data source {checked.data.spec.name!r} has no {what} with these options"
    givers = [name for name, spec in checked.registry.passes.items() if need in _default_gives(spec.config)]
    return f"passes that give it: {', '.join(givers)}" if givers else "no installed pass gives it"


def _default_gives(config: type) -> frozenset[str]:
    """What a pass gives with default options; nothing when it has options that must be set."""
    if any(field.is_required() for field in config.model_fields.values()):  # type: ignore[attr-defined]
        return frozenset()
    try:
        return config().contract().gives
    except ValueError:  # options of which one of several must be set
        return frozenset()


def _order_hint(steps: Sequence[Step], start: frozenset[str]) -> str:
    order = working_order(steps, start)
    if order is None:
        return "no order of these steps works: take one of them out"
    return f"this order works: {', '.join(step.id for step in order)}"


def working_order(steps: Sequence[Step], start: frozenset[str]) -> list[Step] | None:
    """An order in which every need is met, as near to the recipe's as a greedy walk finds, or `None`.

    Takes, again and again, the first remaining step whose needs hold and which destroys nothing that
    another remaining step needs and none of the remaining ones gives.
    """
    remaining, order, held = list(steps), list[Step](), start
    while remaining:
        ready = [one for one in remaining if one.contract().needs <= held]
        kind = [one for one in ready if not _starves(one, remaining)]
        if not ready:
            return None
        chosen = (kind or ready)[0]
        remaining.remove(chosen)
        order.append(chosen)
        held = chosen.contract().after(held)
    return order


def _starves(step: Step, remaining: Sequence[Step]) -> bool:
    others = [one for one in remaining if one is not step]
    given = frozenset().union(*(one.contract().gives for one in others)) if others else frozenset()
    return any((one.contract().needs & step.contract().destroys) - given for one in others)


def _gate_faults(checked: Checked) -> list[Fault]:
    """Gates on a figure that nothing measures, or against a step that is not there."""
    known = {name for one in checked.evaluators() for name in one.config.metrics()} | set(MEASURED)
    ids = [step.id for step in checked.steps]
    found = []
    for name, gate in checked.recipe.gate.items():
        if name not in known:
            place = checked.recipe.place(("gate", name), "key")
            advice = (did_you_mean(name, known), "accuracy and its like need an evaluator in `evaluate`")
            hint = " ".join(filter(None, advice))
            found.append(Fault(f"nothing in this recipe measures {name!r}", place, hint))
        if gate.against is not None and gate.against not in {*ids, ORIGINAL}:
            place = checked.recipe.place(("gate", name, "against"))
            found.append(
                Fault(f"no step has the id {gate.against!r}", place, did_you_mean(gate.against, ids))
            )
    return found
