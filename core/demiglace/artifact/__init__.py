"""Models on disk: safetensors and plain data, whole or not at all, checked when read."""

from demiglace.artifact.atomic import new_directory, writing
from demiglace.artifact.facts import facts_of
from demiglace.artifact.loading import Artifact, load, open_artifact
from demiglace.artifact.manifest import ArtifactInfo, read_info
from demiglace.artifact.saving import save
from demiglace.artifact.snapshot import digest_beside, state_digest
from demiglace.artifact.structures import Build, Model, Resolver
from demiglace.artifact.tensor_file import write_tensors
from demiglace.graph.origins import CallerOrigin, GraphOrigin, Origin, SourceOrigin

__all__ = [
    "Artifact",
    "ArtifactInfo",
    "Build",
    "CallerOrigin",
    "GraphOrigin",
    "Model",
    "Origin",
    "Resolver",
    "SourceOrigin",
    "digest_beside",
    "facts_of",
    "load",
    "new_directory",
    "open_artifact",
    "read_info",
    "save",
    "state_digest",
    "write_tensors",
    "writing",
]
