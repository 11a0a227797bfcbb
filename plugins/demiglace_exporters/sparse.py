"""`deploy.sparse`: linear layers without their zeros, where that is faster."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from demiglace.passes import Context, Contract, Kind, PassSpec, Problem
from demiglace.recipe.selectors import ROOT
from demiglace_exporters._without_zeros import Candidate, WithoutZeros, WithoutZerosConfig

if TYPE_CHECKING:
    from torch import Tensor

    from demiglace.graph import ModelGraph, Weight


class SparseConfig(WithoutZerosConfig):
    """Let linear layers compute without their zeros, each only if that is faster here.

    Each layer with zeros enough is timed in both forms on inputs of the size that it gets, in turn. What it
    decides holds for this processor, its threads and this batch size. The layer holds its nonzeros alone, at
    eight bytes each, and cannot be trained any more. Layers of integers are for `deploy.sparse_int8`.
    """

    def contract(self) -> Contract:
        return Contract.of(needs=("weights.float",), gives=("weights.sparse",), destroys=("model.trainable",))

    def words(self) -> str:
        return self.told("linear layers")


class Sparse(WithoutZeros[SparseConfig]):
    """Puts layers of compressed sparse rows in place of those that gain."""

    layers = "linear layer"

    def preflight(self, model: ModelGraph) -> Iterator[Problem]:
        model = model.with_layers()
        if not any(_refusal(model, weight) is None for weight in self._weights(model)):
            option = ("targets",) if self.config.targets != ["*"] else ()
            what = f"{self.config.selector_words()} select no linear layer that could be sparse"
            yield Problem(what, option, "name layers of the type Linear, with a weight of their own")

    def candidates(self, model: ModelGraph, context: Context) -> Iterator[Candidate]:
        from demiglace.quantization import SparseWeight, sparse_swap

        for weight in self._weights(model):
            acting = _as_it_acts(weight)
            zeros = 1 - float(acting.count_nonzero()) / weight.tensor.numel()
            reason = _refusal(model, weight)
            if reason is None and zeros < self.config.min_sparsity:
                reason = f"only {zeros:.1%} of its weights are zero"
            if reason is None:
                yield Candidate(weight.module, zeros, sparse_swap(weight.module, SparseWeight.of(acting)))
            else:
                context.leave_alone(weight.module, reason)

    def _weights(self, model: ModelGraph) -> list[Weight]:
        return list(model.weights(self.config.targets, self.config.ignore))


def _refusal(model: ModelGraph, weight: Weight) -> str | None:
    """Why the layer of a weight cannot be sparse; `None` when it can."""
    from torch import nn

    layer = model.module.get_submodule("" if weight.module == ROOT else weight.module)
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


SPEC = PassSpec(
    "deploy.sparse",
    Kind.EDITOR,
    SparseConfig,
    "demiglace_exporters.sparse:Sparse",
    '[[pass]]\nuse = "deploy.sparse"\nbatch_size = 8\n',
)
