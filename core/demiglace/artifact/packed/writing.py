"""Writing a model as one packed file."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from demiglace.artifact.atomic import new_file, writing
from demiglace.artifact.manifest import ArtifactInfo
from demiglace.artifact.packed.blocks import (
    Fields,
    Layout,
    encoded,
    encoded_fields,
    encoded_mask,
    fields_fit,
)
from demiglace.artifact.packed.container import BlockWriter, framed
from demiglace.artifact.packed.header import Entry, Header
from demiglace.artifact.packed.text import compressed
from demiglace.artifact.saving import versions
from demiglace.artifact.snapshot import contents, graph_and_constants, state_of, stored_tensors, tensor_info
from demiglace.artifact.tensor_file import hashing
from demiglace.graph.names import dtype_name
from demiglace.graph.origins import Origin
from demiglace.graph.plain import to_json

if TYPE_CHECKING:
    from torch import Tensor, nn

    from demiglace.graph import ModelGraph
    from demiglace.graph.plain import PlainGraph
    from demiglace.quantization import QTensor


@dataclass(frozen=True)
class Packed:
    """What was written."""

    path: Path
    #: Of the whole file.
    bytes: int
    #: The state's SHA-256: equal for equal models.
    digest: str


def pack(
    model: ModelGraph,
    path: str | Path,
    *,
    origin: Origin,
    transform: Sequence[Mapping[str, Any]] = (),
    provenance: Mapping[str, Any] | None = None,
    graph: PlainGraph | None = None,
    context: bool = False,
) -> Packed:
    """Write a model as one file, which appears whole or not at all.

    Args:
        model: what to write; its tensors may be on any device.
        path: of the file; one that is there is replaced, its folder is made.
        origin: what its structure was before `model.edits`.
        transform: the data's transform, kept for those who use the model.
        provenance: names and versions of what made it; by default demiglace's and torch's.
        graph: the same model as a plain-data graph, so that it opens without the caller's class.
        context: whether to look for what rows, columns and neighbours say of integers: smaller files,
            slower to write and to read.

    Raises:
        ArtifactError: when a tensor cannot be stored or the disk is full.
    """
    target = Path(path).resolve()
    plain, added = graph_and_constants(model, graph)
    with hashing({**contents(model), **added}) as found:
        hashes = found()
    info = ArtifactInfo(
        path=target,
        origin=origin,
        state=state_of(model, hashes),
        constants={name: tensor_info(each, hashes[name]) for name, each in added.items()},
        is_graph=plain is model.module,
        files={},
        transform=tuple(transform),
        provenance=versions() if provenance is None else provenance,
        graph=None if plain is None else to_json(plain),
    )
    entries = _entries(model.module, info)
    with writing(target):
        target.parent.mkdir(parents=True, exist_ok=True)
    with new_file(target) as file:
        writer = BlockWriter(file)
        for block in _blocks(model, added, entries, context):
            writer.write(block)
        if info.graph is not None:
            writer.write(compressed(info.graph.encode()))
        size = writer.finish(Header.of(info, entries).to_json(), info.digest)
    return Packed(target, size, info.digest)


def _entries(module: nn.Module, info: ArtifactInfo) -> dict[str, Entry]:
    """The entries of the module's tensors; integers that modules hold packed are known by their fields."""
    tensors, fields, nonzeros = stored_tensors(module), fields_of(module), nonzeros_of(module)
    weights = {id(tensor) for tensor in module.parameters()} | set(fields) | set(nonzeros)
    entries = {}
    for name, saved in info.state.tensors.items():
        tensor = tensors[name]
        own = fields.get(id(tensor))
        fits = own is not None and fields_fit(tensor, own)
        packed_as = own if fits else None
        entries[name] = Entry.of(saved, id(tensor) in weights, packed_as, nonzeros.get(id(tensor)))
    return entries


def fields_of(module: nn.Module) -> dict[int, Fields]:
    """How the codes of quantized weights are packed, by the identity of their tensor."""
    from demiglace.quantization import StoredWeight, held_weights

    found = {}
    for _, weight in held_weights(module):
        if isinstance(weight, StoredWeight):
            columns = weight.numel() // max(1, weight.codes.shape[0])
            found[id(weight.codes)] = Fields(weight.bits, columns)
    return found


def nonzeros_of(module: nn.Module) -> dict[int, tuple[int, ...]]:
    """The shapes of matrices that are held as nonzeros, by the identity of the tensor with their values."""
    from demiglace.quantization import SparseWeight, held_weights

    held = (weight for _, weight in held_weights(module))
    return {id(one.values): one.shape for one in held if isinstance(one, SparseWeight)}


def coded_bytes(weight: QTensor) -> int:
    """What a quantized weight takes in a packed file, its scales and zero points included.

    At the default level; as long as `context` finds nothing better.
    """
    fields = Fields(weight.scheme.bits, weight.numel() // max(1, weight.codes.shape[0]))
    blocks = list(encoded_fields(weight.codes, fields, context=False))
    for tensor in (weight.scale, weight.zero_point):
        if tensor is not None:
            blocks += encoded(tensor, Layout.of(dtype_name(tensor), tuple(tensor.shape)), context=False)
    return sum(len(framed(block)) for block in blocks)


def _blocks(
    model: ModelGraph, added: Mapping[str, Tensor], entries: Mapping[str, Entry], context: bool
) -> Iterator[bytes]:
    """The blocks of every tensor, then of the masks, then of the graph's constants."""
    tensors = stored_tensors(model.module)
    for name, entry in entries.items():
        if entry.fields is None:
            yield from encoded(tensors[name], Layout.of(entry.dtype, entry.shape), context)
        else:
            yield from encoded_fields(tensors[name], entry.fields, context)
    for name, keep in model.masks.items():
        yield from encoded_mask(keep, tensors.get(name), context)
    for tensor in added.values():
        yield from encoded(tensor, Layout.of(dtype_name(tensor), tuple(tensor.shape)), context)
