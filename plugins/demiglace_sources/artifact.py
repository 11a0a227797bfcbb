"""`artifact`: a model that an earlier run saved."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import Field

from demiglace.passes import Config, Contract, ModelSource

if TYPE_CHECKING:
    from torch import nn

    from demiglace.artifact import ArtifactInfo, Origin
    from demiglace.graph import ModelGraph

_MODEL = "model"
"""Where a run directory holds its artifact."""


class ArtifactConfig(Config):
    """A model that an earlier run saved, with its masks and edits.

    Of the facts that it may give, an artifact gives those that its manifest tells.
    """

    path: Annotated[str, Field(min_length=1)]
    """Run directory, artifact or packed file, relative to where demiglace is started."""

    def words(self) -> str:
        return f"the model saved in {self.path}"

    def folder(self) -> Path:
        """The artifact, which a run directory holds in a folder of its own."""
        inside = Path(self.path) / _MODEL
        return inside if inside.is_dir() else Path(self.path)

    def contract(self) -> Contract:
        from demiglace.artifact import facts_of

        return Contract(gives=facts_of(self.folder()))


class ArtifactSource(ModelSource[ArtifactConfig]):
    """Opens the artifact; what is saved of it later names the first origin, not this artifact."""

    _opened: ArtifactInfo

    def open(self) -> ModelGraph:
        from demiglace.artifact import open_artifact
        from demiglace.plugins import discover, structures

        artifact = open_artifact(self.config.folder(), resolve=structures(discover()))
        graph = artifact.model_graph()
        graph.origin = artifact.info.origin
        self._opened = artifact.info
        return graph

    def figures(self) -> Mapping[str, object]:
        """`bytes` of the file or folder, and how many times smaller that is than the network was at first.

        The network that the run which saved it began with, in float32; `None` where it does not say.
        """
        info = self._opened
        files = [info.path] if info.path.is_file() else info.path.iterdir()
        size = sum(file.stat().st_size for file in files)
        weights = info.provenance.get("parameters")
        return {"bytes": size, "smaller_than_fp32": weights and round(4 * weights / size, 3)}

    def build(self) -> nn.Module:
        return self.open().module

    def example_shape(self) -> Sequence[int] | None:
        """The input's, where the artifact is a plain-data graph or its source knows it."""
        from demiglace.graph.plain import PlainGraph

        graph = self.open()
        if isinstance(graph.module, PlainGraph):
            shape = (graph.module.graph_data.inputs[0].shape or [])[1:]
            known = [size for size in shape if isinstance(size, int)]
            return known if len(known) == len(shape) else None
        return _known_by_source(graph.origin)

    def structure(self) -> nn.Module:
        return self.build()


def _known_by_source(origin: Origin | None) -> Sequence[int] | None:
    """What the source that builds a structure knows of its input."""
    from demiglace.artifact import SourceOrigin
    from demiglace.plugins import discover
    from demiglace.recipe import validate

    registry = discover()
    spec = registry.model_sources.get(origin.name) if isinstance(origin, SourceOrigin) else None
    if spec is None or not isinstance(origin, SourceOrigin):
        return None
    source: ModelSource[Any] = registry.implementation(spec)(validate(spec.config, dict(origin.options)))
    return source.example_shape()
