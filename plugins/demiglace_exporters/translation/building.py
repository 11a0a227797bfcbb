"""Adding nodes to an ONNX graph in the place of one that goes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx_ir as ir

from demiglace_exporters.translation.constants import Constants

_UNSIGNED = 128
"""What makes our int8 activations the unsigned ones that runtimes are fastest with."""


class Site:
    """A node that is being replaced: makes the new ones before it and under its name."""

    def __init__(self, node: Any, graph: Any, constants: Constants) -> None:
        self.node, self.graph, self.constants = node, graph, constants
        self.inputs: dict[str, Any] = {}

    def attribute(self, name: str) -> Any:
        """An argument of our operator that is no tensor; `None` where it was not given."""
        found = self.node.attributes.get(name)
        return None if found is None else found.value

    def call(self, op: str, *inputs: Any, **attributes: Any) -> Any:
        """The output of a new node of the standard."""
        return self.call_for(op, 1, *inputs, **attributes)[0]

    def call_for(self, op: str, outputs: int, *inputs: Any, **attributes: Any) -> Sequence[Any]:
        """The outputs of a new node of the standard."""
        told = dict(self.node.metadata_props)
        node = ir.node(op, list(inputs), attributes=attributes, num_outputs=outputs, metadata_props=told)
        self.graph.insert_before(self.node, node)
        found: Sequence[Any] = node.outputs
        return found

    def name(self, part: str) -> str:
        """A name for a constant of this place."""
        return f"{self.node.outputs[0].name}.{part}"

    def as_float(self, value: Any) -> Any:
        """A value in float32, which scales are in."""
        return value if value.dtype in {None, ir.DataType.FLOAT} else self.call("Cast", value, to=1)

    def rounded(self, value: Any, scale: float, zero_point: float) -> Any:
        """A value as unsigned 8-bit integers stand for it: a pair of nodes that runtimes fuse into others."""
        step = self.constants.number(scale, self.name("input_scale"))
        zero = self.constants.add(np.array(zero_point + _UNSIGNED, np.uint8), self.name("input_zero_point"))
        integers = self.call("QuantizeLinear", self.as_float(value), step, zero)
        return self.call("DequantizeLinear", integers, step, zero)

    def replace(self, value: Any) -> None:
        """Let a value stand for the output of the node, which goes."""
        old = self.node.outputs[0]
        if old.dtype not in {None, ir.DataType.FLOAT, value.dtype} and value.producer().op_type != "Cast":
            value = self.call("Cast", value, to=int(old.dtype))
        name, value.shape, value.type = old.name, old.shape, old.type
        ir.convenience.replace_all_uses_with(old, value, replace_graph_outputs=True)
        self.graph.remove(self.node, safe=True)
        value.name = name
