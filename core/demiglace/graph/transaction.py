"""Applying edits to a model, all or none, with a way back that copies only what changes.

Zeros are written at `commit`: until then a mask is only a mask, so that taking it back costs no copy of
the weights.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any

from demiglace.errors import GraphError
from demiglace.graph.edits import Bypass, Cut, Edit, Lower, Mask, Retype, Round, SetAttr, Swap, Unmask, Write
from demiglace.graph.zeroing import zero_outside
from demiglace.recipe.selectors import ROOT

if TYPE_CHECKING:
    from torch import Tensor, nn

    from demiglace.graph.edits import StructuralEdit
    from demiglace.graph.model_graph import ModelGraph


@dataclass
class Transaction:
    """Edits that were applied, and how to take them back."""

    model: ModelGraph
    edits: list[Edit] = field(default_factory=list)
    _undo: list[Callable[[], object]] = field(default_factory=list)
    _masked: list[tuple[Tensor, Tensor]] = field(default_factory=list)

    def rollback(self) -> None:
        """Put the model back as it was before the first edit; only before `commit`."""
        while self._undo:
            self._undo.pop()()
        self._masked.clear()
        self.edits.clear()

    def commit(self) -> None:
        """Make the edits final: masked weights become zero, in place, and the way back is dropped."""
        for tensor, keep in self._masked:
            zero_outside(tensor, keep)
        self._masked.clear()
        self._undo.clear()

    def remember(self, undo: Callable[[], object]) -> None:
        """Have `rollback` call this too, before what was remembered earlier."""
        self._undo.append(undo)

    def apply(self, edit: Edit) -> None:
        """Apply one edit and remember its inverse.

        Raises:
            GraphError: when the edit does not fit the model; nothing of it is applied.
        """
        handler = _HANDLERS.get(type(edit))
        if handler is None:
            raise GraphError(f"an edit of unknown type {type(edit).__name__}")
        handler(self, edit)
        self.edits.append(edit)


def apply(model: ModelGraph, edits: Iterable[Edit]) -> Transaction:
    """Apply edits in order; when one fails, none stays. The caller commits or rolls back.

    Raises:
        GraphError: when an edit does not fit the model, which is then as it was.
    """
    transaction = Transaction(model)
    try:
        for edit in edits:
            transaction.apply(edit)
    except BaseException:
        transaction.rollback()
        raise
    return transaction


def locate(module: nn.Module, name: str) -> tuple[nn.Module, str]:
    """The module that holds a parameter, buffer or attribute, and its own name there.

    Raises:
        GraphError: when there is no such tensor.
    """
    path, _, own = name.rpartition(".")
    try:
        holder = module.get_submodule(path)
    except AttributeError:
        raise GraphError(f"the model has no module {path!r}") from None
    if own not in holder._parameters and own not in holder._buffers:
        raise GraphError(f"the model has no parameter or buffer {name!r}")
    return holder, own


def _replace(transaction: Transaction, holder: nn.Module, own: str, value: Tensor) -> None:
    """Give a parameter or buffer a new tensor; the object's identity stays, so ties stay tied."""
    tensor: Tensor = getattr(holder, own)
    old_data, old_grad = tensor.data, tensor.grad

    def restore() -> None:
        tensor.data, tensor.grad = old_data, old_grad

    transaction._undo.append(restore)
    # A gradient keeps the parameter's shape: drop it first when that changes.
    if old_grad is not None and (old_grad.shape, old_grad.dtype) != (value.shape, value.dtype):
        tensor.grad = None
    tensor.data = value


def _cut(transaction: Transaction, edit: Cut) -> None:
    model = transaction.model
    _refuse_swapped(model)
    holder, own = locate(model.module, edit.tensor)
    tensor = getattr(holder, own)
    size = tensor.shape[edit.dim] if edit.dim < tensor.dim() else 0
    if not edit.kept or edit.kept[0] < 0 or edit.kept[-1] >= size:
        raise GraphError(
            f"cannot cut dimension {edit.dim} of {edit.tensor!r}, which has shape {list(tensor.shape)}"
        )
    index = edit.index.to(tensor.device)
    _replace(transaction, holder, own, tensor.data.index_select(edit.dim, index).contiguous())
    if edit.tensor in model.masks:
        _set_mask(transaction, edit.tensor, model.masks[edit.tensor].index_select(edit.dim, index))
    _record(transaction, edit)


