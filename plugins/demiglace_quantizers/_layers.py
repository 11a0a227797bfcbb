"""What every quantizer does around its rounding: choose layers, refuse what cannot be rounded, report."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import chain
from typing import TYPE_CHECKING, Any

from demiglace.errors import GraphError
from demiglace.passes import Context, Problem, Targeted
from demiglace_quantizers._control import refuse_unjudged, unjudged

if TYPE_CHECKING:
    from torch import Tensor

    from demiglace.graph import ModelGraph
    from demiglace.quantization import Layer, QTensor, Scheme

_ELEMENTS = 1 << 20  # of a weight whose error is found at a time
_HINT = "name linear, convolution, embedding or attention layers with floating-point weights"


def chosen(model: ModelGraph, config: Targeted, context: Context) -> list[Layer]:
    """The layers that the selectors take and that can hold integers; the others are reported.

    Raises:
        GraphError: when there is none, or a weight holds NaN or infinity.
        UsageError: when `max_drop` cannot be measured.
    """
    from demiglace.quantization import select_layers

    selection = select_layers(model, config.targets, config.ignore)
    for name, reason in selection.refused.items():
        context.leave_alone(name, reason)
    if not selection.layers:
        raise nothing(config, selection.refused)
    for layer in selection.layers:
        for own, weight in layer.weights.items():
            _refuse_nonfinite(layer.qualified(own), weight)
    refuse_unjudged(model, config, context)
    return selection.layers


def problems(model: ModelGraph, config: Targeted) -> Iterator[Problem]:
    """What a quantizer can tell to be wrong beforehand: that there is nothing for it, or for `max_drop`.

    Selectors that match nothing have been reported already.
    """
    from demiglace.quantization import select_layers

    selection = select_layers(model.with_layers(), config.targets, config.ignore)
    if not selection.layers:
        option = ("targets",) if config.targets != ["*"] else ()
        yield Problem(_selects_nothing(config, selection.refused), option, _HINT)
    yield from unjudged(model, config)


def misfits(model: ModelGraph, config: Targeted, scheme: Scheme) -> Iterator[Problem]:
    """That the scheme's groups fit no selected layer, and what would fit."""
    from demiglace.quantization import select_layers

    layers = select_layers(model.with_layers(), config.targets, config.ignore).layers
    reasons = {layer.name: _misfit(layer, scheme) for layer in layers}
    if reasons and all(reasons.values()):
        yield Problem(_selects_nothing(config, reasons), ("group_size",), "choose a size that divides rows")


def nothing(config: Targeted, reasons: Mapping[str, str]) -> GraphError:
    """The error of a quantizer that would quantize nothing."""
    return GraphError(_selects_nothing(config, reasons), hint=_HINT)


def _selects_nothing(config: Targeted, reasons: Mapping[str, str]) -> str:
    few = "; ".join(f"{name}: {reason}" for name, reason in list(reasons.items())[:3])
    return f"{config.selector_words()} select no layer that can be quantized" + (f" ({few})" if few else "")


def _refuse_nonfinite(name: str, weight: Tensor) -> None:
    low, high = weight.detach().aminmax()
    if not (low.isfinite() and high.isfinite()):
        raise GraphError(
            f"weight {name!r} holds NaN or infinity and cannot be quantized",
            hint="look at the training before this pass, or name the layer under `ignore`",
        )


def fits(layer: Layer, scheme: Scheme, context: Context) -> bool:
    """Whether the scheme's groups divide every weight's rows; reports what would fit where they do not."""
    if reason := _misfit(layer, scheme):
        context.leave_alone(layer.name, reason)
    return not reason


def _misfit(layer: Layer, scheme: Scheme) -> str:
    """Why groups do not divide a layer's rows, and what does; empty when they do."""
    from demiglace.quantization import fitting_groups

    for weight in layer.weights.values():
        columns = weight[0].numel()
        if not scheme.fits(columns):
            sizes = ", ".join(map(str, fitting_groups(columns)[:6]))
            fitting = f"{sizes} do" if sizes else "nothing does"
            return f"groups of {scheme.group} do not divide its rows of {columns}; {fitting}"
    return ""


def unshared(layers: Sequence[Layer], context: Context) -> Iterator[Layer]:
    """The layers that share no weight: two could learn different values for one; the others are reported."""
    count: dict[int, int] = {}
    for weight in chain.from_iterable(layer.weights.values() for layer in layers):
        count[id(weight)] = count.get(id(weight), 0) + 1
    for layer in layers:
        if any(count[id(weight)] > 1 for weight in layer.weights.values()):
            context.leave_alone(layer.name, "it shares its weight, and each would learn other values for it")
        else:
            yield layer


def report_weights(
    context: Context,
    layers: Sequence[Layer],
    rounded: Mapping[int, QTensor],
    folded: Mapping[str, Tensor] | None = None,
) -> None:
    """Put the figures of every rounded weight into the step's record, worst first.

    Args:
        context: the step's surroundings.
        layers: whose weights were rounded.
        rounded: by the identity of the weight.
        folded: by layer, what was rounded where that is not the weight itself.
    """
    meant = folded or {}
    figures = [
        {
            "weight": layer.qualified(own),
            **weight_figures(meant.get(layer.name, weight), rounded[id(weight)]),
        }
        for layer in layers
        for own, weight in layer.weights.items()
    ]
    context.figures["quantized"] = sorted(figures, key=lambda one: one["sqnr"])
    context.figures["quantized_layers"] = len(layers)


def weight_figures(original: Tensor, quantized: QTensor) -> dict[str, Any]:
    """What rounding cost one weight: error, saturated share, outputs that are all zero."""
    from demiglace.quantization import TensorError

    parts = list(_parts(original.detach(), quantized))
    error = TensorError.over((weight, rounded.dequantize()) for weight, rounded in parts)
    at_ends, dead = (sum(count(rounded) for _, rounded in parts) for count in (_at_ends, _dead))
    return {
        "bits": quantized.bits,
        "stored_bits": round(quantized.stored_bits() / quantized.numel(), 3),
        "sqnr": round(error.sqnr, 2),
        "cosine": round(error.cosine, 6),
        "at_ends": round(at_ends / max(1, quantized.numel()), 6),
        "dead_channels": dead,
    }


def _parts(original: Tensor, quantized: QTensor) -> Iterator[tuple[Tensor, QTensor]]:
    """Some rows of a weight at a time: a large one as real numbers is as much memory as the original."""
    import torch

    rows = max(1, _ELEMENTS // max(1, original[0].numel()))
    for weight, index in zip(
        original.split(rows), torch.arange(len(original), device=original.device).split(rows), strict=True
    ):
        yield weight, quantized.rows(index)


def _dead(quantized: QTensor) -> int:
    """How many outputs have no weight that is not zero, be it that they had none or that rounding took it."""
    return int((quantized.dequantize().flatten(1) == 0).all(1).sum())


def _at_ends(quantized: QTensor) -> int:
    """How many integers are the smallest or the largest."""
    integers, scheme = quantized.integers, quantized.scheme
    return int(((integers == scheme.low) | (integers == scheme.high)).sum())
