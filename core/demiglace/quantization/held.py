"""The weights of a model that are held as something else than parameters."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from demiglace.quantization.in_graph import weights_in_graph

if TYPE_CHECKING:
    from torch import nn

    from demiglace.quantization.modules.sparse import SparseWeight
    from demiglace.quantization.stored import StoredWeight

_METHODS = ("quantized_weights", "sparse_weights")
"""What layers give such weights by, each with its own name in them."""


def held_weights(module: nn.Module) -> Iterator[tuple[str, StoredWeight | SparseWeight]]:
    """Integers and nonzeros by qualified name: of layers, and of what a plain-data graph calls itself.

    A weight that several layers share comes once for each.
    """
    for path, holder in module.named_modules():
        for method in _METHODS:
            for own, weight in getattr(holder, method, tuple)():
                yield (f"{path}.{own}" if path else own), weight
    yield from weights_in_graph(module)
