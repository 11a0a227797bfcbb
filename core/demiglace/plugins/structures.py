"""How an artifact finds the source that builds its structure."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from demiglace.errors import SourceError
from demiglace.plugins.registry import Registry
from demiglace.recipe import validate

if TYPE_CHECKING:
    from torch import nn

    from demiglace.artifact import Resolver
    from demiglace.passes import ModelSource


def structures(registry: Registry) -> Resolver:
    """What gives, for a source's name and options, the function that builds its structure."""

    def resolve(name: str, options: Mapping[str, Any]) -> Callable[[], nn.Module]:
        spec = registry.model_sources.get(name)
        if spec is None:
            raise SourceError(
                f"no installed plugin has the model source {name!r}", hint=registry.absent_hint(name)
            )
        source: ModelSource[Any] = registry.implementation(spec)(validate(spec.config, options))
        return source.build

    return resolve
