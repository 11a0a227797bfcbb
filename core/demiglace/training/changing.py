"""What participants may ask of a training: captures, and changes that the optimizer's state follows."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

import torch

from demiglace.errors import GraphError, told_of
from demiglace.graph import Cut, Retype, StructuralEdit, Swap, apply, apply_verified
from demiglace.quantization import own_swaps
from demiglace.training.capture import Capture
from demiglace.training.objective import label
from demiglace.training.reslice import forget_graph, reslice

if TYPE_CHECKING:
    from torch import Tensor, nn
    from torch.optim import Optimizer

    from demiglace.graph import Edit, ModelGraph
    from demiglace.passes import Context, Participant, Position


class Changing:
    """A training whose participants may change the model; the `Loop` that they see."""

    optimizer: Optimizer

    def __init__(self, model: ModelGraph, context: Context, at: Position, cleanup: ExitStack) -> None:
        self.model, self.context, self.at = model, context, at
        self._cleanup = cleanup
        cleanup.push(self._give_back)
        self._prepared: list[Participant[Any]] = []
        self._captures: list[Capture] = []
        self._captured_own = False
        #: Further parameters that participants train.
        self.extra: list[nn.Parameter] = []
        #: The structural edits since there is an optimizer, as they were applied together.
        self.made: list[list[StructuralEdit]] = []
        #: Whether there is an optimizer, whose state must follow.
        self._started = False
        #: Whether the last step is done.
        self._concluding = False

    def apply(self, edits: Iterable[Edit]) -> None:
        made = list(edits)
        if self._started and any(isinstance(edit, Retype) for edit in made):
            raise GraphError(
                "weights cannot change their dtype in training: the optimizer and averages remember the old",
                hint="make it a pass of its own before or after the train pass",
            )
        self._change(made)
        if self._started:
            self._follow([edit for edit in made if isinstance(edit, StructuralEdit)])
        for participant in self._prepared:
            participant.on_edit(made)

    def capture(self, layer: str, of: nn.Module | None = None) -> Callable[[], Tensor]:
        self._captured_own |= of is None
        captured = Capture(self.model.module if of is None else of, layer)
        self._cleanup.callback(captured.remove)
        self._captures.append(captured)
        return captured

    def train_also(self, parameters: Iterable[nn.Parameter]) -> None:
        self.extra += parameters

    def cut_also(self, parameter: nn.Parameter, dim: int, kept: Sequence[int]) -> None:
        index = torch.tensor(kept, device=parameter.device)
        parameter.data = parameter.data.index_select(dim, index).contiguous()
        forget_graph(parameter)
        if self._started:
            reslice(self.optimizer.state[parameter], dim, kept)

    def _give_back(self, kind: type[BaseException] | None, *_: object) -> None:
        """Where a training does not come to its end, leave no layer that only training needs."""
        if kind is not None:
            apply(self.model, own_swaps(self.model.module)).commit()

    def _prepare_all(self, participants: Iterable[Participant[Any]]) -> None:
        """Prepare participants in order; each hears of the edits of those after it."""
        for participant in participants:
            with told_of(f"participant {label(participant)!r}"):
                participant.prepare(self)
            self._prepared.append(participant)

    def _forget_captures(self) -> None:
        """Let captured outputs go: they would keep the graph, which must not see a cut, and its memory."""
        for captured in self._captures:
            captured.clear()

    def _conclude(self, participants: Iterable[Participant[Any]]) -> None:
        """Apply what participants end the training with."""
        self._concluding = True
        for participant in participants:
            with told_of(f"participant {label(participant)!r}"):
                edits = list(participant.finish())
                if edits:
                    self.apply(edits)

    def _change(self, edits: Sequence[Edit]) -> None:
        """Apply edits, cuts verified; what the optimizer trains must stay what the model computes with."""
        module, known = self.model.module, set(_tensors(self.model.module))
        transaction, _ = apply_verified(self.model, edits)
        if self.model.module is not module and not self._takes_graph(module):
            transaction.rollback()
            raise GraphError(
                "this cut needs the model in graph form, which cannot begin where a caller's own loop or a "
                "captured layer holds on to the module",
                hint="make the cut as a step of its own before the train pass",
            )
        swaps = any(isinstance(edit, Swap) for edit in edits)
        stepping = self._started and not self._concluding
        if swaps and stepping and not known.issuperset(_tensors(self.model.module)):
            transaction.rollback()
            raise GraphError(
                "a module with weights of its own cannot be swapped in in the middle of training: the "
                "optimizer would not train them",
                hint="let the participant swap in `prepare` or `finish`",
            )
        transaction.commit()

    def _takes_graph(self, _module: nn.Module) -> bool:
        """Whether training can go on with the graph that the model became, in the place of its module."""
        return False

    def _follow(self, edits: Sequence[StructuralEdit]) -> None:
        """Cut what is remembered of parameters as the parameters were cut."""
        if not edits:
            return
        self.made.append(list(edits))
        parameters = dict(self.model.module.named_parameters(remove_duplicate=False))
        for cut in cuts_of(edits):
            parameter = parameters.get(cut.tensor)
            if parameter is not None:
                forget_graph(parameter)
                reslice(self.optimizer.state[parameter], cut.dim, cut.kept)


def cuts_of(edits: Iterable[StructuralEdit]) -> list[Cut]:
    """The cuts among edits."""
    return [edit for edit in edits if isinstance(edit, Cut)]


def _tensors(module: nn.Module) -> Iterator[Tensor]:
    """Every parameter and buffer."""
    yield from module.parameters()
    yield from module.buffers()
