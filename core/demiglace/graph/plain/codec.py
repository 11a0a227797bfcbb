"""A plain-data graph as JSON text and back."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from demiglace.errors import ArtifactError, GraphError
from demiglace.graph.edits import Swap
from demiglace.graph.model_graph import ModelGraph
from demiglace.graph.plain.described import described
from demiglace.graph.plain.layered import LayeredGraph
from demiglace.graph.plain.module import PlainGraph
from demiglace.graph.plain.nodes import GraphData, Here, Input, Node, NodeRef, TensorRef, references
from demiglace.graph.plain.operators import mode_argument, operator_named
from demiglace.graph.plain.tree import Tree
from demiglace.graph.transaction import apply

FORMAT = "demiglace-graph"
VERSION = 1

_TORCH: dict[type, str] = {torch.dtype: "dtype", torch.layout: "layout", torch.memory_format: "memory_format"}


def to_json(graph: PlainGraph) -> str:
    """The graph without its tensors' values; equal graphs give equal text."""
    data = graph.graph_data
    swaps = graph.swaps if isinstance(graph, LayeredGraph) else []
    content = {
        "format": FORMAT,
        "version": VERSION,
        "input_tree": data.input_tree.to_json(),
        "inputs": [
            {"name": one.name, "shape": one.shape, "value": _encoded(one.value)} for one in data.inputs
        ],
        "nodes": [_node_to_json(node) for node in data.nodes],
        "output_tree": data.output_tree.to_json(),
        "outputs": _encoded(data.outputs),
        "layers": {name: list(types) for name, types in data.layers.items()},
        "tensors": graph.unswapped if isinstance(graph, LayeredGraph) and swaps else described(graph),
        "transient": list(data.transient),
        "swaps": [{"module": one.module, "type": one.type, "options": one.options} for one in swaps],
    }
    return json.dumps(content, separators=(",", ":"), allow_nan=False)


def _node_to_json(node: Node) -> dict[str, Any]:
    kwargs = {name: _encoded(value) for name, value in node.kwargs.items()}
    args = _encoded(node.args)
    return {
        "name": node.name,
        "op": node.op,
        "args": args,
        "kwargs": kwargs,
        "shape": node.shape,
        "layer": node.layer,
    }


def _encoded(value: Any) -> Any:
    """An argument as JSON: what JSON has no word for is an object with one key."""
    match value:
        case None | bool() | int() | str():
            return value
        case float():
            return value if math.isfinite(value) else {"float": str(value)}
        case complex():
            return {"complex": [_encoded(value.real), _encoded(value.imag)]}
        case list() | tuple():
            return [_encoded(inner) for inner in value]
        case NodeRef():
            return {"node": value.name}
        case TensorRef():
            return {"tensor": value.name}
        case Here():
            return {"device": "here"}
    kind = _TORCH.get(type(value))
    if kind is None:
        raise GraphError(f"a plain-data graph cannot hold a {type(value).__name__}")
    return {kind: str(value).removeprefix("torch.")}


def from_json(text: str) -> PlainGraph:
    """The graph on the meta device: its tensors have shapes and no values, and take no memory.

    Raises:
        ArtifactError: when the text is not a graph, of another version, calls an operator that is not
            allowed, or refers to what is not there.
    """
    try:
        content = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ArtifactError(f"the graph's file is not JSON: {error}") from None
    if not isinstance(content, dict) or content.get("format") != FORMAT:
        raise ArtifactError("the graph's file does not hold a demiglace graph")
    if content.get("version") != VERSION:
        raise ArtifactError(
            f"the graph has version {content.get('version')}; this demiglace reads version {VERSION}",
            hint="install the demiglace that wrote it, or a newer one",
        )
    try:
        data = _data(content)
        _check(data)
        graph = PlainGraph(data, _meta_tensors(content["tensors"]))
        apply(ModelGraph(graph), map(_swap_from_json, content["swaps"])).commit()
        return graph
    except (KeyError, TypeError, ValueError, AttributeError, RecursionError, OverflowError) as error:
        raise ArtifactError(f"the graph's file does not hold a valid graph: {error!r}") from None
    except (GraphError, RuntimeError) as error:
        raise ArtifactError(f"the graph's file does not hold a valid graph: {error}") from None


def _data(content: Mapping[str, Any]) -> GraphData:
    return GraphData(
        input_tree=Tree.from_json(content["input_tree"]),
        inputs=[
            Input(_text(one["name"]), _shape(one["shape"]), _decoded(one["value"]))
            for one in content["inputs"]
        ],
        nodes=[_node_from_json(node) for node in content["nodes"]],
        output_tree=Tree.from_json(content["output_tree"]),
        outputs=[_decoded(value) for value in content["outputs"]],
        layers={name: tuple(map(_text, types)) for name, types in content["layers"].items()},
        transient=tuple(map(_text, content["transient"])),
    )


