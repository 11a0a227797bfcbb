"""`repair.bias`: fold the mean of what was removed into the next bias, and give outputs their variance back.

Bias correction as for quantization (Nagel et al. 2019, "Data-Free Quantization Through Weight Equalization
and Bias Correction", section 4.2) by measured means. Their variance matters as much: where the outputs of a
layer vary less than before, restored means alone decide what comes after (variance collapse; Jordan et al.
2023, "REPAIR: REnormalizing Permuted Activations for Interpolation Repair").
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
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
    """Fold what was removed into the biases: each layer's outputs get the means that they had before.

    What was removed gave its readers a constant on average; their biases take it over. For every linear
    layer, convolution and normalization with a bias, in the order in which the model runs them. Needs
    calibration data, but neither labels nor training.
    """

    scale: bool = True
    """Scale the weights of each output too, so that it varies as it did before. Means alone do harm where
    much was removed: they decide over outputs that hardly vary any more."""

    def contract(self) -> Contract:
        floats = ("weights.float",) if self.scale else ()
        return Contract.of(needs=(*floats, "data.calibration", "original"))

    def words(self) -> str:
        what = "means and variances" if self.scale else "means"
        return f"give each layer's outputs their {what} back, by its bias, on {self.samples} examples"


class BiasRepair(Editor[BiasConfig]):
    """Compares the outputs of each layer with the original's, one layer after the other."""

    def edits(self, model: ModelGraph, context: Context, amount: float | None = None) -> Iterator[Write]:
        from demiglace.calibration import Moments, calibrate, execution_order

        model, original, batches = model.with_layers(), original_of(context), self.config.batches(context)
        layers = [path for path, layer in selected_layers(model, self.config) if _adds_bias(layer)]
        stages = execution_order(model, batches.first(), layers)
        before = {path: Moments("output") for stage in stages for path in stage}
        calibrate(original, batches, before, quiet(context))
        repaired = model.copy()
        for stage in context.track(stages, "comparing outputs"):
            now = {path: Moments("output") for path in stage}
            calibrate(repaired, batches, now, quiet(context), stop_early=True)
            for path in stage:
                kept = kept_channels(original, repaired, _name(path, "bias"))
                edits = self._edits(repaired, path, _Moments.of(before[path], kept), _Moments.of(now[path]))
                apply(repaired, edits).commit()
                yield from edits

    def _edits(self, model: ModelGraph, path: str, before: _Moments, now: _Moments) -> list[Write]:
        """What turns each output `y` of a layer into `scale * y + shift`."""
        if before.near(now, with_variance=self.config.scale):
            return []
        layer = model.module.get_submodule(path)
        weight, bias = layer._parameters.get("weight"), layer.get_parameter("bias").detach()
        if not self.config.scale or weight is None or not _is_output_major(model.module, layer):
            return [Write(_name(path, "bias"), (bias + before.mean - now.mean).to(bias.dtype))]
        scale = before.scale_from(now)
        rows = scale.view(-1, *[1] * (weight.dim() - 1))
        return [
            Write(_name(path, "weight"), (weight.detach() * rows).to(weight.dtype)),
            Write(_name(path, "bias"), (scale * (bias - now.mean) + before.mean).to(bias.dtype)),
        ]


@dataclass(frozen=True)
class _Moments:
    """Means and variances of a layer's outputs, shape `[channels]`."""

    mean: Tensor
    variance: Tensor

    @classmethod
    def of(cls, seen: Moments, kept: Tensor | None = None) -> _Moments:
        if kept is None:
            return cls(seen.mean, seen.variance)
        return cls(seen.mean[kept], seen.variance[kept])

    def near(self, other: _Moments, *, with_variance: bool) -> bool:
        """Whether there is nothing to tell the two apart but rounding."""
        change = (self.mean - other.mean).square()
        if with_variance:
            change = change + (self.variance.sqrt() - other.variance.sqrt()).square()
        return bool(change.sum() <= UNCHANGED * (self.mean.square() + self.variance).sum())

    def scale_from(self, other: _Moments) -> Tensor:
        """The factor that gives outputs with the other's variance this one; 1 where they are constant."""
        import torch

        varies = other.variance > UNCHANGED * self.variance
        return torch.where(varies, (self.variance / other.variance).sqrt(), 1.0)


def _name(path: str, own: str) -> str:
    return f"{path}.{own}" if path else own


def _adds_bias(layer: nn.Module) -> bool:
    """Whether a layer's bias is one number for each output channel, added last."""
    from torch import nn
    from torch.nn.modules.batchnorm import _NormBase
    from torch.nn.modules.conv import _ConvNd

    kinds = (nn.Linear, _ConvNd, _NormBase, nn.GroupNorm, nn.LayerNorm)
    bias = layer._parameters.get("bias")
    return isinstance(layer, kinds) and bias is not None and bias.dim() == 1


def _is_output_major(module: nn.Module, layer: nn.Module) -> bool:
    """Whether a layer's weight is its own, and its first dimension runs over output channels."""
    from torch.nn.modules.conv import _ConvTransposeNd

    holders = [each for each in module.modules() if layer.weight is each._parameters.get("weight")]
    return len(holders) == 1 and not isinstance(layer, _ConvTransposeNd)


SPEC = PassSpec(
    "repair.bias",
    Kind.EDITOR,
    BiasConfig,
    "demiglace_repairs.bias:BiasRepair",
    '[[pass]]\nuse = "repair.bias"\n',
)
