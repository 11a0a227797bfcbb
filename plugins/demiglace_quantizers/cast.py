"""`quantize.cast`: weights and arithmetic in 16-bit floating point."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Literal

from demiglace.errors import GraphError
from demiglace.passes import Config, Context, Contract, Editor, Kind, PassSpec, Problem

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from demiglace.graph import Edit, ModelGraph


class CastConfig(Config):
    """Store weights and compute in 16-bit floating point; inputs and outputs keep their dtype.

    Halves the size. Processors with 16-bit matrix units also compute several times faster in bfloat16.
    """

    dtype: Literal["bfloat16", "float16"] = "bfloat16"
    """`bfloat16` has the range of float32 and 8 bits of precision; `float16` has 11 bits of precision and
    overflows above 65504."""

    def contract(self) -> Contract:
        lost = ("weights.exchangeable",) if self.dtype == "bfloat16" else ()
        return Contract.of(needs=("weights.float",), gives=(f"weights.{self.dtype}",), destroys=lost)

    def words(self) -> str:
        return f"store weights and compute in {self.dtype}"


class Cast(Editor[CastConfig]):
    """Casts every floating-point parameter and buffer, and puts casts around the model."""

    def preflight(self, model: ModelGraph) -> Iterator[Problem]:
        import torch

        from demiglace.quantization import CastsInputs

        if isinstance(model.module, torch.jit.ScriptModule):
            hint = "hand in the module that it was made of"
            yield Problem("the model is TorchScript, whose forward cannot be changed", hint=hint)
        elif isinstance(model.module, CastsInputs):
            computes = str(model.module.inputs_cast_to).removeprefix("torch.")
            yield Problem(f"the model is cast to {computes} already", hint="leave one of the casts out")
        elif not self._wide(model):
            message = f"the model has no floating-point tensor that is not {self.config.dtype} already"
            yield Problem(message, hint="leave this pass out")

    def edits(self, model: ModelGraph, context: Context, amount: float | None = None) -> list[Edit]:
        from demiglace.graph import Retype, Swap
        from demiglace.training import refuse

        refuse(self.preflight(model))
        wide = self._wide(model)
        for name, tensor in wide.items():
            self._refuse_overflow(name, tensor)
        returns = str(next(iter(wide.values())).dtype).removeprefix("torch.")
        options = {"computes": self.config.dtype, "returns": returns}
        edits: list[Edit] = [Retype(name, self.config.dtype) for name in wide]
        edits.append(Swap(".", "cast", options))
        self._try(model, edits, context)
        return edits

    def _wide(self, model: ModelGraph) -> dict[str, Tensor]:
        """What is to be cast, by name."""
        tensors = dict([*model.module.named_parameters(), *model.module.named_buffers()])
        floats = {name: one for name, one in tensors.items() if one.is_floating_point()}
        return {name: one for name, one in floats.items() if one.dtype != self._dtype}

    @property
    def _dtype(self) -> torch.dtype:
        import torch

        return torch.bfloat16 if self.config.dtype == "bfloat16" else torch.float16

    def _refuse_overflow(self, name: str, tensor: Tensor) -> None:
        if bool(tensor.isinf().sum() != tensor.to(self._dtype).isinf().sum()):
            largest = float(tensor.detach().abs().amax())
            raise GraphError(
                f"{name!r} holds values up to {largest:g}, beyond the range of float16",
                hint='use dtype = "bfloat16"',
            )

    def _try(self, model: ModelGraph, edits: list[Edit], context: Context) -> None:
        """Run the example before and after, and report how near the outputs are."""
        from demiglace.calibration import undisturbed
        from demiglace.data import leaves
        from demiglace.graph import apply
        from demiglace.quantization import TensorError

        example = model.example
        if example is None:
            return
        with undisturbed(model.module, context.device):
            before = list(leaves(model.module(*example.args, **example.kwargs)))
        transaction = apply(model, edits)
        try:
            with undisturbed(model.module, context.device):
                after = list(leaves(model.module(*example.args, **example.kwargs)))
        except RuntimeError as error:
            raise GraphError(
                f"the model cannot compute in {self.config.dtype}: {error}",
                hint="its forward makes tensors of a fixed dtype; let it use those of its inputs, and cast "
                "before layers hold integers",
            ) from error
        finally:
            transaction.rollback()
        pairs = [(a, b) for a, b in zip(before, after, strict=True) if hasattr(a, "is_floating_point")]
        pairs = [(a, b) for a, b in pairs if a.is_floating_point()]
        if any(bool(a.isfinite().all() > b.isfinite().all()) for a, b in pairs):
            raise GraphError(
                f"in {self.config.dtype} the model's outputs on the example are infinite or NaN",
                hint='use dtype = "bfloat16"' if self.config.dtype == "float16" else "leave this pass out",
            )
        errors = [TensorError.between(a, b) for a, b in pairs]
        context.figures["outputs"] = [{"sqnr": one.sqnr, "cosine": one.cosine} for one in errors]
        if errors:
            worst = min(errors, key=lambda one: one.sqnr)
            context.note(f"outputs on the example: SQNR {worst.sqnr:.1f} dB, cosine {worst.cosine:.6f}")


SPEC = PassSpec(
    "quantize.cast",
    Kind.EDITOR,
    CastConfig,
    "demiglace_quantizers.cast:Cast",
    '[[pass]]\nuse = "quantize.cast"\ndtype = "bfloat16"\n',
)