def _swap_from_json(value: Mapping[str, Any]) -> Swap:
    if not isinstance(value["options"], dict):
        raise TypeError(f"not options: {str(value['options'])[:100]}")
    return Swap(_text(value["module"]), _text(value["type"]), value["options"])


def _node_from_json(value: Mapping[str, Any]) -> Node:
    return Node(
        name=_text(value["name"]),
        op=_text(value["op"]),
        args=[_decoded(inner) for inner in value["args"]],
        kwargs={name: _decoded(inner) for name, inner in value["kwargs"].items()},
        shape=_shape(value["shape"]),
        layer=_text(value["layer"]),
    )


def _decoded(value: Any) -> Any:
    match value:
        case None | bool() | int() | float() | str():
            return value
        case list():
            return [_decoded(inner) for inner in value]
        case {"node": str(name), **rest} if not rest:
            return NodeRef(name)
        case {"tensor": str(name), **rest} if not rest:
            return TensorRef(name)
        case {"float": "inf" | "-inf" | "nan" as text, **rest} if not rest:
            return float(text)
        case {"complex": [real, imaginary], **rest} if not rest:
            return complex(_decoded(real), _decoded(imaginary))
        case {"device": "here", **rest} if not rest:
            return Here()
    return _of_torch(value)


def _of_torch(value: Any) -> Any:
    """A dtype, layout or memory format by its name."""
    for kind, key in _TORCH.items():
        if isinstance(value, dict) and list(value) == [key]:
            found = getattr(torch, _text(value[key]), None)
            if type(found) is kind:
                return found
    raise ValueError(f"not an argument: {str(value)[:100]}")


def _check(data: GraphData) -> None:
    """Every operator exists and takes such arguments, and every value is there before it is read."""
    known: set[str] = set()
    for name in [*(one.name for one in data.inputs), *(node.name for node in data.nodes)]:
        if name in known:
            raise ValueError(f"two values are called {name!r}")
        known.add(name)
    if data.input_tree.count() != len(data.inputs) or data.output_tree.count() != len(data.outputs):
        raise ValueError("inputs or outputs do not fill their containers")
    known = {one.name for one in data.inputs}
    for node in data.nodes:
        _check_call(node)
        _check_reads(node.name, [node.args, list(node.kwargs.values())], known)
        if node.layer not in data.layers:
            raise ValueError(f"node {node.name!r} is of a layer {node.layer!r} that is not there")
        known.add(node.name)
    _check_reads("the output", data.outputs, known)


def _check_reads(reader: str, value: Any, known: set[str]) -> None:
    for one in references(value):
        if isinstance(one, NodeRef) and one.name not in known:
            raise ValueError(f"{reader} reads {one.name!r}, which does not come before it")


def _check_call(node: Node) -> None:
    schema = getattr(operator_named(node.op), "_schema", None)
    if schema is None:
        return
    names = [argument.name for argument in schema.arguments]
    at = mode_argument(node.op)
    too_few = at is not None and len(node.args) <= at
    if len(node.args) > len(names) or too_few or not set(node.kwargs) <= set(names):
        raise ValueError(f"node {node.name!r} calls {node.op!r} with arguments that it does not take")


def _meta_tensors(content: Mapping[str, Any]) -> dict[str, Tensor]:
    tensors: dict[str, Tensor] = {}
    for name, one in content.items():
        if one["same_as"] is not None:
            tensors[name] = tensors[one["same_as"]]
            continue
        dtype = _of_torch({"dtype": one["dtype"]})
        tensor = torch.empty(_sizes(one["shape"]), dtype=dtype, device="meta")
        is_parameter = {"parameter": True, "buffer": False}[one["kind"]]
        trains = dtype.is_floating_point or dtype.is_complex
        tensors[name] = nn.Parameter(tensor, requires_grad=trains) if is_parameter else tensor
    return tensors


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError(f"not a text: {str(value)[:100]}")
    return value


def _shape(value: Any) -> list[int | str] | None:
    if value is None:
        return None
    if not isinstance(value, list) or not all(type(size) is int or isinstance(size, str) for size in value):
        raise TypeError(f"not a shape: {str(value)[:100]}")
    return value


def _sizes(value: Any) -> list[int]:
    if not isinstance(value, list) or not all(type(size) is int and size >= 0 for size in value):
        raise TypeError(f"not a list of sizes: {str(value)[:100]}")
    return value
