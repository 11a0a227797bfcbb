"""`export.packed`: the model as one small file."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field

from demiglace.passes import Config, Context, Exporter, Kind, PassSpec

if TYPE_CHECKING:
    from demiglace.graph import ModelGraph


class PackedConfig(Config):
    """Write the model as one small file, each tensor in the smallest of its lossless encodings.

    `demiglace.load("model.dgz")` gives the very weights back: no pickle, no data, no network.
    """

    file: Annotated[str, Field(pattern=r"^[\w][\w.-]*$")] = "model.dgz"
    """The file's name in the step's folder of the run directory."""
    level: Literal["default", "max"] = "default"
    """`max` also looks at what rows, columns and neighbours say of each integer: smaller or equal, most so
    for sparse weights, embeddings and large kernels, and slower to write and to load."""

    def words(self) -> str:
        return f"write {self.file}, packed{' as small as it gets' if self.level == 'max' else ''}"


class PackedExporter(Exporter[PackedConfig]):
    """Packs a model: integers of quantized weights, positions of zeros, and plain floats, entropy-coded."""

    def write(self, model: ModelGraph, folder: Path, context: Context) -> Mapping[str, object]:
        from demiglace.artifact import GraphOrigin
        from demiglace.artifact.packed import pack
        from demiglace.graph.plain import portable
        from demiglace.measure import measure

        written = pack(
            model,
            folder / self.config.file,
            origin=model.origin or GraphOrigin(),
            transform=() if context.data is None else context.data.transform,
            provenance=context.provenance or None,
            graph=portable(model),
            context=self.config.level == "max",
        )
        # Against the network that the run began with: what was cut off it was made smaller too.
        raw = 4 * context.provenance.get("parameters", measure(model).parameters)
        return {
            "file": self.config.file,
            "bytes": written.bytes,
            "digest": written.digest,
            "smaller_than_fp32": round(raw / written.bytes, 3),
        }


SPEC = PassSpec(
    "export.packed",
    Kind.EXPORTER,
    PackedConfig,
    "demiglace_exporters.packed:PackedExporter",
    '[[pass]]\nuse = "export.packed"\n',
)
