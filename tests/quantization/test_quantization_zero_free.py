"""The form of a weight without its zeros holds every integer once, in steps that the code can compute."""

from __future__ import annotations

import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from demiglace.quantization.zero_free import ZeroFree

OUTPUTS, WINDOW = 16, 64


def dense(held: ZeroFree, rows: int, columns: int) -> Tensor:
    """The matrix that was held."""
    matrix = torch.zeros(-(-rows // OUTPUTS) * OUTPUTS, columns + WINDOW, dtype=torch.int64)
    for block, (begin, end) in enumerate(zip(held.begins[:-1], held.begins[1:], strict=True)):
        for window, (places, integers) in zip(held.windows[begin:end], held.steps[begin:end], strict=True):
            at = (window + places.long()).view(OUTPUTS, -1)
            matrix[block * OUTPUTS :][:OUTPUTS].scatter_add_(1, at, integers.long().view(OUTPUTS, -1))
    assert not matrix[rows:].any()
    assert not matrix[:, columns:].any()
    return matrix[:rows, :columns]


@settings(max_examples=25, deadline=None)
@given(
    rows=st.integers(1, 40),
    columns=st.integers(1, 400),
    zeros=st.sampled_from([0.0, 0.5, 0.8, 0.99, 1.0]),
    skew=st.sampled_from([0.0, 1.0, 3.0]),
    seed=st.integers(0, 99),
)
def test_every_integer_is_held_at_its_place(rows, columns, zeros, skew, seed):
    torch.manual_seed(seed)
    matrix = torch.randint(-128, 128, (rows, columns), dtype=torch.int8)
    share = zeros ** torch.linspace(1, 1 + skew, rows).unsqueeze(1)  # rows with more integers than others
    matrix[torch.rand(rows, columns) < share] = 0
    held = ZeroFree.of(matrix)
    assert torch.equal(dense(held, rows, columns), matrix.long())
    assert held.windows.lt(columns).all()
    assert held.steps[:, 0].ge(0).all()
    assert held.steps[:, 0].lt(WINDOW).all()


def test_steps_are_as_few_as_the_longest_row_allows():
    alone = torch.zeros(16, 4096, dtype=torch.int8)
    alone[5, ::100] = 1  # of which no window has two
    assert len(ZeroFree.of(alone).steps) == 41
    even = torch.zeros(32, 4096, dtype=torch.int8)
    even[:, ::16] = 1
    assert len(ZeroFree.of(even).steps) == 2 * 4096 // 16 // 4
    assert ZeroFree.of(even).begins.tolist() == [0, 64, 128]
