"""Which participants have something to say at a moment of the loop, so that the others cost nothing."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from demiglace.passes import Participant


def overriding(participants: Sequence[Participant[Any]], method: str) -> list[Participant[Any]]:
    """The participants whose class overrides a method of `Participant`."""
    own = getattr(Participant, method)
    return [one for one in participants if getattr(type(one), method) is not own]
