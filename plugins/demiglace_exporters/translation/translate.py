"""A model as an ONNX model with integers where it has them."""

from __future__ import annotations

import re
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch.export.graph_signature import TensorArgument

from demiglace import __version__
from demiglace.errors import GraphError
from demiglace.graph.plain import LayeredGraph, PlainGraph, traced_names
from demiglace_exporters.translation import layers, resizing, tables, weights
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
    "sparse_linear": layers.sparse_linear,
    "weight": weights.weight,
    "embedding": tables.embedding,
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
    def precision(self) -> Literal["full", "half", "integer weights", "integers"]:
        """How exactly a runtime can be expected to compute what PyTorch does."""
        kinds = {node.op_type for node in self.model.graph}
        if kinds & {"QuantizeLinear", "DynamicQuantizeLinear"}:
            return "integers"
        if "DequantizeLinear" in kinds:
            return "integer weights"
        halves = any(str(one.dtype) == "FLOAT16" for one in self.model.graph.initializers.values())
        return "half" if halves else "full"

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


def translate(model: ModelGraph, *, dynamic: bool = True) -> Translated:
    """The ONNX form of a model, its batch size free where the model's is.

    Args:
        model: with an example input.
        dynamic: whether layers of `quantize.dynamic` round their inputs in the file itself; else their
            weights alone are integers there.

    Raises:
        GraphError: when the model cannot be traced, or calls an operator that ONNX does not have; the
            message names the operator and its layer.
    """
    program = model.exported
    _refuse_bfloat16(model)
    _refuse_plain_outputs(program)
    # Checks of the inputs' sizes, in which torch 2.14 names inputs of `**kwargs` wrongly.
    program._guards_code = []
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
    names = layers_of(model, made.exported_program)
    _lower(made.model.graph, {} if dynamic else {"dynamic_linear": layers.dequantized_linear})
    merge_roundings(made.model.graph)
    tidied(made.model, __version__, names)
    made.model.opset_imports.pop(DOMAIN, None)
    _name_inputs(made.model.graph, model)
    return Translated(made.model, made.exported_program, names)


def _name_inputs(graph: Any, model: ModelGraph) -> None:
    """Name the inputs as the model does, where its forward takes any number of them."""
    from demiglace.graph import Example

    example = model.example or Example()
    names: list[str | None] = [None] * len(example.args)
    if isinstance(model.module, PlainGraph):
        names = [one.name for one in model.module.graph_data.inputs[: len(example.args)]]
    for value, name in zip(graph.inputs, [*names, *example.kwargs], strict=False):
        taken = {one.name for node in graph for one in node.outputs} | set(graph.initializers)
        if name is not None and name not in taken:
            value.name = name


def _refuse_bfloat16(model: ModelGraph) -> None:
    tensors = (*model.module.named_parameters(), *model.module.named_buffers())
    name = next((name for name, one in tensors if one.dtype == torch.bfloat16), None)
    if name is not None:
        raise GraphError(
            f"{name!r} is bfloat16, which most operators of ONNX do not take",
            hint='use dtype = "float16" in quantize.cast, or export the model as it was before it',
        )


def _refuse_plain_outputs(program: ExportedProgram) -> None:
    """See that the model gives tensors and `None` alone, which is left out."""
    for one in program.graph_signature.output_specs:
        value = getattr(one.arg, "value", "a number")  # of a constant; one that is computed has none
        if not isinstance(one.arg, TensorArgument) and value is not None:
            raise GraphError(
                f"the model gives {value} among its outputs, which an ONNX file cannot",
                hint="let forward return tensors alone",
            )


def _lower(graph: Any, others: Mapping[str, Callable[[Site], None]]) -> None:
    """Put standard nodes in the place of ours, some by another way than usual."""
    constants = Constants(graph)
    for node in list(graph):
        if node.domain == DOMAIN:
            site = Site(node, graph, constants)
            names = inputs_of(node.op_type)
            site.inputs = dict(zip(names, [*node.inputs, *[None] * len(names)], strict=False))
            others.get(node.op_type, _LOWERINGS[node.op_type])(site)


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
        return GraphError(
            f"the model cannot be written as ONNX: {_root(error)}",
            hint="ship the model as an artifact, or try `export.torch`",
        )
    # It was decomposed before: its name may be another now, and its namespace.
    calls = [str(node.name) for node in program.graph.nodes if _base(found[2]) in _base(node.target)]
    layer = next((layers[name] for name in (found[1], *calls) if name in layers), "")
    return GraphError(
        f"layer {layer or '.'!r} calls {found[2]!r}, which ONNX has no form of",
        hint="write that layer with other operators of torch, or ship the model as an artifact",
    )


def _root(error: BaseException) -> str:
    """The first line of what an error began with."""
    while error.__cause__ is not None:
        error = error.__cause__
    return next((line.strip() for line in str(error).splitlines() if line.strip()), repr(error))


def _base(target: object) -> str:
    """An operator's name without namespace and overload."""
    return str(target).partition(".")[2].partition(".")[0]
