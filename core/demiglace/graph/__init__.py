"""The model as passes see it: edits, and the graph behind the module.

What works on tensors from its first line is imported on first use, so that options need no torch.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

from demiglace.graph.adopt import adopt_masks, adopt_tensors, refuse_wrapped
from demiglace.graph.edits import (
    Bypass,
    Cut,
    Edit,
    Lower,
    Mask,
    Retype,
    Round,
    SetAttr,
    StructuralEdit,
    Swap,
    Unmask,
    Write,
)
from demiglace.graph.model_graph import Example, ModelGraph, Weight
from demiglace.graph.select import count_zeros, keep_at_least, keep_largest, kth_smallest, mask_smallest
from demiglace.graph.transaction import Transaction, apply

if TYPE_CHECKING:
    from demiglace.graph.branches import Branch as Branch
    from demiglace.graph.branches import Branches as Branches
    from demiglace.graph.bypass import bypass_edits as bypass_edits
    from demiglace.graph.cost import macs_after as macs_after
    from demiglace.graph.cost import macs_by_node as macs_by_node
    from demiglace.graph.cost import parameters_after as parameters_after
    from demiglace.graph.cut import removal_edits as removal_edits
    from demiglace.graph.cut import removal_of as removal_of
    from demiglace.graph.export import resized as resized
    from demiglace.graph.groups import Group as Group
    from demiglace.graph.groups import Slice as Slice
    from demiglace.graph.groups import holder as holder
    from demiglace.graph.labels import Value as Value
    from demiglace.graph.restructure import apply_verified as apply_verified
    from demiglace.graph.rules import resize as resize
    from demiglace.graph.rules import rule as rule
    from demiglace.graph.trace import Call as Call
    from demiglace.graph.verify import Verification as Verification

_HOMES = {
    "Branch": "branches",
    "Branches": "branches",
    "Call": "trace",
    "Group": "groups",
    "Slice": "groups",
    "Value": "labels",
    "Verification": "verify",
    "apply_verified": "restructure",
    "bypass_edits": "bypass",
    "holder": "groups",
    "macs_after": "cost",
    "macs_by_node": "cost",
    "parameters_after": "cost",
    "removal_edits": "cut",
    "removal_of": "cut",
    "resize": "rules",
    "resized": "export",
    "rule": "rules",
}

__all__ = [  # noqa: PLE0604
    *_HOMES,
    "Bypass",
    "Cut",
    "Edit",
    "Example",
    "Lower",
    "Mask",
    "ModelGraph",
    "Retype",
    "Round",
    "SetAttr",
    "StructuralEdit",
    "Swap",
    "Transaction",
    "Unmask",
    "Weight",
    "Write",
    "adopt_masks",
    "adopt_tensors",
    "apply",
    "count_zeros",
    "keep_at_least",
    "keep_largest",
    "kth_smallest",
    "mask_smallest",
    "refuse_wrapped",
]


def __getattr__(name: str) -> object:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
