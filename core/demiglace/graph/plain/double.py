"""Running a plain-data graph in double precision, though it was traced in another."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import torch

from demiglace.graph.plain.nodes import Node, replaced


def keeps_dtypes(nodes: Iterable[Node]) -> bool:
    """Whether any call names a floating-point or complex dtype, which tracing wrote down as it was."""
    return any(
        _doubled([node.args, list(node.kwargs.values())]) != [node.args, list(node.kwargs.values())]
        for node in nodes
    )


@contextmanager
def in_double(nodes: Iterable[Node]) -> Iterator[None]:
    """While active, these dtypes are `float64` and `complex128`."""
    before = [(node, node.args, node.kwargs) for node in nodes]
    for node, args, kwargs in before:
        node.args = _doubled(args)
        node.kwargs = {name: _doubled(value) for name, value in kwargs.items()}
    try:
        yield
    finally:
        for node, args, kwargs in before:
            node.args, node.kwargs = args, kwargs


def _doubled(value: Any) -> Any:
    return replaced(value, {torch.dtype: _double})


def _double(dtype: torch.dtype) -> torch.dtype:
    if dtype.is_complex:
        return torch.complex128
    return torch.float64 if dtype.is_floating_point else dtype
