"""`quantize.dynamic`: linear layers that multiply 8-bit integers, their inputs quantized as they come."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Literal

from demiglace.passes import Context, Contract, Editor, Kind, PassSpec, Problem
from demiglace_quantizers._control import Controlled, grouped, within
from demiglace_quantizers._layers import chosen, problems, report_weights

if TYPE_CHECKING:
    from demiglace.graph import Edit, ModelGraph, Swap
    from demiglace.quantization import Layer
    from demiglace_quantizers._nearest import Rounded


class DynamicConfig(Controlled):
    """Compute linear layers on 8-bit integers, each input row quantized by its own range; needs no data.

    Other layers with weights (convolutions, embeddings, attention's own projections) store 8-bit integers
    and compute in floating point.
    """

    granularity: Literal["channel", "tensor"] = "channel"
    """Whether each output of a weight has its own scale, or the whole weight has one."""

    def contract(self) -> Contract:
        whole = self.targets == ["*"] and not self.ignore
        return Contract.of(
            needs=("weights.float", *self.data_needs()),
            gives=("weights.quantized", "weights.int8", "products.int8"),
            # Integer arithmetic lets no gradient through, in however few layers.
            destroys=("model.trainable", *(("weights.float", "weights.masked") if whole else ())),
        )

    def words(self) -> str:
        return f"compute linear layers on 8-bit integers, weights by {self.granularity}, inputs by row"


class Dynamic(Editor[DynamicConfig]):
    """Swaps linear layers for integer ones, all others for ones that store integers."""

    def preflight(self, model: ModelGraph) -> Iterator[Problem]:
        return problems(model, self.config)

    def edits(self, model: ModelGraph, context: Context, amount: float | None = None) -> Iterator[Edit]:
        from demiglace.quantization import Scheme
        from demiglace_quantizers._nearest import alike, round_each

        model = model.with_layers()
        layers = chosen(model, self.config, context)
        scheme = Scheme(8, symmetric=True, per_tensor=self.config.granularity == "tensor")
        rounded = round_each(layers, alike(layers, scheme), context)
        inner = _read_by_their_parents(model)
        integer = [layer for layer in layers if _is_linear(layer) and layer.name not in inner]
        report_weights(context, layers, rounded.weights)
        context.figures["integer_layers"] = [layer.name for layer in integer]
        swaps = [
            _integer_swap(layer, rounded) if layer in integer else rounded.swap(layer) for layer in layers
        ]
        return within(model, grouped(layers, swaps), self.config.max_drop, context)


def _is_linear(layer: Layer) -> bool:
    from torch import nn

    from demiglace.quantization import has_own_forward

    return isinstance(layer.module, nn.Linear) and not has_own_forward(layer.module)


def _read_by_their_parents(model: ModelGraph) -> set[str]:
    """Linear layers that are never called: attention reads the weight of its `out_proj`."""
    from torch import nn

    parents = {name for name, one in model.module.named_modules() if isinstance(one, nn.MultiheadAttention)}
    return {f"{name}.out_proj" if name else "out_proj" for name in parents}


def _integer_swap(layer: Layer, rounded: Rounded) -> Swap:
    from demiglace.quantization import quantized_swap

    weight = rounded.weights[id(layer.weights["weight"])]
    sums = weight.integers.sum(1).float()
    return quantized_swap(
        layer.name,
        layer.module,
        "quantized.linear.dynamic",
        {"weight": weight},
        tensors={"weight_sums": sums},
    )


SPEC = PassSpec(
    "quantize.dynamic",
    Kind.EDITOR,
    DynamicConfig,
    "demiglace_quantizers.dynamic:Dynamic",
    '[[pass]]\nuse = "quantize.dynamic"\n',
)
