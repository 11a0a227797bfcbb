"""What a module computes in train mode, with means in place of what dropout draws."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.utils._python_dispatch import TorchDispatchMode

from demiglace.data import leaves
from demiglace.graph.eval_mode import own_tensors
from demiglace.graph.model_graph import Example

aten = torch.ops.aten


def trained(
    module: nn.Module, tensors: Mapping[str, Tensor], example: Example, seed: int
) -> list[Tensor] | None:
    """The outputs on these tensors, or `None` when the forward fails; what it writes to buffers is lost."""
    values = {name: tensor.clone() for name, tensor in tensors.items()}
    modes = {each: each.training for each in module.modules()}
    module.train()
    try:
        with torch.no_grad(), torch.random.fork_rng(devices=[]), own_tensors(module), _MeanDropout():
            torch.manual_seed(seed)
            result = functional_call(module, values, example.args, dict(example.kwargs))
    except Exception:
        return None
    finally:
        for each, mode in modes.items():
            each.training = mode
    return [leaf for leaf in leaves(result) if isinstance(leaf, Tensor)]


class _MeanDropout(TorchDispatchMode):
    """While active, each draw of zeros and ones is its probability, and so depends on no shape."""

    def __torch_dispatch__(
        self,
        func: Callable[..., Any],
        types: Sequence[type],
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        mean = _MEANS.get(func)
        return func(*args, **(kwargs or {})) if mean is None else mean(*args)


_MEANS: dict[Any, Callable[..., Any]] = {
    aten.bernoulli.default: lambda probabilities: probabilities.clone(),
    aten.bernoulli.p: torch.full_like,
    # The default is left out of a call.
    aten.bernoulli_.float: lambda draw, p=0.5: draw.fill_(p),
    aten.bernoulli_.Tensor: Tensor.copy_,
    aten.native_dropout.default: lambda given, *_: (given.clone(), torch.ones_like(given, dtype=torch.bool)),
}
