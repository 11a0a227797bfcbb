"""A graph's tensors as plain data, without their values."""

from __future__ import annotations

from typing import Any

from torch import nn

from demiglace.graph.names import dtype_name, named_tensors


def described(graph: nn.Module) -> dict[str, Any]:
    """What is needed to make the tensors again on the meta device; a tied one refers to its first name."""
    first: dict[int, str] = {}
    content = {}
    for name, tensor in named_tensors(graph):
        same = first.setdefault(id(tensor), name)
        content[name] = {
            "kind": "parameter" if isinstance(tensor, nn.Parameter) else "buffer",
            "dtype": dtype_name(tensor),
            "shape": list(tensor.shape),
            "same_as": None if same == name else same,
        }
    return content
