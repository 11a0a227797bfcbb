"""The normal equations of a layer: which weights give wanted outputs from the inputs that it gets."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from demiglace.calibration.beside import calibrate_beside
from demiglace.calibration.collector import Collector, channel_axis
from demiglace.calibration.rows import input_rows
from demiglace.data import Batch
from demiglace.errors import UsageError
from demiglace.graph import ModelGraph
from demiglace.passes import Context


class NormalEquations(Collector):
    """Second moments of a layer's inputs, and of its inputs with the outputs that it should give.

    A row `x` is what the weight multiplies, with a last 1 for the bias; a `y` is a wanted output. See
    `input_rows` for the groups and for `k`, the length of a row without the 1. Products are formed in the
    input's dtype, at least float32, and summed in float64.
    """

    def __init__(self) -> None:
        self._wanted: deque[Tensor] = deque()
        self._gram = self._moment = self._power = self._missed = torch.zeros((), dtype=torch.float64)
        #: How many rows each group had.
        self.rows = 0

    def want(self, output: Tensor) -> None:
        """What the next call of the layer should give; calls are matched in order."""
        self._wanted.append(output)

    def see(self, module: nn.Module, inputs: tuple[Any, ...], output: Any) -> None:
        wanted = self._wanted.popleft().movedim(channel_axis(module), -1)
        missed = output.detach().movedim(channel_axis(module), -1).double() - wanted
        self._missed = self._missed.to(missed.device) + missed.square().sum()
        grouped = wanted.reshape(-1, getattr(module, "groups", 1), self._outputs(module)).transpose(0, 1)
        for rows in input_rows(module, inputs[0].detach()):
            self._add(rows, grouped[:, : rows.shape[1]])
            grouped = grouped[:, rows.shape[1] :]

    @property
    def gram(self) -> Tensor:
        """The mean of `x x^T`, shape `[groups, k + 1, k + 1]`."""
        return self._gram / self.rows

    @property
    def moment(self) -> Tensor:
        """The mean of `y x^T`, shape `[groups, outputs, k + 1]`."""
        return self._moment / self.rows

    @property
    def power(self) -> float:
        """The mean of `y^2`, summed over all outputs."""
        return float(self._power.sum()) / self.rows

    @property
    def present_error(self) -> float:
        """The mean of `(y - output)^2` for what the layer gives now, summed over all outputs."""
        return float(self._missed) / self.rows

    @property
    def variance(self) -> float:
        """The variance of `y`, summed over all outputs."""
        return max(0.0, self.power - float(self.moment[..., -1].square().sum()))

    @staticmethod
    def _outputs(module: Any) -> int:
        """Outputs of one group."""
        return module.weight.shape[0] // getattr(module, "groups", 1)

    def _add(self, rows: Tensor, wanted: Tensor) -> None:
        dtype = torch.promote_types(rows.dtype, torch.float32)
        rows, wanted = F.pad(rows.to(dtype), (0, 1), value=1.0), wanted.to(dtype)
        self._gram = self._gram.to(rows.device) + (rows.transpose(1, 2) @ rows).double()
        self._moment = self._moment.to(rows.device) + (wanted.transpose(1, 2) @ rows).double()
        self._power = self._power.to(rows.device) + wanted.double().square().sum()
        self.rows += rows.shape[1]


def normal_equations(
    original: nn.Module,
    model: ModelGraph,
    batches: Iterable[Batch],
    layers: Mapping[str, Tensor | None],
    context: Context,
) -> dict[str, NormalEquations]:
    """For each layer, the normal equations of giving the original's outputs on the model's own inputs.

    Args:
        original: the module whose layers, of the same names, give the wanted outputs.
        model: another module, whose layers' inputs are looked at.
        batches: what to run through both, on their device.
        layers: names of layers that `has_input_rows`, each with the indices of the original's output
            channels that it still has, on the model's device, or `None` for all.
        context: honours interrupts.

    Raises:
        DemiglaceError: as `calibrate` does.
    """
    equations = {name: NormalEquations() for name in layers}
    wanted = {name: _Wanted(equations[name], kept) for name, kept in layers.items()}
    calibrate_beside(original, model, batches, wanted, equations, context)
    if any(one.rows == 0 for one in equations.values()):
        raise UsageError("the calibration batches are empty", hint="give the calibration split examples")
    return equations


class _Wanted(Collector):
    """Tells a layer's equations what the original's layer gave."""

    def __init__(self, equations: NormalEquations, kept: Tensor | None) -> None:
        self.equations, self.kept = equations, kept

    def see(self, module: nn.Module, inputs: tuple[Any, ...], output: Any) -> None:
        kept = self.kept
        # A copy: what follows in the model may work in place.
        chosen = output.clone() if kept is None else output.index_select(channel_axis(module), kept)
        self.equations.want(chosen)
