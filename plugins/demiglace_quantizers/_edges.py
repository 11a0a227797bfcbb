"""The work of `quantize.edges`: which values become integers, and with which range."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from demiglace.calibration import calibration_batches, undisturbed
from demiglace.errors import GraphError
from demiglace.graph import Edit, Lower, ModelGraph, Round, Write
from demiglace.graph.plain import (
    OUTPUT,
    Flow,
    GraphData,
    Node,
    NodeRef,
    PlainGraph,
    lower_layers,
    out_of_place,
)
from demiglace.quantization import OBSERVERS, Observer, Scheme, fit

if TYPE_CHECKING:
    from demiglace.passes import Context
    from demiglace_quantizers.edges import EdgesConfig

_VALUES = Scheme(8, symmetric=False)

_CONVOLUTION, _LINEAR = "demiglace.static_convolution", "demiglace.static_linear"
_ABSORBED = {"relu", "relu6", "hardtanh", "clamp", "clamp_min", "clamp_max"}
"""Activations that runtimes compute by saturating a layer's integers."""
_SAME_GRID = {
    *_ABSORBED,
    *("max_pool1d", "max_pool2d", "adaptive_max_pool1d", "adaptive_max_pool2d", "upsample_nearest2d"),
    *("flatten", "view", "reshape", "permute", "transpose", "squeeze", "unsqueeze", "contiguous", "clone"),
    *("pad", "constant_pad_nd"),  # with zeros, which every range has
    *("dropout", "detach", "alias", "slice", "select", "channel_shuffle", "pixel_shuffle"),
}
"""Operators that give the very integers that they take, or some of them."""
_OWN_GRID = {
    "add",
    "mul",
    "cat",
    "avg_pool1d",
    "avg_pool2d",
    "adaptive_avg_pool1d",
    "adaptive_avg_pool2d",
    "mean",
}
"""Operators that runtimes compute on integers with a range of their own."""


def edge_edits(model: ModelGraph, options: EdgesConfig, context: Context) -> list[Edit]:
    """The edits that lower a model and round what flows between its integer layers.

    Raises:
        GraphError: when no layer computes on integers, or the model cannot be traced.
    """
    graph = lower_layers(model)
    edges = Edges(out_of_place(graph.graph_data))
    if not edges.layers:
        raise GraphError(
            "no layer of the model computes on integers",
            hint='put quantize.static, or quantize.qat with inputs = "int8", before this pass',
        )
    if not edges.rounded:
        raise GraphError(
            "nothing flows between the integer layers that could be an integer",
            hint="leave this pass out: runtimes fuse these layers as they are",
        )
    observed = _observe(graph, edges.observed(), options, context)
    affine = {name: _affine(one) for name, one in observed.items()}
    values = {name: affine[edges.grid[name]] for name in edges.rounded}
    context.figures["rounded_values"] = len(values)
    return [Lower(), Round(values), *edges.shared_ranges(values)]


def _affine(observer: Observer) -> tuple[float, int]:
    low, high = observer.range(_VALUES)
    scale, zero = fit(torch.tensor(low), torch.tensor(high), _VALUES)
    return float(scale), int(zero)


def _observe(
    graph: PlainGraph, names: list[str], options: EdgesConfig, context: Context
) -> dict[str, Observer]:
    """What each of these values was in calibration."""
    observers: dict[str, Observer] = {name: OBSERVERS[options.observer]() for name in names}

    def see(name: str, value: Any) -> None:
        if name in observers and isinstance(value, Tensor):
            observers[name].take(value.detach().flatten().unsqueeze(1))

    batches = calibration_batches(context, options.samples, options.batch_size)
    with undisturbed(graph, context.device):
        for batch in context.track(batches, "calibrating", len(batches)):
            graph.run(batch.args, batch.kwargs, see=see)
    return observers


class Edges:
    """Which values of a graph are integers, by rules that follow what runtimes fuse.

    A convolution's output is always one: a runtime that computes it on integers gives integers. A linear
    layer can give floating point at no cost, and its output stays so unless an operator on integers reads
    it. What only leaves the model stays floating point.
    """

    def __init__(self, data: GraphData) -> None:
        self.flow = Flow(data)
        #: The layers that compute on integers.
        self.layers = [node for node in data.nodes if _kind(node) in {_CONVOLUTION, _LINEAR}]
        #: For each value that may be an integer the one whose range it has: itself, or what it was made of.
        self.grid: dict[str, str] = {}
        for node in data.nodes:
            self._enter(node)
        #: Those that are to be rounded, in order.
        self.rounded = self._wanted()

    def _enter(self, node: Node) -> None:
        kind, name = _kind(node), node.name
        if self.flow.writers(self.flow.homes[name]):
            return
        if kind in {_CONVOLUTION, _LINEAR}:
            self.grid[name] = name
            return
        reads = [one.name for one in node.references()]
        if not reads or not all(isinstance(one, NodeRef) for one in node.references()):
            return
        if not all(one in self.grid for one in reads):
            return
        if kind in _OWN_GRID:
            # With a number in place of the other operand it is a part of some activation.
            if kind not in {"add", "mul"} or len(reads) == 2:
                self.grid[name] = name
        elif kind in _ABSORBED and self._absorbs(node, reads[0]):
            del self.grid[reads[0]]
            self.grid[name] = name
        elif kind in _SAME_GRID and not _pads_otherwise(node):
            self.grid[name] = self.grid[reads[0]]

    def _absorbs(self, node: Node, value: str) -> bool:
        """Whether an activation is all that reads what has a range of its own."""
        return self.grid[value] == value and self.flow.readers[value] == {node.name}

    def _wanted(self) -> list[str]:
        """Without what would be rounded for nobody."""
        kept: set[str] = set()
        layers = {node.name for node in self.layers}
        for name in reversed(self.grid):
            readers, made = self.flow.readers[name], self._maker(name)
            if made == _CONVOLUTION:
                wanted = readers != {OUTPUT}
            else:
                # A layer rounds its inputs itself: a linear layer before it can give floating point.
                wanted = bool(readers & (kept - layers if made == _LINEAR else kept | layers))
            kept |= {name} if wanted else set()
        return [name for name in self.grid if name in kept]

    def _maker(self, name: str) -> str:
        """The operator that a value comes from, before the activation that it absorbed."""
        node = self.flow.nodes[name]
        if _kind(node) not in _ABSORBED or self.grid[name] != name:
            return _kind(node)
        return _kind(self.flow.nodes[next(one.name for one in node.references())])

    def observed(self) -> list[str]:
        """The values whose ranges are needed."""
        return list(dict.fromkeys(self.grid[name] for name in self.rounded))

    def shared_ranges(self, values: dict[str, tuple[float, int]]) -> Iterator[Edit]:
        """The writes by which layers take their inputs in the range that these were rounded in."""
        for node in self.layers:
            read = node.args[0]
            if isinstance(read, NodeRef) and read.name in values:
                for tensor, number in zip(node.args[1:3], values[read.name], strict=True):
                    yield Write(tensor.name, torch.tensor(float(number)))


def _pads_otherwise(node: Node) -> bool:
    """Whether a node pads with something else than zeros."""
    if _kind(node) not in {"pad", "constant_pad_nd"}:
        return False
    given = [*node.args[2:], *node.kwargs.values()]
    return any(one not in {"constant", 0, None} for one in given)


def _kind(node: Node) -> str:
    """An operator without its overload; torch's own without their namespace."""
    return node.op.rpartition(".")[0].removeprefix("aten.")
