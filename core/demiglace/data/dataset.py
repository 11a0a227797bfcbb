"""A data set as a step sees it: splits, batch sizes, what pins it down."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from demiglace.data.splits import IterableSplit, Split
from demiglace.errors import UsageError

if TYPE_CHECKING:
    import torch

    from demiglace.data.batch import Batch

SPLITS = ("train", "calibration", "validation", "test")
"""Training fits weights; calibration is unlabelled statistics; validation decides; test only reports."""


@dataclass(frozen=True)
class Data:
    """Splits by name with the batch sizes of the recipe."""

    splits: Mapping[str, Split]
    batch_size: int = 64
    eval_batch_size: int = 256
    #: A digest of the content, or `None` for a caller's iterable that has none: its steps are not cached.
    fingerprint: str | None = None
    #: The evaluation transform as recipe tables, kept with the artifact.
    transform: tuple[Mapping[str, object], ...] = field(default=())

    @classmethod
    def of(cls, data: Data | Mapping[str, Iterable[object]] | Iterable[object]) -> Data:
        """What a caller handed in: splits by name, or one iterable of batches that serves as every split.

        Raises:
            UsageError: for a mapping with other names than `SPLITS`.
        """
        if isinstance(data, Data):
            return data
        if not isinstance(data, Mapping):
            one = IterableSplit(data)
            return cls(dict.fromkeys(SPLITS, one))
        unknown = [name for name in data if name not in SPLITS]
        if unknown:
            raise UsageError(f"data has a split {unknown[0]!r}", hint=f"the splits are {', '.join(SPLITS)}")
        return cls(
            {
                name: split if isinstance(split, Split) else IterableSplit(split)
                for name, split in data.items()
            }
        )

    def split(self, name: str) -> Split:
        """A split by name; `calibration` falls back to the training examples.

        Raises:
            UsageError: when the data has no such split.
        """
        if name == "calibration" and name not in self.splits and "train" in self.splits:
            return self.splits["train"]
        if name not in self.splits:
            raise UsageError(
                f"the data has no {name!r} split", hint=f"it has {', '.join(self.splits) or 'none'}"
            )
        return self.splits[name]

    def train(self, shuffle: torch.Generator) -> Iterator[Batch]:
        """One epoch over the training examples, in an order drawn from `shuffle`."""
        return self.split("train").batches(self.batch_size, shuffle)

    def evaluate(self, name: str) -> Iterator[Batch]:
        """All examples of a split in their own order, in batches of `eval_batch_size`."""
        return self.split(name).batches(self.eval_batch_size)
