"""A model's tensors as an artifact sees them: which there are, which are one, and their digests."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, TypeVar

from demiglace.artifact.manifest import MASK_PREFIX
from demiglace.artifact.state import MaskInfo, State, TensorInfo
from demiglace.artifact.tensor_file import hashing, packed
from demiglace.errors import ArtifactError
from demiglace.graph.names import dtype_name, holds_values, named_tensors, tied_names

if TYPE_CHECKING:
    from torch import Tensor, nn

    from demiglace.graph import ModelGraph
    from demiglace.graph.plain import PlainGraph

_Result = TypeVar("_Result")


def stored_tensors(module: nn.Module) -> dict[str, Tensor]:
    """The tensors to store, each once, under the first of its names.

    Raises:
        ArtifactError: for a tensor that is not plain dense memory.
    """
    import torch

    aliases = {name for group in tied_names(module) for name in group[1:]}
    tensors = {name: tensor for name, tensor in named_tensors(module) if name not in aliases}
    for name, tensor in tensors.items():
        plain = type(tensor) in {torch.Tensor, torch.nn.Parameter, torch.nn.Buffer}
        if name.startswith(MASK_PREFIX) or not plain or not holds_values(tensor):
            raise ArtifactError(
                f"{name!r} is a {type(tensor).__name__} of layout {tensor.layout} on {tensor.device.type}, "
                "which cannot be stored",
                hint="an artifact stores dense tensors that hold values",
            )
    return tensors


def tensor_info(tensor: Tensor, sha256: str) -> TensorInfo:
    """What the manifest says of a tensor."""
    import torch

    contiguous = torch.empty(tensor.shape, device="meta").stride()
    shape, stride = tuple(tensor.shape), tuple(tensor.stride())
    unusual = stride != contiguous and is_dense(shape, stride)
    return TensorInfo(
        dtype_name(tensor), shape, sha256, stride if unusual else None, bool(tensor.requires_grad)
    )


def is_dense(shape: tuple[int, ...], stride: tuple[int, ...]) -> bool:
    """Whether elements fill a block of memory, each place once, in whatever order of dimensions."""
    expected = 1
    for step, size in sorted((step, size) for step, size in zip(stride, shape, strict=True) if size != 1):
        if step != expected:
            return False
        expected *= size
    return expected > 0


def contents(model: ModelGraph) -> dict[str, Tensor]:
    """What the tensors file of this model holds: its tensors, and its masks as bits."""
    masks = {MASK_PREFIX + name: packed(keep) for name, keep in model.masks.items()}
    return {**stored_tensors(model.module), **masks}


def graph_and_constants(
    model: ModelGraph, graph: PlainGraph | None
) -> tuple[PlainGraph | None, dict[str, Tensor]]:
    """The plain-data graph to store, and those of its tensors that the module does not hold.

    Args:
        model: to store; it may be a graph itself.
        graph: the same model as a graph, if it is none.
    """
    from demiglace.graph.plain import PlainGraph

    plain = model.module if isinstance(model.module, PlainGraph) else graph
    if plain is None:
        return None, {}
    own = {name for name, _ in named_tensors(model.module)}
    # Tracing finds constants that the module does not hold.
    return plain, {name: one for name, one in stored_tensors(plain).items() if name not in own}


def state_of(model: ModelGraph, hashes: Mapping[str, str]) -> State:
    """The state of a model whose `contents` have these SHA-256."""
    module = model.module
    shapes = {name: tuple(keep.shape) for name, keep in model.masks.items()}
    others = tuple(name for name, each in module.named_modules() if each.training != module.training)
    return State(
        {name: tensor_info(each, hashes[name]) for name, each in stored_tensors(module).items()},
        {name: MaskInfo(shape, hashes[MASK_PREFIX + name]) for name, shape in shapes.items()},
        tied_names(module),
        (module.training, others),
        tuple(model.edits),
    )


def state_digest(model: ModelGraph) -> str:
    """A SHA-256 over everything that an artifact restores of this model, wherever it came from.

    Equal before saving and after opening, on any device, in any process; `save` gives it for free.
    """
    return digest_beside(model, lambda: None)[0]


def digest_beside(model: ModelGraph, work: Callable[[], _Result]) -> tuple[str, _Result]:
    """`state_digest`, whose tensors are hashed on other threads while `work` runs, and what that returns.

    Args:
        model: the model.
        work: mostly Python; it may not change the model's tensors, nor what the model is.
    """
    with hashing(contents(model)) as hashes:
        found = work()
        return state_of(model, hashes()).digest(), found
