"""Where the scale of single channels can move from a layer's inputs into its weight without any difference.

What makes a channel is followed through the exported graph: through operators that only move it, that
commute with a positive factor, or that combine whole vectors of it, up to the linear layers that read it.
Movement is run on the channels' numbers themselves, so that no index can be wrong.
"""

from __future__ import annotations

import heapq
import operator
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeAlias

import torch
from torch import Tensor, fx
from torch.utils._pytree import tree_leaves

from demiglace.graph import ModelGraph

if TYPE_CHECKING:
    from torch.export import ExportedProgram

Places: TypeAlias = Tensor | list[Tensor]
"""For each element of a value the producer's channel that it comes from; a list for several results."""


@dataclass(eq=False)
class Migration:
    """A producer of channels, and the linear layers that read them and that nothing else reads with them."""

    #: Parameters whose first dimension makes the channels: a weight, and a bias where there is one.
    producers: tuple[str, ...]
    #: By the qualified name of a linear layer's weight, the channel of each of its columns.
    readers: dict[str, Tensor] = field(default_factory=dict)
    #: For each channel, whether anything else reads it, and for one of them what does.
    taken: Tensor = field(default_factory=lambda: torch.zeros(0, dtype=torch.bool))
    reason: str = ""


def migrations(model: ModelGraph) -> list[Migration]:
    """Every producer of channels that linear layers read, in the graph's order.

    Producers are norms with a weight, linear layers, and vectors that activations are multiplied by.

    Raises:
        GraphError: when the model cannot be exported.
    """
    walk = _Walk(model.exported, _single(model))
    every = [found for found in map(walk.follow, walk.nodes) if found is not None]
    return [found for found in every if found.readers and len(found.taken)]


def _single(model: ModelGraph) -> set[str]:
    """The parameters that the model holds under one name."""
    count: dict[int, list[str]] = {}
    for name, parameter in model.module.named_parameters(remove_duplicate=False):
        count.setdefault(id(parameter), []).append(name)
    return {names[0] for names in count.values() if len(names) == 1}


class _Walk:
    """One exported graph."""

    def __init__(self, program: ExportedProgram, single: set[str]) -> None:
        self.nodes = list(program.graph.nodes)
        self._order = {node: at for at, node in enumerate(self.nodes)}
        names = program.graph_signature.inputs_to_parameters
        #: By the node that reads it, each parameter with one name and one reader.
        self.own = {
            node: names[node.name]
            for node in self.nodes
            if names.get(node.name) in single and len(node.users) == 1
        }

    def follow(self, start: fx.Node) -> Migration | None:
        """What becomes of the channels that a node makes; `None` when it makes none."""
        made = self._made(start)
        if made is None:
            return None
        found, places = made
        values: dict[fx.Node, Places] = {start: places}
        ahead = [self._order[user] for user in start.users]
        heapq.heapify(ahead)
        done = -1
        while ahead:
            at = heapq.heappop(ahead)
            if at != done and self._pass_on(self.nodes[at], values, found):
                for user in self.nodes[at].users:
                    heapq.heappush(ahead, self._order[user])
            done = at
        return found

    def _pass_on(self, node: fx.Node, values: dict[fx.Node, Places], found: Migration) -> bool:
        """Whether an operator lets channels through, which are noted then; what reads them is noted too."""
        carrying = [one for one in node.all_input_nodes if one in values]
        if self._reads(node, carrying, values, found):
            return False
        moved = _moved(node, values) if len(carrying) == 1 and _known(node) else None
        if moved is None:
            for one in carrying:
                _take(found, values[one], node)
            return False
        values[node] = moved
        return True

    def _made(self, node: fx.Node) -> tuple[Migration, Tensor] | None:
        place = _PRODUCERS.get(_name(node))
        if place is None or not _known(node):
            return None
        weights, axis = place
        args = _args(node)
        given = [args[at] for at in weights if at < len(args) and args[at] is not None]
        if _name(node) == "aten.mul":
            given = [one for one in args if one in self.own and one.meta["val"].dim() == 1]
        names = [self.own[one] for one in given if one in self.own]
        if not names or len(names) < len(given):
            return None
        shape, channels = _shape(node), given[0].meta["val"].shape[0]
        if shape[axis] != channels or _normalizes_several(node):
            return None
        view = [1] * len(shape)
        view[axis] = channels
        found = Migration(tuple(names), taken=torch.zeros(channels, dtype=torch.bool))
        return found, torch.arange(channels).view(view).expand(shape)

    def _reads(
        self, node: fx.Node, carrying: list[fx.Node], values: Mapping[fx.Node, Places], found: Migration
    ) -> bool:
        """Note a linear layer that reads channels, each column a single one of them."""
        args = _args(node)
        if _name(node) != "aten.linear" or carrying != [args[0]] or args[1] not in self.own:
            return False
        places = values[carrying[0]]
        if not isinstance(places, Tensor) or not places.numel():
            return False
        rows = places.reshape(-1, places.shape[-1])
        if not (rows == rows[0]).all():
            return False
        found.readers[self.own[args[1]]] = rows[0].clone()
        return True