def _set_attr(transaction: Transaction, edit: SetAttr) -> None:
    module = _module(transaction.model, edit.module)
    if not hasattr(module, edit.name):
        raise GraphError(f"module {edit.module!r} has no attribute {edit.name!r}")
    old = getattr(module, edit.name)
    # JSON knows lists only: an attribute that was a tuple stays one.
    value = (
        tuple(edit.value) if isinstance(old, tuple) and isinstance(edit.value, list | tuple) else edit.value
    )
    transaction._undo.append(partial(setattr, module, edit.name, old))
    setattr(module, edit.name, value)
    _record(transaction, edit)


def _mask(transaction: Transaction, edit: Mask) -> None:
    model = transaction.model
    holder, own = locate(model.module, edit.tensor)
    tensor = getattr(holder, own)
    if edit.keep.shape != tensor.shape:
        raise GraphError(
            f"a mask of shape {list(edit.keep.shape)} for {edit.tensor!r} of {list(tensor.shape)}"
        )
    keep = edit.keep.to(tensor.device)
    if edit.tensor in model.masks:
        keep = keep & model.masks[edit.tensor]
    transaction._masked.append((tensor, keep))
    _set_mask(transaction, edit.tensor, keep)


def _unmask(transaction: Transaction, edit: Unmask) -> None:
    masks = transaction.model.masks
    if edit.tensor not in masks:
        raise GraphError(f"parameter {edit.tensor!r} has no mask")
    transaction._undo.append(partial(masks.__setitem__, edit.tensor, masks.pop(edit.tensor)))


def _write(transaction: Transaction, edit: Write) -> None:
    holder, own = locate(transaction.model.module, edit.tensor)
    tensor = getattr(holder, own)
    if edit.value.shape != tensor.shape:
        raise GraphError(
            f"values of shape {list(edit.value.shape)} for {edit.tensor!r} of {list(tensor.shape)}"
        )
    value = edit.value.to(device=tensor.device, dtype=tensor.dtype)
    keep = transaction.model.masks.get(edit.tensor)
    _replace(transaction, holder, own, value if keep is None else value.masked_fill(~keep, 0))


def _retype(transaction: Transaction, edit: Retype) -> None:
    import torch

    holder, own = locate(transaction.model.module, edit.tensor)
    tensor = getattr(holder, own)
    _replace(transaction, holder, own, tensor.data.to(getattr(torch, edit.dtype)))


def _set_mask(transaction: Transaction, name: str, keep: Tensor) -> None:
    masks = transaction.model.masks
    undo = partial(masks.__setitem__, name, masks[name]) if name in masks else partial(masks.pop, name, None)
    transaction._undo.append(undo)
    masks[name] = keep


def _module(model: ModelGraph, name: str) -> nn.Module:
    try:
        return model.module.get_submodule("" if name == ROOT else name)
    except AttributeError:
        raise GraphError(f"the model has no module {name!r}") from None


def _swap(transaction: Transaction, edit: Swap) -> None:
    from demiglace.graph.swaps import swapped

    model = transaction.model
    _call_layers(transaction)
    old = _module(model, edit.module)
    new = swapped(edit.type, old, edit.options)
    for name, value in edit.tensors.items():
        keep = model.masks.get(name if edit.module == ROOT else f"{edit.module}.{name}")
        _give(new, name, value if keep is None else value.masked_fill(~keep.to(value.device), 0))
    named = _parameters(model)
    before = (type(old), old.__dict__)
    # The object stays and becomes another: whoever refers to it, under whatever name, has the new one.
    _become(old, type(new), new.__dict__)
    transaction._undo.append(partial(_become, old, *before))
    _move_masks(transaction, named)
    _record(transaction, Swap(edit.module, edit.type, edit.options))
    _note_in_graph(transaction, model.edits[-1])


def _call_layers(transaction: Transaction) -> None:
    """Have a plain-data graph call its layers as modules, so that others can take their places."""
    from demiglace.graph.plain import LayeredGraph, PlainGraph

    model = transaction.model
    graph = model.module
    if not isinstance(graph, PlainGraph):
        return
    if not isinstance(graph, LayeredGraph):
        view = model.with_layers().module
        transaction._undo.append(partial(_become, graph, type(graph), graph.__dict__))
        _become(graph, type(view), view.__dict__)
        graph._prepare()  # the view itself goes: the root is the object that it was
    assert isinstance(graph, LayeredGraph)  # noqa: S101
    graph.about_to_swap()


