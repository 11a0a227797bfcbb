"""`repair.bias`: fold the mean of what was removed into the next bias."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from demiglace.graph import Write, apply
from demiglace.passes import Context, Contract, Editor, Kind, PassSpec
from demiglace_repairs._repair import (
    UNCHANGED,
    Calibrated,
    kept_channels,
    original_of,
    quiet,
    selected_layers,
)

if TYPE_CHECKING:
    from torch import Tensor, nn

    from demiglace.calibration import Moments
    from demiglace.graph import ModelGraph


class BiasConfig(Calibrated):
    """Shift each bias so that its layer's outputs have the means that they had before.

    What was removed gave its readers a constant on average; their biases take it over. For every linear
    layer, convolution and normalization with a bias, in the order in which the model runs them. Needs
    calibration data, but neither labels nor training.
    """

    def contract(self) -> Contract:
        return Contract.of(needs=("data.calibration", "original"))

    def words(self) -> str:
        return f"fold the means of what was removed into the next biases, on {self.samples} examples"


class BiasRepair(Editor[BiasConfig]):
    """Compares the means of each layer's outputs with the original's, one layer after the other."""

    def edits(self, model: ModelGraph, context: Context, amount: float | None = None) -> Iterator[Write]:
        from demiglace.calibration import Moments, calibrate, execution_order

        original, batches = original_of(context), self.config.batches(context)
        layers = [path for path, layer in selected_layers(model, self.config) if _adds_bias(layer)]
        stages = execution_order(model, next(iter(batches)), layers)
        before = {path: Moments("output") for stage in stages for path in stage}
        calibrate(original, batches, before, quiet(context))
        repaired = model.copy()
        for stage in context.track(stages, "comparing means"):
            now = {path: Moments("output") for path in stage}
            calibrate(repaired, batches, now, quiet(context), stop_early=True)
            for path in stage:
                name = f"{path}.bias" if path else "bias"
                shift = _shift(before[path], now[path], kept_channels(original, repaired, name))
                if shift is not None:
                    bias = repaired.module.get_parameter(name).detach()
                    edit = Write(name, bias + shift.to(bias.dtype))
                    apply(repaired, [edit]).commit()
                    yield edit


def _adds_bias(layer: nn.Module) -> bool:
    """Whether a layer's bias is one number for each output channel, added last."""
    from torch import nn
    from torch.nn.modules.batchnorm import _NormBase
    from torch.nn.modules.conv import _ConvNd

    kinds = (nn.Linear, _ConvNd, _NormBase, nn.GroupNorm, nn.LayerNorm)
    bias = layer._parameters.get("bias")
    return isinstance(layer, kinds) and bias is not None and bias.dim() == 1


def _shift(before: Moments, now: Moments, kept: Tensor | None) -> Tensor | None:
    """What the mean of each channel lacks, shape `[channels]`; `None` when that is nothing but rounding."""
    mean, power = before.mean, before.mean_square
    if kept is not None:
        mean, power = mean[kept.to(mean.device)], power[kept.to(mean.device)]
    shift = mean - now.mean
    return shift if shift.square().sum() > UNCHANGED * power.sum() else None


SPEC = PassSpec(
    "repair.bias",
    Kind.EDITOR,
    BiasConfig,
    "demiglace_repairs.bias:BiasRepair",
    '[[pass]]\nuse = "repair.bias"\n',
)
