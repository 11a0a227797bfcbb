"""`torchvision` as a source of data: the image classification data sets of `torchvision.datasets` by name."""

from __future__ import annotations

import hashlib
import inspect
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import Field

from demiglace.data import DatasetSplit, Split, TensorSplit
from demiglace.errors import SourceError
from demiglace.passes import DataSource
from demiglace.recipe import did_you_mean
from demiglace_sources.images import image_tensor, listing_digest
from demiglace_sources.shares import SplitShares, completed

if TYPE_CHECKING:
    from torch import Tensor

SPLIT_NAMES = {
    "train": ("train", "trainval", "train-standard"),
    "validation": ("val", "valid"),
    "test": ("test",),
}
"""What data sets call their splits."""


class TorchvisionDataConfig(SplitShares):
    """An image classification data set of torchvision, from local files or downloaded on request."""

    name: Annotated[str, Field(min_length=1)]
    """Class in `torchvision.datasets`: `MNIST`, `FashionMNIST`, `CIFAR10`, `Flowers102`, ..."""
    root: Annotated[str, Field(min_length=1)] = "data"
    """Directory of the files in their original format, relative to where demiglace is started."""
    download: bool = False
    """Whether to fetch absent files from where torchvision knows them."""
    workers: Annotated[int, Field(ge=0)] = 0
    """Processes that decode images, for data sets that do not fit into memory."""
    options: dict[str, Any] = Field(default_factory=dict)
    """Further options of the class, such as `{ split = "letters" }` for EMNIST."""

    def words(self) -> str:
        return f"{self.name} in {self.root}"


class TorchvisionDataSource(DataSource[TorchvisionDataConfig]):
    """Images uint8 `[c, h, w]`, labels int64; in memory where torchvision itself holds them there.

    Splits are those of the data set; where it has only one besides `train`, that is the test split.
    """

    def splits(self) -> Mapping[str, Split]:
        return completed(self._own, self.config)

    def fingerprint(self) -> str:
        """The content where it is in memory, else names, sizes and times of change of the files in `root`."""
        digest = hashlib.sha256(self.config.model_dump_json(exclude={"root", "download", "workers"}).encode())
        for split in self._own.values():
            if isinstance(split, TensorSplit) and split.labels is not None:
                digest.update(split.inputs.contiguous().numpy().data)
                digest.update(split.labels.numpy().data)
        if not all(isinstance(split, TensorSplit) for split in self._own.values()):
            root = Path(self.config.root)
            digest.update(listing_digest(root, (path for path in root.rglob("*") if path.is_file())).encode())
        return f"torchvision:{digest.hexdigest()}"

    @cached_property
    def _own(self) -> dict[str, TensorSplit | DatasetSplit]:
        """The splits that the data set brings."""
        from torchvision import datasets

        kind = self._kind()
        parameters = inspect.signature(kind).parameters
        if "train" in parameters or issubclass(kind, datasets.MNIST):
            return {name: self._split(kind, train=name == "train") for name in ("train", "test")}
        if "split" not in parameters or "split" in self.config.options:
            return {"train": self._split(kind)}
        found: dict[str, TensorSplit | DatasetSplit] = {}
        for name, own in ((name, own) for name, names in SPLIT_NAMES.items() for own in names):
            if name not in found and (split := self._split_if_any(kind, own)):
                found[name] = split
        if "test" not in found and "validation" in found:
            found["test"] = found.pop("validation")
        return found

    def _split_if_any(self, kind: type[Any], name: str) -> TensorSplit | DatasetSplit | None:
        try:
            return self._split(kind, split=name)
        except SourceError as error:
            if isinstance(error.__cause__, ValueError) and str(error.__cause__).startswith("Unknown"):
                return None  # what torchvision says to a name that is none of the data set's splits
            raise

    def _kind(self) -> type[Any]:
        from torchvision import datasets

        known = {
            name: kind
            for name, kind in vars(datasets).items()
            if name in datasets.__all__ and inspect.isclass(kind) and issubclass(kind, datasets.VisionDataset)
        }
        if self.config.name not in known:
            raise SourceError(
                f"torchvision has no data set {self.config.name!r}",
                hint=did_you_mean(self.config.name, known),
            )
        return known[self.config.name]

    def _split(self, kind: type[Any], **which: object) -> TensorSplit | DatasetSplit:
        decoded = _Decoded(self._opened(kind, which))
        image, label = decoded[0]
        tensors = _in_memory(decoded.dataset)
        if tensors is not None and image.equal(tensors[0][0]) and label == int(tensors[1][0]):
            return TensorSplit(*tensors)
        examples: Any = decoded
        return DatasetSplit(examples, self.config.workers)

    def _opened(self, kind: type[Any], which: Mapping[str, object]) -> Any:
        from torchvision import datasets

        options = {**which, **self.config.options}
        if "download" in inspect.signature(kind).parameters or issubclass(kind, datasets.MNIST):
            options["download"] = self.config.download
        try:
            return kind(self.config.root, **options)
        except Exception as error:  # whatever torchvision's readers raise on files that are absent or garbled
            raise SourceError(
                f"torchvision's {kind.__name__} cannot be read from {self.config.root!r}: "
                f"{type(error).__name__}: {error}",
                hint="put its original files there, correct [data] options, or set download = true online",
            ) from error


class _Decoded:
    """A data set of torchvision with its images as tensors."""

    def __init__(self, dataset: Any) -> None:
        self.dataset = dataset

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        name = type(self.dataset).__name__
        try:
            image, label = self.dataset[index]
            return image_tensor(image), int(label)
        except Exception as error:  # a reader of torchvision on a garbled file, or no image and class index
            problem = f"{type(error).__name__}: {error}"
            raise SourceError(
                f"example {index} of torchvision's {name} is no image with a class: {problem}",
                hint="its files may be damaged, or the data set is not for image classification",
            ) from error


def _in_memory(dataset: Any) -> tuple[Tensor, Tensor] | None:
    """Images uint8 `[n, c, h, w]` and labels `[n]`, if the data set holds them as arrays."""
    import torch

    images = getattr(dataset, "data", None)
    labels = getattr(dataset, "targets", getattr(dataset, "labels", None))
    if not str(getattr(images, "dtype", "")).endswith("uint8") or labels is None:
        return None
    images, labels = torch.as_tensor(images), torch.as_tensor(labels)
    if labels.dim() != 1 or len(images) != len(labels):
        return None
    if images.dim() == 3:
        images = images[:, None]
    elif images.shape[-1] == 3:
        images = images.permute(0, 3, 1, 2)
    return images, labels.long()
