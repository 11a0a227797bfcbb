"""Batches, splits and data sets as passes see them."""

from demiglace.data.batch import Batch, as_batch
from demiglace.data.dataset import Data
from demiglace.data.splits import DatasetSplit, IterableSplit, Split, TensorSplit

__all__ = ["Batch", "Data", "DatasetSplit", "IterableSplit", "Split", "TensorSplit", "as_batch"]
