"""What a saved model's tensors take, one by one, and what they would take otherwise."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from demiglace.artifact.loading import open_artifact
from demiglace.artifact.manifest import ArtifactInfo
from demiglace.artifact.packed.ans import cost
from demiglace.artifact.packed.blocks import Fields, Layout
from demiglace.artifact.packed.reading import Stored, unpack
from demiglace.artifact.packed.writing import fields_of, nonzeros_of
from demiglace.artifact.snapshot import stored_tensors
from demiglace.artifact.structures import Model, Resolver
from demiglace.artifact.tensor_file import raw

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class TensorReport:
    """One stored tensor.

    For packed integers its elements are these, not the bytes that hold them. Where a matrix is held as its
    nonzeros, their values are reported as the whole matrix, and their places as tensors of their own.
    """

    name: str
    shape: tuple[int, ...]
    #: Such as `float32`, or `int4` for packed integers.
    dtype: str
    #: How its bytes are coded; `raw` in an artifact.
    encoding: str
    #: Of the file, its mask's included.
    bytes: int
    elements: int
    #: Elements that are zero.
    zeros: int
    #: Of an element before coding.
    bits: int
    #: Order-0, in bits an element.
    entropy: float
    #: Whether the elements are weights of the model.
    is_weight: bool
    #: The share that its mask keeps; `None` without a mask.
    kept: float | None = None

    @property
    def bits_per_element(self) -> float:
        """What an element takes in the file."""
        return 8 * self.bytes / self.elements if self.elements else 0.0

    @property
    def sparsity(self) -> float:
        """The share of zeros."""
        return self.zeros / self.elements if self.elements else 0.0

    def to_json(self) -> dict[str, Any]:
        """Plain JSON."""
        return {**asdict(self), "sparsity": self.sparsity, "bits_per_element": self.bits_per_element}


@dataclass(frozen=True)
class Inspection:
    """A saved model's tensors and its whole size."""

    info: ArtifactInfo
    #: Of the file, or of all files of the artifact.
    bytes: int
    tensors: tuple[TensorReport, ...]

    @property
    def weights(self) -> int:
        """How many weights the model has."""
        return sum(one.elements for one in self.tensors if one.is_weight)

    @property
    def original_weights(self) -> int:
        """How many weights the network had before the run that made this; those that are left if unknown."""
        return int(self.info.provenance.get("parameters", self.weights))

    def ratios(self) -> dict[str, float]:
        """How many times smaller all files are than the original's weights alone as plain numbers."""
        widths = {"float32": 4, "float16": 2, "int8": 1}
        return {name: width * self.original_weights / self.bytes for name, width in widths.items()}

    def to_json(self) -> dict[str, Any]:
        """Plain JSON."""
        return {
            "path": str(self.info.path),
            "bytes": self.bytes,
            "weights": self.weights,
            "original_weights": self.original_weights,
            "smaller_than": self.ratios(),
            "digest": self.info.digest,
            "provenance": dict(self.info.provenance),
            "tensors": [one.to_json() for one in self.tensors],
        }


def inspect(path: str | Path, *, model: Model | None = None, resolve: Resolver | None = None) -> Inspection:
    """Look into a packed file or an artifact.

    Args:
        path: of the file, or of the artifact's folder.
        model: for an artifact of a model that a caller handed in, if it cannot be opened without; see
            `open_artifact`.
        resolve: finds registered sources; a packed file needs none.

    Raises:
        ArtifactError: when it cannot be read.
    """
    place = Path(path)
    return _of_file(place) if place.is_file() else _of_folder(place, model, resolve)


def _of_file(path: Path) -> Inspection:
    content = unpack(path)
    reports = [
        _report(
            name,
            content.tensors,
            content.stored.get(name, Stored("raw")),
            entry.fields,
            entry.nonzeros_of,
            entry.is_weight,
            _with_bytes(content.masks.get(name), content.stored.get(f"mask:{name}", Stored("raw")).bytes),
        )
        for name, entry in content.header.tensors.items()
    ]
    return Inspection(content.info, path.stat().st_size, tuple(reports))


