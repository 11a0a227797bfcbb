"""`repair.least_squares`: solve for the remaining weights, so that layers give what they gave before.

The reconstruction of Optimal Brain Compression (Frantar and Alistarh 2022) and of channel pruning (He et
al. 2017), for masks and cuts alike: layer by layer, on the inputs that the repaired layers before give.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Annotated

from pydantic import Field

from demiglace.graph import Write, apply
from demiglace.passes import Context, Contract, Editor, Kind, PassSpec
from demiglace_repairs._repair import UNCHANGED, Calibrated, kept_channels, original_of, quiet

if TYPE_CHECKING:
    from demiglace.calibration import LeastSquares
    from demiglace.graph import ModelGraph, Weight


class LeastSquaresConfig(Calibrated):
    """Solve for the remaining weights of each layer, to give the outputs that it gave before.

    For linear layers and convolutions that lost weights to masks, inputs to cuts, or that come after such
    layers. Zeros stay zero; a layer that still gives what it gave stays as it is. Needs calibration data,
    but neither labels nor training.
    """

    damping: Annotated[float, Field(ge=1e-8, le=1)] = 0.01
    """How strongly weights are held where they are, as a share of the mean power of their layer's inputs:
    it decides what the data leaves open."""

    def contract(self) -> Contract:
        return Contract.of(needs=("weights.float", "data.calibration", "original"))

    def words(self) -> str:
        return f"solve for the remaining weights, layer by layer, on {self.samples} examples"


class LeastSquaresRepair(Editor[LeastSquaresConfig]):
    """Solves one layer after the other for the outputs of the original, on the inputs that it gets by now."""

    def edits(self, model: ModelGraph, context: Context, amount: float | None = None) -> Iterator[Write]:
        from demiglace.calibration import solvable_stages

        model, original, batches = model.with_layers(), original_of(context), self.config.batches(context)
        weights = model.weights(self.config.targets, self.config.ignore)
        stages = solvable_stages(model, weights, batches.first(), context)
        repaired = model.copy()
        for stage in context.track(stages, "solving for the remaining weights"):
            for weight, squares in self._problems(stage, original, repaired, context):
                edits = self._solve(weight, squares, repaired, context)
                apply(repaired, edits).commit()
                yield from edits

    def _problems(
        self, stage: Sequence[Weight], original: ModelGraph, repaired: ModelGraph, context: Context
    ) -> Iterator[tuple[Weight, LeastSquares]]:
        from demiglace.calibration import LeastSquares, normal_equations

        kept = {_layer(weight): kept_channels(original, repaired, weight.name) for weight in stage}
        equations = normal_equations(
            original.module, repaired, self.config.batches(context), kept, quiet(context)
        )
        for weight in stage:
            layer = repaired.module.get_submodule(_layer(weight))
            yield weight, LeastSquares(layer, equations[_layer(weight)], self.config.damping)

    @staticmethod
    def _solve(weight: Weight, squares: LeastSquares, model: ModelGraph, context: Context) -> list[Write]:
        if squares.present_error < UNCHANGED:
            return []
        alive = weight.tensor != 0
        bias = f"{weight.name.removesuffix('weight')}bias"
        solution = squares.solution(
            alive if weight.keep is None else alive & weight.keep, model.masks.get(bias)
        )
        context.figures[weight.name] = {"error_before": squares.present_error, "error": solution.error}
        edits = [Write(weight.name, solution.weight)]
        return edits if solution.bias is None else [*edits, Write(bias, solution.bias)]


def _layer(weight: Weight) -> str:
    return weight.name.rpartition(".")[0]


SPEC = PassSpec(
    "repair.least_squares",
    Kind.EDITOR,
    LeastSquaresConfig,
    "demiglace_repairs.least_squares:LeastSquaresRepair",
    '[[pass]]\nuse = "repair.least_squares"\n',
)
