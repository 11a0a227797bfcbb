"""`artifact`: a model that an earlier run saved."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from pydantic import Field

from demiglace.passes import Config, ModelSource

if TYPE_CHECKING:
    from torch import nn

    from demiglace.graph import ModelGraph

_MODEL = "model"
"""Where a run directory holds its artifact."""


class ArtifactConfig(Config):
    """A model that an earlier run saved, with its masks and edits."""

    path: Annotated[str, Field(min_length=1)]
    """Run directory, artifact or packed file, relative to where demiglace is started."""

    def words(self) -> str:
        return f"the model saved in {self.path}"


class ArtifactSource(ModelSource[ArtifactConfig]):
    """Opens the artifact; what is saved of it later names the first origin, not this artifact."""

    def open(self) -> ModelGraph:
        from demiglace.artifact import open_artifact
        from demiglace.plugins import discover, structures

        folder = Path(self.config.path)
        if (folder / _MODEL).is_dir():
            folder /= _MODEL
        artifact = open_artifact(folder, resolve=structures(discover()))
        graph = artifact.model_graph()
        graph.origin = artifact.info.origin
        return graph

    def build(self) -> nn.Module:
        return self.open().module

    def structure(self) -> nn.Module:
        return self.build()
