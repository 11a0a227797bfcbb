"""Structural edits, applied and proven, in the form of the model that still runs."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import nullcontext
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING

from demiglace.errors import GraphError, VerificationError
from demiglace.graph.cost import macs_after
from demiglace.graph.edits import Bypass, Cut, Edit, Lower, SetAttr
from demiglace.graph.export import batch_size
from demiglace.graph.literals import Removal, rewrite
from demiglace.graph.names import named_tensors
from demiglace.graph.transaction import Transaction, apply
from demiglace.graph.verify import Reference, Verification, first_line

if TYPE_CHECKING:
    from demiglace.graph.model_graph import Example, ModelGraph
    from demiglace.graph.plain import PlainGraph
    from demiglace.graph.trace import Tracer


def apply_verified(model: ModelGraph, edits: Iterable[Edit]) -> tuple[Transaction, Verification | None]:
    """Apply edits; where they cut or bypass, prove that the model computes what it should, or put it back.

    The module's own forward is tried first. Where it does not run on the cut tensors, or means something
    else, the model becomes its plain-data graph, whose literals follow the cut.

    Raises:
        VerificationError: when neither form agrees with the original; the model is as it was.
        GraphError: when an edit does not fit, or the model cannot be traced.
    """
    todo = list(edits)
    if any(isinstance(edit, Bypass) for edit in todo):
        from demiglace.graph.bypass_proof import apply_bypasses

        return apply_bypasses(model, todo)
    cuts = {(edit.tensor, edit.dim): edit for edit in todo if isinstance(edit, Cut)}
    if not cuts or model.example is None:
        return apply(model, todo), None
    removal = Removal.of(model.traced.tracer, cuts)
    reference = Reference.of(
        model.module,
        model.example,
        cuts,
        neutral=removal.normalized,
        unread=model.traced.unread,
        items=_items(model.example, model.traced.tracer),
    )
    try:
        return _as_module(model, todo, reference)
    except Exception as failure:
        reason = first_line(failure)
        if isinstance(failure, VerificationError):
            # The run that balanced the layers may have given other outputs than the balanced layers give.
            reference = reference.expecting(model.module)
            try:
                return _as_module(model, todo, reference)
            except Exception as again:
                reason = first_line(again)
    return _as_graph(model, todo, reference, f"its own forward does not fit the cut: {reason}")


def _as_module(
    model: ModelGraph, edits: Sequence[Edit], reference: Reference
) -> tuple[Transaction, Verification]:
    transaction = apply(model, edits)
    try:
        error = reference.compare(model.module)
    except BaseException:
        transaction.rollback()
        raise
    return transaction, reference.verification("module", "", error)


def _check_whole(removal: Removal, reference: Reference, reason: str) -> None:
    """Refuse cuts that take a part of what goes together: no sizes of a graph would fit them.

    A recurrent layer that is left no unit ends the process in some of torch's kernels.
    """
    for (tensor, dim), cut in reference.cuts.items():
        labels = removal.tracer.slots[tensor][dim].labels
        if removal.size(labels, len(labels)) != len(cut.kept):
            raise VerificationError(
                f"{reason}; and {tensor!r} keeps {len(cut.kept)} indices of dimension {dim}, "
                "while other cuts remove more that goes together with them",
                hint="take the cuts from `removal_edits`, which removes whole units",
            )


def _held(graph: PlainGraph, edits: Sequence[Edit]) -> Iterator[Edit]:
    """The edits that a graph needs: it has no attributes, nor tensors that only training reads."""
    tensors = {name for name, _ in named_tensors(graph)}
    for edit in edits:
        absent = isinstance(edit, Cut) and edit.tensor not in tensors
        if not absent and not isinstance(edit, SetAttr):
            yield edit


_MOST_ITEMS, _MULTIPLICATIONS = 33, 500_000_000


def _items(example: Example, tracer: Tracer) -> int:
    """The size of a batch that shows more than a few values of each channel, as far as it costs little."""
    traced = max(2, batch_size(example))
    return min(_MOST_ITEMS, _MULTIPLICATIONS * traced // max(1, macs_after(Removal.of(tracer, {}))))


def _as_graph(
    model: ModelGraph, edits: list[Edit], reference: Reference, reason: str
) -> tuple[Transaction, Verification]:
    removal = Removal.of(model.traced_form.tracer, reference.cuts)
    _check_whole(removal, reference, reason)
    # The original is another program, which may treat fewer items otherwise. What only training runs, such
    # as auxiliary heads, is not in a graph of inference.
    reference = replace(reference.seen_whole(model.module), trained=None)
    try:
        return _cut_graph(model, edits, removal, reference, reason, again=False)
    except VerificationError:
        return _cut_graph(model, edits, removal, reference, reason, again=True)


def _cut_graph(
    model: ModelGraph, edits: list[Edit], removal: Removal, reference: Reference, reason: str, *, again: bool
) -> tuple[Transaction, Verification]:
    """Cut the graph of a module, and compare it with that; `again` takes no outputs that were seen before.

    A graph in which dtypes are written down is then compared with what it computed before the cut.
    """
    import torch

    from demiglace.graph.plain import PlainGraph, in_double, keeps_dtypes, traced_names

    module = model.module
    given = isinstance(module, PlainGraph)
    names = traced_names(model) if given else {}
    transaction = apply(model, [] if given else [Lower()])
    try:
        graph = model.module
        assert isinstance(graph, PlainGraph)  # noqa: S101
        nodes = {names.get(node.name, node.name): node for node in graph.graph_data.nodes}
        rounds = reference.dtype is torch.float64 and keeps_dtypes(nodes.values())
        # Else it would be rounded where the original is not.
        exact = partial(in_double, nodes.values()) if rounds else nullcontext
        if again:
            with exact():
                reference = reference.by(graph, module) if rounds else reference.expecting(module)
        transaction.remember(rewrite(nodes, removal))
        for edit in _held(graph, edits):
            transaction.apply(edit)
        with exact():
            return transaction, reference.verification("graph", reason, reference.compare(graph))
    except BaseException as failure:
        transaction.rollback()
        if isinstance(failure, GraphError) or not isinstance(failure, Exception):
            raise
        raise VerificationError(
            f"the cut fits neither the module nor its graph: {first_line(failure)}; the model was put back",
            hint="leave the layers that it names out by `ignore`, and report the model: a rule is missing",
        ) from failure
