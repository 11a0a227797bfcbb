"""`repair.batchnorm`: estimate the statistics of batch normalizations again, on the model as it is now."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

from demiglace.graph import Write
from demiglace.passes import Context, Contract, Editor, Kind, PassSpec, Problem
from demiglace_repairs._repair import Calibrated, selected_layers

if TYPE_CHECKING:
    from torch import Tensor, nn

    from demiglace.graph import ModelGraph


class BatchnormConfig(Calibrated):
    """Estimate the running means and variances of batch normalizations again on calibration data.

    They were averaged over another model: what was removed, masked or repaired before a normalization has
    shifted its inputs. Needs neither labels nor training.
    """

    def contract(self) -> Contract:
        return Contract.of(needs=("data.calibration",))

    def words(self) -> str:
        return f"estimate the statistics of batch normalizations again on {self.samples} examples"


class BatchnormRepair(Editor[BatchnormConfig]):
    """Gathers the moments of every normalization's inputs in one run, in which each uses its batch's own.

    So each sees inputs as they will be once those before it have their new statistics.
    """

    def preflight(self, model: ModelGraph) -> Iterable[Problem]:
        if not self._norms(model.with_layers()):
            yield Problem(
                "the targets hold no batch normalization with running statistics",
                hint="take this pass out: a model without them has nothing to estimate again",
            )

    def edits(self, model: ModelGraph, context: Context, amount: float | None = None) -> Iterator[Write]:
        from demiglace.calibration import Moments, calibrate

        model = model.with_layers()
        norms = self._norms(model)
        moments = {path: Moments("input") for path in norms}
        with ExitStack() as hooks:
            for layer in norms.values():
                hooks.callback(layer.register_forward_hook(_normalized_by_batch).remove)
            calibrate(model, self.config.batches(context), moments, context)
        for path, seen in moments.items():
            prefix = f"{path}." if path else ""
            if seen.rows < 2:
                context.leave_alone(path or ".", "the model does not call it")
                continue
            yield Write(f"{prefix}running_mean", seen.mean)
            # The running variance is the unbiased one.
            yield Write(f"{prefix}running_var", seen.variance * seen.rows / (seen.rows - 1))

    def _norms(self, model: ModelGraph) -> dict[str, nn.Module]:
        """The selected batch normalizations that have running statistics, by name."""
        from torch.nn.modules.batchnorm import _BatchNorm

        return {
            path: layer
            for path, layer in selected_layers(model, self.config)
            if isinstance(layer, _BatchNorm) and layer.running_mean is not None
        }


def _normalized_by_batch(layer: Any, inputs: tuple[Tensor, ...], output: Tensor) -> Tensor:
    """What the layer gives when it normalizes by the batch at hand; one value has no variance."""
    from torch.nn import functional as F

    if inputs[0].numel() <= inputs[0].shape[1]:
        return output
    return F.batch_norm(inputs[0], None, None, layer.weight, layer.bias, training=True, eps=layer.eps)


SPEC = PassSpec(
    "repair.batchnorm",
    Kind.EDITOR,
    BatchnormConfig,
    "demiglace_repairs.batchnorm:BatchnormRepair",
    '[[pass]]\nuse = "repair.batchnorm"\n',
)
