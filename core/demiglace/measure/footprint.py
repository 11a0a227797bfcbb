"""What a model weighs: parameters, zeros, bits, bytes, and multiply-accumulates."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from demiglace.measure.macs import macs_of

if TYPE_CHECKING:
    from torch import Tensor, nn

    from demiglace.graph import Example, ModelGraph

_CHUNK = 1 << 20  # elements that are looked at together


@dataclass(frozen=True)
class LayerFootprint:
    """One parameter's part of a `Footprint`."""

    #: Its elements.
    parameters: int
    #: Elements that are zero or held at zero by a mask.
    zeros: int
    #: Of its elements as stored.
    bits: int

    @property
    def sparsity(self) -> float:
        """The share of its elements that are zero."""
        return self.zeros / self.parameters if self.parameters else 0.0


@dataclass(frozen=True)
class Footprint:
    """What a model weighs. Tied tensors count once; masks count in `bytes` alone, eight weights a byte."""

    #: Elements of all parameters.
    parameters: int
    #: Of these, how many are zero or held at zero by a mask.
    zeros: int
    #: Of all parameters as stored.
    bits: int
    #: Multiply-accumulates of one call on the example; `None` without one, or where torch cannot count.
    macs: int | None
    #: Of parameters, buffers and masks as an artifact stores them.
    bytes: int
    #: By parameter name.
    layers: Mapping[str, LayerFootprint]
    #: Parameters that were pruned: those with a mask; of a model without masks, those of at least two
    #: dimensions with a zero. Weights that are held without their zeros are among them.
    pruned: tuple[str, ...] = ()

    @property
    def sparsity(self) -> float:
        """The share of all parameters that are zero."""
        return self.zeros / self.parameters if self.parameters else 0.0

    def figures(self) -> dict[str, float]:
        """The totals by name, as gates and programs read them; `macs` only where it is known."""
        known = {} if self.macs is None else {"macs": float(self.macs)}
        totals = ("parameters", "zeros", "sparsity", "bits", "bytes")
        return {name: float(getattr(self, name)) for name in totals} | known

    def over(self, names: Iterable[str]) -> LayerFootprint:
        """The sum over some parameters.

        Raises:
            KeyError: for a name that the model does not have.
        """
        parts = [self.layers[name] for name in names]
        return LayerFootprint(
            sum(part.parameters for part in parts),
            sum(part.zeros for part in parts),
            sum(part.bits for part in parts),
        )


def measure(model: ModelGraph, example: Example | None = None) -> Footprint:
    """Weigh a model, leaving it, its modes, its buffers and the random numbers as they are.

    Args:
        model: the model.
        example: inputs for `macs`; counted on their shapes alone, at no cost of computing.
    """
    layers = {name: _layer(tensor, model.masks.get(name)) for name, tensor in model.module.named_parameters()}
    layers |= _held(model.module)
    masks = sum(-(-keep.numel() // 8) for keep in model.masks.values())
    return Footprint(
        parameters=sum(layer.parameters for layer in layers.values()),
        zeros=sum(layer.zeros for layer in layers.values()),
        bits=sum(layer.bits for layer in layers.values()),
        macs=None if example is None else macs_of(model.module, example),
        bytes=sum(tensor.nbytes for tensor in _tensors(model.module)) + masks,
        layers=layers,
        pruned=_pruned(model, layers),
    )


def _pruned(model: ModelGraph, layers: Mapping[str, LayerFootprint]) -> tuple[str, ...]:
    from demiglace.quantization import SparseWeight, held_weights

    masked = tuple(name for name in layers if name in model.masks)
    weights = (name for name, tensor in model.module.named_parameters() if tensor.dim() > 1)
    sparse = tuple(name for name, one in held_weights(model.module) if isinstance(one, SparseWeight))
    # What rounds to zero was not pruned: quantized weights do not count here.
    return (masked or tuple(name for name in weights if layers[name].zeros)) + sparse


def _tensors(module: nn.Module) -> Iterator[Tensor]:
    yield from module.parameters()
    yield from module.buffers()


def _layer(tensor: Tensor, keep: Tensor | None) -> LayerFootprint:
    elements = tensor.numel()
    return LayerFootprint(elements, elements - _nonzero(tensor.detach(), keep), 8 * tensor.nbytes)


def _held(module: nn.Module) -> dict[str, LayerFootprint]:
    """The weights that are no parameters any more but integers or nonzeros in buffers, shared ones once."""
    from demiglace.quantization import held_weights

    found, seen = {}, set()
    for name, weight in held_weights(module):
        memory = weight.storage.data_ptr() or id(weight.storage)  # 0 on the meta device
        if memory not in seen:
            seen.add(memory)
            found[name] = LayerFootprint(weight.numel(), weight.zeros(), weight.stored_bits())
    return found


def _nonzero(tensor: Tensor, keep: Tensor | None) -> int:
    import torch

    if keep is None:
        return sum(int(torch.count_nonzero(values)) for values in chunks(tensor))
    pairs = zip(chunks(tensor), chunks(keep), strict=True)
    return sum(int(torch.count_nonzero(values.logical_and(kept))) for values, kept in pairs)


def chunks(tensor: Tensor) -> Iterator[Tensor]:
    """Views of a tensor along its first dimension, of about a million elements each.

    Floats of eight bits come as float32, since torch computes little with them.
    """
    narrow = tensor.is_floating_point() and tensor.itemsize < 2
    rows = max(1, _CHUNK * tensor.shape[0] // tensor.numel()) if tensor.dim() and tensor.numel() else 0
    for part in tensor.split(rows) if rows else (tensor,):
        yield part.float() if narrow else part
