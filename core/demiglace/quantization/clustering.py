"""k-means of numbers."""

from __future__ import annotations

import torch
from torch import Tensor

_ROUNDS = 100


def centroids_of(weight: Tensor, clusters: int) -> Tensor:
    """The centroids of a weight's elements that are not zero, ascending, in its dtype.

    Lloyd's algorithm from centroids that lie evenly between the smallest and the largest element, the best
    of the beginnings that Han et al. 2016 compare (section 3.2): it keeps the few large weights apart.

    Args:
        weight: finite, any shape.
        clusters: how many, at least 1; some are alone where there are fewer different elements.
    """
    values = weight.detach()[weight != 0].double()
    if not len(values):
        return torch.zeros(clusters, dtype=weight.dtype, device=weight.device)
    low, high = values.aminmax()
    centroids = torch.lerp(low, high, torch.linspace(0, 1, clusters, device=low.device).double())
    for _ in range(_ROUNDS):
        chosen = nearest(values, centroids)
        counts = torch.bincount(chosen, minlength=clusters)
        sums = torch.bincount(chosen, weights=values, minlength=clusters)
        moved = torch.where(counts > 0, sums / counts.clamp_min(1), centroids)
        if torch.equal(moved, centroids):
            break
        centroids = moved
    return centroids.to(weight.dtype)


def nearest(values: Tensor, centroids: Tensor) -> Tensor:
    """The index of the centroid that is nearest to each value; centroids may be in any order."""
    ordered, order = centroids.sort()
    between = (ordered[1:] + ordered[:-1]) / 2
    return order[torch.bucketize(values, between)]
