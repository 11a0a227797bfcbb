"""Data in another floating-point type, for `[run] dtype`."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from demiglace.data.batch import Batch
from demiglace.data.splits import Split

if TYPE_CHECKING:
    import torch

    from demiglace.data.dataset import Data


class CastSplit(Split):
    """Another split with its floating-point inputs in a given dtype; labels stay as they are."""

    def __init__(self, split: Split, dtype: torch.dtype) -> None:
        self.split, self.dtype = split, dtype

    def batches(self, size: int, shuffle: torch.Generator | None = None) -> Iterator[Batch]:
        for batch in self.split.batches(size, shuffle):
            yield batch.mapped(self._cast)

    def examples(self) -> int | None:
        return self.split.examples()

    def count(self, size: int) -> int | None:
        return self.split.count(size)

    def _cast(self, value: Any) -> Any:
        floating = hasattr(value, "is_floating_point") and value.is_floating_point()
        return value.to(self.dtype) if floating else value


def cast(data: Data, dtype: torch.dtype) -> Data:
    """The same data with floating-point inputs in `dtype`."""
    return replace(data, splits={name: CastSplit(split, dtype) for name, split in data.splits.items()})