def _note_in_graph(transaction: Transaction, edit: StructuralEdit) -> None:
    from demiglace.graph.plain import LayeredGraph

    graph = transaction.model.module
    if isinstance(graph, LayeredGraph) and isinstance(edit, Swap):
        graph.swaps.append(edit)
        transaction._undo.append(graph.swaps.pop)


def _refuse_swapped(model: ModelGraph) -> None:
    """A graph's literals and tensors are told apart from its layers only as long as none was swapped.

    Raises:
        GraphError: when the model is a graph with other layers than were traced.
    """
    from demiglace.graph.plain import LayeredGraph

    graph = model.module
    if isinstance(graph, LayeredGraph) and graph.swaps:
        raise GraphError(
            f"layer {graph.swaps[0].module!r} of the plain-data graph is {graph.swaps[0].type!r} now: "
            "its structure can no longer be cut",
            hint="cut structures before layers are quantized",
        )


def _become(module: nn.Module, kind: type, content: dict[str, Any]) -> None:
    object.__setattr__(module, "__class__", kind)
    object.__setattr__(module, "__dict__", content)


def _give(module: nn.Module, name: str, value: Tensor) -> None:
    """Put a tensor in place of a parameter or buffer of a module that nobody else has yet."""
    from torch import nn

    holder, own = locate(module, name)
    old: Tensor = getattr(holder, own)
    if old.shape != value.shape or old.dtype != value.dtype:
        expected = f"{old.dtype} {list(old.shape)}"
        raise GraphError(f"{name!r} is {value.dtype} {list(value.shape)}, the new module takes {expected}")
    placed = value.to(old.device)
    setattr(holder, own, nn.Parameter(placed, old.requires_grad) if isinstance(old, nn.Parameter) else placed)


def _parameters(model: ModelGraph) -> dict[str, Tensor]:
    return dict(model.module.named_parameters(remove_duplicate=False))


def _move_masks(transaction: Transaction, before: Mapping[str, Tensor]) -> None:
    """Forget the masks of parameters that are no more; one that has only another name left gets that."""
    model = transaction.model
    there = _parameters(model)
    names = {id(tensor): name for name, tensor in reversed(there.items())}
    for name in [name for name in model.masks if name not in there]:
        keep = model.masks.pop(name)
        transaction._undo.append(partial(model.masks.__setitem__, name, keep))
        other = names.get(id(before.get(name)))
        if other is not None:
            _set_mask(transaction, other, keep)


def _lower(transaction: Transaction, edit: Lower) -> None:
    from demiglace.graph.plain import lower_layers

    model = transaction.model
    before, model.module = model.module, lower_layers(model)
    transaction._undo.append(partial(setattr, model, "module", before))
    _record(transaction, edit)


def _bypass(transaction: Transaction, edit: Bypass) -> None:
    from demiglace.graph.plain import PlainGraph, bypassed

    model = transaction.model
    _refuse_swapped(model)
    before, named = model.module, _parameters(model)
    if not isinstance(before, PlainGraph):
        raise GraphError("a sum can be bypassed in a plain-data graph only")
    model.module = bypassed(before, edit.sum, edit.operand)
    transaction._undo.append(partial(setattr, model, "module", before))
    _move_masks(transaction, named)
    _record(transaction, edit)


def _round(transaction: Transaction, edit: Round) -> None:
    from demiglace.graph.plain import PlainGraph, with_roundings

    model = transaction.model
    before = model.module
    if not isinstance(before, PlainGraph):
        raise GraphError("values can be rounded in a plain-data graph only")
    model.module = with_roundings(before, edit.values)
    transaction._undo.append(partial(setattr, model, "module", before))
    _record(transaction, edit)


def _record(transaction: Transaction, edit: StructuralEdit) -> None:
    transaction.model.edits.append(edit)
    transaction._undo.append(transaction.model.edits.pop)


_HANDLERS: dict[type, Callable[[Transaction, Any], None]] = {
    Cut: _cut,
    SetAttr: _set_attr,
    Swap: _swap,
    Lower: _lower,
    Bypass: _bypass,
    Round: _round,
    Mask: _mask,
    Unmask: _unmask,
    Write: _write,
    Retype: _retype,
}
