"""`prune.blocks`: remove whole residual branches, so that `x + f(x)` becomes `x`."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field

from demiglace.errors import GraphError, UsageError
from demiglace.graph import Swap
from demiglace.passes import Asked, Context, Contract, Editor, Kind, PassSpec, Problem, Share, Targeted
from demiglace.recipe.selectors import selected
from demiglace_pruners._selection import Selection, problems, taken

if TYPE_CHECKING:
    from demiglace.graph import Branch, Bypass, ModelGraph


class BlocksConfig(Targeted):
    """Remove whole residual branches: `x + f(x)` becomes `x`, and the layers of `f` are gone.

    A branch can go where the sum's other operand is what the branch starts from; one whose shortcut is a
    layer of its own stays. The selectors take a branch by any layer or parameter in it, or by the layer that
    adds. A branch that holds others can go when they have gone.
    """

    amount: Share
    """Share to remove, 0 to 1; what it is a share of, `of` says."""
    of: Literal["branches", "parameters", "macs"] = "branches"
    """What `amount` is a share of: the branches that the selectors take, or parameters or
    multiply-accumulates of the whole model, reached by removing as many branches as it takes."""
    importance: Literal["gain", "change", "random"] = "gain"
    """By what branches are ranked. `gain`: the norm of the last weight of a branch for each of its outputs,
    from weights alone. `change`: on calibration data, the norm of what a branch adds as a share of what it is
    added to. `random` is the baseline."""
    min_kept: Annotated[int, Field(ge=1)] = 1
    """Branches that could go and stay at least, in the whole model."""
    samples: Annotated[int, Field(ge=1)] = 1024
    """Calibration examples to look at, where `importance` needs any."""
    batch_size: Annotated[int, Field(ge=1)] = 64
    """Examples in a calibration batch."""

    def contract(self) -> Contract:
        data = ("data.calibration",) if self.importance == "change" else ()
        return Contract.of(needs=("weights.float", *data), gives=("blocks.removed",))

    def words(self) -> str:
        share = f"{100 * self.amount:.6g} %"
        order = "at random" if self.importance == "random" else f"those of the smallest {self.importance}"
        if self.importance == "change":
            order += f" on {self.samples} examples"
        if self.of == "branches":
            return f"remove {share} of the residual branches, {order}"
        what = "parameters" if self.of == "parameters" else "multiply-accumulates"
        return f"remove residual branches until {share} of the model's {what} are gone, {order}"


class Blocks(Editor[BlocksConfig]):
    """Ranks residual branches and removes the least important."""

    #: What a structure is called in messages.
    units = "residual branches"

    def preflight(self, model: ModelGraph) -> Iterator[Problem]:
        yield from problems(self, model)

    def unscheduled(self) -> Problem | None:
        message = "a schedule cannot raise a number of residual branches, which go at once"
        return Problem(message, ("schedule",), 'write schedule = { shape = "one_shot" }, or make it a step')

    def edits(
        self, model: ModelGraph, context: Context, amount: float | None = None
    ) -> Iterator[Swap | Bypass]:
        from demiglace.graph import bypass_edits

        if amount is not None and (problem := self.unscheduled()):
            raise UsageError(problem.message, hint=problem.hint)
        branches = taken(self, model, context)
        ranked = [branches[place] for place in self._order(model, branches, context)]
        removed = ranked[: self._count(model, ranked, context)]
        # The model's order is what the core expects.
        edits = bypass_edits(model, [one for one in branches if one in removed]) if removed else []
        self._report(model, context, removed, [edit for edit in edits if isinstance(edit, Swap)])
        yield from edits

    def selection(self, model: ModelGraph) -> Selection[Branch]:
        """The branches that the selectors take.

        Raises:
            GraphError: when the model cannot be traced.
        """
        candidates = model.candidates()
        chosen = {one.name for one in selected(candidates, self.config.targets, self.config.ignore)}
        ignored = {one.name for one in selected(candidates, self.config.ignore)}
        left = {name: reason for name, reason in model.branches.stuck.items() if name in chosen}
        taken = []
        for branch in model.branches.found:
            names = {branch.holder, *branch.layers, *branch.parameters}
            if names & ignored:
                left[branch.name] = f"it holds {min(names & ignored)}, which is ignored"
            elif names & chosen:
                taken.append(branch)
        return Selection(taken, left)

    def _order(self, model: ModelGraph, branches: Sequence[Branch], context: Context) -> list[int]:
        """The places of the branches, the least important first.

        Raises:
            GraphError: when a score is not finite.
        """
        import torch

        if self.config.importance == "random":
            return torch.randperm(len(branches), generator=context.rng()).tolist()
        scores = torch.tensor(self._scores(model, branches, context), dtype=torch.float64)
        if not bool(scores.isfinite().all()):
            name = branches[int((~scores.isfinite()).nonzero()[0])].name
            raise GraphError(
                f"the score of branch {name!r} is not finite: its weights hold NaN or infinity",
                hint="look at the training before this pass, or name the layer under `ignore`",
            )
        return torch.argsort(scores, stable=True).tolist()

    def _scores(self, model: ModelGraph, branches: Sequence[Branch], context: Context) -> list[float]:
        if self.config.importance == "gain":
            return [_gain(model, one) for one in branches]
        from demiglace.calibration import branch_changes, calibration_batches

        batches = calibration_batches(context, self.config.samples, self.config.batch_size)
        return branch_changes(model, branches, batches, context)

    def _count(self, model: ModelGraph, ranked: Sequence[Branch], context: Context) -> int:
        """How many branches go, the least important first."""
        most = max(0, min(len(ranked), len(model.branches.found) - self.config.min_kept))
        if self.config.of == "branches":
            wanted = round(self.config.amount * len(ranked))
        else:
            sizes, total = self._sizes(model, ranked)
            # As many as it takes: the fewest whose sizes reach the share.
            reached = [sum(sizes[:count]) >= self.config.amount * total for count in range(len(ranked))]
            wanted = reached.index(True) if True in reached else len(ranked)
        for branch in ranked[most:wanted]:
            context.leave_alone(branch.name, f"{self.config.min_kept} branches stay at least")
        return min(wanted, most)

    def _sizes(self, model: ModelGraph, ranked: Sequence[Branch]) -> tuple[list[int], int]:
        """What each branch has of the model's parameters or MACs, and what the model has."""
        if self.config.of == "parameters":
            sizes = {name: one.numel() for name, one in model.module.named_parameters()}
            return [sum(sizes[name] for name in one.parameters) for one in ranked], sum(sizes.values())
        from demiglace.graph import macs_by_node

        macs = macs_by_node(model)
        return [sum(macs[name] for name in one.nodes) for one in ranked], sum(macs.values())

    @staticmethod
    def _report(
        model: ModelGraph, context: Context, removed: Sequence[Branch], swaps: Sequence[Swap]
    ) -> None:
        """What is promised: the module's own form may keep single parameters that its forward reads."""
        sizes = {name: one.numel() for name, one in model.module.named_parameters()}
        names = [name for one in removed for name in one.parameters]
        lost = [name for name in names if any(_takes(swap, name) for swap in swaps)]
        for name in names if swaps else ():
            if name not in lost:
                context.leave_alone(name, "the forward of the layer that adds reads it")
        as_module = sum(sizes.values()) - sum(sizes[name] for name in lost)
        as_graph = sum(sizes[name] for name in model.branches.parameters) - sum(sizes[name] for name in names)
        if removed:
            context.ask(Asked("parameters", as_module if swaps else as_graph, max(0, as_module - as_graph)))
        context.figures["branches"] = {
            "found": len(model.branches.found),
            "removed": [one.name for one in removed],
        }


def _takes(swap: Swap, parameter: str) -> bool:
    """Whether a parameter goes with the module that is swapped."""
    children = swap.options["children"]
    assert isinstance(children, list)  # noqa: S101
    inside = parameter.startswith(f"{swap.module}.")
    return inside and not any(parameter.startswith(f"{swap.module}.{child}.") for child in children)


def _gain(model: ModelGraph, branch: Branch) -> float:
    """The norm of a branch's last weight for each of its outputs: how large what it adds is about."""
    import torch

    weight = model.module.get_parameter(branch.last).detach()
    return (
        float(torch.linalg.vector_norm(weight.double()))
        / max(1, weight.shape[0] if weight.dim() else 1) ** 0.5
    )


SPEC = PassSpec(
    "prune.blocks",
    Kind.EDITOR,
    BlocksConfig,
    "demiglace_pruners.blocks:Blocks",
    '[[pass]]\nuse = "prune.blocks"\namount = 0.25\n',
)
