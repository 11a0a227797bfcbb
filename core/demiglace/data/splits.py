"""A part of a data set that can be iterated in batches, again and again."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Sized
from typing import TYPE_CHECKING, Any

from demiglace.data.batch import Batch, as_batch

if TYPE_CHECKING:
    import torch
    from torch import Tensor
    from torch.utils.data import Dataset


class Split(ABC):
    """Examples that can be walked in batches any number of times."""

    @abstractmethod
    def batches(self, size: int, shuffle: torch.Generator | None = None) -> Iterator[Batch]:
        """Walk all examples once.

        Args:
            size: examples in a batch; the last may be smaller. A caller's own batches keep their size.
            shuffle: draws the order; `None` keeps the data's order.
        """

    @abstractmethod
    def examples(self) -> int | None:
        """The number of examples, or `None` when only walking would tell."""

    def count(self, size: int) -> int | None:
        """The number of batches of that size, or `None`."""
        examples = self.examples()
        return None if examples is None else -(-examples // size)


class TensorSplit(Split):
    """Examples held as tensors: `inputs` of shape `[n, ...]`, `labels` of shape `[n]` or absent.

    `transform` maps a batch of inputs to a batch of inputs; batches are cut by indexing, without a
    worker or a collate call, because that is what costs most on small data.
    """

    def __init__(
        self,
        inputs: Tensor,
        labels: Tensor | None = None,
        transform: Callable[[Tensor], Tensor] | None = None,
    ) -> None:
        self.inputs, self.labels, self.transform = inputs, labels, transform

    def batches(self, size: int, shuffle: torch.Generator | None = None) -> Iterator[Batch]:
        import torch

        order = None if shuffle is None else torch.randperm(len(self.inputs), generator=shuffle)
        for start in range(0, len(self.inputs), size):
            chosen = slice(start, start + size) if order is None else order[start : start + size]
            inputs = self.inputs[chosen]
            if self.transform is not None:
                inputs = self.transform(inputs)
            yield Batch((inputs,), {}, None if self.labels is None else self.labels[chosen])

    def examples(self) -> int:
        return len(self.inputs)


class DatasetSplit(Split):
    """A map-style `torch.utils.data.Dataset` of single examples, read by a `DataLoader`."""

    def __init__(self, dataset: Dataset[Any], workers: int = 0) -> None:
        self.dataset, self.workers = dataset, workers

    def batches(self, size: int, shuffle: torch.Generator | None = None) -> Iterator[Batch]:
        from torch.utils.data import DataLoader

        loader = DataLoader(
            self.dataset,
            batch_size=size,
            shuffle=shuffle is not None,
            generator=shuffle,
            num_workers=self.workers,
        )
        return map(as_batch, loader)

    def examples(self) -> int:
        return len(self.dataset)  # type: ignore[arg-type]


class IterableSplit(Split):
    """Any iterable of batches that a caller already has; its own batch size and order are kept."""

    def __init__(self, iterable: Iterable[object]) -> None:
        # An iterator would be empty the second time it is walked: keep what it gives.
        self.iterable = list(iterable) if isinstance(iterable, Iterator) else iterable

    def batches(self, size: int, shuffle: torch.Generator | None = None) -> Iterator[Batch]:
        return map(as_batch, self.iterable)

    def examples(self) -> int | None:
        return None

    def count(self, size: int) -> int | None:
        return len(self.iterable) if isinstance(self.iterable, Sized) else None
