"""A model as an ONNX model with integers where it has them."""

from __future__ import annotations

import re
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import torch

from demiglace import __version__
from demiglace.errors import GraphError
from demiglace.graph.plain import LayeredGraph, PlainGraph, traced_names
from demiglace_exporters.translation import layers, resizing, weights
from demiglace_exporters.translation.building import Site
from demiglace_exporters.translation.constants import Constants
from demiglace_exporters.translation.placeholders import DOMAIN, inputs_of, translation_table
from demiglace_exporters.translation.tidy import merge_roundings, tidied

if TYPE_CHECKING:
    from torch.export import ExportedProgram

    from demiglace.graph import ModelGraph

OPSET = 21
"""The first with groups of a row in DequantizeLinear."""

_LOWERINGS: dict[str, Callable[[Site], None]] = {
    "rounded": layers.rounded,
    "static_convolution": layers.static_convolution,
    "static_linear": layers.static_linear,
    "dynamic_linear": layers.dynamic_linear,
    "weight": weights.weight,
    "embedding": weights.embedding,
    "_upsample_bilinear2d_aa": resizing.resized,
    "_upsample_bicubic2d_aa": resizing.resized,
}


@dataclass(frozen=True)
class Translated:
    """An ONNX model and what it was made of."""

    #: An `onnx_ir.Model`; its values have the names of the program's.
    model: Any
    #: The traced model, in the operators that were translated.
    program: ExportedProgram
    #: The qualified names of layers, by the names of the traced calls.
    layers: Mapping[str, str]

    @property
    def integers(self) -> Literal["none", "weights", "arithmetic"]:
        """Whether weights are integers, or what is computed with them as well."""
        kinds = {node.op_type for node in self.model.graph}
        if kinds & {"QuantizeLinear", "DynamicQuantizeLinear"}:
            return "arithmetic"
        return "weights" if "DequantizeLinear" in kinds else "none"

    @property
    def fixed_batch(self) -> int | None:
        """The only batch size that the model takes; `None` where any is fine."""
        size = self.model.graph.inputs[0].shape[0] if self.model.graph.inputs[0].shape else None
        return size if isinstance(size, int) else None

    def content(self) -> bytes:
        """The file.

        Raises:
            GraphError: when it is larger than an ONNX file can be.
        """
        import onnx_ir as ir

        try:
            content: bytes = ir.to_proto(self.model).SerializeToString()
        except ValueError as error:
            raise GraphError(
                f"the model does not fit into one ONNX file: {error}", hint="quantize its weights first"
            ) from error
        return content


def translate(model: ModelGraph) -> Translated:
    """The ONNX form of a model, its batch size free where the model's is.

    Raises:
        GraphError: when the model cannot be traced, or calls an operator that ONNX does not have; the
            message names the operator and its layer.
    """
    program = model.exported
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of torch about its own deprecations
        try:
            made = torch.onnx.export(
                program,
                dynamo=True,
                opset_version=OPSET,
                custom_translation_table=translation_table(),
                verbose=False,
            )
        except Exception as error:
            raise _refused(error, program, layers_of(model, program)) from error
    if made is None or made.exported_program is None:
        raise GraphError("torch's ONNX exporter gave no model")
    layers = layers_of(model, made.exported_program)
    _lower(made.model.graph)
    merge_roundings(made.model.graph)
    tidied(made.model, __version__, layers)
    made.model.opset_imports.pop(DOMAIN, None)
    return Translated(made.model, made.exported_program, layers)


def _lower(graph: Any) -> None:
    """Put standard nodes in the place of ours."""
    constants = Constants(graph)
    for node in list(graph):
        if node.domain == DOMAIN:
            site = Site(node, graph, constants)
            names = inputs_of(node.op_type)
            site.inputs = dict(zip(names, [*node.inputs, *[None] * len(names)], strict=False))
            _LOWERINGS[node.op_type](site)


def layers_of(model: ModelGraph, program: ExportedProgram) -> dict[str, str]:
    """The innermost layer of each call of a program, by qualified name; empty for the root."""
    if isinstance(model.module, PlainGraph) and not isinstance(model.module, LayeredGraph):
        names = traced_names(model)
        return {names[node.name]: node.layer for node in model.module.graph_data.nodes if node.name in names}
    found = {}
    for node in program.graph.nodes:
        stack = node.meta.get("nn_module_stack") or {}
        paths = [path for path, _ in stack.values() if not path.startswith("_empty")]
        found[node.name] = re.sub(r"@\d+", "", paths[-1]) if paths else ""
    return found


_CALL = re.compile(r"translating node %(\w+) .*?target=(?:torch\.ops\.)?([\w.]+)", re.DOTALL)


def _refused(error: Exception, program: ExportedProgram, layers: Mapping[str, str]) -> GraphError:
    """What torch's exporter could not translate: the operator and its layer, where it says so."""
    found = _CALL.search(str(error))
    if found is None:
        lines = [line.strip() for line in str(error).splitlines() if line.strip()]
        return GraphError(f"the model cannot be written as ONNX: {lines[0] if lines else error!r}")
    # It was decomposed before: its name may be another now, and its namespace.
    calls = [str(node.name) for node in program.graph.nodes if _base(found[2]) in _base(node.target)]
    layer = next((layers[name] for name in (found[1], *calls) if name in layers), "")
    return GraphError(
        f"layer {layer or '.'!r} calls {found[2]!r}, which ONNX has no form of",
        hint="write that layer with other operators of torch, or ship the model as an artifact",
    )


def _base(target: object) -> str:
    """An operator's name without namespace and overload."""
    return str(target).partition(".")[2].partition(".")[0]
