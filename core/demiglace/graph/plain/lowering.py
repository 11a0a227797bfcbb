"""From a module to its plain-data graph, by way of `torch.export`."""

from __future__ import annotations

import re
from collections.abc import Mapping
from copy import deepcopy
from dataclasses import dataclass
from typing import TYPE_CHECKING

from torch import Tensor, nn

from demiglace.errors import GraphError
from demiglace.graph.export import batch_size, export, resized
from demiglace.graph.model_graph import types_of
from demiglace.graph.names import named_tensors
from demiglace.graph.origins import CallerOrigin
from demiglace.graph.plain.flow import is_size
from demiglace.graph.plain.free_batch import with_free_batch
from demiglace.graph.plain.layered import LayeredGraph
from demiglace.graph.plain.module import PlainGraph
from demiglace.graph.plain.nodes import GraphData, Node, TensorRef, references
from demiglace.graph.plain.reading import Reader

if TYPE_CHECKING:
    from torch.export import ExportedProgram

    from demiglace.graph.model_graph import ModelGraph


@dataclass(frozen=True)
class GraphForm:
    """What a model's plain-data graph calls, before anything is changed in it."""

    #: The traced graph whose calls are named as the nodes.
    program: ExportedProgram
    #: Without its layers' classes; to be copied before it is changed.
    data: GraphData


_FURTHER = 11
"""Items that a second trace has more than the first: few of a batch's functions are the same for both, such
as its half rounded down for two and for three. Nothing is computed: many cost the memory of their inputs."""


def graph_form(model: ModelGraph) -> GraphForm:
    """The calls of a model, with its batch size left free where the model allows it.

    Raises:
        GraphError: as `lower`.
    """
    data = None if model.is_exported else _freed(model)
    if data is not None:
        return GraphForm(model.specialized, data)
    return GraphForm(model.exported, Reader(model.exported).data())


def _freed(model: ModelGraph) -> GraphData | None:
    """The graph out of two traces with fixed sizes, which take less time than one with a free batch size."""
    program, example = model.specialized, model.example
    if example is None or model.is_exported or not batch_size(example):
        return None
    try:
        larger = resized(example, max(2, batch_size(example)) + _FURTHER)
        other = export(model.module, larger, free_batch=False)
    except GraphError:
        return None
    if not _same_constants(program, other):
        return None
    return with_free_batch(Reader(program).data(), Reader(other).data())


def _same_constants(one: ExportedProgram, other: ExportedProgram) -> bool:
    return one.constants.keys() == other.constants.keys() and all(
        isinstance(each, Tensor) and each.equal(other.constants[name]) for name, each in one.constants.items()
    )


def lower(model: ModelGraph) -> PlainGraph:
    """The model as a plain-data graph, which holds the module's own parameters and buffers.

    It computes what the module computes in eval mode, at any batch size, and trains: its layers' training
    flags drive batch norm and dropout. What inference does not run is not in it: auxiliary heads,
    stochastic depth, dropout inside fused attention. A model that fixes its batch size in Python code gives
    a graph that takes that size alone.

    Raises:
        GraphError: when the model has no example, torch cannot trace it, or it calls an operator that a
            plain-data graph may not.
    """
    if isinstance(model.module, PlainGraph):
        return model.module
    return _traced(model)


def lower_layers(model: ModelGraph) -> PlainGraph:
    """As `lower`; a graph whose layers were swapped becomes one that calls operators in their places."""
    swapped = isinstance(model.module, LayeredGraph) and model.module.swaps
    return _traced(model) if swapped else lower(model)


def _traced(model: ModelGraph) -> PlainGraph:
    form = model.graph_form
    data = deepcopy(form.data)
    tensors = used_tensors(data, _tensors(model.module, form.program))
    data.layers = described_layers(model.module, data, tensors)
    kept = model.module.state_dict(keep_vars=True)
    data.transient = tuple(
        name for name, each in tensors.items() if name not in kept and not isinstance(each, nn.Parameter)
    )
    flags = {name: each.training for name, each in model.module.named_modules(remove_duplicate=False)}
    return PlainGraph(data, tensors, flags)


def traced_names(model: ModelGraph) -> dict[str, str]:
    """For each node of a plain-data graph, what it is called when the graph itself is traced.

    Tracing numbers calls anew, and a graph that lost some keeps the numbers of the rest.

    Raises:
        GraphError: when tracing finds other calls than the graph makes.
    """
    own = _on_tensors(model.module.graph_data) if isinstance(model.module, PlainGraph) else []
    traced = _on_tensors(Reader(model.exported).data())
    if [node.op for node in own] != [node.op for node in traced]:
        raise GraphError("tracing the graph gives other calls than it makes")
    return {node.name: other.name for node, other in zip(own, traced, strict=True)}


def _on_tensors(data: GraphData) -> list[Node]:
    """A graph's nodes without those that compute sizes, which tracing puts wherever they are read."""
    return [node for node in data.nodes if not is_size(node)]


def portable(model: ModelGraph) -> PlainGraph | None:
    """A caller's model as a plain-data graph, so that it opens without the caller's class.

    `None` for a model whose source builds it again, and for one that cannot be traced.
    """
    if not isinstance(model.origin, CallerOrigin) or model.example is None:
        return None
    try:
        return lower(model)
    except GraphError:
        return None


def _tensors(module: nn.Module, program: ExportedProgram) -> dict[str, Tensor]:
    """The module's tensors under all their names, and the constants that tracing found."""
    constants = {name: each for name, each in program.constants.items() if isinstance(each, Tensor)}
    return {**constants, **dict(named_tensors(module))}


def used_tensors(data: GraphData, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors that the graph reads, under all their names, and the counters of its batch norms."""
    reads = references([node.args + list(node.kwargs.values()) for node in data.nodes] + data.outputs)
    read = {one.name for one in reads if isinstance(one, TensorRef)}
    read |= {re.sub(r"running_mean$", "num_batches_tracked", name) for name in read}
    same = {id(tensors[name]) for name in read if name in tensors}
    return {name: tensor for name, tensor in tensors.items() if id(tensor) in same}


def described_layers(
    module: nn.Module, data: GraphData, tensors: Mapping[str, Tensor]
) -> dict[str, tuple[str, ...]]:
    """The classes of the layers that compute or hold something, and of those around them."""
    inner = {node.layer for node in data.nodes} | {name.rpartition(".")[0] for name in tensors}
    named = {""} | {path[:at] for path in inner for at in _ends(path)}
    modules = dict(module.named_modules(remove_duplicate=False))
    ordered = [name for name in modules if name in named] + sorted(named - set(modules))
    return {name: types_of(modules[name]) if name in modules else () for name in ordered}


def _ends(path: str) -> list[int]:
    return [*(match.start() for match in re.finditer(r"\.", path)), len(path)]
