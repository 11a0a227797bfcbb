"""Beside which steps of a recipe the uncompressed model is trained too, to be compared with."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from demiglace.passes import Kind
from demiglace.passes.contract import CONTROL

if TYPE_CHECKING:
    from demiglace.engine.checked import Step


def control_span(steps: Sequence[Step]) -> range:
    """The steps, by number from 0, during which there is a control.

    It is the model as it was before the first step that compresses, and takes part in every training from
    there to the last one that wants it: so it was trained for the same epochs as the compressed model.
    """
    wanting = [number for number, step in enumerate(steps) if wants_control(step)]
    if not wanting:
        return range(0)
    first = next(number for number, step in enumerate(steps) if number in wanting or _compresses(step))
    return range(first, wanting[-1] + 1)


def wants_control(step: Step) -> bool:
    """Whether a step is to be compared with a control."""
    return CONTROL in step.contract().wants


def _compresses(step: Step) -> bool:
    return step.spec.kind is Kind.EDITOR or any(_edits(one) for one in step.participants)


def _edits(participant: Step) -> bool:
    """Whether a participant changes the model by more than training."""
    contract = participant.config.contract()
    return participant.schedule is not None or bool(contract.gives | contract.destroys)
