"""One batch of any shape a loader gives, made uniform."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from demiglace.data.containers import leaves, mapped, ordinary
from demiglace.errors import UsageError

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn

LABEL_KEYS = ("labels", "label", "targets", "target")
"""The keys under which a dict batch may hold its labels, in the order they are looked for."""


@dataclass(frozen=True)
class Batch:
    """Positional and keyword inputs of the model's `forward`, and labels if there are any."""

    args: tuple[Any, ...] = ()
    kwargs: Mapping[str, Any] = field(default_factory=dict)
    labels: Tensor | None = None

    def __len__(self) -> int:
        """The number of examples: the first dimension of the first tensor."""
        for value in self.inputs():
            if hasattr(value, "shape") and len(value.shape) > 0:
                return int(value.shape[0])
        return 0

    def inputs(self) -> Iterator[Any]:
        """All inputs in order, those in containers one by one."""
        return leaves((self.args, self.kwargs))

    def mapped(self, change: Callable[[Any], Any]) -> Batch:
        """The batch with each input changed, those in containers one by one; labels stay."""
        return replace(self, args=mapped(change, self.args), kwargs=mapped(change, dict(self.kwargs)))

    def to(self, device: torch.device | str) -> Batch:
        """The batch with every tensor on `device`."""

        def moved(value: Any) -> Any:
            return ordinary(value.to(device, non_blocking=True) if hasattr(value, "to") else value)

        return replace(self.mapped(moved), labels=moved(self.labels))

    def run(self, module: nn.Module) -> Any:
        """`module` called with this batch's inputs."""
        return module(*self.args, **self.kwargs)


def as_batch(raw: object) -> Batch:
    """A batch from what a loader yields.

    A tensor is inputs without labels; a sequence of two or more is inputs with labels last; a sequence of
    one is inputs alone; a mapping is keyword inputs, its labels under one of `LABEL_KEYS`.

    Raises:
        UsageError: for anything else.
    """
    import torch

    if isinstance(raw, Batch):
        return raw
    if isinstance(raw, torch.Tensor):
        return Batch((raw,))
    if isinstance(raw, Mapping):
        key = next((key for key in LABEL_KEYS if key in raw), None)
        inputs = {str(name): value for name, value in raw.items() if name != key}
        return Batch((), inputs, None if key is None else raw[key])
    if isinstance(raw, Sequence) and not isinstance(raw, str | bytes) and raw:
        return Batch((raw[0],)) if len(raw) == 1 else Batch(tuple(raw[:-1]), {}, raw[-1])
    raise UsageError(
        f"a batch is a {type(raw).__name__}; demiglace takes tensors, tuples and dicts of tensors",
        hint="yield a tensor, (inputs, labels), or a dict of the model's keyword arguments and `labels`",
    )
