"""A part of a data set that can be iterated in batches, again and again."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Sized
from typing import TYPE_CHECKING, Any

from demiglace.data.batch import Batch, as_batch
from demiglace.errors import DemiglaceError, UsageError

if TYPE_CHECKING:
    import torch
    from torch import Tensor
    from torch.utils.data import Dataset

    from demiglace.data.transform import Transform


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

    @property
    def generator(self) -> torch.Generator | None:
        """A caller's own generator that the order is drawn from, beside `shuffle`."""
        return None

    def count(self, size: int) -> int | None:
        """The number of batches of that size, or `None`."""
        examples = self.examples()
        return None if examples is None else -(-examples // size)

    def transformed(self, transform: Transform) -> Split:
        """These examples with `transform` applied to the first input."""
        return TransformedSplit(self, transform) if transform.steps else self

    def untransformed(self) -> Split:
        """The examples as their source holds them."""
        return self


class TensorSplit(Split):
    """Examples held as tensors: `inputs` of shape `[n, ...]`, `labels` of shape `[n]` or absent.

    Batches are cut by indexing, without a worker or a collate call, because that is what costs most on
    small data.
    """

    def __init__(self, inputs: Tensor, labels: Tensor | None = None) -> None:
        self.inputs, self.labels = inputs, labels

    def batches(self, size: int, shuffle: torch.Generator | None = None) -> Iterator[Batch]:
        import torch

        order = None if shuffle is None else torch.randperm(len(self.inputs), generator=shuffle)
        for start in range(0, len(self.inputs), size):
            chosen = slice(start, start + size) if order is None else order[start : start + size]
            yield Batch((self.inputs[chosen],), {}, None if self.labels is None else self.labels[chosen])

    def examples(self) -> int:
        return len(self.inputs)

    def transformed(self, transform: Transform) -> Split:
        import torch

        if self.inputs.dtype == torch.uint8:
            return TransformedSplit(self, transform)
        return super().transformed(transform)


class DatasetSplit(Split):
    """A map-style `torch.utils.data.Dataset` of single examples, read by a `DataLoader`.

    Its transform works on one example at a time, in the loader's workers if there are any: examples may
    have different shapes before it.
    """

    def __init__(self, dataset: Dataset[Any], workers: int = 0, transform: Transform | None = None) -> None:
        self.dataset, self.workers, self.transform = dataset, workers, transform

    def batches(self, size: int, shuffle: torch.Generator | None = None) -> Iterator[Batch]:
        from torch.utils.data import DataLoader

        dataset: Any = self.dataset
        if self.transform is not None:
            dataset = _Transformed(dataset, self.transform, _drawn_seed(self.transform, shuffle))
        loader = DataLoader(
            dataset,
            batch_size=size,
            shuffle=shuffle is not None,
            generator=shuffle,
            num_workers=self.workers,
            collate_fn=_collated,
        )
        for raw in loader:
            if isinstance(raw, DemiglaceError):
                raise raw
            yield as_batch(raw)

    def examples(self) -> int:
        return len(self.dataset)  # type: ignore[arg-type]

    def transformed(self, transform: Transform) -> DatasetSplit:
        return DatasetSplit(self.dataset, self.workers, transform)

    def untransformed(self) -> DatasetSplit:
        return DatasetSplit(self.dataset, self.workers)


class TransformedSplit(Split):
    """Another split with its first input transformed, batch by batch."""

    def __init__(self, split: Split, transform: Transform) -> None:
        self.split, self.transform = split, transform

    def batches(self, size: int, shuffle: torch.Generator | None = None) -> Iterator[Batch]:
        seed = _drawn_seed(self.transform, shuffle)
        for number, batch in enumerate(self.split.batches(size, shuffle)):
            if not batch.args:
                raise _no_image(f"batches with the inputs {', '.join(batch.kwargs)}")
            images = self.transform(batch.args[0], seed + number)
            yield Batch((images, *batch.args[1:]), batch.kwargs, batch.labels)

    def untransformed(self) -> Split:
        return self.split.untransformed()

    @property
    def generator(self) -> torch.Generator | None:
        return self.split.generator

    def examples(self) -> int | None:
        return self.split.examples()


class _Transformed:
    """A map-style data set whose examples' first part goes through a transform."""

    def __init__(self, dataset: Any, transform: Transform, seed: int) -> None:
        self.dataset, self.transform, self.seed = dataset, transform, seed

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, index: int) -> Any:
        try:
            return self._transformed(self.dataset[index], index)
        except DemiglaceError as error:
            return error  # raised past the loader, which would wrap a worker's error into its traceback

    def _transformed(self, example: Any, index: int) -> Any:
        import torch

        image, *rest = example if isinstance(example, tuple | list) else (example,)
        if isinstance(image, torch.Tensor):
            return (self.transform(image[None], self.seed + index)[0], *rest)
        if self.transform.steps:
            raise _no_image(f"{type(image).__name__} examples")
        return example


def _no_image(found: str) -> UsageError:
    return UsageError(
        f"a transform works on tensor images, not on {found}", hint="take the transform out of [data]"
    )


def _drawn_seed(transform: Transform, shuffle: torch.Generator | None) -> int:
    """A seed for one walk over the data, another one in each epoch."""
    import torch

    if shuffle is None or not transform.random:
        return 0
    return int(torch.randint(2**62, (), generator=shuffle))


def _collated(examples: list[Any]) -> Any:
    from torch.utils.data import default_collate

    failed = next((one for one in examples if isinstance(one, DemiglaceError)), None)
    if failed is not None:
        return failed
    try:
        return default_collate(examples)
    except RuntimeError:
        shapes = sorted({tuple(one[0].shape) for one in examples if isinstance(one, tuple)})
        return UsageError(
            f"examples of different shapes cannot be one batch: {shapes[:4]}",
            hint='give [data] a transform = [{ name = "Resize", size = [224, 224] }]; '
            '"RGB" or "Grayscale" makes images of colour and grey alike',
        )


class IterableSplit(Split):
    """Any iterable of batches that a caller already has; its own batch size and order are kept."""

    def __init__(self, iterable: Iterable[object]) -> None:
        # An iterator would be empty the second time it is walked: keep what it gives.
        self.iterable = list(iterable) if isinstance(iterable, Iterator) else iterable

    def batches(self, size: int, shuffle: torch.Generator | None = None) -> Iterator[Batch]:
        return map(as_batch, self.iterable)

    @property
    def generator(self) -> torch.Generator | None:
        import torch

        own = getattr(self.iterable, "generator", None)  # a DataLoader's
        return own if isinstance(own, torch.Generator) else None

    def examples(self) -> int | None:
        return None

    def count(self, size: int) -> int | None:
        return len(self.iterable) if isinstance(self.iterable, Sized) else None
