"""Walking an exported graph with labels in place of numbers."""

from __future__ import annotations

import operator
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from itertools import chain
from typing import TYPE_CHECKING, Any, TypeAlias

import torch
from torch import Tensor, fx

from demiglace.graph.labels import FIXED, Axis, Labels, Value, plain
from demiglace.graph.memory import Memory
from demiglace.recipe.selectors import ROOT

if TYPE_CHECKING:
    from torch.export import ExportedProgram

Result: TypeAlias = Value | Sequence[Value] | None
Rule: TypeAlias = "Callable[[Call], Result]"
Choice: TypeAlias = tuple[str, int]
"""A view that splits an axis: the call's name and the axis of its input."""

SILENT = ("aten._assert", "aten.sym_constrain", "aten._guard")
"""Operators that compute nothing."""


@dataclass(frozen=True)
class Slot:
    """One dimension of a parameter or buffer, with the label of each index."""

    tensor: str
    dim: int
    labels: Tensor


@dataclass(frozen=True)
class Split:
    """An axis that a view split: of the axes it became, one can be cut."""

    kept: int
    #: The labels of that axis.
    labels: Tensor
    #: The other axes, with labels that are never cut and only show where these axes go.
    others: Mapping[int, Tensor]


@dataclass
class Call:
    """One operator of the graph, its arguments with `Value` in place of tensors."""

    tracer: Tracer
    #: Unique in the tracer: the node's name, with the mode it was exported in.
    name: str
    node: fx.Node
    #: `aten.conv2d` for `aten.conv2d.default`.
    op: str
    #: The qualified name of the module at work.
    layer: str
    args: tuple[Any, ...]
    kwargs: Mapping[str, Any]
    #: Whether no output depends on it.
    dead: bool = False
    result: Result = None

    @cached_property
    def bound(self) -> dict[str, Any]:
        """The arguments by the names of the operator's schema, defaults filled in."""
        given = dict(self.kwargs)
        schema = self.node.target._schema.arguments  # type: ignore[union-attr]
        for place, argument in enumerate(schema):
            if place < len(self.args):
                given[argument.name] = self.args[place]
            elif argument.name not in given:
                given[argument.name] = argument.default_value if argument.has_default_value() else None
        return given

    def __getitem__(self, name: str) -> Any:
        return self.bound[name]

    @cached_property
    def values(self) -> list[Value]:
        """Every tensor among the arguments, those in lists included."""
        found: list[Value] = []
        for given in (*self.args, *self.kwargs.values()):
            items = given if isinstance(given, list | tuple) else [given]
            found += [item for item in items if isinstance(item, Value)]
        return found

    @cached_property
    def shapes(self) -> list[tuple[int, ...]]:
        """The shapes of the results."""
        result = self.node.meta.get("val")
        items = result if isinstance(result, list | tuple) else [result]
        return [concrete(item.shape) for item in items if isinstance(item, Tensor)]

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape of the only result."""
        return self.shapes[0]

    def sized(self, dim: int) -> bool:
        """Whether a dimension of the only result has a size of its own, and does not follow the batch."""
        return isinstance(self.node.meta["val"].shape[dim], int)

    def run(self, others: Mapping[str, Any]) -> Any:
        """The operator itself on other arguments, by name."""
        arguments = {**self.bound, **others}
        schema = self.node.target._schema.arguments  # type: ignore[union-attr]
        placed = [arguments[one.name] for one in schema if not one.kwarg_only]
        named = {one.name: arguments[one.name] for one in schema if one.kwarg_only}
        return self.node.target(*placed, **named)  # type: ignore[operator]

    def unite(self, left: Axis, right: Axis) -> Axis:
        """Tie two axes index by index; with a fixed axis, freeze the other. Returns what both are now."""
        if left is None or right is None:
            self.freeze(left, "joins it with an axis of fixed size")
            self.freeze(right, "joins it with an axis of fixed size")
            return None
        if left.shape != right.shape:
            self.freeze(left, "joins it with an axis of another size")
            self.freeze(right, "joins it with an axis of another size")
            return None
        if left is not right:
            self.tracer.labels.unite(left, right)
        return left

    def tie(self, table: Tensor) -> Tensor:
        """Make the labels of each row of a table one class; the first of each row stands for it."""
        self.tracer.labels.unite(table[:, :1].expand_as(table), table)
        return table[:, 0]

    def freeze(self, axis: Axis, why: str) -> None:
        """Never cut an axis's labels; what nothing reads asks for nothing."""
        if axis is not None and not self.dead:
            self.tracer.labels.freeze(axis, f"{self.op} in {self.layer!r} {why}")

    def role(self, axis: Axis, role: str) -> None:
        """Note what an axis of a weight is: `produced` or `consumed`."""
        if axis is not None:
            self.tracer.roles.append((axis, role))

    def heads(self, axis: Axis) -> None:
        """Note an axis that indexes independent products of activations."""
        if axis is not None:
            self.tracer.heads.append(axis)

    def piece(self, axis: Axis) -> None:
        """Note a part of an axis that is used by itself."""
        if axis is not None:
            self.tracer.pieces.append(axis)

    def normalizes(self, axis: Axis) -> None:
        """Note an axis over which mean and variance are taken, so that a cut changes values."""
        if axis is not None:
            self.tracer.normalized.append(axis)

    def decline(self, why: str) -> list[Value]:
        """Freeze everything this call touches; its results are values of fixed size."""
        for value in self.values:
            for axis in value.axes:
                self.freeze(axis, why)
        return [plain(shape) for shape in self.shapes]


