"""From a table under `[[pass.with]]` to what the training loop calls."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from demiglace.training import Scheduled

if TYPE_CHECKING:
    from demiglace.engine.checked import Step
    from demiglace.passes import Participant
    from demiglace.plugins import Registry


def participant_of(registry: Registry, step: Step) -> Participant[Any]:
    """The participant of a step: the pass's own, or its editor under a schedule."""
    implementation = registry.implementation(step.spec)(step.config)
    if step.schedule is not None:
        return Scheduled(implementation, step.schedule, step.id)
    participant: Participant[Any] = implementation
    participant.id = step.id
    return participant
