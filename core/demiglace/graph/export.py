"""Exporting a module's forward as a graph of aten operators, with its batch size left free."""

from __future__ import annotations

import io
import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr
from pathlib import Path
from typing import TYPE_CHECKING, Any

from demiglace.data import plain
from demiglace.errors import GraphError
from demiglace.graph.model_graph import Example

if TYPE_CHECKING:
    from torch import nn
    from torch.export import ExportedProgram


def export(
    module: nn.Module, example: Example | None, *, training: bool = False, free_batch: bool = True
) -> ExportedProgram:
    """The forward of `module` on its example, by `torch.export` without tracing Python bytecode.

    Parameters keep their qualified names. The module keeps its modes and its values. Nodes do not tell the
    lines of Python that they come from, which takes time to find out and which nobody asks for.

    Args:
        module: any module.
        example: inputs that fit it. An example of one is traced as two, because a size of one is
            always taken for a constant.
        training: whether to export what train mode runs instead of eval mode.
        free_batch: whether the batch size is left free, where the model allows it. With every size of the
            example fixed it takes about half the time.

    Raises:
        GraphError: when there is no example, or when torch.export refuses, naming the line of the model.
    """
    import torch

    if example is None:
        raise GraphError("tracing the model needs an example input", hint="pass `example_inputs`, or data")
    with _mode(module, training), plain_attention(), _without_stacks(), torch.enable_grad():
        try:
            return _exported(module, resized(example, max(2, batch_size(example))), free_batch=free_batch)
        except Exception:
            # Some models fix their batch size in Python code: they are traced as given.
            try:
                return _exported(module, example, free_batch=False)
            except Exception as error:
                raise _refused(module, error) from error


def batch_size(example: Example) -> int:
    """The first dimension of the first tensor among the inputs; 0 without one."""
    return next((int(one.shape[0]) for one in _tensors(example) if one.dim() > 0), 0)


def resized(example: Example, size: int) -> Example:
    """The example with `size` items in its batch: every tensor that has the batch's size is repeated."""
    import torch
    from torch.utils._pytree import tree_map

    batch = batch_size(example)
    if size == batch or batch == 0:
        return example

    def repeat(value: Any) -> Any:
        if not isinstance(value, torch.Tensor) or value.dim() == 0 or value.shape[0] != batch:
            return value
        return value[torch.arange(size, device=value.device) % batch]

    return Example(tree_map(repeat, example.args), tree_map(repeat, dict(example.kwargs)))


def _tensors(example: Example) -> list[Any]:
    import torch
    from torch.utils._pytree import tree_leaves

    leaves = tree_leaves((example.args, dict(example.kwargs)))
    return [leaf for leaf in leaves if isinstance(leaf, torch.Tensor)]


def _exported(module: nn.Module, example: Example, *, free_batch: bool) -> ExportedProgram:
    import torch

    shapes = None
    if free_batch:
        collection = torch.export.ShapesCollection()
        size = batch_size(example)
        for tensor in _tensors(example):
            if tensor.dim() > 0 and tensor.shape[0] == size:
                collection[tensor] = {0: torch.export.Dim.AUTO}
        shapes = collection.dynamic_shapes(module, example.args, dict(example.kwargs))
    with _silent_failure(), _known_outputs(module):
        return torch.export.export(
            module, example.args, dict(example.kwargs), dynamic_shapes=shapes, strict=False
        )


@contextmanager
def _silent_failure() -> Iterator[None]:
    """Hold back what is written to standard error meanwhile, and drop it on a failure.

    Torch prints the graph that it has where a value decides the way, for each attempt. The error says why.
    """
    held = io.StringIO()
    with redirect_stderr(held):
        yield
    sys.stderr.write(held.getvalue())


@contextmanager
def _known_outputs(module: nn.Module) -> Iterator[None]:
    """Outputs in containers that torch does not know are dicts for the while."""
    hook = module.register_forward_hook(lambda _module, _inputs, outputs: plain(outputs))
    try:
        yield
    finally:
        hook.remove()


@contextmanager
def _mode(module: nn.Module, training: bool) -> Iterator[None]:
    """Every submodule in one mode, and back to its own."""
    modes = {name: child.training for name, child in module.named_modules()}
    module.train(training)
    try:
        yield
    finally:
        for name, child in module.named_modules():
            child.training = modes.get(name, child.training)


@contextmanager
def plain_attention() -> Iterator[None]:
    """Attention as ordinary operators: torch's fused inference path hides the weights' use."""
    import torch

    enabled = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        yield
    finally:
        torch.backends.mha.set_fastpath_enabled(enabled)


@contextmanager
def _without_stacks() -> Iterator[None]:
    import torch.fx.config as settings

    before = settings.do_not_emit_stack_traces
    settings.do_not_emit_stack_traces = True
    try:
        yield
    finally:
        settings.do_not_emit_stack_traces = before


def _refused(module: nn.Module, error: Exception) -> GraphError:
    reason = next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)
    return GraphError(
        f"{type(module).__name__} cannot be traced{_user_line(error)}: {reason}",
        hint="check that the example input fits; a forward that branches on tensor values, or prints them, "
        "must be rewritten with torch operators (torch.where, torch.cond) to be cut structurally",
    )


def _user_line(error: Exception) -> str:
    """Where in the model's own code the error arose, as far as the traceback tells."""
    import torch

    library = str(Path(torch.__file__).parent)
    here = str(Path(__file__).parent)
    frames = [
        frame
        for frame in traceback.extract_tb(error.__traceback__)
        if not frame.filename.startswith((library, here, "<"))
    ]
    if not frames:
        return ""
    last = frames[-1]
    return f" at {last.filename}:{last.lineno} ({last.line})"