def concrete(shape: Sequence[Any]) -> tuple[int, ...]:
    """A shape with the sizes of the example in place of symbols."""
    return tuple(number(size) for size in shape)


def number(size: Any) -> Any:
    """A symbolic number as its value on the example."""
    return size.node.hint if isinstance(size, torch.SymInt | torch.SymFloat | torch.SymBool) else size


@dataclass
class Tracer:
    """Labels of every parameter, buffer and intermediate value of one or more exported graphs."""

    rules: Mapping[str, Rule]
    #: Canonical names: a tied parameter's other names, to the one that stands for all.
    canonical: Mapping[str, str]
    #: Which axis of its result stays to be cut where a view splits an axis.
    choices: Mapping[Choice, int] = field(default_factory=dict)
    labels: Labels = field(default_factory=Labels)
    slots: dict[str, list[Slot]] = field(default_factory=dict)
    #: Parameters and buffers that some operator reads.
    read: set[str] = field(default_factory=set)
    calls: list[Call] = field(default_factory=list)
    #: Where views split axes, and what became of them.
    splits: dict[Choice, Split] = field(default_factory=dict)
    #: Axes that index independent matrix products of activations: attention heads.
    heads: list[Tensor] = field(default_factory=list)
    #: Parts of axes that operators take by themselves.
    pieces: list[Tensor] = field(default_factory=list)
    #: Axes over which a norm takes its mean and variance.
    normalized: list[Tensor] = field(default_factory=list)
    roles: list[tuple[Tensor, str]] = field(default_factory=list)
    memory: Memory = field(default_factory=Memory)

    def walk(self, program: ExportedProgram, mode: str) -> None:
        """Label one exported graph; `mode` keeps the names of several graphs apart."""
        names = _tensor_names(program)
        values: dict[fx.Node, Any] = {}
        alive = _alive(program)
        for node in program.graph.nodes:
            if node.op == "placeholder":
                values[node] = self._input(node, names.get(node.name))
            elif node.op == "call_function":
                values[node] = self._call(node, values, mode, alive)
            elif node.op == "output":
                self._freeze_outputs(node, values, program)

    def cuttable(self) -> list[Slot]:
        """Every dimension of more than one index of every parameter and buffer."""
        return [slot for slots in self.slots.values() for slot in slots if len(slot.labels) > 1]

    def freeze(self, tensor: str, reason: str) -> None:
        """Never cut a parameter or buffer."""
        for slot in self.slots.get(tensor, ()):
            self.labels.freeze(slot.labels, reason)

    def _input(self, node: fx.Node, tensor: str | None) -> Any:
        example = node.meta.get("val")
        if not isinstance(example, Tensor):
            return number(example)
        shape = concrete(example.shape)
        if tensor is None:
            return plain(shape)
        tensor = self.canonical.get(tensor, tensor)
        if node.users:
            self.read.add(tensor)
        if tensor not in self.slots:
            self.slots[tensor] = [
                Slot(tensor, dim, self.labels.fresh(size)) for dim, size in enumerate(shape)
            ]
        axes = tuple(slot.labels if len(slot.labels) > 1 else None for slot in self.slots[tensor])
        return Value(shape, axes, (True,) * len(shape))

    def _call(self, node: fx.Node, values: dict[fx.Node, Any], mode: str, alive: set[fx.Node]) -> Any:
        self.memory.note(node)
        if node.target is operator.getitem:
            return values[node.args[0]][node.args[1]]  # type: ignore[index]
        if not isinstance(node.target, torch._ops.OpOverload):
            return self._foreign(node, values, mode)
        args, kwargs = fx.map_arg((node.args, node.kwargs), lambda one: values[one])
        op = str(node.target.overloadpacket)
        dead = node not in alive
        call = Call(self, f"{mode}:{node.name}", node, op, layer_of(node), args, kwargs, dead)
        call.result = self._apply(call)
        self.calls.append(call)
        self._written(call, values)
        if call.result is None:
            return number(node.meta.get("val"))
        return call.result

    def _apply(self, call: Call) -> Result:
        if call.op.startswith(SILENT):
            return None
        several = isinstance(call.node.meta.get("val"), list | tuple)
        if not any(value.labelled for value in call.values) and call.op not in CREATION:
            result: Result = [plain(shape) for shape in call.shapes]
        else:
            rule = self.rules.get(call.op) or _by_tag(call, self.rules)
            result = rule(call) if rule else call.decline("has no rule")
        if isinstance(result, Value) or result is None or several:
            return result
        return result[0] if result else None

    def _foreign(self, node: fx.Node, values: dict[fx.Node, Any], mode: str) -> Any:
        """Arithmetic on sizes, or a higher-order operator, which freezes what it touches."""
        result = node.meta.get("val")
        tensors = [values[one] for one in node.all_input_nodes if isinstance(values.get(one), Value)]
        for value in tensors:
            for axis in value.axes:
                if axis is not None:
                    self.labels.freeze(axis, f"{node.target} in {layer_of(node)!r} has no rule")
        if isinstance(result, list | tuple):
            return [plain(concrete(one.shape)) if isinstance(one, Tensor) else number(one) for one in result]
        return plain(concrete(result.shape)) if isinstance(result, Tensor) else number(result)

    def _written(self, call: Call, values: dict[fx.Node, Any]) -> None:
        """An operator that works in place changes what later users of its input, and of its memory, see."""
        for place, argument in enumerate(call.node.target._schema.arguments):  # type: ignore[union-attr]
            writes = argument.alias_info is not None and argument.alias_info.is_write
            if not writes or place >= len(call.node.args) or not isinstance(call.result, Value):
                continue
            target = call.node.args[place]
            if not isinstance(target, fx.Node) or values[target].shape != call.result.shape:
                continue
            if any(
                was and not stays for was, stays in zip(values[target].zero, call.result.zero, strict=True)
            ):
                for node in self.memory.sharing(target):
                    values[node] = _without_zeros(values.get(node))
            values[target] = call.result

    def _freeze_outputs(self, node: fx.Node, values: dict[fx.Node, Any], program: ExportedProgram) -> None:
        mutated = program.graph_signature.buffers_to_mutate
        given = (values[one] for one in node.all_input_nodes if one.name not in mutated)
        items = chain.from_iterable(value if isinstance(value, list) else [value] for value in given)
        for axis in chain.from_iterable(item.axes for item in items if isinstance(item, Value)):
            if axis is not None:
                self.labels.freeze(axis, "it is an output of the model")


