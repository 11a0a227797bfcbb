"""Layers whose weights are trained as parameters and compute as what they will become."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn

from demiglace.quantization.modules.fused import may_be_read, must_be_called


class TrainedWeights(nn.Module):
    """A layer whose weights stay parameters and are computed from them whenever it runs.

    Subclasses say how. The class of such a layer also inherits from the layer's own class, whose forward
    finds the computed weight under its name.
    """

    #: The weights, by their own names.
    names: tuple[str, ...]
    #: The attributes, parameters and buffers that the layer did not have.
    added: set[str]

    def computed(self, name: str) -> Tensor:
        """A weight as the layer computes with it, with gradients to all that it is computed from."""
        raise NotImplementedError

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        # Attention reads the weight of a projection inside it, and does not call it.
        holders = [self, *(each for each in self.children() if isinstance(each, TrainedWeights))]
        try:
            for holder in holders:
                holder.__dict__.update({name: holder.computed(name) for name in holder.names})
            return super().forward(*args, **kwargs)
        finally:
            for holder in holders:
                for name in holder.names:
                    holder.__dict__.pop(name, None)

    def add(self, name: str, tensor: Tensor) -> None:
        """Register a parameter or a buffer that the layer did not have."""
        self.added.add(name)
        if isinstance(tensor, nn.Parameter):
            self.register_parameter(name, tensor)
        else:
            self.register_buffer(name, tensor)

    def own(self, name: str) -> Tensor:
        """A parameter of the layer, trained as it is.

        Raises:
            ValueError: when it has none of that name.
        """
        parameter = self._parameters[name]
        if parameter is None:
            raise ValueError(f"the layer has no {name!r}")
        return parameter


def in_training(
    old: nn.Module, kind: type[TrainedWeights], names: tuple[str, ...], **attributes: object
) -> TrainedWeights:
    """The same layer with its own tensors, as one that computes its weights.

    Args:
        old: any layer.
        kind: how it computes them.
        names: of the weights.
        attributes: what else `kind` holds beside tensors.
    """
    new: TrainedWeights = object.__new__(type(type(old).__name__, (kind, type(old)), {}))
    new.__dict__.update(vars(old))
    for own in ("_parameters", "_buffers", "_modules"):
        new.__dict__[own] = dict(vars(old)[own])
    new.__dict__.update(attributes, names=names, added={"names", "added", *attributes})
    must_be_called(new)
    return new


def trained(layer: nn.Module) -> nn.Module:
    """The layer that was put `in_training`, with its weights as they are now; others as they are."""
    if not isinstance(layer, TrainedWeights):
        return layer
    plain: nn.Module = object.__new__(type(layer).__bases__[1])
    plain.__dict__.update({name: value for name, value in vars(layer).items() if name not in layer.added})
    for own in ("_parameters", "_buffers"):
        held = vars(layer)[own].items()
        plain.__dict__[own] = {name: value for name, value in held if name not in layer.added}
    may_be_read(plain)
    return plain


def own_weights(old: nn.Module, options: Mapping[str, Any]) -> nn.Module:
    """`trained`, as a type of module that a `Swap` names; it has no options."""
    return trained(old)
