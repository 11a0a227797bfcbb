"""A linear layer that holds only the weights that are not zero."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from demiglace.graph.edits import Swap
from demiglace.quantization.modules.fused import each, keep_hooks, must_be_called
from demiglace.quantization.operators import sparse_linear, traceable

VALUES, _COLUMNS, _ROWS = "_values", "_columns", "_rows"
"""What the buffers of a weight add to its name."""

with warnings.catch_warnings():
    # Torch says once in a process that this layout is in beta: said here, nobody hears it.
    warnings.simplefilter("ignore")
    torch.zeros(1, 1).to_sparse_csr()


@dataclass(frozen=True, eq=False)
class SparseWeight:
    """A matrix as its nonzeros, in compressed sparse rows."""

    #: Floating point `[nonzeros]`, row by row.
    values: Tensor
    #: int32 `[nonzeros]`: the column of each.
    columns: Tensor
    #: int32 `[rows + 1]`: where each row begins among the values, and the end of the last.
    rows: Tensor
    shape: tuple[int, int]

    @classmethod
    def of(cls, weight: Tensor) -> SparseWeight:
        """The nonzeros of a matrix."""
        sparse = weight.detach().to_sparse_csr()
        rows, columns = sparse.crow_indices().to(torch.int32), sparse.col_indices().to(torch.int32)
        # Not a view of the matrix in compressed rows, of which tracers would want to know all.
        values = sparse.values().clone()
        return cls(values, columns, rows, (weight.shape[0], weight.shape[1]))

    @property
    def storage(self) -> Tensor:
        """What is the same memory where the same weight is held twice."""
        return self.values

    def matrix(self) -> Tensor:
        """The matrix in torch's own sparse form, which shares these tensors."""
        return torch.sparse_csr_tensor(
            self.rows, self.columns, self.values, self.shape, check_invariants=False
        )

    def dequantize(self) -> Tensor:
        """The whole matrix, zeros included."""
        return self.matrix().to_dense()

    def tensors(self) -> dict[str, Tensor]:
        """What holds it, by what the name of a buffer adds to the weight's."""
        return {VALUES: self.values, _COLUMNS: self.columns, _ROWS: self.rows}

    def numel(self) -> int:
        """How many weights there are, zeros included."""
        return self.shape[0] * self.shape[1]

    def zeros(self) -> int:
        """How many weights are zero."""
        return self.numel() - int(torch.count_nonzero(self.values))

    def stored_bits(self) -> int:
        """What values and places take."""
        return 8 * sum(one.nbytes for one in (self.values, self.columns, self.rows))


class SparseLinear(nn.Linear):
    """`nn.Linear` without its zeros; its bias is the old layer's.

    Args:
        old: the layer, whose shape, device and dtype it takes.
        options: `nonzero`, how many weights there are.
    """

    def __init__(self, old: nn.Module, options: Mapping[str, Any]) -> None:
        nn.Module.__init__(self)
        weight = old._parameters["weight"]
        if not isinstance(old, nn.Linear) or weight is None:
            raise TypeError("it is no linear layer with a weight")
        self.in_features, self.out_features = old.in_features, old.out_features
        self.register_parameter("bias", old._parameters.get("bias"))
        self.training = old.training
        keep_hooks(self, old)
        nonzero, device = options["nonzero"], weight.device
        self.register_buffer("weight" + VALUES, torch.empty(nonzero, dtype=weight.dtype, device=device))
        self.register_buffer("weight" + _COLUMNS, torch.empty(nonzero, dtype=torch.int32, device=device))
        self.register_buffer(
            "weight" + _ROWS, torch.empty(self.out_features + 1, dtype=torch.int32, device=device)
        )
        must_be_called(self)

    @property
    def sparse_weight(self) -> SparseWeight:
        """The weight as it is held."""
        values, columns, rows = (self.get_buffer("weight" + part) for part in (VALUES, _COLUMNS, _ROWS))
        return SparseWeight(values, columns, rows, (self.out_features, self.in_features))

    @property
    def weight(self) -> Tensor:  # type: ignore[override]
        """The whole matrix, for code that reads it instead of calling the layer."""
        return self.sparse_weight.dequantize()

    def sparse_weights(self) -> Iterator[tuple[str, SparseWeight]]:
        """The weight by its own name: footprints count it by this."""
        yield "weight", self.sparse_weight

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002
        if input.is_nested:
            return each(self.forward, input)
        held = self.sparse_weight
        return traceable(sparse_linear)(input, self.bias, held.values, held.columns, held.rows)

    def extra_repr(self) -> str:
        return f"{super().extra_repr()}, {len(self.sparse_weight.values)} weights are not zero"


def sparse_swap(name: str, weight: SparseWeight) -> Swap:
    """The edit that puts a `SparseLinear` in place of a linear layer.

    Args:
        name: of the layer.
        weight: its nonzeros.
    """
    tensors = {"weight" + part: tensor for part, tensor in weight.tensors().items()}
    return Swap(name, "sparse.linear", {"nonzero": len(weight.values)}, tensors)
