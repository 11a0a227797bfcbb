"""From residual branches to the edits that remove them.

In a plain-data graph each sum becomes its other operand: a `Bypass`. The module's own form is made by
`Swap`s: of the whole block where it computes `g(x + f(x))` and `g` is a chain of its children, else of the
layers of the branch, whose last gives zeros. Which form the model gets, `apply_verified` decides.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from functools import partial
from typing import TYPE_CHECKING

from demiglace.graph.branches import Branch, whole_layers
from demiglace.graph.edits import Bypass, Swap
from demiglace.graph.eval_mode import eval_mode
from demiglace.graph.plain.flow import Flow, is_size, read_by
from demiglace.graph.plain.module import PlainGraph
from demiglace.graph.plain.nodes import Node

if TYPE_CHECKING:
    from torch import nn

    from demiglace.graph.model_graph import ModelGraph


def bypass_edits(model: ModelGraph, removed: Sequence[Branch]) -> list[Swap | Bypass]:
    """The edits that remove branches, in both forms of the model.

    Args:
        model: the model that the branches were found in, not edited since.
        removed: those of `model.branches` that go, in their order.
    """
    # The last sum first: its shortcut may be a sum that goes too.
    bypasses = [Bypass(one.sum, one.skip) for one in reversed(removed)]
    swaps = [] if isinstance(model.module, PlainGraph) else _Swaps(model, removed).all()
    return [*swaps, *bypasses]


class _Swaps:
    """Works out which modules to replace."""

    def __init__(self, model: ModelGraph, removed: Sequence[Branch]) -> None:
        self.model, self.removed = model, removed
        self.flow = Flow(model.branches.data)
        self.sums = {one.sum for one in removed}
        self.dead = self.flow.dead({one.sum: one.skip for one in removed}) - self.sums
        self.layers = whole_layers(self.flow, self.dead, model.module)

    def all(self) -> list[Swap]:
        """The edits; none at all when one branch has no module that could stand for it."""
        made: list[Swap] = []
        for branch in self.removed:
            swaps = self._whole(branch) or list(self._parts(branch))
            if not swaps:
                return []
            made += [one for one in swaps if one not in made]
        return made

    def _whole(self, branch: Branch) -> list[Swap]:
        """The block in one, where it holds nothing but the branch, the sum, and layers run after it."""
        holder = _common([self.flow.nodes[name].layer for name in (*branch.nodes, branch.sum)])
        rest = [
            node
            for node in self.flow.data.nodes
            if _within(node.layer, holder) and node.name not in {*self.dead, branch.sum} and not is_size(node)
        ]
        children = self._chain(branch.sum, rest, holder) if holder else None
        if children is None:
            return []
        return [_skip(holder, "copy" if self._changed_later(branch) else "same", children)]

    def _changed_later(self, branch: Branch) -> bool:
        """Whether something works in place on the sum, which will be the shortcut itself."""
        home = self.flow.homes[branch.sum]
        return any(name not in {*self.dead, branch.sum} for name in self.flow.writers(home))

    def _chain(self, value: str, rest: Sequence[Node], holder: str) -> list[str] | None:
        """The children of a block that run on the sum, one after another; `None` where it is no chain."""
        children: list[str] = []
        inside: set[str] = set()
        for node in rest:
            child = node.layer.removeprefix(holder).lstrip(".").partition(".")[0]
            if not child:
                return None
            if not children or child != children[-1]:
                if inside and not self._only_last(inside, value):
                    return None
                children.append(child)
                inside, entry = set(), value
            if not set(read_by(node)) <= {*inside, entry}:
                return None
            inside.add(node.name)
            value = node.name
        return children if len(set(children)) == len(children) else None

    def _only_last(self, inside: set[str], last: str) -> bool:
        """Whether of a layer's values only the last leaves it."""
        return all(self.flow.readers[name] <= inside for name in inside if name != last)

    def _parts(self, branch: Branch) -> Iterator[Swap]:
        """The outermost layers of the branch: the last gives zeros, the others what they get."""
        way = self.flow.between(branch.skip, branch.end)
        homes = {
            name: [one for one in way if _within(self.flow.nodes[one].layer, name)] for name in self.layers
        }
        outer = [
            name
            for name, nodes in homes.items()
            if nodes and not any(name.startswith(f"{other}.") for other in self.layers)
        ]
        returned = _returned(self.model, outer)
        if not outer or any(one is None for one in returned.values()):
            return
        last = max(outer, key=lambda name: way.index(homes[name][-1]))
        for name in outer:
            yield _skip(name, "zeros" if name == last else "same", [], returned[name] or 0)


def _skip(module: str, start: str, children: Sequence[str], returned: int = 0) -> Swap:
    return Swap(module, "skip", {"start": start, "children": list(children), "returned": returned})


def _within(layer: str, outer: str) -> bool:
    return layer == outer or layer.startswith(f"{outer}.")


def _common(layers: Sequence[str]) -> str:
    """The innermost layer that holds all of these; empty for the root."""
    holder = min(layers, key=len)
    while holder and not all(_within(one, holder) for one in layers):
        holder = holder.rpartition(".")[0]
    return holder


def _returned(model: ModelGraph, layers: Sequence[str]) -> dict[str, int | None]:
    """What layers return: 0 a tensor, n a tuple of n that starts with a tensor; `None` another thing."""
    import torch

    found: dict[str, int | None] = dict.fromkeys(layers)

    def note(name: str, _: nn.Module, __: object, output: object) -> None:
        if isinstance(output, torch.Tensor):
            found[name] = 0
        elif type(output) is tuple and output and isinstance(output[0], torch.Tensor):
            found[name] = len(output)

    assert model.example is not None  # noqa: S101
    with ExitStack() as stack, eval_mode(model.module), torch.no_grad():
        for name in layers:
            hook = model.module.get_submodule(name).register_forward_hook(partial(note, name))
            stack.callback(hook.remove)
        model.module(*model.example.args, **model.example.kwargs)
    return found
