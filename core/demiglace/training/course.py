"""What a training must remember to go on later as if it had not stopped, on disk and back."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from demiglace.artifact.edit_codec import edit_from_json, edit_to_json
from demiglace.artifact.filling import fill
from demiglace.errors import UsageError
from demiglace.training.checkpoint import keep_only, name_of, read_checkpoint, write_checkpoint
from demiglace.training.objective import label

if TYPE_CHECKING:
    from demiglace.passes import Participant
    from demiglace.training.changing import Changing


class Stateful(Protocol):
    """What has a state to keep, as torch's optimizers and schedulers have it."""

    def state_dict(self) -> Mapping[str, Any]: ...
    def load_state_dict(self, state: Any) -> object: ...


@dataclass(frozen=True)
class Course:
    """A training with all that has a state: the model, its participants, and the named parts."""

    loop: Changing
    participants: Sequence[Participant[Any]]
    parts: Mapping[str, Stateful]

    def state(self) -> dict[str, object]:
        """Everything but the model: mappings, lists, numbers, text and tensors."""
        return {
            "at": asdict(self.loop.at),
            "edits": [[edit_to_json(edit) for edit in edits] for edits in self.loop.made],
            "extra": [parameter.detach() for parameter in self.loop.extra],
            "participants": [[label(one), dict(one.state())] for one in self.participants],
            "parts": {name: dict(part.state_dict()) for name, part in self.parts.items()},
        }

    def write(self, folder: Path, state: Mapping[str, object], others: Collection[int]) -> None:
        """Write the checkpoint of this epoch; of the earlier ones those of the epochs `others` stay.

        Raises:
            ArtifactError: when the disk is full, or a state holds what cannot be stored.
        """
        name = name_of(self.loop.at.epoch)
        write_checkpoint(folder / name, self.loop.model, state)
        keep_only(folder, {name, *map(name_of, others)})

    def take_up(self, path: Path) -> None:
        """Go to where a checkpoint was written; the training is prepared and has not stepped yet.

        Raises:
            ArtifactError: when the checkpoint is damaged or the model does not fit it.
            UsageError: when it is of another training.
        """
        read = read_checkpoint(path)
        state, loop = read.state, self.loop
        self._refuse_another(path, state)
        for edits in state["edits"]:
            loop.apply(edit_from_json(edit) for edit in edits)
        info, tensors, masks = read.model
        fill(loop.model.module, info, tensors)
        loop.model.masks = {name: keep.to(loop.context.device) for name, keep in masks.items()}
        for parameter, value in zip(loop.extra, state["extra"], strict=True):
            parameter.data = value.to(parameter.device)
        for participant, (_, own) in zip(self.participants, state["participants"], strict=True):
            participant.restore_state(own)
        for name, part in self.parts.items():
            part.load_state_dict(state["parts"][name])
        loop.at.step, loop.at.epoch = state["at"]["step"], state["at"]["epoch"]

    def _refuse_another(self, path: Path, state: Mapping[str, Any]) -> None:
        at = self.loop.at
        mine = {
            "steps": at.steps,
            "steps in an epoch": at.steps_per_epoch,
            "participants": [label(one) for one in self.participants],
            "parts": sorted(self.parts),
        }
        its = {
            "steps": state["at"]["steps"],
            "steps in an epoch": state["at"]["steps_per_epoch"],
            "participants": [name for name, _ in state["participants"]],
            "parts": sorted(state["parts"]),
        }
        for what, own in mine.items():
            if own != its[what]:
                raise UsageError(
                    f"{path} is of another training: its {what}: {its[what]}, this one's: {own}",
                    hint="go on with the recipe and the data that the checkpoint was written with",
                )
