"""Layers whose weights share a few values while they train."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from demiglace.quantization.clustering import centroids_of, nearest
from demiglace.quantization.modules.trained import TrainedWeights, in_training
from demiglace.quantization.shared import SharedTensor

CENTROIDS = "_centroids"
"""What the shared values add to a weight's name."""


class Clustered(TrainedWeights):
    """A layer whose weights take their values from centroids, which are trained.

    A gradient of a centroid is the sum of those of its weights (Han et al. 2016, section 3.3). Zeros stay
    zero. The weights themselves are trained on by what a straight-through estimator gives them, and each
    takes the value of the centroid that it is nearest to at the moment.
    """

    #: Whether weights have begun to share; before, the layer computes with them as they are.
    sharing: bool

    def computed(self, name: str) -> Tensor:
        weight = self.own(name)
        if not self.sharing:
            return weight
        centroids = self.own(name + CENTROIDS)
        # The difference is 0: it hands the gradient on.
        return _values(weight, centroids).to(weight.dtype) + (weight - weight.detach())

    def centroids(self) -> Iterator[nn.Parameter]:
        """The shared values of every weight."""
        return (self.get_parameter(name + CENTROIDS) for name in self.names)

    @torch.no_grad()
    def share(self) -> None:
        """Begin: cluster the weights as they are now."""
        for name in self.names:
            centroids = self.own(name + CENTROIDS)
            centroids.copy_(centroids_of(self.own(name), len(centroids)))
        self.sharing = True

    @torch.no_grad()
    def shared(self, name: str) -> SharedTensor:
        """A weight as it will be stored: with the values that it uses, ascending."""
        values = _values(self.own(name), self.own(name + CENTROIDS))
        codebook, index = values.unique(return_inverse=True)
        return SharedTensor.of(index, codebook, tuple(values.shape))


def _values(weight: Tensor, centroids: Tensor) -> Tensor:
    """The nearest centroid of each weight, 0 for 0."""
    table, chosen = F.pad(centroids, (1, 0)), nearest(weight.detach().to(centroids.dtype), centroids.detach())
    return table[torch.where(weight == 0, 0, chosen + 1)]


def clustered(old: nn.Module, options: Mapping[str, Any]) -> nn.Module:
    """The same layer with its own tensors, and centroids for its weights beside them.

    Args:
        old: any layer.
        options: `clusters`, how many centroids each weight has, by its name.
    """
    new = in_training(old, Clustered, tuple(options["clusters"]), sharing=False)
    for name, clusters in options["clusters"].items():
        device = new.get_parameter(name).device
        new.add(name + CENTROIDS, nn.Parameter(torch.zeros(clusters, device=device)))
    return new
