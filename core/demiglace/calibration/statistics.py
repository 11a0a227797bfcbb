"""What a criterion may know about a model."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from demiglace.graph import holder

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from demiglace.graph import Group, ModelGraph, Slice


@dataclass(frozen=True)
class Inputs:
    """What a layer gets, by input channel: vectors of shape `[channels]`, float64."""

    mean: Tensor
    variance: Tensor
    #: The mean of the squares.
    power: Tensor
    #: The share of values that are exactly zero, 0 to 1.
    zeros: Tensor


@dataclass(frozen=True)
class Statistics:
    """The model's tensors, the only randomness there is, and what a calibration run gathered."""

    #: Parameters and buffers by name, masked weights at zero.
    tensors: Mapping[str, Tensor]
    #: Class names, from a layer's own to its bases, by the layer's name.
    types: Mapping[str, tuple[str, ...]]
    generator: torch.Generator
    #: By layer, for linear layers and convolutions that make or read units of a group and were called.
    inputs: Mapping[str, Inputs] = field(default_factory=dict)
    #: By parameter and dimension: in each batch, weight times gradient of the loss, summed over all other
    #: dimensions; shape `[batches, indices]`.
    changes: Mapping[tuple[str, int], Tensor] = field(default_factory=dict)

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

    def read(self, group: Group) -> Iterator[tuple[Slice, Inputs]]:
        """The slices by which layers read the group's units, with what these layers get."""
        for one in group.slices:
            inputs = self.inputs.get(layer_of_weight(one.tensor)) if one.role == "consumed" else None
            # A grouped convolution reads each channel in its own group only: its indices are others.
            if inputs is not None and len(inputs.mean) == self.tensors[one.tensor].shape[one.dim]:
                yield one, inputs


def layer_of_weight(tensor: str) -> str:
    """The layer whose `weight` a tensor is; empty for any other tensor."""
    return holder(tensor) if tensor.rpartition(".")[2] == "weight" else ""
