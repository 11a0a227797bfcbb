"""Hooks at the layers of interest while batches run."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import ExitStack
from functools import partial
from typing import TYPE_CHECKING, Any, TypeAlias

import torch
from torch import Tensor, nn

from demiglace.calibration.collector import Collector, GradientCollector
from demiglace.calibration.hollow import Touched, holds_hollow
from demiglace.data import Batch
from demiglace.errors import GraphError, UsageError
from demiglace.recipe.selectors import ROOT

if TYPE_CHECKING:
    from demiglace.calibration.replay import Replay

Collectors: TypeAlias = Mapping[str, Collector | GradientCollector]
"""Collectors by the qualified names of modules; `.` is the root."""


class _Stop(Exception):
    """All layers of interest have run."""


class Watch(ExitStack):
    """Forward hooks at the layers of interest, while it is entered.

    Args:
        module: the model.
        collectors: by the names of its layers.
        stop_early: leave each forward pass, after the first, when all layers of interest have run.
        replay: lets each pass begin late and leave early, the first too.
    """

    def __init__(
        self, module: nn.Module, collectors: Collectors, stop_early: bool, replay: Replay | None = None
    ) -> None:
        super().__init__()
        self.module, self.stop_early, self._replay = module, stop_early or replay is not None, replay
        self.layers = [(name, layer_named(module, name), one) for name, one in collectors.items()]
        self.gradients = any(isinstance(one, GradientCollector) for one in collectors.values())
        self._kept: list[tuple[GradientCollector, nn.Module, Tensor]] = []
        self._passes = self._calls = 0
        #: Calls in this pass that collectors have seen before it began anew.
        self._seen = 0
        self._padding: Tensor | None = None
        #: Calls of layers of interest in one forward pass, known after the first.
        self._expected = None if replay is None else replay.aim(collectors)

    def __enter__(self) -> Watch:
        super().__enter__()
        for name, layer, collector in self.layers:
            hook: Callable[..., Any]
            if isinstance(collector, GradientCollector):
                hook = partial(self._see_gradient, name, collector)
            else:
                hook = partial(self._see, name, collector)
            self.callback(layer.register_forward_hook(hook, with_kwargs=True).remove)
        return self

    def forward(self, batch: Batch) -> Any:
        """One forward pass; its outputs, or `None` when it stopped early."""
        self._calls = self._seen = 0
        self._padding = padding(batch)
        if self._replay is None:
            return self._run(batch)
        number, self._passes = self._passes, self._passes + 1
        try:
            return self._replay.run(number, batch, self._run)
        except (Touched, Exception):
            # An error of the model itself comes again from the beginning.
            if not self._replay.forget(number):
                raise
        self._calls, self._seen = 0, self._calls
        return self._replay.run(number, batch, self._run)

    def _run(self, batch: Batch) -> Any:
        try:
            outputs = run_batch(self.module, batch)
        except _Stop:
            return None
        self._expected = self._calls
        return outputs

    def backward(self, loss: Tensor) -> None:
        """Hand the gradients of the loss to those who wait for them."""
        outputs = [output for _, _, output in self._kept]
        gradients = differentiated(loss, outputs)
        for (collector, layer, output), gradient in zip(self._kept, gradients, strict=True):
            given = torch.zeros_like(output) if gradient is None else gradient
            collector.see_gradient(layer, output.detach(), given)
            collector.calls += 1
        self._kept.clear()

    def _see(
        self, name: str, collector: Collector, layer: nn.Module, args: Any, kwargs: Any, output: Any
    ) -> None:
        values = (*args, *kwargs.values(), output)
        if holds_hollow(values):
            raise Touched
        if self._replay is not None and self._replay.trying:
            return
        if self._calls >= self._seen:
            self._show(name, collector, layer, values)
        self._calls += 1
        to_the_end = self._replay is not None and self._replay.to_the_end
        if self.stop_early and self._calls == self._expected and not to_the_end:
            raise _Stop

    def _show(self, name: str, collector: Collector, layer: nn.Module, values: tuple[Any, ...]) -> None:
        """Show a collector a call: the layer's inputs, and last its output."""
        for value in values:
            _refuse_nonfinite(value, name)
        with torch.no_grad():
            shown = [without_padding(value, self._padding) for value in values]
            if not holds_nothing(shown[0]):
                collector.see(layer, tuple(shown[:-1]), shown[-1])
                collector.calls += 1

    def _see_gradient(
        self, name: str, collector: GradientCollector, layer: nn.Module, args: Any, kwargs: Any, output: Any
    ) -> Any:
        _refuse_nonfinite(output, name)
        if not isinstance(output, Tensor) or not output.requires_grad:
            raise UsageError(
                f"no gradient reaches layer {name!r}", hint="its parameters and all before it are frozen"
            )
        self._kept.append((collector, layer, output))
        # What follows may work in place: it gets a copy, and the gradient is that of the layer's output.
        return output.clone()


