"""Linear layers on 8-bit integers without the zeros of their weights, in code for the processor."""

from __future__ import annotations

import ctypes
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional as F

from demiglace.machine import EXPANSION, compiler, compiler_hint, native_library, processor

_OUTPUTS, _INPUTS = 16, 4  # of a tile
_TILE = _OUTPUTS * _INPUTS
_SOURCE = Path(__file__).with_suffix(".cpp")
_SETS = ("avx512f", "avx512bw", "avx512vl", "avx512vnni", "avx512vbmi2", "popcnt")
_FLAGS = tuple(f"-m{one}" for one in _SETS)


@dataclass(frozen=True, eq=False)
class ZeroFree:
    """The integers of a matrix that are not zero, in tiles of 16 rows by 4 columns."""

    #: int64 `[blocks of rows, blocks of columns]`: 64 bits that say where each tile is not zero.
    masks: Tensor
    #: int64 `[blocks of rows]`: where the integers of each begin.
    starts: Tensor
    #: int8: the integers, tile by tile, and 64 bytes more.
    integers: Tensor

    @classmethod
    def of(cls, matrix: Tensor) -> ZeroFree:
        """What is not zero of an int8 matrix."""
        rows, columns = matrix.shape
        padded = F.pad(matrix, (0, -columns % _INPUTS, 0, -rows % _OUTPUTS))
        tiles = padded.unflatten(0, (-1, _OUTPUTS)).unflatten(2, (-1, _INPUTS)).transpose(1, 2)
        tiles = tiles.flatten(2)
        there = tiles != 0
        counts = there.sum((1, 2))
        octets = there.unflatten(2, (-1, 8)).to(torch.uint8) << torch.arange(8, dtype=torch.uint8)
        masks = octets.sum(-1, dtype=torch.uint8).view(torch.int64).squeeze(-1)
        return cls(masks, counts.cumsum(0) - counts, F.pad(tiles[there], (0, _TILE)))


@cache
def without_zeros_problem() -> str | None:
    """Why this machine cannot leave out zeros of integers; `None` where it can, once it has compiled that."""
    lacking = [one for one in EXPANSION if not processor().has(one)]
    if lacking:
        return f"the processor has no {' and no '.join(lacking)}"
    if compiler() is None:
        return f"that is compiled here, and there is no C++ compiler: {compiler_hint()}"
    try:
        _library()
    except OSError as error:
        return f"that cannot be compiled here: {error}"
    return None


@cache
def _library() -> ctypes.CDLL:
    library = native_library(_SOURCE, _FLAGS)
    pointer, size = ctypes.c_void_p, ctypes.c_int64
    library.zero_free_linear.argtypes = [
        *(pointer, size, size, pointer, ctypes.POINTER(_Weight), size, pointer, ctypes.c_int)
    ]
    library.zero_free_linear.restype = None
    return library


class _Weight(ctypes.Structure):
    """What the code wants to know of a layer; see `zero_free.cpp`."""

    _fields_ = (
        ("masks", ctypes.c_void_p),
        ("starts", ctypes.c_void_p),
        ("integers", ctypes.c_void_p),
        ("scale", ctypes.c_void_p),
        ("scale_step", ctypes.c_int64),
        ("sums", ctypes.c_void_p),
        ("bias", ctypes.c_void_p),
    )


def zero_free_linear(
    values: Tensor,
    inputs: Tensor | None,
    bias: Tensor | None,
    scale: Tensor,
    sums: Tensor,
    masks: Tensor,
    starts: Tensor,
    integers: Tensor,
) -> Tensor:
    """What `dynamic_linear` and `static_linear` compute, on processors that `without_zeros_problem` accepts.

    Args:
        values: float32 `[n, k]`.
        inputs: scale and zero point of the inputs, float32 `[2]`; `None` where each row has its own.
        bias: float32 `[m]`.
        scale: the weight's scales, float32 `[m]` or `[1]`.
        sums: of the weight's rows, float32 `[m]`.
        masks: the weight; see `ZeroFree`.
        starts: likewise.
        integers: likewise.
    """
    values = values.contiguous()
    rows, columns = values.shape
    outputs = sums.shape[0]
    output = values.new_empty(rows, outputs)
    weight = _Weight(
        *(masks.data_ptr(), starts.data_ptr(), integers.data_ptr()),
        *(scale.data_ptr(), int(scale.shape[0] > 1)),
        *(sums.data_ptr(), None if bias is None else bias.data_ptr()),
    )
    _library().zero_free_linear(
        *(values.data_ptr(), rows, columns, None if inputs is None else inputs.data_ptr()),
        *(ctypes.byref(weight), outputs, output.data_ptr(), torch.get_num_threads()),
    )
    return output


_OPERATORS = torch.library.Library("demiglace", "FRAGMENT")
_OPERATORS.define(
    "zero_free_linear(Tensor values, Tensor? inputs, Tensor? bias, Tensor scale, Tensor sums, Tensor masks, "
    "Tensor starts, Tensor integers) -> Tensor"
)
# An operator, so that whoever watches a model's operators sees it.
_OPERATORS.impl("zero_free_linear", zero_free_linear, "CPU")
