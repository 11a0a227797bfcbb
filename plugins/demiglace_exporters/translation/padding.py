"""Zeros around an image become the convolution's own padding, which may be uneven in ONNX."""

from __future__ import annotations

from typing import Any

from demiglace_exporters.translation.constants import tensor_of


def padded_before(value: Any, rank: int) -> tuple[Any, list[int], list[int]]:
    """What a value is without the zeros around it, and how many these are before and after it.

    Args:
        value: what a convolution reads: `[n, channels, ...]`.
        rank: how many dimensions it slides along.
    """
    node = _through_rounding(value).producer()
    zeros = [0] * rank
    if node is None or node.op_type != "Pad" or not _is_zero(node):
        return value, zeros, zeros
    ends = tensor_of(node.inputs[1]).tolist()
    half = len(ends) // 2
    if half != rank + 2 or any(ends[:2]) or any(ends[half : half + 2]) or min(ends) < 0:
        return value, zeros, zeros
    return node.inputs[0], ends[2:half], ends[half + 2 :]


def _through_rounding(value: Any) -> Any:
    """A value before it was rounded, where what was padded has been rounded alike."""
    back = value.producer()
    if back is None or back.op_type != "DequantizeLinear":
        return value
    forth = back.inputs[0].producer()
    if forth is None or forth.op_type != "QuantizeLinear":
        return value
    pad = forth.inputs[0].producer()
    inner = None if pad is None or pad.op_type != "Pad" else pad.inputs[0].producer()
    alike = inner is not None and list(inner.inputs[1:]) == list(back.inputs[1:])
    return forth.inputs[0] if alike else value


def _is_zero(node: Any) -> bool:
    """Whether a node pads all dimensions with zeros, by numbers that are known."""
    mode = node.attributes.get("mode")
    if mode is not None and mode.value != "constant":
        return False
    known = [one for one in node.inputs[1:] if one is not None and one.name]
    if len(known) > 2 or any(one.const_value is None for one in known):
        return False
    return len(known) == 1 or float(tensor_of(known[1]).sum()) == 0.0