def holds_nothing(value: Any) -> bool:
    """Whether a layer's input is without an element: of an expert that no example was sent to, for one."""
    return isinstance(value, Tensor) and value.numel() == 0


def padding(batch: Batch) -> Tensor | None:
    """Which positions of a batch of sequences are real, `[n, positions]`, where it says so.

    Batches of sequences have an `attention_mask`: what it leaves out is filling, which is the same in every
    sequence and would outweigh what the sequences hold.
    """
    holders = (batch.kwargs, *batch.args)
    masks = [one["attention_mask"] for one in holders if isinstance(one, Mapping) and "attention_mask" in one]
    mask = masks[0] if masks else None
    return mask.bool() if isinstance(mask, Tensor) and mask.dim() == 2 else None


def without_padding(value: Any, real: Tensor | None) -> Any:
    """The real positions of `[n, positions, channels]`, as `[rows, channels]`; anything else as it is."""
    if real is None or not isinstance(value, Tensor) or value.dim() != 3 or value.shape[:2] != real.shape:
        return value
    return value[real]


def differentiated(loss: Tensor, tensors: list[Tensor]) -> tuple[Tensor | None, ...]:
    """The gradients of a loss, `None` where it does not depend on a tensor.

    Raises:
        UsageError: when the model cannot be differentiated.
    """
    try:
        return torch.autograd.grad(loss, tensors, allow_unused=True)
    except RuntimeError as error:
        raise UsageError(
            f"the model cannot be differentiated: {error}".partition("\n")[0],
            hint="choose a method that needs no gradients, or change the model so that it could be trained",
        ) from error


def layer_named(module: nn.Module, name: str) -> nn.Module:
    """A layer by its qualified name, `.` for the root.

    Raises:
        GraphError: when there is none.
    """
    try:
        return module.get_submodule("" if name == ROOT else name)
    except AttributeError:
        raise GraphError(f"the model has no layer {name!r} to calibrate") from None


def refuse_nonfinite_data(batch: Batch) -> None:
    """Raise when a batch's inputs hold NaN or infinity.

    Raises:
        GraphError: always then.
    """
    for value in batch.inputs():
        if not _finite(value):
            raise GraphError(
                "the calibration data holds NaN or infinity", hint="clean the data, or its transform"
            )


def _refuse_nonfinite(value: Any, layer: str) -> None:
    if not _finite(value):
        raise GraphError(
            f"layer {layer!r} sees or gives NaN or infinity during calibration",
            hint="check that the model works on this data before compressing it",
        )


def _finite(value: Any) -> bool:
    if not isinstance(value, Tensor) or not value.is_floating_point() or value.numel() == 0:
        return True
    low, high = value.detach().aminmax()
    return bool(low.isfinite() and high.isfinite())


def run_batch(module: nn.Module, batch: Batch) -> Any:
    """The model's outputs on a batch.

    Raises:
        UsageError: when it cannot run it, with the shapes of the inputs.
    """
    try:
        return batch.run(module)
    except (RuntimeError, TypeError, ValueError, IndexError) as error:
        values = (*batch.args, *batch.kwargs.values())
        shapes = ", ".join(str(list(value.shape)) for value in values if isinstance(value, Tensor))
        raise UsageError(
            f"the model cannot run a calibration batch with inputs of shape {shapes}: {error}",
            hint="calibrate on examples like those the model was made for",
        ) from error
