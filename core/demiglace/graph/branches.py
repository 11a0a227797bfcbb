"""Residual branches: the `f(x)` of `x + f(x)`, which can go and leave `x`."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from demiglace.graph.model_graph import types_of
from demiglace.graph.plain.flow import Flow, is_size, written
from demiglace.graph.plain.module import PlainGraph
from demiglace.graph.plain.nodes import GraphData, Node, NodeRef, TensorRef
from demiglace.recipe.selectors import ROOT

if TYPE_CHECKING:
    from torch import nn

    from demiglace.graph.model_graph import ModelGraph

_ADDS = {"aten.add.Tensor", "aten.add_.Tensor", "aten.sub.Tensor", "aten.sub_.Tensor"}


@dataclass(frozen=True)
class Branch:
    """An addition of a value and of what was made from it, as `x + f(x)`; nodes are those of the graph."""

    #: The layer that adds, or that stands for the branch where a layer adds several.
    name: str
    #: The node that adds.
    sum: str
    #: The node or input `x`.
    skip: str
    #: The node `f(x)`.
    end: str
    #: What computes nothing but the branch, in order.
    nodes: tuple[str, ...]
    #: The layers that are wholly in the branch.
    layers: tuple[str, ...]
    #: The layer whose forward adds; `.` for the root.
    holder: str
    #: The parameters that nothing else reads.
    parameters: tuple[str, ...]
    #: Of these, the one that is read last: it sets the size of what the branch adds.
    last: str


@dataclass(frozen=True)
class Branches:
    """A model's residual branches."""

    found: tuple[Branch, ...]
    #: By name, why a residual addition is left as it is.
    stuck: Mapping[str, str]
    #: All parameters that the model reads at inference.
    parameters: tuple[str, ...]
    #: The graph whose nodes they name: that of the model, or what it would be lowered to.
    data: GraphData


def residual_branches(model: ModelGraph) -> Branches:
    """Find the branches that can be removed one by one; one that holds others comes after them.

    Raises:
        GraphError: when the model cannot be traced, or calls what a plain-data graph cannot hold.
    """
    module = model.module
    data = module.graph_data if isinstance(module, PlainGraph) else model.graph_form.data
    return _Finder(module, data).all()


