"""The model that passes work on: the user's module, its masks, and the edits made so far."""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeVar

from demiglace.recipe.selectors import ROOT, Candidate, selected

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn
    from torch.export import ExportedProgram

    from demiglace.graph.branches import Branches
    from demiglace.graph.edits import StructuralEdit
    from demiglace.graph.groups import Group, Traced
    from demiglace.graph.origins import Origin
    from demiglace.graph.plain.lowering import GraphForm

_Found = TypeVar("_Found")


@dataclass(frozen=True)
class Example:
    """Example inputs of the model: what tracing, MACs and verification run on."""

    args: tuple[Any, ...] = ()
    kwargs: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Weight:
    """A parameter that compression may work on."""

    #: Qualified name of the parameter.
    name: str
    #: Qualified name of the module that holds it; `.` for the root.
    module: str
    #: That module's class name.
    type: str
    tensor: Tensor
    #: Boolean, of the tensor's shape, `True` where kept; `None` without a mask.
    keep: Tensor | None = None


@dataclass(eq=False)
class ModelGraph:
    """A module with everything that an artifact keeps beside its tensors.

    `masks` maps parameter names to boolean tensors (`True` where kept) on the parameter's device. The
    engine changes a model only through `demiglace.graph.apply`.
    """

    module: nn.Module
    example: Example | None = None
    masks: dict[str, Tensor] = field(default_factory=dict)
    #: Structural edits since the origin, in order.
    edits: list[StructuralEdit] = field(default_factory=list)
    #: How the structure is built again; `None` until somebody knows.
    origin: Origin | None = None
    #: The module, the edits at that time, and what was found out of them; see `_known`.
    _found: tuple[nn.Module, tuple[StructuralEdit, ...], dict[str, Any]] | None = field(
        default=None, init=False, repr=False
    )

    def copy(self) -> ModelGraph:
        """A model with values of its own, which edits of this one do not reach."""
        return ModelGraph(
            deepcopy(self.module), self.example, dict(self.masks), list(self.edits), self.origin
        )

    def with_layers(self) -> ModelGraph:
        """The model with layers that are called as modules, for what looks at layers while data runs through.

        A module is that already. Of a plain-data graph it is a view, which has the graph's tensors, names,
        masks and edits; edits made out by looking at it fit the graph.
        """
        from demiglace.graph.plain import LayeredGraph, PlainGraph

        if not isinstance(self.module, PlainGraph) or isinstance(self.module, LayeredGraph):
            return self
        view = LayeredGraph(self.module)
        return ModelGraph(view, self.example, dict(self.masks), list(self.edits), self.origin)

    @property
    def exported(self) -> ExportedProgram:
        """What `torch.export` makes of the module in eval mode; kept until a structural edit.

        Raises:
            GraphError: when there is no example input, or the model cannot be exported.
        """
        from demiglace.graph.export import export

        return self._once("exported", lambda: export(self.module, self.example))

    @property
    def specialized(self) -> ExportedProgram:
        """As `exported`, unless that is not made yet: then with every size of the example fixed.

        It is made in about half the time, and tells all of a module but how sizes follow from the batch's.
        A plain-data graph is cut by the names of its own nodes, so that it is always `exported`.
        """
        from demiglace.graph.export import export
        from demiglace.graph.plain import PlainGraph

        if isinstance(self.module, PlainGraph) or self.is_exported:
            return self.exported
        return self._once("specialized", lambda: export(self.module, self.example, free_batch=False))

    @property
    def is_exported(self) -> bool:
        """Whether `exported` is made already."""
        return "exported" in self._known()

    @property
    def graph_form(self) -> GraphForm:
        """The calls of the model's plain-data graph; kept until a structural edit.

        Raises:
            GraphError: as `exported`, and when the model calls what a plain-data graph cannot hold.
        """
        from demiglace.graph.plain.lowering import graph_form

        return self._once("graph_form", lambda: graph_form(self))

    @property
    def traced(self) -> Traced:
        """The specialized graph with its groups; kept until a structural edit. Raises as `exported`."""
        from demiglace.graph.groups import trace

        return self._once("traced", lambda: trace(self, self.specialized))

    @property
    def traced_form(self) -> Traced:
        """As `traced`, its calls named as the nodes of the plain-data graph. Raises as `graph_form`."""
        from demiglace.graph.groups import trace

        program = self.graph_form.program
        if self.traced.program is program:
            return self.traced
        return self._once("traced_form", lambda: trace(self, program))

    @property
    def branches(self) -> Branches:
        """The residual branches that can be removed; kept until a structural edit.

        Raises:
            GraphError: as `exported`, and when the model calls what a plain-data graph cannot hold.
        """
        from demiglace.graph.branches import residual_branches

        return self._once("branches", lambda: residual_branches(self))

    def _once(self, name: str, make: Callable[[], _Found]) -> _Found:
        """What `make` finds out, kept until a structural edit."""
        known = self._known()
        if name not in known:
            known[name] = make()
        return known[name]

    def _known(self) -> dict[str, Any]:
        """What was found out of the structure as it is now."""
        edits = tuple(self.edits)
        if self._found is not None:
            module, before, known = self._found
            same = len(before) == len(edits) and all(map(operator.is_, before, edits))
            if module is self.module and same:
                return known
        self._found = (self.module, edits, {})
        return self._found[2]

    @property
    def groups(self) -> tuple[Group, ...]:
        """What can be removed from the model, with everything that goes along; see `traced`."""
        return self.traced.groups

    def to(self, device: torch.device, dtype: torch.dtype | None = None) -> None:
        """Move the module, its masks and its example; `dtype` applies to what is floating point."""
        from torch.utils._pytree import tree_map

        def moved(value: Any) -> Any:
            if not hasattr(value, "is_floating_point"):
                return value
            return value.to(device, dtype if value.is_floating_point() else None)

        self.module.to(device, dtype)
        self._found = None
        self.masks = {name: keep.to(device) for name, keep in self.masks.items()}
        if self.example is not None:
            self.example = Example(*tree_map(moved, (self.example.args, dict(self.example.kwargs))))

    def candidates(self) -> list[Candidate]:
        """Every module and parameter that a selector may name, under all their names, modules first."""
        modules = [
            Candidate(name or ROOT, types_of(module))
            for name, module in self.module.named_modules(remove_duplicate=False)
        ]
        return modules + [Candidate(name) for name, _ in self.module.named_parameters(remove_duplicate=False)]

    def weights(self, targets: Sequence[str] = ("*",), ignore: Sequence[str] = ()) -> Iterator[Weight]:
        """The weights of at least two dimensions that the selectors take, each shared one once.

        A selector takes a weight by its own name or by that of a module that holds it; a shared weight is
        given under its first name. Under the default targets these are convolution, linear and attention
        weights; an embedding's table or a position embedding is taken only when `targets` names it.
        """
        everything = tuple(targets) == ("*",)
        for places in self._selected(targets, ignore):
            computing = [one for one in places if not everything or _computes(one.module, one.own)]
            if computing and places[0].parameter.dim() >= 2:
                name, at = places[0].name, computing[0]
                yield Weight(name, at.holder, types_of(at.module)[0], at.parameter.data, self.masks.get(name))

    def masked(self, targets: Sequence[str] = ("*",), ignore: Sequence[str] = ()) -> Iterator[str]:
        """The names of the masked parameters that the selectors take: weights, biases, norm vectors."""
        for places in self._selected(targets, ignore):
            yield from (one.name for one in places if one.name in self.masks)

    def _selected(self, targets: Sequence[str], ignore: Sequence[str]) -> Iterator[list[_Place]]:
        """All places of each parameter that the selectors take by any of them; `ignore` wins."""
        candidates = self.candidates()
        chosen = {one.name for one in selected(candidates, targets, ignore)}
        ignored = {one.name for one in selected(candidates, ignore)}
        for places in self._places():
            names = {one.name for one in places} | {one.holder for one in places}
            if names & chosen and not names & ignored:
                yield places

    def _places(self) -> Iterable[list[_Place]]:
        """Every parameter with all places where it is, in the model's order."""
        found: dict[int, list[_Place]] = {}
        for path, module in self.module.named_modules():
            for own, parameter in module.named_parameters(recurse=False, remove_duplicate=False):
                name = f"{path}.{own}" if path else own
                place = _Place(name, path or ROOT, own, module, parameter)
                found.setdefault(id(parameter), []).append(place)
        return found.values()


@dataclass(frozen=True)
class _Place:
    """A module that holds a parameter, and under which names."""

    name: str
    holder: str
    own: str
    module: nn.Module
    parameter: Tensor


_COMPUTING = {"_ConvNd", "Linear", "Bilinear", "MultiheadAttention", "RNNBase"}


def _computes(module: nn.Module, parameter: str) -> bool:
    """Whether a parameter is a weight of a convolution, a linear layer, attention, or a recurrent layer."""
    return not _COMPUTING.isdisjoint(types_of(module)) and "weight" in parameter


def types_of(module: nn.Module) -> tuple[str, ...]:
    """A layer's class names, from its own to its bases; in a plain-data graph, those that were traced."""
    own = tuple(base.__name__ for base in type(module).__mro__[:-1])
    return getattr(module, "original_types", ()) or own
