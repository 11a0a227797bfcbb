"""Removing residual branches, proven: what is left computes what the original does with them at zero."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from demiglace.errors import GraphError, VerificationError
from demiglace.graph.edits import Bypass, Cut, Edit, Lower, SetAttr, Swap
from demiglace.graph.names import tied_names
from demiglace.graph.plain import PlainGraph, lower, zeroed
from demiglace.graph.transaction import Transaction, apply
from demiglace.graph.verify import Reference, Verification, first_line

if TYPE_CHECKING:
    from demiglace.graph.model_graph import ModelGraph


def apply_bypasses(model: ModelGraph, edits: Sequence[Edit]) -> tuple[Transaction, Verification]:
    """Apply edits that remove branches, to the module if it can follow them, else to its plain-data graph.

    Raises: as `apply_verified`.
    """
    if any(isinstance(edit, Cut) for edit in edits):
        raise GraphError("branches and units cannot be removed by the same edits", hint="one after the other")
    graph = lower(model)
    assert model.example is not None  # noqa: S101
    zero = zeroed(graph, _ends(graph, edits))
    reference = Reference.of(zero, model.example, {}, neutral=False).expecting(zero)
    # A shared tensor may have only another of its names left.
    shared = {name: group[0] for group in tied_names(zero) for name in group}
    tensors = {name: reference.tensors[first] for name, first in shared.items() if first in reference.tensors}
    reference = replace(reference, tensors={**reference.tensors, **tensors})
    own = [edit for edit in edits if not isinstance(edit, Bypass)]
    if not any(isinstance(edit, Swap) for edit in own):
        return _as_graph(model, edits, reference, "no layer of its own stands for the branch alone")
    transaction = apply(model, own)
    try:
        error = replace(reference, training=True).compare(model.module)
        return transaction, reference.verification("module", "", error)
    except Exception as failure:
        transaction.rollback()
        reason = f"its own forward does not fit the model without the branch: {first_line(failure)}"
    return _as_graph(model, edits, reference, reason)


def _ends(graph: PlainGraph, edits: Sequence[Edit]) -> dict[str, str]:
    """By sum, the operand that goes."""
    nodes = {node.name: node for node in graph.graph_data.nodes}
    ends = {}
    for edit in edits:
        if isinstance(edit, Bypass):
            operands = [getattr(one, "name", None) for one in nodes[edit.sum].args[:2]]
            ends[edit.sum] = str(operands[1 - operands.index(edit.operand)])
    return ends


def _as_graph(
    model: ModelGraph, edits: Sequence[Edit], reference: Reference, reason: str
) -> tuple[Transaction, Verification]:
    given = isinstance(model.module, PlainGraph)
    if not given:
        # The reference is a graph too: what the module itself computes must be that of its graph.
        reference.expecting(model.module).compare(lower(model))
    lowered = [edit for edit in edits if not isinstance(edit, Swap | SetAttr)]
    transaction = apply(model, lowered if given else [Lower(), *lowered])
    try:
        error = reference.compare(model.module)
    except Exception as failure:
        transaction.rollback()
        raise VerificationError(
            f"the model without the branches is not what it should be: {first_line(failure)}; put back",
            hint="leave the layers that it names out by `ignore`, and report the model",
        ) from failure
    return transaction, reference.verification("graph", "it was in graph form" if given else reason, error)
