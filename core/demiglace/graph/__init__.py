"""The model as passes see it: edits, and the graph behind the module."""

from demiglace.graph.adopt import adopt_masks
from demiglace.graph.edits import Cut, Edit, Lower, Mask, SetAttr, StructuralEdit, Swap, Unmask, Write
from demiglace.graph.model_graph import Example, ModelGraph, Weight
from demiglace.graph.select import count_zeros, keep_at_least, keep_largest, kth_smallest
from demiglace.graph.transaction import Transaction, apply

__all__ = [
    "Cut",
    "Edit",
    "Example",
    "Lower",
    "Mask",
    "ModelGraph",
    "SetAttr",
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
