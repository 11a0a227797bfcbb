"""Rounding all weights under one budget of bytes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from demiglace.artifact.packed import coded_bytes
from demiglace.calibration import calibration_batches
from demiglace.quantization import Layer, QTensor, Rounding, RoundingMethod, Scheme, inputs_of
from demiglace_quantizers._budget import Budget, Rows, place_of
from demiglace_quantizers._by_inputs import round_by_inputs
from demiglace_quantizers._columns import Columns, compensated
from demiglace_quantizers._importance import by_outputs, by_size
from demiglace_quantizers._lagrangian import cheapest
from demiglace_quantizers._nearest import Rounded, alike, round_each

if TYPE_CHECKING:
    from torch import Tensor

    from demiglace.graph import ModelGraph
    from demiglace.passes import Context
    from demiglace_quantizers.rate import RateConfig

_SCHEME = Scheme(8)


@dataclass(frozen=True)
class _Options:
    """What rounding by inputs takes from the pass's options."""

    samples: int
    batch_size: int
    damping: float
    clip: bool = False


def rounded_within(
    model: ModelGraph, layers: Sequence[Layer], bits: float, config: RateConfig, context: Context
) -> Rounded:
    """Every weight of the layers as integers that take so many bits together; reports what they take."""
    if config.method == "rtn":
        weights = (weight for layer in layers for weight in layer.weights.values())
        rows = {place_of(weight): Rows(weight, by_size(weight)) for weight in weights}
        done = round_each(layers, alike(layers, _SCHEME), context, method=_Rounding(Budget(rows, bits)).blind)
    else:
        done = _by_inputs(model, layers, bits, config, context)
    taken = sum(map(coded_bytes, done.weights.values()))
    count = sum(weight.numel() for weight in done.weights.values())
    context.figures |= {"coded_bytes": taken, "bits_per_weight": round(8 * taken / count, 4)}
    return done


def _by_inputs(
    model: ModelGraph, layers: Sequence[Layer], bits: float, config: RateConfig, context: Context
) -> Rounded:
    batches = calibration_batches(context, config.samples, config.batch_size)
    rows = by_outputs(model, layers, batches, config.damping, context)
    rounding = _Rounding(Budget(rows, bits))
    method = RoundingMethod(config.method, rounding.by_inputs, inputs=True)
    options = _Options(config.samples, config.batch_size, config.damping)
    schemes = alike(layers, _SCHEME)
    # The budget weighs errors by the inputs' own moments, means included.
    return round_by_inputs(
        model, layers, schemes, method, options, context, blind=rounding.blind, corrected=False
    )


class _Rounding:
    """Rounds one weight after the other within the budget."""

    def __init__(self, budget: Budget) -> None:
        self._budget = budget

    def blind(self, task: Rounding) -> QTensor:
        """Each weight by itself."""

        def attempt(rows: Rows, steps: Tensor) -> QTensor:
            return rows.packed(rows.integers(steps)[0], steps)

        return self._budget.fitted(place_of(task.weight), attempt)

    def by_inputs(self, task: Rounding) -> QTensor:
        """Each column makes up for what those before it lost; what was zero stays zero."""
        moments = inputs_of(task)
        columns = Columns.of(moments, task.damping)
        power = float(moments.diagonal(dim1=1, dim2=2).mean())

        def attempt(rows: Rows, steps: Tensor) -> QTensor:
            return rows.packed(_compensated(rows, steps, columns, power), steps)

        return self._budget.fitted(place_of(task.weight), attempt)


def _compensated(rows: Rows, steps: Tensor, columns: Columns, power: float) -> Tensor:
    table, usual = rows.integers(steps)[1], rows.usual * power
    own, keep = (one.unflatten(0, (len(columns.factor), -1)) for one in (steps[:, 0], rows.matrix != 0))

    def decide(now: Tensor, column: int, cost: Tensor) -> tuple[Tensor, Tensor]:
        chosen = cheapest(now / own, cost / usual, table) * keep[:, :, column]
        return chosen, chosen * own

    return compensated(rows.matrix, columns, decide)
