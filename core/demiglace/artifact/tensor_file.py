"""Tensors in the safetensors format, one at a time, hashed on the way.

The format is eight bytes of header length, a JSON header, and the elements. It is written and read here
and not by the safetensors package, so that the bytes that are hashed are the bytes that are used, no
second copy of a large model is made, a full disk is an `OSError`, and equal tensors give equal files.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from io import BufferedReader
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

from demiglace.artifact.checked_json import DAMAGED
from demiglace.artifact.manifest import FileInfo
from demiglace.errors import ArtifactError
from demiglace.graph.names import dtype_name

if TYPE_CHECKING:
    import torch
    from torch import Tensor

CODES = {
    "float64": "F64",
    "float32": "F32",
    "float16": "F16",
    "bfloat16": "BF16",
    "int64": "I64",
    "int32": "I32",
    "int16": "I16",
    "int8": "I8",
    "uint64": "U64",
    "uint32": "U32",
    "uint16": "U16",
    "uint8": "U8",
    "bool": "BOOL",
    "float8_e4m3fn": "F8_E4M3",
    "float8_e5m2": "F8_E5M2",
    "complex64": "C64",
}
"""The format's names of dtypes by torch's. A tensor of any other dtype is stored as its bytes, `U8`."""

Declared: TypeAlias = Mapping[str, tuple[str, tuple[int, ...]]]
"""dtype name and shape by tensor name."""

_MAX_HEADER = 100_000_000  # bytes, the format's own bound


def write_tensors(path: Path, tensors: Mapping[str, Tensor]) -> tuple[FileInfo, dict[str, str]]:
    """Write a safetensors file; return what it is and each tensor's SHA-256.

    Tensors may be anywhere, of any layout of memory; at most one is copied at a time.

    Raises:
        OSError: when the disk is full.
    """
    # Widest first keeps every tensor aligned to its element size, for readers that map the file.
    order = sorted(tensors, key=lambda name: (-tensors[name].element_size(), name))
    head = _header({name: tensors[name] for name in order})
    whole, single = hashlib.sha256(head), {}
    with path.open("wb") as file:
        file.write(head)
        for name in order:
            content = raw(tensors[name])
            single[name] = hashlib.sha256(content).hexdigest()
            whole.update(content)
            file.write(content)
        size = file.tell()
    return FileInfo(size, whole.hexdigest()), single


def raw(tensor: Tensor) -> memoryview:
    """The elements' bytes in row-major order; no copy for a contiguous tensor on the CPU."""
    import torch

    flat = tensor.detach().resolve_conj().resolve_neg().contiguous().cpu().reshape(-1)
    return memoryview(flat.view(torch.uint8).numpy())  # type: ignore[arg-type]


def sha256_of(tensor: Tensor) -> str:
    """SHA-256 of a tensor's elements in row-major order."""
    return hashlib.sha256(raw(tensor)).hexdigest()


@contextmanager
def hashing(tensors: Mapping[str, Tensor]) -> Iterator[Callable[[], dict[str, str]]]:
    """`sha256_of` each tensor, on as many threads as torch computes on, which go on while the block runs.

    Gives a function that waits for them. A block that ends early, as by Ctrl-C, leaves the rest unhashed.
    """
    import torch

    pool = ThreadPoolExecutor(torch.get_num_threads())
    try:
        found = pool.map(sha256_of, tensors.values())
        yield lambda: dict(zip(tensors, found, strict=True))
    finally:
        pool.shutdown(cancel_futures=True)


def packed(keep: Tensor) -> Tensor:
    """A boolean mask as bits: uint8 of shape `[ceil(n / 8)]`, the first weight in the lowest bit."""
    import numpy as np
    import torch

    return torch.from_numpy(np.packbits(keep.cpu().contiguous().numpy().reshape(-1), bitorder="little"))


def unpacked(bits: Tensor, shape: tuple[int, ...]) -> Tensor:
    """The mask that `packed` packed."""
    import numpy as np
    import torch

    flat = np.unpackbits(bits.numpy(), count=math.prod(shape), bitorder="little")
    return torch.from_numpy(flat.view(np.bool_)).reshape(shape)


