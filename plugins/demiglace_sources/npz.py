"""`npz`: arrays in a NumPy archive."""

from __future__ import annotations

import hashlib
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import Field

from demiglace.data import Split, TensorSplit
from demiglace.errors import SourceError
from demiglace.passes import DataSource
from demiglace.recipe import did_you_mean
from demiglace_sources.shares import SplitShares, completed

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from torch import Tensor

_NAMES = {
    "x_train": "train",
    "x": "train",
    "x_validation": "validation",
    "x_calibration": "calibration",
    "x_test": "test",
}
_LABEL_NAMES = {name.replace("x", "y", 1) for name in _NAMES}
_AXES = {"nhw": 3, "nhwc": 4}


class NpzConfig(SplitShares):
    """Arrays in a NumPy archive: `x_train`, `y_train`, `x_test`, `y_test`, ... or only `x` and `y`."""

    path: Annotated[str, Field(min_length=1)]
    """File, relative to where demiglace is started. Archives with pickled objects are refused."""
    layout: Literal["as-is", "nhw", "nhwc"] = "as-is"
    """How images lie in the arrays: `nhw` gets a channel axis, `nhwc` has its channels moved to the front."""

    def words(self) -> str:
        return f"arrays in {self.path}"


class NpzSource(DataSource[NpzConfig]):
    """Inputs: float arrays as float32, uint8 ones as images, other integers as int64; labels int64 `[n]`."""

    def splits(self) -> Mapping[str, Split]:
        arrays = self._arrays()
        found: dict[str, TensorSplit] = {}
        for name in (name for name in arrays if name in _NAMES):
            label_name = name.replace("x", "y", 1)
            if label_name not in arrays:
                raise self._error(f"has {name} but no {label_name}", "add an array of integer labels")
            inputs, labels = self._inputs(name, arrays[name]), self._labels(label_name, arrays[label_name])
            if len(inputs) != len(labels):
                raise self._error(f"has {len(inputs)} examples in {name}, {len(labels)} in {label_name}")
            found[_NAMES[name]] = TensorSplit(inputs, labels)
        if "train" not in found:
            raise self._error("has no training examples", "name its arrays x_train and y_train, or x and y")
        return completed(found, self.config)

    def fingerprint(self) -> str:
        with self._existing().open("rb") as file:
            content = hashlib.file_digest(file, "sha256").hexdigest()
        return f"npz:{content}:{self.config.layout}:{self.config.validation}:{self.config.test}"

    def _arrays(self) -> dict[str, NDArray[Any]]:
        import numpy as np

        path = self._existing()
        try:
            with np.load(path, allow_pickle=False) as archive:
                arrays = {name: archive[name] for name in archive.files}
        except (OSError, EOFError, ValueError, AttributeError, TypeError, zipfile.BadZipFile) as error:
            raise self._error(
                f"is not a NumPy archive of plain arrays: {error}", "write it with numpy.savez"
            ) from error
        for name in arrays:
            if name not in _NAMES and name not in _LABEL_NAMES:
                raise self._error(f"has an array {name!r}", did_you_mean(name, {*_NAMES, *_LABEL_NAMES}))
        return arrays

    def _inputs(self, name: str, array: NDArray[Any]) -> Tensor:
        import numpy as np
        import torch

        if array.ndim == 0:
            raise self._error(f"has a single number as {name}")
        if array.dtype.kind == "f":
            self._check_finite(name, array)
            array = array.astype(np.float32, copy=False)
        elif array.dtype.kind in "iu" and array.dtype != np.uint8:
            array = array.astype(np.int64, copy=False)
        elif array.dtype != np.uint8:
            raise self._error(f"has {name} of dtype {array.dtype}", "store floats or integers")
        return torch.from_numpy(np.ascontiguousarray(self._channels_first(name, array)))

    def _check_finite(self, name: str, array: NDArray[Any]) -> None:
        import numpy as np

        bad = np.unique(np.nonzero(~np.isfinite(array))[0])
        if bad.size:
            raise self._error(
                f"has NaN or infinity in {len(bad)} examples of {name}, the first at index {bad[0]}"
            )

    def _channels_first(self, name: str, array: NDArray[Any]) -> NDArray[Any]:
        layout = self.config.layout
        if layout == "as-is":
            return array
        if array.ndim != _AXES[layout]:
            raise self._error(f"has {name} of shape {array.shape}, which is not {layout}", "correct `layout`")
        return array[:, None] if layout == "nhw" else array.transpose(0, 3, 1, 2)

    def _labels(self, name: str, array: NDArray[Any]) -> Tensor:
        import numpy as np
        import torch

        if array.ndim != 1 or array.dtype.kind not in "iu":
            raise self._error(
                f"has {name} of shape {array.shape} and dtype {array.dtype}", "labels are integers, [n]"
            )
        return torch.from_numpy(array.astype(np.int64))

    def _existing(self) -> Path:
        path = Path(self.config.path)
        if not path.is_file():
            raise SourceError(
                f"npz: there is no file {path}", hint="`path` is relative to where demiglace is started"
            )
        return path

    def _error(self, problem: str, hint: str | None = None) -> SourceError:
        return SourceError(f"npz: {self.config.path} {problem}", hint=hint)
