"""`evaluate.sparsity`: which share of the weights is zero."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from demiglace.passes import Config, Context, Evaluator, Kind, Metric, PassSpec

if TYPE_CHECKING:
    from demiglace.graph import ModelGraph
    from demiglace.measure import Footprint


class SparsityConfig(Config):
    """The share of weights that are zero: of the whole net, of the pruned layers, of each layer."""

    per_layer: bool = True
    """Whether to report each weight tensor with zeros as `sparsity.NAME`."""

    def words(self) -> str:
        return f"{', '.join(self.metrics())}{' and each layer' if self.per_layer else ''}"

    def metrics(self) -> tuple[str, ...]:
        return ("sparsity", "sparsity_pruned_layers")


class Sparsity(Evaluator[SparsityConfig]):
    """Counts zeros as they act, whatever holds them: a mask, or the value itself.

    `sparsity` is over all parameters of the model. `sparsity_pruned_layers` is over the tensors that have a
    mask; of a model without masks, over those with at least two dimensions and a zero.
    """

    def measure(self, model: ModelGraph, context: Context) -> Mapping[str, Metric]:
        from demiglace.measure import measure

        footprint = measure(model)
        quantized = set(footprint.layers) - {name for name, _ in model.module.named_parameters()}
        with_zeros = [*footprint.pruned, *(name for name in quantized if footprint.layers[name].zeros)]
        metrics = {
            "sparsity": _share(footprint.zeros, footprint.parameters),
            "sparsity_pruned_layers": _over(footprint, with_zeros),
        }
        if self.config.per_layer:
            metrics |= {f"sparsity.{name}": _over(footprint, [name]) for name in sorted(with_zeros)}
        return metrics


def _over(footprint: Footprint, names: Sequence[str]) -> Metric:
    total = footprint.over(names)
    return _share(total.zeros, total.parameters)


def _share(zeros: int, parameters: int) -> Metric:
    return Metric(zeros / parameters if parameters else 0.0, None, "share")


SPEC = PassSpec(
    "evaluate.sparsity",
    Kind.EVALUATOR,
    SparsityConfig,
    "demiglace_evaluators.sparsity:Sparsity",
    '[[pass]]\nuse = "evaluate.sparsity"\n',
)
