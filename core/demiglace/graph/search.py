"""Labelling a model again and again, to find which axes to cut where views split them."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from demiglace.errors import GraphError
from demiglace.graph.export import export
from demiglace.graph.rules import RULES
from demiglace.graph.threads import one_thread
from demiglace.graph.trace import Choice, Tracer

if TYPE_CHECKING:
    from torch.export import ExportedProgram

    from demiglace.graph.model_graph import ModelGraph


@dataclass(frozen=True)
class Search:
    """A model's exported graphs, and what is known of its tensors beside them."""

    #: The graph of inference as `eval`; as `train` that of training, where it reads more parameters.
    programs: Mapping[str, ExportedProgram]
    #: The first name of each parameter and buffer, by each of its names.
    canonical: Mapping[str, str]
    #: Tensors that are views of one memory, with another of them.
    overlaps: Mapping[str, str]
    #: Whether inference leaves parameters unread.
    unread: bool

    @classmethod
    def of(cls, model: ModelGraph, program: ExportedProgram) -> Search:
        """Of a model and its exported graph of inference; that of training is made where it is needed."""
        module = model.module
        tensors = dict(
            [*module.named_parameters(remove_duplicate=False), *module.named_buffers(remove_duplicate=False)]
        )
        first: dict[int, str] = {}
        canonical = {name: first.setdefault(id(tensor), name) for name, tensor in tensors.items()}
        programs = {"eval": program}
        unread = _unread(programs["eval"], module, canonical)
        if unread:
            # Auxiliary heads run only while training, and read what the rest makes.
            with suppress(GraphError):
                programs["train"] = export(module, model.example, training=True, free_batch=False)
        return cls(programs, canonical, _overlaps({name: tensors[name] for name in first.values()}), unread)

    def best(self) -> Tracer:
        """Label until no other choice of axes would leave more to be cut."""
        # Integer operators this small gain nothing by threads.
        with one_thread():
            return self._best()

    def _best(self) -> Tracer:
        tracer = self._walked({})
        choices = _head_choices(tracer)
        if choices:
            tracer = self._walked(choices)
        tried = {(choice, split.kept) for choice, split in tracer.splits.items()}
        while other := _alternatives(tracer, tried):
            candidate = self._walked({**choices, **other})
            if _free(candidate) > _free(tracer):
                tracer, choices = candidate, {**choices, **other}
            tried |= set(other.items())
        return tracer

    def _walked(self, choices: Mapping[Choice, int]) -> Tracer:
        tracer = Tracer(RULES, self.canonical, choices)
        for mode, program in self.programs.items():
            tracer.walk(program, mode)
        for tensor in tracer.slots.keys() - tracer.read:
            tracer.freeze(tensor, "nothing reads it")
        for tensor, other in self.overlaps.items():
            tracer.freeze(tensor, f"it shares memory with {other!r}")
        return tracer


def _unread(program: ExportedProgram, module: nn.Module, canonical: Mapping[str, str]) -> bool:
    names = program.graph_signature.inputs_to_parameters
    read = {canonical[names[node.name]] for node in program.graph.nodes if node.name in names and node.users}
    return any(canonical[name] not in read for name, _ in module.named_parameters())


def _overlaps(tensors: Mapping[str, Tensor]) -> dict[str, str]:
    """Different tensors over one memory: cutting one would take it from the other."""
    homes: dict[int, list[str]] = {}
    for name, tensor in tensors.items():
        if tensor.numel() and not tensor.is_meta:
            homes.setdefault(tensor.untyped_storage().data_ptr(), []).append(name)
    return {
        name: next(one for one in names if one != name)
        for names in homes.values()
        if len(names) > 1
        for name in names
    }


def _head_choices(tracer: Tracer) -> dict[Choice, int]:
    """Splits in which one axis indexes the heads of attention: whole heads are what is cut."""
    if not tracer.heads:
        return {}
    heads = tracer.labels.find(torch.cat(tracer.heads)).unique()
    return {
        choice: out
        for choice, split in tracer.splits.items()
        for out, labels in split.others.items()
        if bool(torch.isin(tracer.labels.find(labels), heads).any())
    }


def _alternatives(tracer: Tracer, tried: set[tuple[Choice, int]]) -> dict[Choice, int]:
    """For each split whose kept axis came out frozen, the finest axis that was not tried yet."""
    frozen = tracer.labels.frozen()
    found: dict[Choice, int] = {}
    for choice, split in tracer.splits.items():
        if not bool(frozen[tracer.labels.find(split.labels)].all()):
            continue
        left = [out for out in split.others if (choice, out) not in tried]
        if left:
            found[choice] = max(left)
    return found


def _free(tracer: Tracer) -> int:
    """How many indices of parameters and buffers can go."""
    frozen = tracer.labels.frozen()
    return sum(int((~frozen[tracer.labels.find(slot.labels)]).sum()) for slot in tracer.cuttable())
