"""Reading a packed file."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from io import BufferedReader
from pathlib import Path
from typing import TYPE_CHECKING

from demiglace.artifact.checked_json import DAMAGED
from demiglace.artifact.manifest import MASK_PREFIX, ArtifactInfo
from demiglace.artifact.packed.blocks import (
    MEANS,
    Layout,
    decode_fields_into,
    decode_into,
    decoded_mask,
)
from demiglace.artifact.packed.container import BlockReader
from demiglace.artifact.packed.header import Entry, Header
from demiglace.artifact.packed.stream import Damaged
from demiglace.artifact.packed.text import text_of
from demiglace.artifact.packed.words import encoding_of
from demiglace.artifact.state import MaskInfo, State
from demiglace.artifact.tensor_file import hashing, packed, sha256_of, torch_dtype
from demiglace.errors import ArtifactError

if TYPE_CHECKING:
    from torch import Tensor


_MALFORMED = (
    *(ValueError, TypeError, KeyError, AttributeError, IndexError),
    *(RuntimeError, OverflowError, MemoryError),
)
"""What a header that is no header makes the code below raise."""


@dataclass
class Stored:
    """The blocks of a tensor."""

    #: How the first block is coded.
    encoding: str
    #: Of the file.
    bytes: int = 0


@dataclass(frozen=True)
class Unpacked:
    """A packed file's content; tensors are row-major, on the CPU."""

    info: ArtifactInfo
    #: The constants of a graph included.
    tensors: dict[str, Tensor]
    masks: dict[str, Tensor]
    header: Header
    #: By tensor, and by `mask:` and its name for a mask; a tensor without elements has no blocks.
    stored: Mapping[str, Stored]


def unpack(path: str | Path) -> Unpacked:
    """Read and decode a packed file, and check that it is the model that was packed.

    Raises:
        ArtifactError: when it is none, is damaged or of an unknown version.
    """
    place = Path(path)
    try:
        with place.open("rb") as file, _checking(place):
            return _Decoder(file, place).run()
    except OSError as error:
        raise ArtifactError(f"{place} cannot be read: {error.strerror}", hint=DAMAGED) from error


@contextmanager
def _checking(path: Path) -> Iterator[None]:
    """Turn what a malformed file makes the codecs say into an `ArtifactError`."""
    try:
        yield
    except Damaged as error:
        raise ArtifactError(f"{path} is damaged: {error}", hint=DAMAGED) from None
    except ArtifactError as error:
        if str(path) in str(error):
            raise
        raise ArtifactError(f"{path}: {error.faults[0].message}", hint=DAMAGED) from None
    except _MALFORMED as error:
        raise ArtifactError(f"{path} is not a valid packed model: {error!r}", hint=DAMAGED) from error


class _Decoder:
    """Decodes one file from its header to its last block."""

    def __init__(self, file: BufferedReader, path: Path) -> None:
        self._reader = BlockReader(file, path)
        self._path = path
        self._header = Header.from_json(self._reader.header())
        self._tensors: dict[str, Tensor] = {}
        self._stored: dict[str, Stored] = {}

    def run(self) -> Unpacked:
        header = self._header
        self._refuse_beyond_means()
        for name, entry in header.tensors.items():
            self._tensors[name] = self._tensor(name, entry)
        masks: dict[str, Tensor] = {}
        for name, shape in header.masks.items():
            weight = self._tensors.get(name)
            masks[name] = decoded_mask(weight, shape, self._blocks(MASK_PREFIX + name))
        for name, constant in header.constants.items():
            tensor = self._tensor(name, Entry(constant.dtype, constant.shape))
            if sha256_of(tensor) != constant.sha256:
                raise Damaged(f"{name!r} is not what was packed")
            self._tensors[name] = tensor
        graph = text_of(self._reader.block(), header.graph).decode() if header.graph else None
        self._reader.finish()
        return Unpacked(self._info(masks, graph), self._tensors, masks, header, self._stored)

    def _refuse_beyond_means(self) -> None:
        """Compare what the header announces with what the file's bytes can stand for."""
        header = self._header
        layouts = [Layout.of(one.dtype, one.shape) for one in header.tensors.values()]
        layouts += [Layout.of(one.dtype, one.shape) for one in header.constants.values()]
        layouts += [Layout.of("bool", shape) for shape in header.masks.values()]
        total, most = sum(layout.nbytes for layout in layouts), MEANS * self._reader.prelude.size
        if total > most:
            raise Damaged(f"it announces tensors of {total} bytes, and can hold at most {most}")

    def _tensor(self, name: str, entry: Entry) -> Tensor:
        import torch

        tensor = torch.empty(entry.shape, dtype=torch_dtype(entry.dtype))
        if entry.fields is None:
            decode_into(tensor, Layout.of(entry.dtype, entry.shape), self._blocks(name))
        else:
            decode_fields_into(tensor, entry.fields, self._blocks(name))
        return tensor

    def _blocks(self, name: str) -> Iterator[bytes]:
        """The next blocks, counted as this tensor's."""
        while True:
            start = self._reader.position()
            block = self._reader.block()
            stored = self._stored.setdefault(name, Stored(encoding_of(block)))
            stored.bytes += self._reader.position() - start
            yield block

    def _info(self, masks: Mapping[str, Tensor], graph: str | None) -> ArtifactInfo:
        header = self._header
        with hashing({name: self._tensors[name] for name in header.tensors}) as found:
            hashes = found()
        tensors = {name: one.info(hashes[name]) for name, one in header.tensors.items()}
        kept = {name: MaskInfo(tuple(keep.shape), sha256_of(packed(keep))) for name, keep in masks.items()}
        state = State(tensors, kept, header.tied, header.training, header.edits)
        if state.digest() != self._reader.prelude.digest:
            raise Damaged("what it decodes to is not the model that was packed")
        return ArtifactInfo(
            path=self._path,
            origin=header.origin,
            state=state,
            constants=header.constants,
            is_graph=header.is_graph,
            files={},
            transform=header.transform,
            provenance=header.provenance,
            graph=graph,
        )
