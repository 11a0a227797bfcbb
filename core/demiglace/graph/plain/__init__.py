"""The plain-data graph: a traced model as data that trains, saves and loads without pickle.

Importing it imports torch.
"""

from demiglace.graph.plain.bypassing import bypassed, zeroed
from demiglace.graph.plain.codec import from_json, to_json
from demiglace.graph.plain.double import in_double, keeps_dtypes
from demiglace.graph.plain.flow import OUTPUT, Flow
from demiglace.graph.plain.layered import LayeredGraph
from demiglace.graph.plain.lowering import lower, lower_layers, portable, traced_names
from demiglace.graph.plain.module import Layer, PlainGraph
from demiglace.graph.plain.nodes import GraphData, Here, Input, Node, NodeRef, TensorRef
from demiglace.graph.plain.rounding import out_of_place, with_roundings
from demiglace.graph.plain.tree import Tree

__all__ = [
    "OUTPUT",
    "Flow",
    "GraphData",
    "Here",
    "Input",
    "Layer",
    "LayeredGraph",
    "Node",
    "NodeRef",
    "PlainGraph",
    "TensorRef",
    "Tree",
    "bypassed",
    "from_json",
    "in_double",
    "keeps_dtypes",
    "lower",
    "lower_layers",
    "out_of_place",
    "portable",
    "to_json",
    "traced_names",
    "with_roundings",
    "zeroed",
]
