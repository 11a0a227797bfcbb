"""Linear layers on 8-bit integers without the zeros of their weights, in code for the processor."""

from __future__ import annotations

import ctypes
import math
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional as F

from demiglace.machine import PERMUTATION, compiler, compiler_hint, native_library, processor

_OUTPUTS, _EACH = 16, 4  # of a step
_WINDOW = 64
_ALONE = 200_000
"""Steps times rows up to which one thread computes: 0.2 ms, in which others may not even have woken up."""
_SOURCE = Path(__file__).with_suffix(".cpp")
_SETS = ("avx512f", "avx512bw", "avx512vl", "avx512vnni", "avx512vbmi")
_FLAGS = tuple(f"-m{one}" for one in _SETS)


@dataclass(frozen=True, eq=False)
class ZeroFree:
    """The integers of a matrix that are not zero, in the steps in which they are multiplied.

    A step has up to 4 of each of 16 rows, from a window of 64 columns. The window begins at the first column
    that any of the rows still needs, so a row that is ahead of the others by a window waits for them. Where a
    row has fewer than 4 integers in the window, the step is filled up with zeros.
    """

    #: int64 `[blocks of 16 rows + 1]`: the first step of each block, and the number of all steps.
    begins: Tensor
    #: int32 `[steps]`: the first column of each window.
    windows: Tensor
    #: int8 `[steps, 2, 64]`: the places of the integers in the window, 4 of each row, and the integers.
    steps: Tensor

    @classmethod
    def of(cls, matrix: Tensor) -> ZeroFree:
        """What is not zero of an int8 matrix."""
        found = list(_steps(F.pad(matrix, (0, 0, 0, -len(matrix) % _OUTPUTS))))
        windows = torch.stack([window for window, _ in found], 1)
        steps = torch.stack([step for _, step in found], 1)
        there = windows < matrix.shape[1]
        begins = F.pad(there.sum(1).cumsum(0), (1, 0))
        return cls(begins, windows[there].int(), steps[there])


def _steps(matrix: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
    """For one step after the other, of each block of rows: the first column, and places and integers.

    Blocks without any integers left have a first column behind the last of the matrix.
    """
    rows, columns = matrix.nonzero(as_tuple=True)
    counts = rows.bincount(minlength=len(matrix)).view(-1, _OUTPUTS, 1)
    ends = counts.flatten().cumsum(0).view_as(counts)
    behind = matrix.shape[1] + _WINDOW  # the column of no integer, further than any window reaches
    integers, columns = F.pad(matrix[rows, columns], (0, 1)), F.pad(columns, (0, 1), value=behind)
    following = ends - counts + torch.arange(_EACH)
    window = torch.zeros(())
    while (window < behind).any():
        taken = following.where(following < ends, len(columns) - 1)
        window = columns[taken].amin((1, 2))
        places = columns[taken] - window[:, None, None]
        near = places < _WINDOW
        yield window, torch.stack([places * near, integers[taken] * near], 1).flatten(2).to(torch.int8)
        following = following + near.sum(2, keepdim=True)


@cache
def without_zeros_problem() -> str | None:
    """Why this machine cannot leave out zeros of integers; `None` where it can, once it has compiled that."""
    lacking = [one for one in PERMUTATION if not processor().has(one)]
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
        *(pointer, size, size, pointer),
        *(pointer, pointer, pointer, pointer, size, pointer, ctypes.c_int),
    ]
    library.zero_free_linear.restype = None
    return library


def zero_free_linear(
    values: Tensor, inputs: Tensor | None, outputs: Tensor, begins: Tensor, windows: Tensor, steps: Tensor
) -> Tensor:
    """What `dynamic_linear` and `static_linear` compute, on processors that `without_zeros_problem` accepts.

    Args:
        values: float32 `[..., k]`.
        inputs: scale and zero point of the inputs, float32 `[2]`; `None` where each row has its own.
        outputs: the weight's scales, the sums of its rows, and the bias, float32 `[3, m]`.
        begins: the weight; see `ZeroFree`.
        windows: likewise.
        steps: likewise.
    """
    values = values.contiguous()
    *rows, columns = values.shape
    count = outputs.shape[1]
    output = values.new_empty(*rows, count)
    length = math.prod(rows)
    threads = torch.get_num_threads() if length * len(steps) > _ALONE else 1
    _library().zero_free_linear(
        *(values.data_ptr(), length, columns, None if inputs is None else inputs.data_ptr()),
        *(begins.data_ptr(), windows.data_ptr(), steps.data_ptr(), outputs.data_ptr(), count),
        *(output.data_ptr(), threads),
    )
    return output


_OPERATORS = torch.library.Library("demiglace", "FRAGMENT")
_OPERATORS.define(
    "zero_free_linear(Tensor values, Tensor? inputs, Tensor outputs, Tensor begins, Tensor windows, "
    "Tensor steps) -> Tensor"
)
# An operator, so that whoever watches a model's operators sees it.
_OPERATORS.impl("zero_free_linear", zero_free_linear, "CPU")
