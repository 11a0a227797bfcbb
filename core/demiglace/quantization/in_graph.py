"""Integers and nonzeros that a plain-data graph reads, and the layers in it that compute on integers."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from demiglace.graph.names import named_tensors
from demiglace.graph.plain import PlainGraph, TensorRef
from demiglace.graph.plain.layered import bound
from demiglace.quantization.modules.sparse import VALUES, SparseWeight
from demiglace.quantization.qtensor import QTensor
from demiglace.quantization.scheme import Scheme
from demiglace.quantization.stored import CODES

if TYPE_CHECKING:
    from torch import Tensor, nn

_HOME = "demiglace."
_ON_INTEGERS = ("demiglace.static_", "demiglace.dynamic_", "demiglace.rounded")


def weights_in_graph(module: nn.Module) -> Iterator[tuple[str, QTensor | SparseWeight]]:
    """Integers and nonzeros that a graph's operators read, by the names that they had in its layers."""
    if not isinstance(module, PlainGraph):
        return
    tensors, data = dict(named_tensors(module)), module.graph_data
    shapes = {one.name: one.shape or [] for one in data.inputs}
    shapes |= {one.name: one.shape or [] for one in data.nodes}
    for node in data.nodes:
        given = bound(node) if node.op.startswith(_HOME) else {}
        held = {name: tensors[one.name] for name, one in given.items() if isinstance(one, TensorRef)}
        codes, nonzeros = given.get("codes"), given.get("nonzeros")
        if isinstance(codes, TensorRef):
            yield codes.name.removesuffix(CODES), _integers(given, held, shapes)
        if isinstance(nonzeros, TensorRef):
            size = (len(held["rows"]) - 1, _columns(given, shapes))
            weight = SparseWeight(held["nonzeros"], held["columns"], held["rows"], size)
            yield nonzeros.name.removesuffix(VALUES), weight


def _integers(
    given: Mapping[str, Any], held: Mapping[str, Tensor], shapes: Mapping[str, Sequence[Any]]
) -> QTensor:
    """The weight of a call that unpacks integers, by its arguments and the tensors among them."""
    zeros, codes, scale = held.get("zero_point"), held["codes"], held["scale"]
    scheme = Scheme(given["bits"], zeros is None, given.get("group"), per_tensor=len(scale) == 1 < len(codes))
    shape = given.get("shape") or (len(codes), _columns(given, shapes))
    return QTensor(codes, scale, zeros, tuple(shape), scheme, given.get("axis", 0))


def _columns(given: Mapping[str, Any], shapes: Mapping[str, Sequence[Any]]) -> int:
    """The columns of a matrix: what an embedding says, or the width of what a linear layer reads."""
    return int(given.get("width") or shapes[given["values"].name][-1])


def on_integers(module: nn.Module) -> list[str]:
    """The layers of a graph that compute on integers, by their qualified names."""
    nodes = module.graph_data.nodes if isinstance(module, PlainGraph) else []
    return [node.layer for node in nodes if node.op.startswith(_ON_INTEGERS)]
