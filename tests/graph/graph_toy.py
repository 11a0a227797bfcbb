"""A network of one pattern, and the indices that belong to each unit, worked out by hand."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

Indices = Callable[[int], Iterable[int]]


class Net(nn.Module):
    """Layers by name and a forward given as a function."""

    def __init__(self, run, **members):
        super().__init__()
        self.run = run
        for name, member in members.items():
            if isinstance(member, Tensor) and not isinstance(member, nn.Parameter):
                self.register_buffer(name, member)
            else:
                setattr(self, name, member)

    def forward(self, *inputs):
        return self.run(self, *inputs)


@dataclass
class Toy:
    net: Callable[[], nn.Module]
    shape: tuple[int, ...] | None = (3, 3, 6, 6)
    #: Of the group that holds the unit: how many there are, and each tensor's indices for unit `u`.
    units: int = 0
    slices: Mapping[tuple[str, int], Indices] = field(default_factory=dict)
    #: For a tensor's dimension that must be left alone: a part of the reason.
    declined: Mapping[tuple[str, int], str] = field(default_factory=dict)
    form: str | None = None
    inputs: Callable[[], tuple] | None = None

    def example(self):
        return self.inputs() if self.inputs else (torch.randn(self.shape),)


def conv(i, o, k=3, **more):
    return nn.Conv2d(i, o, k, padding=k // 2, **more)


def itself(u):
    return [u]


def shifted(by):
    return lambda u: [u + by]


def run(start, width):
    """`width` neighbours for each unit, from `start`."""
    return lambda u: range(start + u * width, start + (u + 1) * width)


def every(step, count, start=0):
    """One index in each of `count` blocks of `step`."""
    return lambda u: [start + u + step * k for k in range(count)]
