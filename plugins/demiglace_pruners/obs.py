"""`prune.obs`: hold the weights at zero that matter least to what their layer gives, and adjust the rest.

Scores of Optimal Brain Surgeon (Hassibi and Stork 1993), applied layer by layer to the error of each
layer's outputs as in Optimal Brain Compression (Frantar and Alistarh 2022). Ours differs in two ways: the
weights of an output are removed at once and the remaining ones then solved exactly, and they are solved for
the outputs of the unpruned model on the inputs that the pruned layers before give. Layers compete by
their layer-adaptive scores.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Annotated

from pydantic import Field

from demiglace.errors import GraphError
from demiglace.graph import Write, apply, count_zeros, keep_largest
from demiglace.passes import Context, Contract, Kind, PassSpec, Share
from demiglace_pruners._amounts import Scoped, amount_words, removals
from demiglace_pruners._masks import MaskEditor, chosen, mask_edits, promise_zeros

if TYPE_CHECKING:
    from torch import Tensor

    from demiglace.calibration import CalibrationBatches, LeastSquares, Solution
    from demiglace.graph import Edit, ModelGraph, Weight

    Stages = list[list[Weight]]


class ObsConfig(Scoped):
    """Hold the weights at zero that matter least to their layer's outputs, and solve for the rest.

    Needs calibration data, but neither labels nor training. Linear layers and convolutions are pruned, in
    the order in which the model runs them; what else is selected is reported and stays. Zeros count as
    removed already.
    """

    amount: Share
    """Share of the selected weights that are zero in the end, 0 to 1."""
    samples: Annotated[int, Field(ge=1)] = 1024
    """Calibration examples to look at."""
    batch_size: Annotated[int, Field(ge=1)] = 64
    """Examples in a calibration batch."""
    damping: Annotated[float, Field(ge=1e-8, le=1)] = 0.01
    """How strongly weights are held where they are, as a share of the mean power of their layer's inputs:
    it decides what the data leaves open."""

    def contract(self) -> Contract:
        return Contract.of(needs=("weights.float", "data.calibration"), gives=("weights.masked",))

    def words(self) -> str:
        share = amount_words(self.amount, self.of)
        how = f"the least needed for their layer's outputs, ranked {self.scope_words()}"
        return f"zero {share}: {how}; solve for the rest on {self.samples} examples"


class Obs(MaskEditor[ObsConfig]):
    """Ranks weights by what their removal costs, and solves the least squares of those that stay."""

    def edits(self, model: ModelGraph, context: Context, amount: float | None = None) -> Iterator[Edit]:
        from demiglace.calibration import calibration_batches, solvable_stages

        model = model.with_layers()
        batches = calibration_batches(context, self.config.samples, self.config.batch_size)
        weights = chosen(model, self.config, context)
        stages = solvable_stages(model, weights, batches.first(), context)
        weights = [weight for stage in stages for weight in stage]
        if not weights:
            raise _nothing(context)
        surgery = _Surgery(model, batches, self.config.damping, context)
        remove = self._removals(surgery, stages, amount)
        if all(remove[one.name] == _zeros(one) for one in weights):
            promise_zeros(context, weights, sum(remove.values()))
            return
        zeros = 0
        for stage in context.track(stages, "pruning by second-order scores"):
            for weight, squares in surgery.least_squares(stage):
                edits = surgery.prune(weight, squares, remove[weight.name])
                zeros += count_zeros(surgery.model.module.get_parameter(weight.name).detach())
                yield from edits
        promise_zeros(context, weights, zeros)

    def _removals(self, surgery: _Surgery, stages: Stages, amount: float | None) -> dict[str, int]:
        """How many elements of each weight are zero in the end, by its name."""
        weights = [weight for stage in stages for weight in stage]
        share = self.config.amount if amount is None else amount
        of = self.config.of if amount is None else "total"  # a schedule's amounts are of all weights

        def asked(some: Sequence[Weight]) -> int:
            zeros = sum(map(_zeros, some))
            return max(zeros, removals(share, of, sum(one.tensor.numel() for one in some), zeros))

        if self.config.scope == "layer":
            return {one.name: asked([one]) for one in weights}
        if asked(weights) == sum(map(_zeros, weights)):
            return {one.name: _zeros(one) for one in weights}
        scores = surgery.scores(stages)
        keeps = keep_largest(
            [scores[one.name] for one in weights], asked(weights), list(map(_alive, weights))
        )
        return {one.name: int((~keep).sum()) for one, keep in zip(weights, keeps, strict=True)}


class _Surgery:
    """A copy of the model, pruned one layer after the other, and the model that it came from."""

    def __init__(
        self, original: ModelGraph, batches: CalibrationBatches, damping: float, context: Context
    ) -> None:
        self.original, self.batches, self.damping = original, batches, damping
        self.context, self.quiet = context, replace(context, on_progress=lambda *_: None)
        self.model = original.copy()

    def least_squares(self, stage: Sequence[Weight]) -> Iterator[tuple[Weight, LeastSquares]]:
        """Each weight's problem: to give the original's outputs on the inputs that it gets by now."""
        from demiglace.calibration import LeastSquares, normal_equations

        paths = {one.name: one.name.rpartition(".")[0] for one in stage}
        equations = normal_equations(
            self.original.module, self.model, self.batches, dict.fromkeys(paths.values()), self.quiet
        )
        for weight in stage:
            layer = self.model.module.get_submodule(paths[weight.name])
            yield weight, LeastSquares(layer, equations[paths[weight.name]], self.damping)

    def scores(self, stages: Stages) -> dict[str, Tensor]:
        """The scores of all weights in the unpruned model, comparable over layers, by name."""
        return {
            weight.name: _layer_adaptive(squares.scores(_alive(weight), solved=False))
            for stage in self.context.track(stages, "scoring weights")
            for weight, squares in self.least_squares(stage)
        }

    def prune(self, weight: Weight, squares: LeastSquares, remove: int) -> list[Edit]:
        """Edits that leave `remove` elements zero and solve for the others; the copy has them already."""
        alive = _alive(weight)
        [keep] = keep_largest([squares.scores(alive, solved=True)], remove, [alive])
        bias = f"{weight.name.removesuffix('weight')}bias"
        solution = squares.solution(keep, self.model.masks.get(bias))
        edits: list[Edit] = [*mask_edits([weight], [keep]), Write(weight.name, solution.weight)]
        if solution.bias is not None:
            edits.append(Write(bias, solution.bias))
        apply(self.model, edits).commit()
        self._report(weight, squares, solution)
        return edits

    def _report(self, weight: Weight, squares: LeastSquares, solution: Solution) -> None:
        rows, inputs, dead = squares.equations.rows, weight.tensor[0].numel(), squares.dead_inputs
        self.context.figures[weight.name] = {"rows": rows, "dead_inputs": dead, "error": solution.error}
        if rows < inputs - dead:
            self.context.warn(
                f"{weight.name}: {rows} rows of calibration data for {inputs - dead} inputs leave some "
                "weights open, which stay near their values; more samples would settle them"
            )


def _layer_adaptive(scores: Tensor) -> Tensor:
    """Each score as a share of those in its layer that are at least as large, float32.

    Lee et al. 2021 ("Layer-Adaptive Sparsity for the Magnitude-Based Pruning", LAMP), for whom a
    score is the squared weight. So a layer's last weights are dear, and no layer is emptied because its
    many weights cost little one by one.
    """
    import torch

    ranked, order = scores.flatten().sort(descending=True, stable=True)
    shares = ranked / ranked.cumsum(0).clamp_min(torch.finfo(ranked.dtype).tiny)
    return torch.empty_like(shares).scatter_(0, order, shares).view_as(scores).float()


def _nothing(context: Context) -> GraphError:
    reasons = "; ".join(f"{name}: {reason}" for name, reason in list(context.left_alone.items())[:3])
    return GraphError(
        f"none of the selected weights can be solved for ({reasons})",
        hint="name linear layers or convolutions, or use prune.magnitude",
    )


def _alive(weight: Weight) -> Tensor:
    """Where a weight is not zero, by value or by mask."""
    alive = weight.tensor != 0
    return alive if weight.keep is None else alive & weight.keep


def _zeros(weight: Weight) -> int:
    return count_zeros(weight.tensor, weight.keep)


SPEC = PassSpec(
    "prune.obs",
    Kind.EDITOR,
    ObsConfig,
    "demiglace_pruners.obs:Obs",
    '[[pass]]\nuse = "prune.obs"\namount = 0.9\nscope = "global"\n',
)
