"""Data-parallel training: several processes, started by torchrun, that keep one model.

Every process walks the same order of examples and takes its part of each batch; gradients, weighted by the
parts' sizes, are summed. All then make the same step and the same decisions, to the bit.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import torch
from torch import distributed

from demiglace.data import Batch, Data
from demiglace.errors import UsageError

if TYPE_CHECKING:
    from torch import Tensor, nn

    from demiglace.passes import Position


@contextmanager
def connected(expected: int | None) -> Iterator[int]:
    """Join the processes that torchrun started, if it did; gives this one's rank.

    Args:
        expected: how many processes the recipe asks for; `None` takes what there is.

    Raises:
        UsageError: when there are others.
    """
    size = int(os.environ.get("WORLD_SIZE", "1"))
    if expected is not None and expected != size:
        raise UsageError(
            f"the recipe asks for {expected} processes, and {size} run",
            hint=f"start it with torchrun --nproc-per-node {expected} -m demiglace run RECIPE",
        )
    if size == 1 or distributed.is_initialized():
        yield distributed.get_rank() if size > 1 else 0
        return
    distributed.init_process_group()
    try:
        yield distributed.get_rank()
    finally:
        distributed.destroy_process_group()


class Processes:
    """The processes of a training; alone, everything here does nothing."""

    def __init__(self) -> None:
        together = distributed.is_available() and distributed.is_initialized()
        self.rank = distributed.get_rank() if together else 0
        self.size = distributed.get_world_size() if together else 1

    def whole(self, data: Data) -> Data:
        """The data in batches for all processes together; `part` is this one's share of each."""
        return data if self.size == 1 else replace(data, batch_size=data.batch_size * self.size)

    def part(self, batch: Batch) -> tuple[Batch, float]:
        """The examples of a batch that are for this process, and their share of it.

        Where there are fewer examples than processes, every process has them all.
        """
        count = len(batch)
        if self.size == 1 or count < self.size:
            return batch, 1 / self.size
        first, last = self.rank * count // self.size, (self.rank + 1) * count // self.size

        def rows(value: Any) -> Any:
            whole = isinstance(value, torch.Tensor) and value.dim() > 0 and len(value) == count
            return value[first:last] if whole else value

        return replace(batch.mapped(rows), labels=rows(batch.labels)), (last - first) / count

    def start(self, module: nn.Module, at: Position, seed: int) -> None:
        """Give all processes the first one's parameters and buffers, and each its own random numbers.

        Raises:
            UsageError: when the trainings have different lengths.
        """
        if self.size == 1:
            return
        steps = torch.tensor([at.steps, -at.steps], device=_device(module))
        distributed.all_reduce(steps, distributed.ReduceOp.MAX)
        if int(steps[0]) != -int(steps[1]):
            raise UsageError(
                f"the processes train for different numbers of steps: {-int(steps[1])} and {int(steps[0])}",
                hint="give every process the same data: each takes its part of every batch",
            )
        for tensor in (*module.parameters(), *module.buffers()):
            distributed.broadcast(tensor.detach(), 0)
        torch.manual_seed(seed + self.rank)

    def share_buffers(self, module: nn.Module) -> None:
        """Give all processes the first one's buffers: the statistics of batch norms."""
        if self.size > 1:
            for buffer in module.buffers():
                distributed.broadcast(buffer, 0)

    def sum_gradients(self, parameters: Sequence[nn.Parameter]) -> None:
        """Add up the gradients of all processes; one that a process lacks counts as zero."""
        if self.size == 1:
            return
        for parameter in parameters:
            if parameter.grad is None:
                parameter.grad = torch.zeros_like(parameter)
        gradients = [one.grad for one in parameters if one.grad is not None]
        for dtype in dict.fromkeys(one.dtype for one in gradients):
            own = [one for one in gradients if one.dtype == dtype]
            flat = torch.cat([one.flatten() for one in own])
            distributed.all_reduce(flat)
            for gradient, summed in zip(own, flat.split([one.numel() for one in own]), strict=True):
                gradient.copy_(summed.view_as(gradient))

    def every(self, value: Any) -> list[Any]:
        """What every process has, in the order of their ranks."""
        if self.size == 1:
            return [value]
        found: list[Any] = [None] * self.size
        distributed.all_gather_object(found, value)
        return found

    def mean(
        self, total: Tensor, terms: Mapping[str, Tensor], share: float
    ) -> tuple[Tensor, Mapping[str, Tensor]]:
        """Loss and terms over the whole batch, from those over a part with this share of its examples."""
        if self.size == 1:
            return total, terms
        weighed = share * torch.stack([one.detach().double().reshape(()) for one in (total, *terms.values())])
        distributed.all_reduce(weighed)
        loss, *means = weighed.unbind()
        return loss, dict(zip(terms, means, strict=True))


def _device(module: nn.Module) -> torch.device:
    return next(module.parameters()).device
