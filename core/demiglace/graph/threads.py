"""Work that threads make slower: it is shared out in pieces so small that they wait for each other."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode

aten = torch.ops.aten


@contextmanager
def one_thread() -> Iterator[None]:
    """While active, torch's operators run on one thread."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


class GroupsOnOneThread(TorchDispatchMode):
    """While active, convolutions in groups run on one thread in double precision on the CPU.

    Torch runs each group by itself there: a depthwise convolution is hundreds of tiny products. It takes
    them apart from inputs with the channels last two to seven times slower than from contiguous ones.
    """

    def __torch_dispatch__(
        self,
        func: Callable[..., Any],
        types: Sequence[type],
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        if func is not aten.convolution.default or not _in_groups(*args):
            return func(*args, **(kwargs or {}))
        with one_thread():
            return func(args[0].contiguous(), *args[1:])


def _in_groups(given: torch.Tensor, *rest: Any) -> bool:
    return rest[-1] > 1 and given.dtype is torch.float64 and given.device.type == "cpu"
