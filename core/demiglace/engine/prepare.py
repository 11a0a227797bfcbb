"""Getting the materials of a run: the model with its weights, the data, an example input, the device."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

from demiglace.artifact import CallerOrigin, SourceOrigin
from demiglace.data import Batch, Data, as_batch, open_data, ordinary
from demiglace.engine.environment import derive_seed
from demiglace.errors import UsageError, told_of
from demiglace.graph import Example, ModelGraph, adopt_masks, adopt_tensors
from demiglace.measure import first_nonfinite

if TYPE_CHECKING:
    import torch
    from torch import nn

    from demiglace.engine.checked import SourceUse
    from demiglace.passes import ModelSource
    from demiglace.plugins import Registry
    from demiglace.recipe import Recipe


def device_of(recipe: Recipe) -> torch.device:
    """The device that the recipe asks for, with its thread count set.

    Raises:
        UsageError: when there is no such device here.
    """
    import torch

    if recipe.run.threads is not None:
        torch.set_num_threads(recipe.run.threads)
    name = recipe.run.device
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    if name == "cuda" and "LOCAL_RANK" in os.environ:  # one of several processes, each with its own
        name = f"cuda:{os.environ['LOCAL_RANK']}"
    try:
        device = torch.device(name)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        raise UsageError(
            f"no device {name!r} here: {error}".partition("\n")[0], hint='use [run] device = "cpu"'
        ) from None
    return device


def dtype_of(recipe: Recipe) -> torch.dtype | None:
    """The floating-point type that the recipe asks for."""
    import torch

    dtypes = {
        "float64": torch.float64,
        "float32": torch.float32,
        "bfloat16": torch.bfloat16,
        "float16": torch.float16,
    }
    return None if recipe.run.dtype is None else dtypes[recipe.run.dtype]


def open_model(source: ModelSource[Any], use: SourceUse, recipe: Recipe, role: str) -> ModelGraph:
    """The model of a source with its weights, drawn under the recipe's seed."""
    import torch

    table = str(use.path[0])
    with told_of(f"[{table}]", recipe.place((table, "use"))), torch.random.fork_rng(devices=[]):
        torch.manual_seed(derive_seed(recipe.seed, role))
        graph = source.open()
    if graph.origin is None and use.spec is not None:
        graph.origin = SourceOrigin(use.spec.name, use.options)
    return graph


def adopt(module: nn.Module) -> ModelGraph:
    """A caller's own module, worked on in place; masks of `torch.nn.utils.prune` are taken over."""
    adopt_tensors(module)
    masks = adopt_masks(module)
    return ModelGraph(module, masks=masks, origin=CallerOrigin.of(module))


def open_dataset(use: SourceUse | None, registry: Registry, recipe: Recipe) -> Data | None:
    """The data of the recipe's source, if it names one."""
    if use is None or use.spec is None or recipe.data is None:
        return None
    with told_of("[data]", recipe.place(("data", "use"))):
        return open_data(
            registry.implementation(use.spec)(use.config),
            batch_size=recipe.data.batch_size,
            eval_batch_size=recipe.data.eval_batch_size,
            transform=recipe.data.transform,
        )


def example_of(
    handed: object, data: Data | None, source: ModelSource[Any] | None, batch: int
) -> Example | None:
    """The caller's inputs, else the data's first `batch` examples, else zeros of the source's shape."""
    import torch

    if handed is not None:
        # A caller's tuple is the model's positional inputs, never inputs and labels.
        return _example(Batch(handed) if isinstance(handed, tuple) else as_batch(handed))
    if data is not None and data.splits:
        name = next(name for name in ("train", *data.splits) if name in data.splits)
        first = next(iter(data.split(name).batches(batch)), None)
        return None if first is None else _example(first)
    shape = None if source is None else source.example_shape()
    return None if shape is None else Example((torch.zeros(batch, *shape),))


def _example(batch: Batch) -> Example:
    made = batch.mapped(ordinary)
    return Example(made.args, dict(made.kwargs))


def check_finite(graph: ModelGraph) -> None:
    """Look for NaN and infinity before the first pass, so that no pass is blamed for them.

    Raises:
        UsageError: when a weight is not finite.
    """
    spoilt = first_nonfinite(graph)
    if spoilt is not None:
        raise UsageError(f"the model has NaN or infinity in {spoilt!r}", hint="look at where it comes from")


def check_fit(graph: ModelGraph, recipe: Recipe) -> None:
    """Run the model once on its example, which is the data's where the recipe names data.

    Raises:
        UsageError: when it does not take it.
    """
    if graph.example is None:
        return
    if recipe.data is None:
        _run_once(graph, graph.example)
        return
    with told_of("[data]", recipe.place(("data", "use"))):
        _run_once(graph, graph.example)


def _run_once(graph: ModelGraph, example: Example) -> None:
    import torch

    was_training = graph.module.training
    graph.module.eval()
    try:
        with torch.no_grad():
            graph.module(*example.args, **example.kwargs)
    except Exception as error:
        shapes = [list(value.shape) for value in example.args if isinstance(value, torch.Tensor)]
        message = (
            f"the model does not take the data's inputs (shapes {shapes}): {type(error).__name__}: {error}"
        )
        raise UsageError(
            message, hint="make [model] and [data] (its transform too) fit each other"
        ) from error
    finally:
        graph.module.train(was_training)
