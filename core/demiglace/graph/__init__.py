"""The model as passes see it: edits, and the graph behind the module."""

from demiglace.graph.adopt import adopt_masks
from demiglace.graph.edits import Cut, Edit, Lower, Mask, SetAttr, StructuralEdit, Swap, Unmask, Write
from demiglace.graph.model_graph import Example, ModelGraph, Weight
from demiglace.graph.origin import CallerOrigin, GraphOrigin, Origin, SourceOrigin
from demiglace.graph.select import count_zeros, keep_at_least, keep_largest, kth_smallest
from demiglace.graph.transaction import Transaction, apply

__all__ = [
    "CallerOrigin",
    "Cut",
    "Edit",
    "Example",
    "GraphOrigin",
    "Lower",
    "Mask",
    "ModelGraph",
    "Origin",
    "SetAttr",
    "SourceOrigin",
    "StructuralEdit",
    "Swap",
    "Transaction",
    "Unmask",
    "Weight",
    "Write",
    "adopt_masks",
    "apply",
    "count_zeros",
    "keep_at_least",
    "keep_largest",
    "kth_smallest",
]
