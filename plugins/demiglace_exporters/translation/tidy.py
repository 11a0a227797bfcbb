"""What a file need not hold: values rounded twice, names of source files, what nothing reads."""

from __future__ import annotations

import ast
from collections.abc import Iterator, Mapping
from typing import Any

import onnx_ir as ir
from onnx_ir.passes.common import RemoveUnusedNodesPass

_SCOPES = "pkg.torch.onnx.name_scopes"


def merge_roundings(graph: Any) -> None:
    """Round a value once where it is rounded again with the same scale, or for several readers."""
    seen: dict[tuple[int, ...], Any] = {}
    for node in list(graph):
        if node.op_type not in {"QuantizeLinear", "DequantizeLinear"} or _constant(node.inputs[0]):
            continue
        key = (hash(node.op_type), *(id(one) for one in node.inputs))
        same = _undone(node) or seen.get(key)
        if same is None:
            seen[key] = node.outputs[0]
            continue
        ir.convenience.replace_all_uses_with(node.outputs[0], same)
        graph.remove(node, safe=True)


def _constant(value: Any) -> bool:
    return value.const_value is not None


def _undone(node: Any) -> Any:
    """The integers that were made real just to be rounded to the same again."""
    before = node.inputs[0].producer()
    if node.op_type != "QuantizeLinear" or before is None or before.op_type != "DequantizeLinear":
        return None
    return before.inputs[0] if list(before.inputs[1:]) == list(node.inputs[1:]) else None


def tidied(model: Any, version: str, layers: Mapping[str, str]) -> None:
    """Remove what nothing reads and what tells of the machine; name nodes after their layers.

    Args:
        model: an `onnx_ir.Model`.
        version: of demiglace.
        layers: qualified names of layers, by the names of the traced calls.
    """
    RemoveUnusedNodesPass()(model)
    names: dict[str, int] = {}
    for node in model.graph:
        base = f"{layers.get(_call_of(node)) or 'model'}/{node.op_type}"
        names[base] = names.get(base, 0) + 1
        node.name = base if names[base] == 1 else f"{base}_{names[base]}"
    for one in _described(model):
        one.metadata_props.clear()
        one.doc_string = None
    model.producer_name, model.producer_version = "demiglace", version


def _call_of(node: Any) -> str:
    """The traced call that a node computes for; empty where torch did not say."""
    try:
        scopes = ast.literal_eval(node.metadata_props.get(_SCOPES, "[]"))
    except (ValueError, SyntaxError):
        return ""
    return scopes[-1] if scopes else ""


def _described(model: Any) -> Iterator[Any]:
    """Everything that may carry metadata."""
    yield from (model, model.graph, *model.graph.inputs, *model.graph.initializers.values())
    for node in model.graph.all_nodes():
        yield from (node, *node.outputs)
