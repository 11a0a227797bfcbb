"""Multiply-accumulates of one forward call, counted on shapes."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from demiglace.graph.eval_mode import eval_mode, own_tensors

if TYPE_CHECKING:
    from torch import Tensor, nn
    from torch.utils._python_dispatch import TorchDispatchMode

    from demiglace.graph import Example


def macs_of(module: nn.Module, example: Example) -> int | None:
    """Multiply-accumulates of convolutions, matrix products and attention in one call in eval mode.

    `None` where torch cannot count what the model calls, such as its flex attention or a loop over tensors.
    Torch's FLOP counter counts two operations for each. The call runs on torch's meta device, whose tensors
    have shapes and no values. A model whose way depends on values, or that makes tensors on another device,
    runs on its values instead, with copies of its buffers.

    Raises:
        Exception: what the model itself raises on this example.
    """
    with _countable(), eval_mode(module):
        try:
            return _counted_on_shapes(module, example)
        except Exception:
            return _counted_on_values(module, example)


def _counted_on_shapes(module: nn.Module, example: Example) -> int:
    import torch
    from torch.utils._pytree import tree_map_only

    state = {id(tensor): tensor.to("meta") for _, tensor in _state(module)}
    tensors = {name: state[id(tensor)] for name, tensor in _state(module)}
    args, kwargs = tree_map_only(
        torch.Tensor, lambda one: one.to("meta"), (example.args, dict(example.kwargs))
    )
    with torch.device("meta"), _attributes_kept(module):
        return _counted(module, tensors, args, kwargs)


@contextmanager
def _attributes_kept(module: nn.Module) -> Iterator[None]:
    """Put back what a forward keeps in attributes: made on the meta device, it would stay there."""
    before = [(each, dict(vars(each))) for each in module.modules()]
    try:
        yield
    finally:
        for each, attributes in before:
            vars(each).clear()
            vars(each).update(attributes)


def _counted_on_values(module: nn.Module, example: Example) -> int | None:
    import torch
    from torch.func import functional_call

    buffers = {name: buffer.clone() for name, buffer in module.named_buffers()}
    with torch.random.fork_rng():
        try:
            return _counted(module, buffers, example.args, example.kwargs)
        except Exception:
            functional_call(module, buffers, example.args, dict(example.kwargs))
            return None


def _counted(
    module: nn.Module, state: Mapping[str, Tensor], args: tuple[Any, ...], kwargs: Mapping[str, Any]
) -> int:
    from torch.func import functional_call
    from torch.utils.flop_counter import FlopCounterMode

    counter = FlopCounterMode(display=False, custom_mapping=_more_products())
    with own_tensors(module), _plain_norms(), counter:
        functional_call(module, dict(state), args, dict(kwargs))
    return counter.get_total_flops() // 2


def _plain_norms() -> TorchDispatchMode:
    """Take the shape of a batch norm's output for that of its input.

    On the meta device torch finds it by the norm's arithmetic, which takes most of the time of a count.
    """
    import torch
    from torch.utils._python_dispatch import TorchDispatchMode

    norm = torch.ops.aten._native_batch_norm_legit_no_training.default

    class _PlainNorms(TorchDispatchMode):
        def __torch_dispatch__(
            self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
        ) -> Any:
            if func is not norm or not args[0].is_meta:
                return func(*args, **(kwargs or {}))
            return torch.empty_like(args[0]), args[0].new_empty(0), args[0].new_empty(0)

    return _PlainNorms()


def _state(module: nn.Module) -> Iterator[tuple[str, Tensor]]:
    yield from module.named_parameters(remove_duplicate=False)
    yield from module.named_buffers(remove_duplicate=False)


def _more_products() -> dict[Any, Callable[..., int]]:
    """Products with a vector, of integers and without zeros, which torch's counter leaves out.

    Zeros count: which of them a kernel leaves out depends on where it runs.
    """
    import torch

    import demiglace.quantization  # noqa: F401  registers the operators

    aten, own = torch.ops.aten, torch.ops.demiglace
    return {
        own.sparse_linear: lambda values, *parts, **_: 2 * math.prod(values) * (parts[-1][0] - 1),
        own.zero_free_linear: lambda values, _, outputs, *__, **___: 2 * math.prod(values) * outputs[1],
        aten.mv: lambda matrix, *_, **__: 2 * matrix[0] * matrix[1],
        aten.addmv: lambda _, matrix, *__, **___: 2 * matrix[0] * matrix[1],
        aten._int_mm: lambda left, right, *_, **__: 2 * left[0] * left[1] * right[1],
        aten.dot: lambda vector, *_, **__: 2 * vector[0],
    }


@contextmanager
def _countable() -> Iterator[None]:
    """Keep attention and recurrent layers from fused operators that hide their products."""
    import torch
    from torch.backends import mha, mkldnn
    from torch.nn.attention import SDPBackend, sdpa_kernel

    fast, fused = mha.get_fastpath_enabled(), mkldnn.enabled
    try:
        mha.set_fastpath_enabled(False)
        mkldnn.enabled = False  # type: ignore[assignment]
        with torch.no_grad(), sdpa_kernel(SDPBackend.MATH):
            yield
    finally:
        mha.set_fastpath_enabled(fast)
        mkldnn.enabled = fused
