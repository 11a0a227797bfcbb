"""Recurrent layers: a hidden unit is a row of every gate, and a column of what reads it one step later."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from demiglace.graph.labels import Axis, Value
from demiglace.graph.rules.contraction import contract
from demiglace.graph.rules.registry import rule
from demiglace.graph.trace import Call

_GATES = {"lstm": 4, "gru": 3, "rnn_tanh": 1, "rnn_relu": 1}


@dataclass
class _States:
    """What all layers and directions share, because their states are slices of one tensor."""

    #: The hidden units: of an LSTM, what its cells hold.
    units: Axis
    #: What is given on: the units, or of an LSTM with projections, these.
    given_on: Axis


@rule(*(f"aten.{kind}" for kind in _GATES))
def layers(call: Call) -> list[Value]:
    """Any number of layers, in one or two directions; a unit goes from all of them at its index.

    With its rows, columns and biases at zero a unit gives zero after every step from a state of zero.
    """
    if "input" not in call.bound:
        return call.decline("reads packed sequences")
    hidden = call["hx"] if isinstance(call["hx"], list | tuple) else [call["hx"]]
    directions = 2 if call["bidirectional"] else 1
    cells = _cells(call["params"], call["num_layers"] * directions)
    states = _States(hidden[-1].axes[-1], hidden[0].axes[-1])
    given: Value = call["input"]
    for axis in given.axes[:-1]:
        call.freeze(axis, "runs along it")
    feature = given
    for number, cell in enumerate(cells):
        _tie(call, feature, cell, states)
        if (number + 1) % directions == 0:
            feature = _output(given, states.given_on, directions)
    zero = all(one.zero[-1] for one in hidden)
    shapes = [call.shapes[0], *(one.shape for one in hidden)]
    axes = [_repeated(states.given_on, directions), states.given_on, states.units]
    return [_state(shape, axis, zero) for shape, axis in zip(shapes, axes, strict=False)]


@rule("aten.lstm_cell", "aten.gru_cell", "aten.rnn_tanh_cell", "aten.rnn_relu_cell")
def cell(call: Call) -> list[Value]:
    """One step of one layer."""
    hidden = call["hx"] if isinstance(call["hx"], list | tuple) else [call["hx"]]
    states = _States(hidden[-1].axes[-1], hidden[0].axes[-1])
    tensors = [call[name] for name in ("w_ih", "w_hh", "b_ih", "b_hh")]
    _tie(call, call["input"], [one for one in tensors if one is not None], states)
    zero = all(one.zero[-1] for one in hidden)
    return [_state(one.shape, states.units, zero) for one in hidden]


def _cells(parameters: Sequence[Value], count: int) -> list[Sequence[Value]]:
    """The parameters of each layer and direction."""
    each = len(parameters) // count
    return [parameters[at : at + each] for at in range(0, len(parameters), each)]


def _tie(call: Call, feature: Value, tensors: Sequence[Value], states: _States) -> None:
    """Tie one cell's tensors: weights of what comes in and of its own state, biases, a projection."""
    gates = _GATES[call.op.removeprefix("aten.").removesuffix("_cell")]
    weights = [one for one in tensors if len(one.shape) == 2]
    projection = weights[2] if len(weights) > 2 else None
    contract(call, feature, -1, weights[0], 1)
    for one in tensors:
        if one is not projection:
            states.units = call.unite(states.units, _rows(call, one.axes[0], gates))
    for one in weights:
        call.role(one.axes[0], "produced")
        call.role(one.axes[1], "consumed")
    if projection is None:
        states.units = states.given_on = call.unite(states.units, states.given_on)
    else:
        states.units = call.unite(states.units, projection.axes[1])
        states.given_on = call.unite(states.given_on, projection.axes[0])
    call.unite(states.given_on, weights[1].axes[1])


def _rows(call: Call, axis: Axis, gates: int) -> Axis:
    """The gates lie one after the other: a label for each unit."""
    return None if axis is None else call.tie(axis.view(gates, -1).T)


def _output(given: Value, axis: Axis, directions: int) -> Value:
    return Value(given.shape, (*given.axes[:-1], _repeated(axis, directions)), (False,) * len(given.shape))


def _repeated(axis: Axis, count: int) -> Axis:
    return None if axis is None else torch.cat([axis] * count)


def _state(shape: tuple[int, ...], axis: Axis, zero: bool) -> Value:
    lead = len(shape) - 1
    return Value(shape, (*(None,) * lead, axis), (*(False,) * lead, zero))
