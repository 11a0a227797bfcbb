"""`export.state_dict`: the tensors alone, for programs that have the network and nothing of ours."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field

from demiglace.errors import GraphError
from demiglace.passes import Config, Context, Exporter, Kind, PassSpec

if TYPE_CHECKING:
    from torch import Tensor, nn

    from demiglace.graph import ModelGraph
    from demiglace.quantization import QTensor


class StateDictConfig(Config):
    """Write the model's tensors as plain safetensors, under the names of its `state_dict`.

    With `weights = "float"` every weight is float32 under its own name, whatever held it: the original
    network loads the file, as long as no pass changed its structure. With `integers`, a quantized weight
    `w` is int8 of its own shape; `w_scale` and `w_zero_point` have a row for each index of its first
    dimension and a column for each group of what follows it, or one row for all. A weight is
    `(w - w_zero_point) * w_scale`.
    """

    file: Annotated[str, Field(pattern=r"^[\w][\w.-]*$")] = "model.safetensors"
    """The file's name in the step's folder of the run directory."""
    weights: Literal["float", "integers"] = "float"
    """What quantized weights are written as; others are written as they are."""

    def words(self) -> str:
        how = "in float32" if self.weights == "float" else "quantized weights as int8 with their scales"
        return f"write {self.file}, plain safetensors, {how}"


class StateDictExporter(Exporter[StateDictConfig]):
    """Writes a state dict."""

    def write(self, model: ModelGraph, folder: Path, context: Context) -> Mapping[str, object]:
        from demiglace.artifact import write_tensors
        from demiglace_exporters._whole import whole

        tensors = _tensors(model.module, integers=self.config.weights == "integers")
        with whole(folder / self.config.file) as fresh:
            written, _ = write_tensors(fresh, tensors)
        return {
            "file": self.config.file,
            "bytes": written.bytes,
            "tensors": len(tensors),
            "weights": self.config.weights,
        }


def _tensors(module: nn.Module, *, integers: bool) -> dict[str, Tensor]:
    """The state dict without what holds weights in another form, and these weights under their own names.

    Raises:
        GraphError: when integers are asked for and there are none.
    """
    from demiglace.quantization import QTensor, floating, held_weights

    if not integers:
        module = floating(module)  # what is left to unpack stands in a graph
    held = dict(held_weights(module))
    if integers and not any(isinstance(weight, QTensor) for weight in held.values()):
        raise GraphError("no weight of the model is an integer", hint='write weights = "float"')
    parts = {name + part for name, weight in held.items() for part in (*weight.tensors(), "_sums")}
    tensors = {name: one for name, one in module.state_dict().items() if name not in parts}
    for name, weight in held.items():
        if integers and isinstance(weight, QTensor):
            tensors |= dict(_unpacked(name, weight))
        else:
            tensors[name] = weight.dequantize()
    return tensors


def _unpacked(name: str, weight: QTensor) -> Iterator[tuple[str, Tensor]]:
    rest = [size for dim, size in enumerate(weight.shape) if dim != weight.axis]
    integers = weight.integers.reshape(weight.shape[weight.axis], *rest).movedim(0, weight.axis)
    yield name, integers.contiguous()
    yield f"{name}_scale", weight.scale.float()
    yield f"{name}_zero_point", weight.zeros_of_groups


SPEC = PassSpec(
    "export.state_dict",
    Kind.EXPORTER,
    StateDictConfig,
    "demiglace_exporters.state_dict:StateDictExporter",
    '[[pass]]\nuse = "export.state_dict"\n',
)
