"""What a criterion may know about a model."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from demiglace.graph import ModelGraph, Slice


@dataclass(frozen=True)
class Statistics:
    """The model's tensors, and the only randomness there is."""

    #: Parameters and buffers by name, masked weights at zero.
    tensors: Mapping[str, Tensor]
    #: Class names, from a layer's own to its bases, by the layer's name.
    types: Mapping[str, tuple[str, ...]]
    generator: torch.Generator

    @classmethod
    def of(cls, model: ModelGraph, generator: torch.Generator) -> Statistics:
        """The statistics that need no data."""
        named = [*model.module.named_parameters(), *model.module.named_buffers()]
        tensors = {
            name: tensor.detach() if name not in model.masks else tensor.detach() * model.masks[name]
            for name, tensor in named
        }
        types = {one.name: one.types for one in model.candidates() if one.types}
        return cls(tensors, types, generator)

    def rows(self, one: Slice) -> Tensor:
        """The elements that belong to each unit of a slice, shape `[units, elements]`, at least float32."""
        import torch

        tensor = self.tensors[one.tensor].movedim(one.dim, 0)
        chosen = tensor[one.index.to(tensor.device)].flatten(1)
        return chosen.to(torch.promote_types(chosen.dtype, torch.float32)).cpu()
