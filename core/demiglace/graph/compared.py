"""Tensors and inputs on which a cut shows, and how far outputs lie apart."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_map

from demiglace.errors import VerificationError
from demiglace.graph.model_graph import Example

if TYPE_CHECKING:
    from demiglace.graph.edits import Cut

_SEED = 20_201
_FACTORS = 10_007
"""Random factors, which repeat: a prime, so that they fall on other places in each row."""
_FAINT = 1e-3
"""The share of a run's largest output below which the size of another is not taken for its own."""


def prepared(example: Example, dtype: torch.dtype, own: int) -> Example:
    """An example in this precision, in which items that repeat each other come to differ.

    Args:
        example: of any number of items.
        dtype: of what is not whole numbers.
        own: how many of its items do not repeat others.
    """
    generator = torch.Generator().manual_seed(_SEED)

    def convert(value: Any) -> Any:
        if not isinstance(value, Tensor) or not value.is_floating_point():
            return converted(value, dtype) if isinstance(value, Tensor) else value
        noise = torch.rand(value.shape, generator=generator, dtype=dtype).to(value.device)
        # Within the example's range; items that repeat it come to differ.
        return _mixed(value, own, generator).to(dtype) * (0.5 + noise / 2) + noise / 10

    return Example(tree_map(convert, example.args), tree_map(convert, dict(example.kwargs)))


def _mixed(value: Tensor, own: int, generator: torch.Generator) -> Tensor:
    """Values of both signs change places in items that repeat others, which would all point one way."""
    two_signed = bool((value > 0).any()) and bool((value < 0).any()) and bool(value.isfinite().all())
    if value.dim() < 2 or len(value) <= own or not two_signed:
        return value
    repeated = value[own:].reshape(-1)
    places = torch.randperm(len(repeated), generator=generator).to(value.device)
    return torch.cat([value[:own], repeated[places].view_as(value[own:])])


def disturbed(module: nn.Module, dtype: torch.dtype) -> dict[str, Tensor]:
    """Copies of a module's parameters and buffers in which no index looks like another."""
    generator = torch.Generator().manual_seed(_SEED)
    parameters = {name: tensor.data for name, tensor in module.named_parameters()}
    tensors = {**parameters, **dict(module.named_buffers())}
    return {
        name: _disturb(tensor, dtype, generator, positive=name not in parameters)
        if tensor.is_floating_point()
        else converted(tensor, dtype)
        for name, tensor in tensors.items()
    }


def _disturb(tensor: Tensor, dtype: torch.dtype, generator: torch.Generator, *, positive: bool) -> Tensor:
    """Values that no index shares with another: fresh norms are all ones, fresh biases all zeros."""
    if tensor.dim() > 1 and not bool((tensor == tensor.reshape(-1)[0]).all()):
        return tensor.to(dtype, copy=True)
    noise = torch.rand(tensor.shape, generator=generator, dtype=dtype).to(tensor.device)
    scaled = tensor.to(dtype) * (1 + noise / 5)
    # A variance stays positive: only what is not all above zero is shifted too, and layer scales near zero.
    small = tensor.numel() > 0 and float(tensor.abs().max()) < 0.1
    return scaled + (noise - 0.3) / 5 if small or not positive else scaled


def converted(tensor: Tensor, dtype: torch.dtype) -> Tensor:
    """A copy in this precision; whole numbers stay as they are."""
    if tensor.is_complex():
        return tensor.to(dtype.to_complex(), copy=True)
    return tensor.to(dtype, copy=True) if tensor.is_floating_point() else tensor


def _removed(size: int, cut: Cut) -> Tensor:
    gone = torch.ones(size, dtype=torch.bool)
    gone[cut.index] = False
    return gone.nonzero()[:, 0]


def mask(tensors: Mapping[str, Tensor], cuts: Mapping[tuple[str, int], Cut]) -> None:
    """Set to zero, in place, what cuts remove."""
    for (name, dim), cut in cuts.items():
        tensor = tensors[name]
        if is_number(tensor):
            gone = _removed(tensor.shape[dim], cut).to(tensor.device)
            tensor.index_fill_(dim, gone, 0.0)


def shaken(tensors: Mapping[str, Tensor], names: Iterable[str]) -> dict[str, Tensor]:
    """The same with the named ones' values changed by up to a third; zeros stay."""
    generator = torch.Generator().manual_seed(_SEED)
    found = dict(tensors)
    for name in sorted(names):
        if is_number(found[name]):
            tensor = found[name]
            factors = 0.7 + 0.6 * torch.rand(_FACTORS, generator=generator, dtype=torch.float64)
            repeats = -(-tensor.numel() // _FACTORS)
            factors = factors.to(tensor).repeat(repeats)[: tensor.numel()]
            found[name] = tensor * factors.view(tensor.shape)
    return found


def cut_tensor(name: str, tensor: Tensor, cuts: Mapping[tuple[str, int], Cut]) -> Tensor:
    """What a cut leaves of a tensor."""
    for dim in range(tensor.dim()):
        if (name, dim) in cuts:
            tensor = tensor.index_select(dim, cuts[name, dim].index.to(tensor.device))
    return tensor


def is_number(tensor: Tensor) -> bool:
    """Whether a tensor holds real or complex numbers."""
    return tensor.is_floating_point() or tensor.is_complex()


def difference(expected: Sequence[Sequence[Tensor]], found: Sequence[Sequence[Tensor]]) -> float:
    """The largest difference, as a share of the largest value of its output, over several runs."""
    worst = 0.0
    for one, other in zip(expected, found, strict=True):
        if [leaf.shape for leaf in one] != [leaf.shape for leaf in other]:
            raise VerificationError(
                f"the cut model's outputs have shapes {[list(leaf.shape) for leaf in other]}, "
                f"not {[list(leaf.shape) for leaf in one]}"
            )
        # One that is zero but for rounding, such as a mean of balanced channels, has no size of its own.
        least = _FAINT * max((_size(leaf) for leaf in one), default=0.0)
        worst = max(worst, *(_gap(leaf, its, least) for leaf, its in zip(one, other, strict=True)), 0.0)
    return worst


def _size(values: Tensor) -> float:
    return float(values.to(torch.complex128).abs().max()) if values.numel() else 0.0


def _gap(expected: Tensor, found: Tensor, least: float) -> float:
    if expected.numel() == 0:
        return 0.0
    # Complex double precision holds every other number.
    one, other = expected.to(torch.complex128), found.to(torch.complex128)
    gap = float((one - other).abs().max()) / (max(float(one.abs().max()), least) or 1.0)
    return gap if gap == gap else float("inf")


def check_telling(outputs: Sequence[Sequence[Tensor]]) -> None:
    """Refuse outputs that would look alike whatever is cut.

    Raises:
        VerificationError: when they hold no numbers, or what is not finite, or nothing but zeros.
    """
    floats = [one for some in outputs for one in some if is_number(one)]
    if not floats:
        raise VerificationError(
            "the model gives no tensor of real or complex numbers, so that a cut cannot be verified",
            hint="let the model return what it computes its classes or indices from",
        )
    if not all(bool(one.isfinite().all()) for one in floats):
        raise VerificationError(
            "the model's outputs are not finite, so that a cut cannot be verified",
            hint="look for NaN or infinity in the weights or the example input",
        )
    if all(one.numel() == 0 or bool((one == 0).all()) for one in floats):
        raise VerificationError("the model's outputs are all zero, so that a cut cannot be verified")
