"""Our own operators on their way through torch's exporter: each becomes one node that holds its arguments.

Torch's exporter gives parameters their values last, so that integers can be unpacked only afterwards, when
real nodes take the places of these.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import torch

if TYPE_CHECKING:
    from torch._ops import OpOverload

DOMAIN = "demiglace"
"""The domain of the nodes that stand for our operators until they are lowered."""

_OWN = (
    *("rounded", "weight", "embedding", "sparse_linear"),
    *("static_linear", "dynamic_linear", "static_convolution"),
)
_TORCH = ("_upsample_bilinear2d_aa", "_upsample_bicubic2d_aa")
"""Operators of torch that runtimes compute otherwise, or not at all."""


def translation_table() -> dict[Callable[..., Any], Callable[..., Any]]:
    """What torch's exporter calls for each of our operators."""
    import demiglace.quantization  # noqa: F401  registers the operators

    own = [getattr(torch.ops.demiglace, name).default for name in _OWN]
    others = [getattr(torch.ops.aten, name).default for name in _TORCH]
    return {operator: _placeholder(operator) for operator in (*own, *others)}


def inputs_of(name: str) -> list[str]:
    """The names of the tensors that an operator takes, in order."""
    home = torch.ops.demiglace if name in _OWN else torch.ops.aten
    return _tensors(getattr(home, name).default)


def _tensors(operator: OpOverload) -> list[str]:
    return [one.name for one in operator._schema.arguments if "Tensor" in str(one.type)]


def _placeholder(operator: OpOverload) -> Callable[..., Any]:
    schema = operator._schema

    def translate(*args: Any, **kwargs: Any) -> Any:
        from onnxscript import evaluator, ir

        given = dict(zip((one.name for one in schema.arguments), args, strict=False)) | kwargs
        tensors = _tensors(operator)
        attributes = {
            name: _plain(value) for name, value in given.items() if name not in tensors and value is not None
        }
        inputs = [given.get(name) for name in tensors]
        node = ir.node(operator._opname, inputs, attributes=attributes, domain=DOMAIN)
        recorder: Any = evaluator.default()  # the one that torch's exporter put there
        recorder.nodes.append(node)
        return node.outputs[0]

    return translate


def _plain(value: Any) -> Any:
    """An argument as an attribute: a dtype by its name."""
    return str(value).removeprefix("torch.") if isinstance(value, torch.dtype) else value
