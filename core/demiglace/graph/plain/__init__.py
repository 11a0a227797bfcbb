"""The plain-data graph: a traced model as data that trains, saves and loads without pickle.

Importing it imports torch.
"""

from demiglace.graph.plain.bypassing import bypassed, zeroed
from demiglace.graph.plain.codec import from_json, to_json
from demiglace.graph.plain.double import in_double, keeps_dtypes
from demiglace.graph.plain.layered import LayeredGraph
from demiglace.graph.plain.lowering import lower, portable, traced_names
from demiglace.graph.plain.module import Layer, PlainGraph
from demiglace.graph.plain.nodes import GraphData, Here, Input, Node, NodeRef, TensorRef
from demiglace.graph.plain.tree import Tree

__all__ = [
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
    "portable",
    "to_json",
    "traced_names",
    "zeroed",
]
