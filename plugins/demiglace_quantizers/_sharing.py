"""The work of `share.kmeans`: layers whose weights share values, and what becomes of them."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import chain
from typing import TYPE_CHECKING

from demiglace.errors import GraphError
from demiglace.graph import Edit
from demiglace.passes import Loop
from demiglace.quantization import Clustered, TensorError, clustered_swap, weight_only_swap
from demiglace_quantizers._layers import chosen, nothing, unshared

if TYPE_CHECKING:
    from torch import Tensor

    from demiglace.quantization import Layer, SharedTensor
    from demiglace_quantizers.kmeans import KmeansConfig

_BIASES = ("bias", "in_proj_bias")


class Sharing:
    """Layers whose weights will share values, then do, then have codebooks."""

    def __init__(self, loop: Loop, options: KmeansConfig) -> None:
        self.loop = loop
        #: As they were at first; of a plain-data graph these are others than those that share.
        self.layers = list(unshared(chosen(loop.model.with_layers(), options, loop.context), loop.context))
        if not self.layers:
            raise nothing(options, loop.context.left_alone)
        self.begun = False
        self._options = options
        loop.apply([clustered_swap(one.name, self._clusters(one)) for one in self.layers])
        loop.train_also(chain.from_iterable(one.centroids() for one in self._modules()))

    def begin(self) -> None:
        """Cluster the weights as they are now."""
        for module in self._modules():
            module.share()
        self.begun = True

    def go_on(self) -> None:
        """Share the values that the centroids have already."""
        for module in self._modules():
            module.sharing = True
        self.begun = True

    def codebooks(self) -> Iterator[Edit]:
        """The edits that put codebooks in place of all weights."""
        if not self.begun:
            self.begin()
        figures = []
        for layer, module in zip(self.layers, self._modules(), strict=True):
            weights = {own: module.shared(own) for own in module.names}
            figures += [_figures(layer.qualified(own), module.own(own), weights[own]) for own in weights]
            yield weight_only_swap(layer.name, module, weights)
        self.loop.context.figures["shared"] = figures

    def _clusters(self, layer: Layer) -> dict[str, int]:
        """How many values each tensor of a layer will have."""
        clusters = dict.fromkeys(layer.weights, self._options.clusters)
        if self._options.bias_clusters is not None:
            held = (own for own in _BIASES if layer.module._parameters.get(own) is not None)
            clusters |= dict.fromkeys(held, self._options.bias_clusters)
        return clusters

    def _modules(self) -> Iterator[Clustered]:
        root = self.loop.model.module
        for layer in self.layers:
            module = root.get_submodule(layer.name.removeprefix("."))  # `.` is the root
            if not isinstance(module, Clustered):
                raise GraphError(f"layer {layer.name!r} was replaced while it was in training")
            yield module


def _figures(name: str, original: Tensor, shared: SharedTensor) -> dict[str, object]:
    error = TensorError.between(original, shared.dequantize())
    return {
        "weight": name,
        "values": len(shared.codebook),
        "stored_bits": round(shared.stored_bits() / max(1, shared.numel()), 3),
        "sqnr": round(error.sqnr, 2),
        "cosine": round(error.cosine, 6),
    }
