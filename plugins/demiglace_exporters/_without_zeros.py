"""What passes have in common by which linear layers compute without their zeros, where that is faster."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from copy import deepcopy
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Annotated, Any, TypeVar, cast

from pydantic import Field

from demiglace.errors import GraphError
from demiglace.passes import Context, Editor, Share, Targeted
from demiglace.recipe.selectors import ROOT

if TYPE_CHECKING:
    from torch import Tensor, nn

    from demiglace.graph import Edit, ModelGraph, Swap

_ROUNDS, _SECONDS = 30, 2.0
"""How often each layer is read in both forms, at most, and in which time."""


class WithoutZerosConfig(Targeted):
    """Which layers are tried, and what they must gain."""

    batch_size: Annotated[int, Field(ge=1, le=65536)] = 1
    """Examples in a call: of the model as it will be used."""
    min_sparsity: Share = 0.7
    """The least share of zeros of a layer that is timed."""
    min_speedup: Annotated[float, Field(ge=0.0, le=100.0)] = 1.1
    """How many times as fast a layer must be without its zeros; 0 takes each one without timing it."""

    def told(self, layers: str) -> str:
        """What the pass does with such layers, in words."""
        if self.min_speedup == 0:
            return f"compute {layers} without their zeros from {self.min_sparsity:.0%} of them on"
        return (
            f"compute {layers} without their zeros where that is {self.min_speedup:g} times as fast "
            f"at batch {self.batch_size}"
        )


@dataclass(frozen=True)
class Candidate:
    """A layer that could compute without its zeros."""

    layer: str
    #: The share of its weights that are zero.
    sparsity: float
    #: The edit that has it do so.
    swap: Swap
    #: Why this machine cannot compute it so; `None` where it can.
    refused: str | None = None


C = TypeVar("C", bound=WithoutZerosConfig)


class WithoutZeros(Editor[C]):
    """Times each candidate in both forms and swaps those that gain."""

    #: What the layers are, in messages.
    layers = ""

    @abstractmethod
    def candidates(self, model: ModelGraph, context: Context) -> Iterator[Candidate]:
        """The selected layers with zeros enough; the others are reported to the context."""

    def edits(self, model: ModelGraph, context: Context, amount: float | None = None) -> Iterator[Edit]:
        model = model.with_layers()
        found = list(self.candidates(model, context))
        if not found:
            raise GraphError(
                f"no {self.layers} that is selected has {self.config.min_sparsity:.0%} of zeros",
                hint="prune its weights first, by prune.magnitude for one, or lower min_sparsity",
            )
        inputs = _inputs(model, [one.layer for one in found], self.config.batch_size, context)
        context.figures["layers"] = figures = []
        for one in context.track(found, "timing layers"):
            given = inputs.get(one.layer)
            if one.refused is not None or given is None:
                context.leave_alone(one.layer, one.refused or "the model does not call it")
                continue
            figure = {"layer": one.layer, "sparsity": one.sparsity, "input": list(given.shape)}
            figures.append(figure)
            if self._gains(figure, one, _layer(model, one.layer), given, context):
                yield one.swap

    def _gains(
        self, figure: dict[str, Any], one: Candidate, layer: nn.Module, given: Tensor, context: Context
    ) -> bool:
        """Whether a layer is fast enough without its zeros; its times go into the figure."""
        if self.config.min_speedup == 0:
            return True
        figure |= _timed(layer, one.swap, given, context)
        gains = bool(figure["speedup"] >= self.config.min_speedup)
        if not gains:
            context.leave_alone(one.layer, f"without its zeros {figure['speedup']:.2f} times as fast")
        return gains


def _layer(model: ModelGraph, name: str) -> nn.Module:
    return model.module.get_submodule("" if name == ROOT else name)


def _inputs(model: ModelGraph, names: Sequence[str], batch: int, context: Context) -> Mapping[str, Tensor]:
    """What each layer is called with in a call of `batch` examples; without an example, one row for each."""
    from demiglace.calibration import undisturbed
    from demiglace.graph import resized

    layers = {name: _layer(model, name) for name in names}
    if model.example is None:
        return {name: _drawn(cast("Tensor", layer.weight), batch, context) for name, layer in layers.items()}
    found: dict[str, Tensor] = {}

    def seen(name: str, _: nn.Module, args: tuple[Tensor, ...], kwargs: Mapping[str, Tensor]) -> None:
        found.setdefault(name, next(iter((*args, *kwargs.values()))).detach().clone())

    example = resized(model.example, batch)
    with ExitStack() as hooks:
        for name, layer in layers.items():
            hook = partial(seen, name)
            hooks.callback(layer.register_forward_pre_hook(hook, with_kwargs=True).remove)
        with undisturbed(model.module):
            model.module(*example.args, **example.kwargs)
    return found


def _drawn(weight: Tensor, rows: int, context: Context) -> Tensor:
    """Random inputs of a linear layer with this weight."""
    import torch

    return torch.randn(rows, weight.shape[1], generator=context.rng()).to(weight)


def _timed(layer: nn.Module, swap: Swap, inputs: Tensor, context: Context) -> dict[str, float]:
    """Seconds of one call of the layer in both forms, in turn, and how many times as fast it is without."""
    import torch

    from demiglace.graph import ModelGraph, apply
    from demiglace.measure import in_turn

    changed = ModelGraph(deepcopy(layer))
    apply(changed, [replace(swap, module=ROOT)]).commit()
    with torch.inference_mode():
        calls = {"dense": lambda: layer(inputs), "sparse": lambda: changed.module(inputs)}
        times = in_turn(calls, rounds=_ROUNDS, seconds=_SECONDS, check=context.check_interrupt)
    dense, fast = times["dense"].median, times["sparse"].median
    return {"dense_seconds": dense, "sparse_seconds": fast, "speedup": dense / fast}