def _alive(program: ExportedProgram) -> set[fx.Node]:
    """The calls that an output depends on, or that write to what others read."""
    found: set[fx.Node] = set()
    for node in reversed(list(program.graph.nodes)):
        schema = getattr(node.target, "_schema", None)
        if node.op == "output" or (schema is not None and schema.is_mutable) or node in found:
            found.add(node)
            found.update(node.all_input_nodes)
    return found


def _without_zeros(value: Any) -> Any:
    """A value of which nothing is known to be zero any more."""
    if isinstance(value, list | tuple):
        return [_without_zeros(one) for one in value]
    return replace(value, zero=(False,) * len(value.zero)) if isinstance(value, Value) else value


_FILLED = ("zeros", "ones", "full", "empty", "new_zeros", "new_ones", "new_full", "new_empty")
_REPEATED = ("expand", "expand_as", "broadcast_to", "repeat", "tile")
CREATION = frozenset(f"aten.{name}" for name in (*_FILLED, *_REPEATED))
"""Operators whose rule makes labels of its own."""


def _by_tag(call: Call, rules: Mapping[str, Rule]) -> Rule | None:
    pointwise = torch.Tag.pointwise in call.node.target.tags  # type: ignore[union-attr]
    return rules.get("pointwise") if pointwise else None


def layer_of(node: fx.Node) -> str:
    """The qualified name of the innermost module whose forward made this node; `.` for the root."""
    stack = node.meta.get("nn_module_stack") or {}
    path = next(reversed(stack.values()))[0] if stack else ""
    # A layer that is called again has a number appended.
    return re.sub(r"@\d+", "", path) or ROOT


def _tensor_names(program: ExportedProgram) -> dict[str, str]:
    signature = program.graph_signature
    return {**signature.inputs_to_parameters, **signature.inputs_to_buffers}


def fixed(size: int) -> Tensor:
    """A vector of labels that never go."""
    return torch.full((size,), FIXED, dtype=torch.long)
