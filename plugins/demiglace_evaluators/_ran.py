"""Which operators eager PyTorch and Inductor really execute, and on which numbers."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from demiglace.passes import Ran

_PRODUCT = re.compile(
    r"conv(?!ert)|gemm|matmul|fullyconnected|attention|linear|(?<![a-z])(add|b|baddb|int_)?m[mv](?![a-z])"
)
"""What the names of operators contain that multiply matrices, in lower case."""
_OTHERS = re.compile(r"qlinear(?=[a-z])|quantizelinear")
"""What names contain that have `linear` in them and multiply nothing: `QLinearAdd`, `QuantizeLinear`."""
_INTEGER = ("int_mm", "qlinear", "qconv", "int8", "quantized")
_NAMES = {"float32": "fp32", "float64": "fp64", "float16": "fp16", "bfloat16": "bf16"}


def multiplies(operator: str) -> bool:
    """Whether an operator of PyTorch or of a runtime multiplies matrices, by its name."""
    return _PRODUCT.search(_OTHERS.sub("", operator.lower())) is not None


class _Watch(TorchDispatchMode):
    """Notes each product with the layer that is at work."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = [""]
        self.found: list[Ran] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = str(func.overloadpacket).rpartition(".")[2]
        if multiplies(name):
            self.found.append(Ran(self.layers[-1], name, _precision(args)))
        return func(*args, **(kwargs or {}))


def _precision(args: Any) -> str:
    operands = [one for one in args if isinstance(one, Tensor)]
    first = operands[-1]  # of `addmm` the first is a bias
    kind = str(first.dtype).removeprefix("torch.")
    sparse = any(one.layout != torch.strided for one in operands)
    return _NAMES.get(kind, kind) + (", sparse" if sparse else "")


def ran_eager(module: nn.Module, call: Callable[[], object]) -> list[Ran]:
    """Each matrix product of one call with the innermost layer that asked for it.

    A convolution whose float32 numbers hold integers counts as `fp32`: that is what the processor computes.
    """
    watch = _Watch()
    with _following(module, watch.layers), watch:
        call()
    return watch.found


@contextmanager
def _following(module: nn.Module, layers: list[str]) -> Iterator[None]:
    """Keep the name of the layer at work on top of `layers`."""
    handles = []
    for name, layer in module.named_modules():
        handles.append(layer.register_forward_pre_hook(lambda *_, name=name: layers.append(name)))
        handles.append(layer.register_forward_hook(lambda *_: layers.pop() and None, always_call=True))
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def ran_compiled(call: Callable[[], object]) -> list[Ran]:
    """Each matrix product of one call of compiled code, as PyTorch's profiler sees it.

    Inductor may put products into kernels of its own, which have no name of a layer.
    """
    from torch.profiler import ProfilerActivity, profile

    call()  # compiles it, which tries products out
    with profile(activities=[ProfilerActivity.CPU]) as profiler:
        call()
    # An operator that calls another is one product.
    outermost = [one for one in profiler.events() if _is_product(one) and not _inside_product(one)]
    return [Ran("", one.name, _told(one.name)) for one in outermost]


def _is_product(event: Any) -> bool:
    library, colons, name = event.name.partition("::")
    return bool(colons) and library.isidentifier() and multiplies(name)


def _inside_product(event: Any) -> bool:
    above = event.cpu_parent
    return above is not None and (_is_product(above) or _inside_product(above))


def _told(name: str) -> str:
    """The precision that an operator's name tells."""
    return "int8" if any(part in name for part in _INTEGER) else "fp32"
