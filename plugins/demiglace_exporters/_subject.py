"""What is exported: the model, with the data's transform before it if that is wanted, and real inputs."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from demiglace.calibration import CalibrationBatches, calibration_batches, undisturbed
from demiglace.data import Batch, build_transform
from demiglace.errors import GraphError, UsageError
from demiglace.graph import Example, ModelGraph

if TYPE_CHECKING:
    from demiglace.passes import Context
    from demiglace_exporters._file import FileConfig


class Preprocessed(nn.Module):
    """A model that takes images as the data holds them."""

    def __init__(self, model: nn.Module, steps: Sequence[nn.Module]) -> None:
        super().__init__()
        self.model, self.steps = model, nn.ModuleList(steps)

    def forward(self, images: Tensor) -> object:
        for step in self.steps:
            images = step(images)
        # As `demiglace.data` does it: what a transform leaves in 8 bits is scaled to [0, 1].
        return self.model(images.float() / 255 if images.dtype == torch.uint8 else images)


@dataclass(frozen=True)
class Subject:
    """A model that is exported, and inputs to compare it on."""

    #: With an example input.
    model: ModelGraph
    batches: Iterable[Batch]

    def only_batch(self) -> int | None:
        """The batch size that the model fixes in its code; `None` where it takes one example alone too."""
        example = self.model.example
        batch = Batch(example.args, dict(example.kwargs)) if example is not None else Batch()
        try:
            with undisturbed(self.model.module):
                first(batch, 1).run(self.model.module)
        except (RuntimeError, ValueError):
            return len(batch)
        return None

    @classmethod
    def of(cls, model: ModelGraph, context: Context, options: FileConfig) -> Subject:
        """The model of a step as its options want it exported.

        Raises:
            GraphError: without an example input.
            UsageError: when a transform is to be folded in, and the data holds no images of 8 bits.
        """
        if options.preprocess:
            return _with_transform(model, context, options.examples)
        if model.example is None:
            raise GraphError("an export needs an example input", hint="pass `example_inputs`, or data")
        example = Batch(model.example.args, dict(model.example.kwargs))
        if context.data is None or not context.data.splits:
            return cls(model, [example, _drawn(example, context)])
        try:
            batches = calibration_batches(context, options.examples, options.examples)
        except UsageError:  # data of other splits alone, for an evaluation
            return cls(model, [example])
        return cls(model, batches)


def first(batch: Batch, count: int) -> Batch:
    """The first examples of a batch, without labels; what has another length is left whole."""
    size = len(batch)

    def cut(value: object) -> object:
        whole = not isinstance(value, Tensor) or value.dim() == 0 or value.shape[0] != size
        return value if whole else value[:count]  # type: ignore[index]

    return replace(batch.mapped(cut), labels=None)


def _drawn(example: Batch, context: Context) -> Batch:
    """Random numbers in place of an example's own, which may be zeros alone."""
    generator = context.rng()

    def drawn(value: object) -> object:
        if not isinstance(value, Tensor) or not value.is_floating_point():
            return value
        return torch.randn(value.shape, generator=generator).to(value)

    return example.mapped(drawn)


def _with_transform(model: ModelGraph, context: Context, examples: int) -> Subject:
    if context.data is None:
        raise UsageError("preprocess = true needs data", hint="give the recipe a [data] table")
    raw = context.data.split("calibration").untransformed()
    # One by one: as the data holds them, images may have different sizes.
    single = CalibrationBatches(raw, examples, 1, context.seed, context.device)
    images = [_image(batch) for batch in single]
    alike = [one for one in images if one.shape == images[0].shape]
    if len(alike) < len(images):
        size = " x ".join(map(str, images[0].shape[2:]))
        context.warn(
            f"the file takes images of {size}; {len(images) - len(alike)} of the data's are of another size"
        )
    batch = Batch((torch.cat(alike),))
    whole = Preprocessed(model.module, build_transform(context.data.transform).steps).eval()
    return Subject(ModelGraph(whole, Example(first(batch, 2).args)), [batch])


def _image(batch: Batch) -> Tensor:
    """The image of a batch of one.

    Raises:
        UsageError: when it is none of 8 bits.
    """
    value = batch.args[0] if len(batch.args) == 1 else None
    if not isinstance(value, Tensor) or value.dtype != torch.uint8:
        raise UsageError(
            "preprocess = true needs data that holds images of 8 bits",
            hint="export without it, and say beside the file what its inputs must be",
        )
    return value