class _Finder:
    """Looks at one graph's sums."""

    def __init__(self, module: nn.Module, data: GraphData) -> None:
        self.module, self.data, self.flow = module, data, Flow(data)
        first: dict[int, str] = {}
        named = module.named_parameters(remove_duplicate=False)
        #: The first name of each parameter by each of its names.
        self.parameters = {name: first.setdefault(id(tensor), name) for name, tensor in named}

    def all(self) -> Branches:
        found: list[Branch] = []
        stuck: dict[str, str] = {}
        for node in self.data.nodes:
            for branch, reason in self._residual(node):
                if reason:
                    stuck.setdefault(branch.name, reason)
                else:
                    found.append(branch)
        inner = [one for one in found if not any(other.sum in one.nodes for other in found)]
        stuck |= {one.name: "it holds other branches" for one in found if one not in inner}
        return Branches(tuple(self._named(inner)), stuck, tuple(self._reads(self.flow.nodes)), self.data)

    def _residual(self, node: Node) -> Iterator[tuple[Branch, str]]:
        """The branch that a node adds to what it was made from, and why it must stay if it must."""
        operands = [one.name if isinstance(one, NodeRef) else None for one in node.args[:2]]
        if node.op not in _ADDS or None in operands or operands[0] == operands[1]:
            return
        left, right = (str(one) for one in operands)
        plain = "add" in node.op and node.kwargs.get("alpha", 1) == 1
        if self.flow.is_made_from(right, left):
            branch = self._branch(node, left, right)
        elif self.flow.is_made_from(left, right) and plain:
            branch = self._branch(node, right, left)
        else:
            yield from self._projected(node, left, right)
            return
        if branch.parameters:
            yield branch, _reason(branch, self.flow)

    def _projected(self, node: Node, left: str, right: str) -> Iterator[tuple[Branch, str]]:
        """Two ways from one value, of which none gives it as it is: of a branch, where one has parameters."""
        flow = self.flow
        ways = [flow.only_in(left, right), flow.only_in(right, left)]
        if flow.ancestors[left] & flow.ancestors[right] and any(self._reads(way) for way in ways):
            name, shortest = node.layer or ROOT, min(ways, key=len)
            changes = flow.nodes[shortest[-1]].op if shortest else node.op
            reason = f"its shortcut is no identity: {changes} changes it"
            yield Branch(name, node.name, left, right, (), (), name, (), ""), reason

    def _branch(self, node: Node, skip: str, end: str) -> Branch:
        dead = self.flow.dead({node.name: skip}) - {node.name}
        nodes = tuple(name for name in self.flow.nodes if name in dead)
        kept = self._reads(name for name in self.flow.nodes if name not in dead)
        own = tuple(name for name in self._reads(nodes) if name not in kept)
        holder, layers = node.layer or ROOT, whole_layers(self.flow, dead, self.module)
        return Branch(holder, node.name, skip, end, nodes, layers, holder, own, self._last(nodes, own))

    def _last(self, nodes: Sequence[str], own: Sequence[str]) -> str:
        """The weight of the last call that reads a parameter: a call names its weight before its bias."""
        by_call = (self._reads([name]) for name in reversed(nodes))
        return next((name for read in by_call for name in read if name in own), "")

    def _reads(self, nodes: Iterable[str]) -> list[str]:
        """The parameters that nodes read, each once under its first name, in order."""
        references = (one for name in nodes for one in self.flow.nodes[name].references())
        read = (one.name for one in references if isinstance(one, TensorRef))
        return list(dict.fromkeys(self.parameters[name] for name in read if name in self.parameters))

    def _named(self, found: Sequence[Branch]) -> Iterator[Branch]:
        """The branches with names of their own: where a layer adds several, that of their largest part."""
        sizes = {name: one.numel() for name, one in self.module.named_parameters()}
        for branch in found:
            if branch.holder != ROOT and sum(one.holder == branch.holder for one in found) == 1:
                yield branch
                continue
            held = {
                layer: sum(sizes[name] for name in branch.parameters if _inside(name, layer))
                for layer in branch.layers
                if not any(_inside(layer, other) for other in branch.layers)
            }
            yield replace(branch, name=max(held, key=lambda one: held[one]) if held else branch.sum)


def _inside(name: str, layer: str) -> bool:
    return name.startswith(f"{layer}.")


def _reason(branch: Branch, flow: Flow) -> str:
    """Why a branch must stay; empty when it can go."""
    skip, total = (_shape(name, flow) for name in (branch.skip, branch.sum))
    if skip != total:
        return f"its shortcut has shape {skip} and the sum {total}"
    way = flow.between(branch.skip, branch.end)
    outside = [name for name in way if not flow.readers[name] <= {*way, branch.sum}]
    outside += [name for name in way if name not in branch.nodes]
    if outside or flow.readers[branch.end] != {branch.sum}:
        return f"what {flow.nodes[(outside or [branch.end])[0]].op} gives in it is read elsewhere too"
    for name in branch.nodes:
        for one in written(flow.nodes[name]):
            if flow.homes.get(one) not in branch.nodes:
                return f"{flow.nodes[name].op} in it works in place on what is used outside it"
    return ""


def _shape(name: str, flow: Flow) -> object:
    node = flow.nodes.get(name)
    if node is not None:
        return node.shape
    return next(one.shape for one in flow.data.inputs if one.name == name)


def whole_layers(flow: Flow, nodes: Iterable[str], module: nn.Module) -> tuple[str, ...]:
    """The layers of which all nodes are among these, outer before inner; lists of layers are none."""
    inside = set(nodes)
    # Sizes are taken once for the whole model, in whichever layer comes first.
    computing = [node for node in flow.data.nodes if not is_size(node)]
    own = dict.fromkeys(path for node in computing if node.name in inside for path in _paths(node))
    other = {path for node in computing if node.name not in inside for path in _paths(node)}
    lists = {"ModuleList", "ModuleDict"}
    return tuple(
        path for path in own if path not in other and lists.isdisjoint(types_of(module.get_submodule(path)))
    )


def _paths(node: Node) -> list[str]:
    """The layers that a node is in, outer before inner, without the root."""
    parts = node.layer.split(".")
    return [".".join(parts[:end]) for end in range(1, len(parts) + 1) if parts[0]]
