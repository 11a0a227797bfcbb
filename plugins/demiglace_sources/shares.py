"""Splits that a data set does not bring, carved from its training examples."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated

from pydantic import Field

from demiglace.data import DatasetSplit, Split, TensorSplit
from demiglace.errors import SourceError
from demiglace.passes import Config, Contract

if TYPE_CHECKING:
    from torch import Tensor

_SEED = 0

CarvedShare = Annotated[float, Field(ge=0.0, le=0.9)]


class SplitShares(Config):
    """Options of a data set that may lack a validation or a test split."""

    validation: CarvedShare = 0.1
    """Share of the training examples set apart for validation when the data has no such split; 0: none."""
    test: CarvedShare = 0.2
    """Share of all examples set apart for testing when the data has no such split; 0: none."""

    def contract(self) -> Contract:
        carved = [name for name in ("validation", "test") if getattr(self, name)]
        facts = ["data.train", "data.calibration", "labels", *(f"data.{name}" for name in carved)]
        return Contract.of(gives=tuple(facts))


def completed(splits: Mapping[str, TensorSplit | DatasetSplit], shares: SplitShares) -> dict[str, Split]:
    """The splits with a missing test, then a missing validation split carved from `train`.

    The choice is the same each time, and what is left of `train` is in a fixed random order, so that a
    prefix of it holds all classes even where the files are sorted by class.
    """
    import torch

    done: dict[str, Split] = dict(splits)
    train = splits["train"]
    order = torch.randperm(train.examples(), generator=torch.Generator().manual_seed(_SEED))
    for name in ("test", "validation"):
        share: float = getattr(shares, name)
        if name in splits or not share:
            continue
        count = max(1, round(share * len(order)))
        done[name] = _part(train, order[:count])
        order = order[count:]
    if not len(order):
        raise SourceError(
            f"{train.examples()} examples are too few to carve validation and test from",
            hint="set validation = 0.0 and test = 0.0 in [data], or give more data",
        )
    done["train"] = _part(train, order)
    return done


def _part(split: TensorSplit | DatasetSplit, chosen: Tensor) -> Split:
    from torch.utils.data import Subset

    if isinstance(split, TensorSplit):
        return TensorSplit(split.inputs[chosen], None if split.labels is None else split.labels[chosen])
    return DatasetSplit(Subset(split.dataset, chosen.tolist()), split.workers)
