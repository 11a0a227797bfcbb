"""Labels: integers that stand for indices of tensor axes, and which of them must go together."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
import torch
from torch import Tensor

Axis: TypeAlias = Tensor | None
"""One label per index of an axis; `None` for an axis that is never cut."""

FIXED = 0
"""The label of every index that must stay and has no producer of its own."""


@dataclass(frozen=True)
class Value:
    """A tensor in the graph as its labels."""

    shape: tuple[int, ...]
    #: One `Axis` per dimension.
    axes: tuple[Axis, ...]
    #: Per dimension: whether a slice is all zero once the parameters of its label are zero.
    zero: tuple[bool, ...]

    @property
    def labelled(self) -> bool:
        """Whether any axis could be cut."""
        return any(axis is not None for axis in self.axes)


def plain(shape: tuple[int, ...]) -> Value:
    """A value of which nothing can be cut."""
    return Value(shape, (None,) * len(shape), (False,) * len(shape))


class Labels:
    """Classes of labels that are removed together: a union-find that works on whole vectors."""

    def __init__(self) -> None:
        self._parent = torch.zeros(1, dtype=torch.long)
        self._weak = torch.zeros(1, dtype=torch.bool)
        self._size = 1
        self._frozen: list[tuple[Tensor, str]] = [(torch.zeros(1, dtype=torch.long), "it has a fixed size")]

    def fresh(self, count: int) -> Tensor:
        """`count` new labels, each a class of its own."""
        start, self._size = self._size, self._size + count
        if self._size > len(self._parent):
            more = torch.arange(len(self._parent), 2 * self._size)
            self._parent = torch.cat([self._parent, more])
            self._weak = torch.cat([self._weak, torch.zeros_like(more, dtype=torch.bool)])
        return torch.arange(start, self._size)

    def weak(self, count: int) -> Tensor:
        """`count` new labels of an axis that no parameter makes: merged with another, it gives way."""
        labels = self.fresh(count)
        self._weak[labels] = True
        return labels

    def inert(self, count: int) -> Tensor:
        """`count` weak labels that are frozen from the start and only show where an axis goes."""
        labels = self.weak(count)
        self.freeze(labels, "a view splits this axis, and another part of it is cut")
        return labels

    def are_weak(self, labels: Tensor) -> bool:
        """Whether all of these came from `weak`."""
        return bool(self._weak[labels].all())

    def __len__(self) -> int:
        return self._size

    def find(self, labels: Tensor) -> Tensor:
        """The smallest label of each label's class."""
        root = self._parent[labels]
        while True:
            above = self._parent[root]
            if torch.equal(above, root):
                self._parent[labels] = root
                return root
            root = above

    def unite(self, left: Tensor, right: Tensor) -> None:
        """Make each label of `left` and the one at its place in `right` one class."""
        left, right = left.reshape(-1), right.reshape(-1)
        while True:
            a, b = self.find(left), self.find(right)
            differs = a != b
            if not differs.any():
                return
            left, right = left[differs], right[differs]
            low, high = torch.minimum(a, b)[differs], torch.maximum(a, b)[differs]
            # Several pairs may move one root: the smallest wins now, the rest in the next round.
            self._parent.scatter_reduce_(0, high, low, "amin")

    def freeze(self, labels: Tensor, reason: str) -> None:
        """Never remove these labels' classes."""
        self._frozen.append((labels.reshape(-1), reason))

    def reasons(self) -> dict[int, str]:
        """For the root of each frozen class, the first reason given."""
        # Label 0 only says that something was tied to a fixed size: a reason of its own tells more.
        given = [*self._frozen[1:], self._frozen[0]]
        roots = self.find(torch.cat([labels for labels, _ in given]))
        ends = np.cumsum([len(labels) for labels, _ in given])
        found, first = np.unique(roots.numpy(), return_index=True)
        places = np.searchsorted(ends, first, side="right")
        return {int(root): given[place][1] for root, place in zip(found, places, strict=True)}

    def frozen(self) -> Tensor:
        """For each label that stands for its class, whether the class is frozen."""
        mask = torch.zeros(len(self), dtype=torch.bool)
        mask[self.find(torch.cat([labels for labels, _ in self._frozen]))] = True
        return mask
