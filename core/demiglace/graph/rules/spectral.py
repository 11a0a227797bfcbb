"""Fourier transforms and complex numbers: what they mix stays, the other axes are independent."""

from __future__ import annotations

from demiglace.graph.labels import Axis, Value
from demiglace.graph.rules.registry import rule
from demiglace.graph.trace import Call

_ONE = ("fft", "ifft", "rfft", "irfft", "hfft", "ihfft")
_SEVERAL = ("fft2", "ifft2", "rfft2", "irfft2", "fftn", "ifftn", "rfftn", "irfftn", "fftshift", "ifftshift")


@rule(*(f"aten.fft_{name}" for name in (*_ONE, *_SEVERAL)))
def transform(call: Call) -> Value:
    """A linear transform along some axes, by default all or the last."""
    value = call["self"]
    rank = len(value.shape)
    given = call["dim"]
    if given is None:
        given = range(rank - len(call.bound.get("s") or value.shape), rank)
    dims = {dim % rank for dim in ([given] if isinstance(given, int) else given)}
    for dim in dims:
        call.freeze(value.axes[dim], "mixes all of it")
    axes: tuple[Axis, ...] = tuple(None if dim in dims else axis for dim, axis in enumerate(value.axes))
    return Value(call.shape, axes, tuple(zero and dim not in dims for dim, zero in enumerate(value.zero)))


@rule("aten.view_as_complex")
def complex_view(call: Call) -> Value:
    """The last axis holds the two parts of each number."""
    value = call["self"]
    call.freeze(value.axes[-1], "holds the parts of complex numbers")
    return Value(call.shape, value.axes[:-1], value.zero[:-1])


@rule("aten.view_as_real")
def real_view(call: Call) -> Value:
    """The parts of each number on a new last axis."""
    value = call["self"]
    return Value(call.shape, (*value.axes, None), (*value.zero, False))
