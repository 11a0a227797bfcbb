"""Structural edits, applied and proven, in the form of the model that still runs."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from demiglace.errors import GraphError, VerificationError
from demiglace.graph.edits import Cut, Edit, Lower, SetAttr
from demiglace.graph.literals import Removal, rewrite
from demiglace.graph.transaction import Transaction, apply
from demiglace.graph.verify import TOLERANCE, Reference, Verification

if TYPE_CHECKING:
    from demiglace.graph.model_graph import ModelGraph


def apply_verified(model: ModelGraph, edits: Iterable[Edit]) -> tuple[Transaction, Verification | None]:
    """Apply edits; where they cut, prove that the model computes what it should, or put it back.

    The module's own forward is tried first. Where it does not run on the cut tensors, or means something
    else, the model becomes its plain-data graph, whose literals follow the cut.

    Raises:
        VerificationError: when neither form agrees with the original; the model is as it was.
        GraphError: when an edit does not fit, or the model cannot be traced.
    """
    todo = list(edits)
    cuts = {(edit.tensor, edit.dim): edit for edit in todo if isinstance(edit, Cut)}
    if not cuts or model.example is None:
        return apply(model, todo), None
    removal = Removal.of(model.traced.tracer, cuts)
    reference = Reference.of(
        model.module, model.example, cuts, neutral=removal.normalized, unread=model.traced.unread
    )
    transaction = apply(model, todo)
    try:
        error = reference.compare(model.module)
        return transaction, _record(reference, "module", "", error)
    except Exception as failure:
        transaction.rollback()
        reason = f"its own forward does not fit the cut: {_first_line(failure)}"
    return _as_graph(model, todo, removal, reference, reason)


def _as_graph(
    model: ModelGraph, edits: list[Edit], removal: Removal, reference: Reference, reason: str
) -> tuple[Transaction, Verification]:
    from demiglace.graph.plain import PlainGraph

    lowered = [edit for edit in edits if not isinstance(edit, SetAttr)]
    transaction = apply(model, [] if isinstance(model.module, PlainGraph) else [Lower()])
    try:
        graph = model.module
        assert isinstance(graph, PlainGraph)  # noqa: S101
        nodes = {node.name: node for node in graph.graph_data.nodes}
        transaction.remember(rewrite(nodes, removal))
        for edit in lowered:
            transaction.apply(edit)
        error = reference.compare(graph)
    except Exception as failure:
        transaction.rollback()
        if isinstance(failure, GraphError):
            raise
        raise VerificationError(
            f"the cut fits neither the module nor its graph: {_first_line(failure)}; the model was put back",
            hint="leave the layers that it names out by `ignore`, and report the model: a rule is missing",
        ) from failure
    return transaction, _record(reference, "graph", reason, error)


def _record(reference: Reference, form: str, reason: str, error: float) -> Verification:
    return Verification(
        equality="wiring" if reference.neutral else "exact",
        form=form,
        reason=reason,
        dtype=str(reference.dtype).removeprefix("torch."),
        error=error,
        tolerance=TOLERANCE[reference.dtype],
        batch_sizes=tuple(_sizes(reference)),
    )


def _sizes(reference: Reference) -> list[int]:
    from demiglace.graph.export import batch_size

    return [batch_size(example) for example in reference.examples]


def _first_line(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return f"{type(error).__name__}: {lines[0][:200]}" if lines else type(error).__name__
