"""The Gram matrix of a layer's inputs: what every second-order method of weights needs."""

from __future__ import annotations

from collections import deque
from typing import Any

import torch
from torch import Tensor, nn

from demiglace.calibration.collector import Collector, GradientCollector, channel_axis
from demiglace.calibration.rows import input_rows


class InputGram(Collector):
    """`X^T X` over all rows that a layer's weight multiplies, and their sum.

    Half the Hessian of the layer's squared output error with respect to one output's weights, times the
    number of rows (LeCun, Denker and Solla 1990; Hassibi and Stork 1993; Frantar and Alistarh 2022).
    Linear layers of any leading dimensions, convolutions unfolded, groups apart.

    Args:
        dtype: of products and sums; float32 halves the memory and is enough where the matrix is damped.
    """

    def __init__(self, dtype: torch.dtype = torch.float64) -> None:
        self.dtype = dtype
        self._matrix: Tensor | None = None
        self._total: Tensor | None = None
        #: How many rows were summed, for each group.
        self.rows = 0

    def see(self, module: nn.Module, inputs: tuple[Any, ...], output: Any) -> None:
        for rows in input_rows(module, inputs[0].detach()):
            self._add(rows.to(self.dtype))

    @property
    def matrix(self) -> Tensor:
        """`X^T X`, shape `[groups, k, k]`; see `input_rows` for `k`."""
        return self._gathered(self._matrix)

    @property
    def total(self) -> Tensor:
        """The sum of all rows, shape `[groups, k]`."""
        return self._gathered(self._total)

    def _add(self, rows: Tensor) -> None:
        if self._matrix is None or self._total is None:
            groups, _, size = rows.shape
            self._matrix = rows.new_zeros(groups, size, size)
            self._total = rows.new_zeros(groups, size)
        self._matrix.baddbmm_(rows.transpose(1, 2), rows)
        self._total += rows.sum(1)
        self.rows += rows.shape[1]

    @staticmethod
    def _gathered(value: Tensor | None) -> Tensor:
        if value is None:
            raise ValueError("nothing was gathered: the layer was never called")
        return value


class PairedGram(InputGram):
    """`X^T X` and the sum of rows as of `InputGram`, beside another model's inputs `Y` of the same layer.

    `calibrate_beside` brings both together; `InputsOf` hands over what the other model's layer gets. Where
    data decides what a layer gets (experts, branches), both models may decide otherwise: then nothing is
    paired.
    """

    def __init__(self, dtype: torch.dtype = torch.float64) -> None:
        super().__init__(dtype)
        self._others: deque[Tensor] = deque()
        self._across: Tensor | None = None
        self._others_total: Tensor | None = None
        self._differs = False

    @property
    def paired(self) -> bool:
        """Whether each call of the layer had its like in the other model."""
        return not (self._differs or self._others)

    def pair(self, value: Tensor) -> None:
        """The other model's input at the next call of the layer; calls are matched in order."""
        if not self._differs:
            self._others.append(value)

    def see(self, module: nn.Module, inputs: tuple[Any, ...], output: Any) -> None:
        value, other = inputs[0].detach(), self._others.popleft() if self._others else None
        if other is None or other.shape != value.shape:
            self._differs = True
            super().see(module, inputs, output)
            return
        for rows, others in zip(input_rows(module, value), input_rows(module, other), strict=True):
            own = rows.to(self.dtype)
            self._add(own)
            self._add_others(own, others.to(self.dtype))

    @property
    def across(self) -> Tensor:
        """`Y^T X`, shape `[groups, k, k]`."""
        return self._gathered(self._across)

    @property
    def others_total(self) -> Tensor:
        """The sum of the rows of `Y`, shape `[groups, k]`."""
        return self._gathered(self._others_total)

    def _add_others(self, rows: Tensor, others: Tensor) -> None:
        if self._across is None or self._others_total is None:
            self._across = torch.zeros_like(self.matrix)
            self._others_total = torch.zeros_like(self.total)
        self._across.baddbmm_(others.transpose(1, 2), rows)
        self._others_total += others.sum(1)


class InputsOf(Collector):
    """Hands the inputs of another model's layer to a `PairedGram`."""

    def __init__(self, gram: PairedGram) -> None:
        self.gram = gram

    def see(self, module: nn.Module, inputs: tuple[Any, ...], output: Any) -> None:
        # A copy: what follows in that model may work in place.
        self.gram.pair(inputs[0].detach().clone())


class OutputGram(GradientCollector):
    """The mean of `g g^T` over all rows `g` of the gradient at a layer's output, `[k, k]`, float32.

    A row holds all channels of a position.

    With the loss `projected` it tells what a change `e` of such a row does to the model's outputs: the mean
    of the squared change is `e G e^T` to first order.
    """

    def __init__(self) -> None:
        self._matrix: Tensor | None = None
        self._rows = 0

    def see_gradient(self, module: nn.Module, output: Tensor, gradient: Tensor) -> None:
        channels = gradient.float().movedim(channel_axis(module), -1)
        rows = channels.reshape(-1, channels.shape[-1])
        if self._matrix is None:
            self._matrix = rows.new_zeros(rows.shape[1], rows.shape[1])
        self._matrix.addmm_(rows.T, rows)
        self._rows += len(rows)

    @property
    def matrix(self) -> Tensor:
        """`[k, k]`."""
        if self._matrix is None:
            raise ValueError("nothing was gathered: the layer was never called")
        return self._matrix / max(1, self._rows)
