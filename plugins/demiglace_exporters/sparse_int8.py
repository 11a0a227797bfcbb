"""`deploy.sparse_int8`: linear layers of integers without their zeros, where that is faster."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from demiglace.passes import Context, Contract, Kind, PassSpec
from demiglace.recipe.selectors import ROOT, selected
from demiglace_exporters._without_zeros import Candidate, WithoutZeros, WithoutZerosConfig

if TYPE_CHECKING:
    from torch import nn

    from demiglace.graph import ModelGraph


class SparseInt8Config(WithoutZerosConfig):
    """Let linear layers that compute on integers leave out their zeros, each only if that is faster here.

    Zeros are neither read from memory nor multiplied, whatever their pattern. The code for it is compiled
    once, for processors with AVX-512 that have VNNI and VBMI, such as those of AMD since Zen 4 and of Intel's
    servers since Ice Lake; it needs a C++ compiler. The numbers stay the same to the bit, the
    tensors too, and on another machine the layers compute as they did before. Each is timed in both forms
    on its own inputs, in turn, in eager PyTorch.
    """

    def contract(self) -> Contract:
        return Contract.of(needs=("products.int8",), gives=("weights.sparse",), destroys=("model.trainable",))

    def words(self) -> str:
        return self.told("linear layers of integers")


class SparseInt8(WithoutZeros[SparseInt8Config]):
    """Has those layers that gain leave out their zeros."""

    layers = "linear layer of integers"

    def candidates(self, model: ModelGraph, context: Context) -> Iterator[Candidate]:
        from demiglace.quantization import without_zeros_problem, zero_free_swap

        for name, layer in self._quantized(model):
            zeros, reason = self._zeros(layer)
            if reason is None:
                yield Candidate(name, zeros, zero_free_swap(name), without_zeros_problem())
            else:
                context.leave_alone(name, reason)

    def _quantized(self, model: ModelGraph) -> Iterator[tuple[str, nn.Module]]:
        """The selected layers that hold integers."""
        every = model.candidates()
        chosen = {one.name for one in selected(every, self.config.targets)}
        if self.config.ignore:
            chosen -= {one.name for one in selected(every, self.config.ignore)}
        for path, module in model.module.named_modules():
            name = path or ROOT
            if name in chosen and hasattr(module, "quantized_weights"):
                yield name, module

    def _zeros(self, layer: nn.Module) -> tuple[float, str | None]:
        """The share of a layer's weights that are zero, and why it stays as it is."""
        from demiglace.quantization import held_weights, may_leave_out_zeros

        if not may_leave_out_zeros(layer):
            return 0.0, "it is no linear layer that computes on integers"
        [(_, weight)] = held_weights(layer)
        zeros = weight.zeros() / weight.numel()
        few = zeros < self.config.min_sparsity
        return zeros, f"only {zeros:.1%} of its weights are zero" if few else None


SPEC = PassSpec(
    "deploy.sparse_int8",
    Kind.EDITOR,
    SparseInt8Config,
    "demiglace_exporters.sparse_int8:SparseInt8",
    '[[pass]]\nuse = "deploy.sparse_int8"\nbatch_size = 8\n',
)
