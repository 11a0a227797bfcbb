"""Batches, splits and data sets as passes see them."""

from demiglace.data.batch import Batch, as_batch
from demiglace.data.containers import leaves, mapped, ordinary, plain
from demiglace.data.dataset import Data
from demiglace.data.opening import open_data
from demiglace.data.splits import DatasetSplit, IterableSplit, Split, TensorSplit
from demiglace.data.transform import Transform, build_transform, transform_faults

__all__ = [
    "Batch",
    "Data",
    "DatasetSplit",
    "IterableSplit",
    "Split",
    "TensorSplit",
    "Transform",
    "as_batch",
    "build_transform",
    "leaves",
    "mapped",
    "open_data",
    "ordinary",
    "plain",
    "transform_faults",
]
