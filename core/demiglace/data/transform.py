"""`[data] transform`: image transforms by the names and options of `torchvision.transforms.v2`.

    transform = [
      { name = "RandomCrop", size = 28, padding = 2, on = "train" },
      { name = "ToDtype", dtype = "float32", scale = true },
      { name = "Normalize", mean = [0.13], std = [0.31] },
    ]

`on = "train"` or `on = "evaluation"` limits a transform; every split but `train` is evaluation. A random
transform needs `on = "train"`, so that figures are always measured on the same inputs.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal

from demiglace.data.v2 import is_random, v2_transform
from demiglace.errors import Fault, RecipeError, UsageError

if TYPE_CHECKING:
    from torch import Tensor, nn

Use = Literal["train", "evaluation"]
Table = Mapping[str, Any]


class Transform:
    """Maps images `[n, c, h, w]` to inputs of the model; what stays uint8 becomes float32 in [0, 1]."""

    def __init__(self, steps: Sequence[nn.Module] = ()) -> None:
        self.steps = tuple(steps)
        self.random = any(is_random(step) for step in steps)

    def __call__(self, images: Tensor, seed: int = 0) -> Tensor:
        """Transform a batch; random steps draw anew for each example, all of it pinned by `seed`.

        Raises:
            UsageError: when a step cannot work on these images.
        """
        import torch

        if not self.random:
            return self._applied(images)
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(seed)
            return self._applied(images)

    def _applied(self, images: Tensor) -> Tensor:
        import torch

        for step in self.steps:
            images = _stepped(step, images)
        return images.float().div_(255) if images.dtype == torch.uint8 else images


def build_transform(tables: Sequence[Table], use: Use = "evaluation") -> Transform:
    """The transform that recipe tables describe, for the training split or for the others.

    Raises:
        RecipeError: with every fault of the list: unknown names, bad options, randomness in evaluation.
    """
    faults = [fault for _, fault in transform_faults(tables)]
    if faults:
        raise RecipeError(faults=faults)
    return Transform([_step(table) for table in tables if table.get("on", use) == use])


def transform_faults(tables: Sequence[Table]) -> Iterator[tuple[int, Fault]]:
    """What is wrong with the tables, each fault with its table's number from 0."""
    for number, table in enumerate(tables):
        try:
            _step(table)
        except RecipeError as error:
            yield from ((number, fault) for fault in error.faults)


def evaluation_tables(tables: Sequence[Table]) -> tuple[Table, ...]:
    """The tables of the evaluation transform, which an artifact keeps."""
    return tuple(
        {key: value for key, value in table.items() if key != "on"}
        for table in tables
        if table.get("on", "evaluation") == "evaluation"
    )


def _step(table: Table) -> nn.Module:
    on = table.get("on")
    step = v2_transform({key: value for key, value in table.items() if key != "on"})
    if "on" in table and on not in ("train", "evaluation"):
        raise RecipeError(
            f"transform {table['name']}: on = {on!r}", hint='write on = "train" or on = "evaluation"'
        )
    if on != "train" and is_random(step):
        raise RecipeError(
            f"transform {table['name']} is random, and figures must be measured on the same inputs each time",
            hint='add on = "train" to it; what only evaluation needs gets on = "evaluation"',
        )
    return step


def _stepped(step: nn.Module, images: Tensor) -> Tensor:
    import torch

    try:
        if is_random(step):
            return torch.stack([step(image) for image in images])
        return torch.as_tensor(step(images))
    except (TypeError, ValueError, RuntimeError, NotImplementedError) as error:
        found = f"{images.dtype} images of shape {list(images.shape)}"
        raise UsageError(
            f"transform {type(step).__name__} fails on {found}: {error}",
            hint="correct its options in [data] transform, or the transforms before it",
        ) from error