def read_tensors(path: Path, expected: Declared, info: FileInfo) -> dict[str, Tensor]:
    """Read the tensors that a manifest names, row-major, on the CPU.

    Args:
        path: the file.
        expected: dtype name and shape by tensor name: exactly what the file must hold.
        info: the file's size and SHA-256.

    Raises:
        ArtifactError: when the file is missing, of another size, or not what the manifest says. Sizes are
            compared before memory is allocated.
    """
    try:
        with path.open("rb") as file:
            return _read(file, path, expected, info)
    except FileNotFoundError:
        raise ArtifactError(f"{path} is missing", hint=DAMAGED) from None
    except OSError as error:
        raise ArtifactError(f"{path} cannot be read: {error.strerror}", hint=DAMAGED) from error


def _read(file: BufferedReader, path: Path, expected: Declared, info: FileInfo) -> dict[str, Tensor]:
    import torch

    size = os.fstat(file.fileno()).st_size
    if size != info.bytes:
        raise ArtifactError(f"{path} has {size} bytes, its manifest says {info.bytes}", hint=DAMAGED)
    hasher = hashlib.sha256()
    tensors: dict[str, Tensor] = {}
    for name in _checked_order(file, path, expected, size, hasher):
        dtype, shape = expected[name]
        tensor = torch.empty(shape, dtype=torch_dtype(dtype))
        view = raw(tensor)
        if file.readinto(view) != len(view):
            raise ArtifactError(f"{path} ends in the middle of {name!r}", hint=DAMAGED)
        hasher.update(view)
        tensors[name] = tensor
    if hasher.hexdigest() != info.sha256:
        raise ArtifactError(f"{path} is damaged: its SHA-256 differs from the manifest's", hint=DAMAGED)
    return tensors


def _checked_order(
    file: BufferedReader,
    path: Path,
    expected: Declared,
    size: int,
    hasher: Any,
) -> Iterator[str]:
    """The names in the file's order, once the header is known to be the expected tensors without gaps."""
    length = file.read(8)
    bound = min(size - 8, _MAX_HEADER)
    text = file.read(min(int.from_bytes(length, "little"), max(bound, 0)))
    hasher.update(length + text)
    try:
        header = json.loads(text)
        found = {
            name: (each["dtype"], each["shape"], each["data_offsets"])
            for name, each in header.items()
            if name != "__metadata__"
        }
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
        raise ArtifactError(f"{path} is damaged: its header is not the format's", hint=DAMAGED) from None
    wanted = _entries({name: expected[name] for name in found if name in expected})
    if found != wanted or len(wanted) != len(expected) or _end(wanted) != size - file.tell():
        raise ArtifactError(f"{path} holds other tensors than its manifest says", hint=DAMAGED)
    return iter(found)


def _header(tensors: Mapping[str, Tensor]) -> bytes:
    entries = _entries({name: (dtype_name(each), tuple(each.shape)) for name, each in tensors.items()})
    content: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    for name, (dtype, shape, offsets) in entries.items():
        content[name] = {"dtype": dtype, "shape": shape, "data_offsets": offsets}
    text = json.dumps(content, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text


def _entries(
    tensors: Declared,
) -> dict[str, tuple[str, list[int], list[int]]]:
    """What the header says of tensors that lie one after the other: code, shape, first and last offset."""
    entries, start = {}, 0
    for name, (dtype, shape) in tensors.items():
        length = math.prod(shape) * torch_dtype(dtype).itemsize
        code = CODES.get(dtype, "U8")
        entries[name] = (code, list(shape) if dtype in CODES else [length], [start, start + length])
        start += length
    return entries


def _end(entries: Mapping[str, tuple[str, list[int], list[int]]]) -> int:
    return max((offsets[1] for _, _, offsets in entries.values()), default=0)


def torch_dtype(name: str) -> torch.dtype:
    """The dtype of a name such as `float32`.

    Raises:
        ArtifactError: when torch has none of that name.
    """
    import torch

    dtype = getattr(torch, name, None)
    if not isinstance(dtype, torch.dtype):
        raise ArtifactError(f"the artifact holds tensors of dtype {name!r}, which this torch does not have")
    return dtype
