"""A layer's input as the rows that its weight multiplies."""

from __future__ import annotations

from collections.abc import Iterator

from torch import Tensor, nn
from torch.nn import functional as F

_CHUNK = 1 << 22  # elements of unfolded rows at a time


_KNOWN = (nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d)


def has_input_rows(module: nn.Module) -> bool:
    """Whether `input_rows` knows the layer: linear and forward convolution of 1 to 3 dimensions."""
    return isinstance(module, _KNOWN)


def computes_otherwise(module: nn.Module) -> bool:
    """Whether the layer's class, derived from one that `has_input_rows`, has a forward of its own.

    It may pad its inputs or normalize its weight first: then the rows are not what its weight multiplies.
    """
    base = next((one for one in type(module).__mro__ if one in _KNOWN), None)
    return base is not None and type(module).forward is not base.forward


def input_rows(module: nn.Module, value: Tensor) -> Iterator[Tensor]:
    """The rows `x` of an input, such that the layer computes `x @ weight.flatten(1).T` for each group.

    Args:
        module: a layer that `has_input_rows`.
        value: its input: `[..., in_features]`, or `[n, channels, *spatial]` with or without `n`.

    Yields:
        Chunks of shape `[groups, rows, k]`; `k` is in_features, or channels of a group times kernel
        positions, in the order of `weight.flatten(1)`. Linear layers have one group.

    Raises:
        TypeError: for another layer.
    """
    if isinstance(module, nn.Linear):
        yield value.flatten(0, -2)[None] if value.dim() > 1 else value[None, None]
        return
    if not isinstance(module, nn.Conv1d | nn.Conv2d | nn.Conv3d):
        raise TypeError(f"no rows are known for a {type(module).__name__}")
    if value.dim() == len(module.kernel_size) + 1:
        value = value[None]
    windows = _windows(module, value)
    for part in windows.split(max(1, _CHUNK // max(1, windows[:1].numel()))):
        yield _grouped(part, module.groups)


def _windows(module: nn.Conv1d | nn.Conv2d | nn.Conv3d, value: Tensor) -> Tensor:
    """A view of every receptive field, `[n, channels, *positions, *kernel]`."""
    mode = "constant" if module.padding_mode == "zeros" else module.padding_mode
    value = F.pad(value, module._reversed_padding_repeated_twice, mode=mode)
    for dim, (size, stride, dilation) in enumerate(
        zip(module.kernel_size, module.stride, module.dilation, strict=True), 2
    ):
        value = value.unfold(dim, (size - 1) * dilation + 1, stride)[..., ::dilation]
    return value


def _grouped(windows: Tensor, groups: int) -> Tensor:
    """`[n, groups * c, *positions, *kernel]` as `[groups, n * positions, c * kernel]`."""
    spatial = (windows.dim() - 2) // 2
    split = windows.unflatten(1, (groups, -1))
    positions, kernel = range(3, 3 + spatial), range(3 + spatial, 3 + 2 * spatial)
    rows = split.permute(1, 0, *positions, 2, *kernel)
    return rows.flatten(2 + spatial).flatten(1, 1 + spatial)
