"""`deploy.sparse`: linear layers without their zeros, where that is faster."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from copy import deepcopy
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import Field

from demiglace.errors import GraphError
from demiglace.passes import Context, Contract, Editor, Kind, PassSpec, Problem, Share, Targeted
from demiglace.recipe.selectors import ROOT

if TYPE_CHECKING:
    from torch import Tensor, nn

    from demiglace.graph import Edit, ModelGraph, Weight
    from demiglace.quantization import SparseWeight

_ROUNDS, _SECONDS = 30, 2.0
"""How often each layer is read in both forms, at most, and in which time."""


class SparseConfig(Targeted):
    """Let linear layers compute without their zeros, each only if that is faster here.

    Each layer with zeros enough is timed in both forms on inputs of the size that it gets, in turn. What it
    decides holds for this processor, its threads and this batch size. The layer holds its nonzeros alone, at
    eight bytes each, and cannot be trained any more.
    """

    batch_size: Annotated[int, Field(ge=1, le=65536)] = 1
    """Examples in a call: of the model as it will be used."""
    min_sparsity: Share = 0.7
    """The least share of zeros of a layer that is timed."""
    min_speedup: Annotated[float, Field(ge=0.0, le=100.0)] = 1.1
    """How many times as fast a layer must be without its zeros; 0 takes each one without timing it."""

    def contract(self) -> Contract:
        return Contract.of(needs=("weights.float",), gives=("weights.sparse",), destroys=("model.trainable",))

    def words(self) -> str:
        if self.min_speedup == 0:
            return f"compute linear layers without their zeros from {self.min_sparsity:.0%} of them on"
        return (
            f"compute linear layers without their zeros where that is {self.min_speedup:g} times as fast "
            f"at batch {self.batch_size}"
        )


class Sparse(Editor[SparseConfig]):
    """Times each candidate in both forms and swaps those that gain."""

    def preflight(self, model: ModelGraph) -> Iterator[Problem]:
        model = model.with_layers()
        if not any(_refusal(model, weight) is None for weight in self._weights(model)):
            option = ("targets",) if self.config.targets != ["*"] else ()
            what = f"{self.config.selector_words()} select no linear layer that could be sparse"
            yield Problem(what, option, "name layers of the type Linear, with a weight of their own")

    def edits(self, model: ModelGraph, context: Context, amount: float | None = None) -> Iterator[Edit]:
        from demiglace.quantization import SparseWeight, sparse_swap

        model = model.with_layers()
        candidates = list(self._candidates(model, context))
        shapes = _input_shapes(model, [weight.module for weight in candidates], self.config.batch_size)
        context.figures["layers"] = figures = []
        for weight in context.track(candidates, "timing layers"):
            shape = shapes.get(weight.module)
            if shape is None:
                context.leave_alone(weight.module, "the model does not call it")
                continue
            sparse = SparseWeight.of(_as_it_acts(weight))
            figure = {
                "layer": weight.module,
                "sparsity": sparse.zeros() / sparse.numel(),
                "input": list(shape),
            }
            figures.append(figure)
            if self._gains(figure, model.module.get_submodule(_path(weight)), sparse, context):
                yield sparse_swap(weight.module, sparse)

    def _gains(
        self, figure: dict[str, Any], layer: nn.Module, sparse: SparseWeight, context: Context
    ) -> bool:
        """Whether a layer is fast enough without its zeros; its times go into the figure."""
        if self.config.min_speedup == 0:
            return True
        figure |= _timed(layer, sparse, figure["input"], context)
        gains = bool(figure["speedup"] >= self.config.min_speedup)
        if not gains:
            context.leave_alone(figure["layer"], f"without its zeros {figure['speedup']:.2f} times as fast")
        return gains

    def _weights(self, model: ModelGraph) -> list[Weight]:
        return list(model.weights(self.config.targets, self.config.ignore))

    def _candidates(self, model: ModelGraph, context: Context) -> Iterator[Weight]:
        """The selected weights of linear layers with zeros enough; the others are reported.

        Raises:
            GraphError: when there is none.
        """
        found = False
        for weight in self._weights(model):
            zeros = 1 - float(_as_it_acts(weight).count_nonzero()) / weight.tensor.numel()
            reason = _refusal(model, weight)
            if reason is None and zeros < self.config.min_sparsity:
                reason = f"only {zeros:.1%} of its weights are zero"
            if reason is None:
                found = True
                yield weight
            else:
                context.leave_alone(weight.module, reason)
        if not found:
            raise GraphError(
                f"no linear layer that is selected has {self.config.min_sparsity:.0%} of zeros",
                hint="prune its weights first, by prune.magnitude for one, or lower min_sparsity",
            )


def _path(weight: Weight) -> str:
    return "" if weight.module == ROOT else weight.module


def _refusal(model: ModelGraph, weight: Weight) -> str | None:
    """Why the layer of a weight cannot be sparse; `None` when it can."""
    from torch import nn

    layer = model.module.get_submodule(_path(weight))
    if not isinstance(layer, nn.Linear):
        return "it is no linear layer that is called as one"
    if type(layer).forward is not nn.Linear.forward:
        return f"{weight.type} has a forward of its own"
    every = dict(model.module.named_parameters(remove_duplicate=False))
    if sum(one is every[weight.name] for one in every.values()) > 1:
        return "other layers share its weight"
    return None


def _as_it_acts(weight: Weight) -> Tensor:
    """The weight with what a mask holds at zero."""
    return weight.tensor if weight.keep is None else weight.tensor * weight.keep


def _input_shapes(model: ModelGraph, names: Sequence[str], batch: int) -> dict[str, tuple[int, ...]]:
    """The shape of each layer's input in a call of `batch` examples; without an example, one row for each."""
    from demiglace.calibration import undisturbed
    from demiglace.graph import resized

    layers = {name: model.module.get_submodule("" if name == ROOT else name) for name in names}
    if model.example is None:
        return {name: (batch, int(layer.get_parameter("weight").shape[1])) for name, layer in layers.items()}
    found: dict[str, tuple[int, ...]] = {}

    def seen(name: str, inputs: tuple[Tensor, ...]) -> None:
        found.setdefault(name, tuple(inputs[0].shape))

    example = resized(model.example, batch)
    with ExitStack() as hooks:
        for name, layer in layers.items():
            hook = layer.register_forward_pre_hook(lambda _, inputs, name=name: seen(name, inputs))
            hooks.callback(hook.remove)
        with undisturbed(model.module):
            model.module(*example.args, **example.kwargs)
    return found


def _timed(
    layer: nn.Module, sparse: SparseWeight, shape: Sequence[int], context: Context
) -> dict[str, float]:
    """Seconds of one call of the layer in both forms, in turn, and how many times as fast it is sparse."""
    import torch

    from demiglace.graph import ModelGraph, apply
    from demiglace.measure import in_turn
    from demiglace.quantization import sparse_swap

    changed = ModelGraph(deepcopy(layer))
    apply(changed, [sparse_swap(ROOT, sparse)]).commit()
    inputs = torch.randn(shape, generator=context.rng(), dtype=sparse.values.dtype).to(sparse.values.device)
    with torch.inference_mode():
        calls = {"dense": lambda: layer(inputs), "sparse": lambda: changed.module(inputs)}
        times = in_turn(calls, rounds=_ROUNDS, seconds=_SECONDS, check=context.check_interrupt)
    dense, fast = times["dense"].median, times["sparse"].median
    return {"dense_seconds": dense, "sparse_seconds": fast, "speedup": dense / fast}


SPEC = PassSpec(
    "deploy.sparse",
    Kind.EDITOR,
    SparseConfig,
    "demiglace_exporters.sparse:Sparse",
    '[[pass]]\nuse = "deploy.sparse"\nbatch_size = 8\n',
)