def _of_folder(path: Path, model: Model | None, resolve: Resolver | None) -> Inspection:
    artifact = open_artifact(path, model=model, resolve=resolve)
    fields, nonzeros = fields_of(artifact.module), nonzeros_of(artifact.module)
    tensors = stored_tensors(artifact.module)
    weights = {id(tensor) for tensor in artifact.module.parameters()} | set(fields) | set(nonzeros)
    reports = []
    for name, tensor in tensors.items():
        mask = artifact.masks.get(name)
        size = 0 if mask is None else -(-mask.numel() // 8)
        own, whole, is_weight = fields.get(id(tensor)), nonzeros.get(id(tensor)), id(tensor) in weights
        stored = Stored("raw", tensor.nbytes)
        reports.append(_report(name, tensors, stored, own, whole, is_weight, _with_bytes(mask, size)))
    total = sum(one.stat().st_size for one in path.iterdir())
    return Inspection(artifact.info, total, tuple(reports))


def _with_bytes(mask: Tensor | None, size: int) -> tuple[float | None, int]:
    """The share that a mask keeps, and the bytes that it takes."""
    return None if mask is None else float(mask.float().mean()), size


def _report(
    name: str,
    tensors: Mapping[str, Tensor],
    stored: Stored,
    fields: Fields | None,
    nonzeros_of: tuple[int, ...] | None,
    is_weight: bool,
    mask: tuple[float | None, int],
) -> TensorReport:
    tensor = tensors[name].detach()
    dtype = str(tensor.dtype).removeprefix("torch.")
    layout = Layout.of(dtype, tuple(tensor.shape))
    shape, zeros, bits = tuple(tensor.shape), _zeros(tensor), 8 * tensor.element_size()
    words = np.frombuffer(raw(tensor), dtype=layout.word)
    if fields is not None:
        shape, bits, dtype = (tensor.shape[0], fields.columns), fields.bits, f"int{fields.bits}"
        zeros, words = _of_integers(name, tensors, fields)
    if nonzeros_of is not None:
        shape, zeros = nonzeros_of, zeros + math.prod(nonzeros_of) - tensor.numel()
    elements = math.prod(shape)
    entropy = sum(_entropies(words)) * len(words) / elements if elements else 0.0
    return TensorReport(
        name,
        shape,
        dtype,
        stored.encoding,
        stored.bytes + mask[1],
        elements,
        zeros,
        bits,
        entropy,
        is_weight,
        mask[0],
    )


def _zeros(tensor: Tensor) -> int:
    """How many elements are zero; torch compares no floats of eight bits."""
    small = tensor.is_floating_point() and tensor.element_size() == 1
    return int(((tensor.float() if small else tensor) == 0).sum())


def _of_integers(name: str, tensors: Mapping[str, Tensor], fields: Fields) -> tuple[int, Any]:
    """How many packed integers stand for zero, and the integers."""
    from demiglace.quantization import QTensor, Scheme, SharedTensor, StoredWeight

    weight, codes = name.removesuffix("_codes"), tensors[name]
    zero, codebook = tensors.get(f"{weight}_zero_point"), tensors.get(f"{weight}_codebook")
    scale = tensors.get(f"{weight}_scale", torch.ones(1, 1))
    shape = (codes.shape[0], fields.columns)
    integers: StoredWeight
    if codebook is None:
        integers = QTensor(codes, scale, zero, shape, Scheme(fields.bits, symmetric=zero is None))
    else:
        integers = SharedTensor(codes, codebook, shape)
    return integers.zeros(), integers.integers.reshape(-1).numpy().view(np.uint8)


def _entropies(words: Any) -> Iterator[float]:
    """The order-0 entropy of words, in bits a word; nothing for no words."""
    if len(words):
        counts = np.bincount(words) if words.dtype.itemsize <= 2 else np.unique(words, return_counts=True)[1]
        yield cost(counts) / len(words)
