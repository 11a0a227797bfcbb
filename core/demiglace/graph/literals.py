"""What of a call's literals follows a cut: sizes of views, numbers of groups, bounds of slices."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from demiglace.graph.labels import Axis, Value
from demiglace.graph.rules import RESIZES

if TYPE_CHECKING:
    from demiglace.graph.edits import Cut
    from demiglace.graph.plain.nodes import Node
    from demiglace.graph.trace import Call, Tracer


@dataclass(frozen=True)
class Removal:
    """Which classes of labels a set of cuts removes, and what that means for the graph."""

    tracer: Tracer
    #: For each label, whether its class goes.
    removed: Tensor

    @classmethod
    def of(cls, tracer: Tracer, cuts: Mapping[tuple[str, int], Cut]) -> Removal:
        """The classes that cuts by (tensor, dimension) remove."""
        find, goes = tracer.labels.find, torch.zeros(len(tracer.labels), dtype=torch.bool)
        for (tensor, dim), edit in cuts.items():
            labels = tracer.slots[tensor][dim].labels
            gone = torch.ones(len(labels), dtype=torch.bool)
            gone[edit.index] = False
            goes[find(labels[gone])] = True
        return cls(tracer, goes[find(torch.arange(len(goes)))])

    def kept(self, axis: Axis) -> Tensor | None:
        """Which indices of an axis stay; `None` when all do."""
        if axis is None:
            return None
        gone = self.removed[axis]
        return ~gone if bool(gone.any()) else None

    def size(self, axis: Axis, size: int) -> int:
        """An axis's size after the cut."""
        kept = self.kept(axis)
        return size if kept is None else int(kept.sum())

    @property
    def normalized(self) -> bool:
        """Whether a norm takes its mean and variance over something that goes."""
        return any(self.kept(axis) is not None for axis in self.tracer.normalized)

    @cached_property
    def literals(self) -> list[tuple[Call, Mapping[str, Any]]]:
        """Calls whose literals change, with the new ones by name."""
        changed = []
        for call in self.tracer.calls:
            function = RESIZES.get(call.op)
            if function is None or not self._touches(call):
                continue
            found = function(call, self.kept)
            if found:
                changed.append((call, found))
        return changed

    def _touches(self, call: Call) -> bool:
        results = call.result if isinstance(call.result, list | tuple) else [call.result]
        values = [one for one in (*call.values, *results) if isinstance(one, Value)]
        return any(self.kept(axis) is not None for value in values for axis in value.axes)


def rewrite(nodes: Mapping[str, Node], removal: Removal) -> Callable[[], None]:
    """Give the nodes of a plain-data graph their new literals; returns what puts the old ones back."""
    before: list[tuple[Node, str, list[Any], dict[str, Any]]] = []
    for call, changes in removal.literals:
        node = nodes.get(call.node.name)
        if node is None or not call.name.startswith("eval:"):
            continue
        before.append((node, node.op, list(node.args), dict(node.kwargs)))
        if "split_sizes" in changes:
            _as_split(node, call, changes["split_sizes"])
        else:
            _set(node, call, changes)

    def undo() -> None:
        for node, op, args, kwargs in before:
            node.op, node.args, node.kwargs = op, args, kwargs

    return undo


def _as_split(node: Node, call: Call, sizes: list[int]) -> None:
    """Equal pieces may have become unequal: name the size of each."""
    node.op = "aten.split_with_sizes.default"
    node.args, node.kwargs = [node.args[0], sizes, call["dim"]], {}


def _set(node: Node, call: Call, changes: Mapping[str, Any]) -> None:
    schema = call.node.target._schema.arguments  # type: ignore[union-attr]
    places = {argument.name: place for place, argument in enumerate(schema)}
    node.args = list(node.args)
    for name, value in changes.items():
        place = places[name]
        if place < len(node.args):
            node.args[place] = _mixed(node.args[place], call[name], value, infers=name in _SIZES)
        else:
            node.kwargs = {**node.kwargs, name: value}


_SIZES = ("size", "shape", "sizes")
"""Arguments of views, in which -1 stands for the size that is left and others may follow the batch."""


def _mixed(given: Any, before: Any, after: Any, *, infers: bool) -> Any:
    """New numbers. What is computed from the batch stays; where sizes are inferred, one such may change."""
    if not isinstance(given, list) or not isinstance(after, list) or len(given) != len(after):
        return after
    mixed = list(given)
    for place, (one, old, new) in enumerate(zip(given, before, after, strict=True)):
        if isinstance(one, int):
            mixed[place] = one if infers and one < 0 else new
        elif infers and old != new:
            mixed[place] = -1
    return mixed
