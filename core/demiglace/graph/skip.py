"""What stands in a module for a residual branch that was removed."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn


class Skip(nn.Module):
    """Gives its first tensor, through those children of the module that it took the place of which stay.

    Args:
        old: the module that goes.
        options: `children`, names of children to run one after another; `start`: the tensor as it is
            (`"same"`), a copy, for what works on it in place (`"copy"`), or zeros like it (`"zeros"`); and
            `returned`: the length of the tuple that the old module returned, 0 for a tensor.
    """

    def __init__(self, old: nn.Module, options: Mapping[str, Any]) -> None:
        super().__init__()
        self._start = str(options["start"])
        self._returned = int(options["returned"])
        for name in options["children"]:
            self.add_module(name, old._modules[name])
        self.training = old.training

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        given = next(one for one in (*args, *kwargs.values()) if isinstance(one, Tensor))
        value = _STARTS[self._start](given)
        for child in self.children():
            value = child(value)
        return (value, *[None] * (self._returned - 1)) if self._returned else value


def _same(given: Tensor) -> Tensor:
    return given


_STARTS: dict[str, Callable[[Tensor], Tensor]] = {
    "same": _same,
    "copy": torch.clone,
    "zeros": torch.zeros_like,
}
