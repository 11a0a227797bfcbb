"""A source's splits with the recipe's transform and batch sizes."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from typing import Protocol

from demiglace.data.dataset import Data
from demiglace.data.splits import Split
from demiglace.data.transform import Table, build_transform, evaluation_tables
from demiglace.errors import SourceError


class SplitSource(Protocol):
    """What `open_data` needs of a data source."""

    def splits(self) -> Mapping[str, Split]:
        """The splits by name, their images as the files hold them."""

    def fingerprint(self) -> str:
        """What pins the content down."""


def open_data(
    source: SplitSource, *, batch_size: int = 64, eval_batch_size: int = 256, transform: Sequence[Table] = ()
) -> Data:
    """The data of a source: `train` under the training transform, all others under that of evaluation.

    Without a `calibration` split, the training examples under the evaluation transform serve as one.

    Raises:
        RecipeError: for faults in the transform.
        SourceError: when the source cannot read its data, or a split is empty.
    """
    training, evaluation = build_transform(transform, "train"), build_transform(transform)
    raw = dict(source.splits())
    for name, split in raw.items():
        if split.examples() == 0:
            raise SourceError(f"the data's {name!r} split is empty", hint="check the options of [data]")
    if "train" in raw:
        raw.setdefault("calibration", raw["train"])
    splits = {
        name: split.transformed(training if name == "train" else evaluation) for name, split in raw.items()
    }
    fingerprint = _digest(source.fingerprint(), transform)
    return Data(splits, batch_size, eval_batch_size, fingerprint, evaluation_tables(transform))


def _digest(content: str, transform: Sequence[Table]) -> str:
    return hashlib.sha256(json.dumps([content, list(transform)], sort_keys=True).encode()).hexdigest()
