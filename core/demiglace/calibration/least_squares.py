"""Least squares over a layer's weights, or over those of them that a mask keeps."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from demiglace.calibration.normal_equations import NormalEquations


@dataclass(frozen=True)
class Solution:
    """The new parameters of a layer."""

    #: Of the shape and dtype of the layer's own.
    weight: Tensor
    bias: Tensor | None
    #: The mean squared error that is left, as a share of the wanted outputs' variance.
    error: float


class LeastSquares:
    """The search for the weights of a layer, and its bias if it has one, that give the wanted outputs best.

    Minimises the mean squared error plus `damping` times the mean power of an input times the squared
    distance from the layer's present weights: what the data leaves open stays as it is.

    Args:
        layer: one that `has_input_rows`.
        equations: gathered at that layer.
        damping: above 0.
    """

    def __init__(self, layer: nn.Module, equations: NormalEquations, damping: float) -> None:
        weight, bias = _parameters(layer)
        gram, moment = equations.gram, equations.moment
        columns = gram.shape[1] - (bias is None)
        flat = weight.flatten(1) if bias is None else torch.cat([weight.flatten(1), bias[:, None]], 1)
        self.layer, self.equations = layer, equations
        self._plain, self._moment = gram[:, :columns, :columns], moment[:, :, :columns]
        self._present = flat.double().unflatten(0, (len(gram), -1))
        ridge = _ridge(gram, damping)[:, :columns]
        self._gram = self._plain + ridge.diag_embed()
        self._right = self._moment + self._present * ridge[:, None]

    def scores(self, keep: Tensor, *, solved: bool) -> Tensor:
        """What removing each weight adds to the squared error, as a share of the wanted outputs' variance.

        `w^2 / [H^-1]_jj` of Optimal Brain Surgeon (Hassibi and Stork 1993, equation 5, without the factor
        that all share); 0 where the input was 0 throughout.

        Args:
            keep: boolean, of the weight's shape; what it removes is not there and scores 0.
            solved: score the weights that solve the least squares, instead of the present ones.
        """
        kept = self._rows(keep, None)
        weights = _solve(self._gram, self._right, kept) if solved else self._present
        live = self._plain.diagonal(dim1=1, dim2=2) > 0
        scores = weights.square() / _inverse_diagonal(self._gram, kept) * (kept & live[:, None])
        return self._weight_of(scores) / self._variance

    def solution(self, keep: Tensor | None = None, keep_bias: Tensor | None = None) -> Solution:
        """The best parameters among those that are 0 where a mask, of the parameter's shape, is false."""
        weight, bias = _parameters(self.layer)
        everything = torch.ones_like(weight, dtype=torch.bool)
        found = _solve(self._gram, self._right, self._rows(everything if keep is None else keep, keep_bias))
        new_bias = None if bias is None else found[..., -1].flatten().to(bias.dtype)
        return Solution(self._weight_of(found).to(weight.dtype), new_bias, self._error(found))

    @property
    def present_error(self) -> float:
        """What `Solution.error` would be for the layer's present weights."""
        return self.equations.present_error / self._variance

    @property
    def dead_inputs(self) -> int:
        """How many inputs were 0 throughout, in the group that has most of them."""
        return int((self.equations.gram.diagonal(dim1=1, dim2=2) == 0).sum(1).max())

    @property
    def _variance(self) -> float:
        return max(self.equations.variance, sys.float_info.min)

    def _rows(self, keep: Tensor, keep_bias: Tensor | None) -> Tensor:
        """Masks of the parameters as one, shape `[groups, outputs, columns]`."""
        _, bias = _parameters(self.layer)
        flat = keep.flatten(1)
        if bias is not None:
            last = torch.ones_like(flat[:, 0]) if keep_bias is None else keep_bias
            flat = torch.cat([flat, last[:, None]], 1)
        return flat.unflatten(0, (len(self._gram), -1))

    def _weight_of(self, rows: Tensor) -> Tensor:
        """The weight's part of `[groups, outputs, columns]`, in the weight's shape."""
        weight, _ = _parameters(self.layer)
        return rows[..., : weight[0].numel()].reshape(weight.shape)

    def _error(self, weights: Tensor) -> float:
        """The share of the variance that weights `[groups, outputs, columns]` miss."""
        gained = (2 * self._moment - weights @ self._plain) * weights
        return max(0.0, self.equations.power - float(gained.sum())) / self._variance


def _parameters(layer: nn.Module) -> tuple[Tensor, Tensor | None]:
    weight, bias = layer.weight, layer.bias
    assert isinstance(weight, Tensor)  # noqa: S101
    return weight.detach(), bias.detach() if isinstance(bias, Tensor) else None


def _ridge(gram: Tensor, damping: float) -> Tensor:
    """What is added to the diagonal, `[groups, k + 1]`: none for the bias, 1 where no input was ever live."""
    power = gram.diagonal(dim1=1, dim2=2)[:, :-1]
    mean = power.sum(1) / (power > 0).sum(1).clamp_min(1)
    added = torch.where(mean > 0, damping * mean, 1.0)
    return F.pad(added[:, None].expand_as(power), (0, 1))


def _solve(gram: Tensor, right: Tensor, keep: Tensor) -> Tensor:
    """For each row `w`: `gram[S, S] w[S] = right[S]`, `S` what `keep` has of it, and 0 elsewhere.

    Args:
        gram: positive definite, `[groups, n, n]`.
        right: `[groups, rows, n]`.
        keep: boolean, `[groups, rows, n]`.
    """
    solution = torch.zeros_like(right)
    for group, rows, columns, factor in _factors(gram, keep):
        places = (group, rows[:, None], columns)
        solution[places] = torch.cholesky_solve(right[places].T, factor).T
    return solution


def _inverse_diagonal(gram: Tensor, keep: Tensor) -> Tensor:
    """For each row the diagonal of the inverse of `gram[S, S]`, and 1 elsewhere; arguments as in `_solve`."""
    found = torch.ones(keep.shape, dtype=gram.dtype, device=gram.device)
    for group, rows, columns, factor in _factors(gram, keep):
        found[group, rows[:, None], columns] = torch.cholesky_inverse(factor).diagonal()
    return found


def _factors(gram: Tensor, keep: Tensor) -> Iterator[tuple[int, Tensor, Tensor, Tensor]]:
    """Group, rows that keep the same, the columns that they keep, and the Cholesky factor of these."""
    for group, matrix in enumerate(gram):
        masks, mask_of_row = keep[group].unique(dim=0, return_inverse=True)
        for number, mask in enumerate(masks):
            columns = mask.nonzero()[:, 0]
            if len(columns):
                rows = (mask_of_row == number).nonzero()[:, 0]
                yield group, rows, columns, torch.linalg.cholesky(matrix[columns[:, None], columns])