def _take(found: Migration, places: Places, reader: fx.Node) -> None:
    """Something reads channels that cannot be told of a factor."""
    for one in places if isinstance(places, list) else [places]:
        found.taken[one.flatten()] = True
    found.reason = found.reason or ("the model's output" if reader.op == "output" else _name(reader))


def _args(node: fx.Node) -> tuple[Any, ...]:
    return node.args


def _name(node: fx.Node) -> str:
    if node.target is operator.getitem:
        return "getitem"
    return str(getattr(node.target, "overloadpacket", ""))


def _shape(node: fx.Node) -> tuple[int, ...]:
    return tuple(int(_number(size)) for size in node.meta["val"].shape)


def _number(value: Any) -> Any:
    return value.node.hint if isinstance(value, torch.SymInt) else value


def _known(node: fx.Node) -> bool:
    """Whether no size or number of a node's results and arguments is found out by looking at data only."""
    values = tree_leaves([one.meta.get("val") for one in (node, *node.all_input_nodes)])
    sizes = [size for one in values for size in (one.shape if isinstance(one, Tensor) else (one,))]
    return not any(isinstance(one, torch.SymInt) and _number(one) is None for one in sizes)


def _normalizes_several(node: fx.Node) -> bool:
    """Whether a norm's weight has more than one dimension."""
    return _name(node) in {"aten.layer_norm", "aten.rms_norm"} and len(_args(node)[1]) != 1


_PRODUCERS: Mapping[str, tuple[tuple[int, ...], int]] = {
    "aten.linear": ((1, 2), -1),
    "aten.layer_norm": ((2, 3), -1),
    "aten.rms_norm": ((2,), -1),
    "aten.batch_norm": ((1, 2), 1),
    "aten.group_norm": ((2, 3), 1),
    "aten.mul": ((), -1),
}
"""Where an operator's parameters of channels stand, and which axis of its result has the channels."""

_SAME = {
    *("aten.relu", "aten.relu_", "aten.leaky_relu", "aten.dropout", "aten.dropout_", "aten.feature_dropout"),
    *("aten.clone", "aten.contiguous", "aten.alias", "aten.detach", "aten.to", "aten._to_copy", "aten.neg"),
}
"""Operators of one value that commute with a positive factor, element by element."""

_MOVING = {
    *("aten.view", "aten._unsafe_view", "aten.reshape", "aten.flatten", "aten.unflatten", "aten.permute"),
    *("aten.transpose", "aten.t", "aten.squeeze", "aten.unsqueeze", "aten.expand", "aten.slice"),
    *("aten.select", "aten.chunk", "aten.split", "aten.split_with_sizes", "aten.unbind", "aten.movedim"),
    *("aten.repeat_interleave", "aten.repeat"),
}
"""Operators that only put elements elsewhere."""

_COMBINING = {"aten.scaled_dot_product_attention": 2, "aten.matmul": 1, "aten.bmm": 1}
"""Operators whose result's last axis is that of one argument, each element a sum over one of its columns."""


def _moved(node: fx.Node, values: Mapping[fx.Node, Places]) -> Places | None:
    """Where channels are after an operator that lets factors through; `None` for any other."""
    name, args = _name(node), _args(node)
    if name == "getitem":
        return values[args[0]][args[1]]
    if name in {"aten.mul", "aten.div"}:
        return _scaled(node, values)
    if name in _COMBINING:
        return _combined(node, values)
    places = values.get(args[0])
    if not isinstance(places, Tensor):
        return None
    if name in _SAME:
        return places
    return _run(node, places) if name in _MOVING else None


def _run(node: fx.Node, places: Tensor) -> Places | None:
    """The operator itself on channel numbers."""
    args, kwargs = fx.map_arg((_args(node)[1:], node.kwargs), lambda one: _number(one.meta["val"]))
    if any(isinstance(one, Tensor) for one in (*args, *kwargs.values())):
        return None
    if _name(node) in {"aten.view", "aten._unsafe_view"}:
        return places.reshape(args[0])  # numbers need not lie in memory as the values did
    called: Callable[..., Any] = node.target  # type: ignore[assignment]
    result = called(places, *args, **kwargs)
    return list(result) if isinstance(result, tuple | list) else result


def _scaled(node: fx.Node, values: Mapping[fx.Node, Places]) -> Tensor | None:
    """A product with something else, or a quotient by it."""
    args = _args(node)
    carrying = [at for at, one in enumerate(args[:2]) if one in values]
    if carrying != [0] and (carrying != [1] or _name(node) == "aten.div"):
        return None
    places = values[args[carrying[0]]]
    return places.expand(_shape(node)) if isinstance(places, Tensor) else None


def _combined(node: fx.Node, values: Mapping[fx.Node, Places]) -> Tensor | None:
    """A product whose result has the channels of its right factor, where each column is one channel."""
    at, args = _COMBINING[_name(node)], _args(node)
    places = values.get(args[at]) if at < len(args) else None
    if not isinstance(places, Tensor) or places.dim() < 2:
        return None
    column, shape = places[..., :1, :], _shape(node)
    fits = places.dim() == len(shape) and places.shape[:-2] == shape[:-2] and places.shape[-1] == shape[-1]
    return column.expand(shape) if fits and bool((places == column).all()) else None
