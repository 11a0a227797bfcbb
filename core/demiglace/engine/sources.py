"""The source objects that a recipe's tables name."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from demiglace.engine.checked import Checked, SourceUse
    from demiglace.passes import ModelSource


def model_source(checked: Checked, use: SourceUse | None) -> ModelSource[Any] | None:
    """The source of a network that a recipe's table names, if it names one."""
    if use is None or use.spec is None:
        return None
    source: ModelSource[Any] = checked.registry.implementation(use.spec)(use.config)
    return source
