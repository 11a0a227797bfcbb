"""The table of rules: how each operator ties the axes of its inputs and results."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any, TypeAlias

if TYPE_CHECKING:
    from torch import Tensor

    from demiglace.graph.labels import Axis
    from demiglace.graph.trace import Call, Rule

Kept: TypeAlias = "Callable[[Axis], Tensor | None]"
"""For an axis, which of its indices stay: a boolean vector, or `None` for all."""
Resize: TypeAlias = "Callable[[Call, Kept], Mapping[str, Any]]"
"""The arguments of a call that change with a cut, by name."""

RULES: dict[str, Rule] = {}
RESIZES: dict[str, Resize] = {}


def rule(*operators: str) -> Callable[[Rule], Rule]:
    """Register how operators (`aten.conv2d`, without the overload) carry labels.

    Raises:
        ValueError: when one of them has a rule already.
    """

    def register(function: Rule) -> Rule:
        _refuse_second(RULES, operators)
        RULES.update(dict.fromkeys(operators, function))
        return function

    return register


def resize(*operators: str) -> Callable[[Resize], Resize]:
    """Register how the literals of operators follow a cut; raises as `rule`."""

    def register(function: Resize) -> Resize:
        _refuse_second(RESIZES, operators)
        RESIZES.update(dict.fromkeys(operators, function))
        return function

    return register


def _refuse_second(known: Mapping[str, object], operators: Iterable[str]) -> None:
    twice = sorted(known.keys() & set(operators))
    if twice:
        raise ValueError(f"the operator {twice[0]!r} has a rule already")


def count(kept: Tensor | None, size: int) -> int:
    """How many of `size` indices stay."""
    return size if kept is None else int(kept.sum())


def resized_shape(call: Call, kept: Kept, shape: tuple[int, ...] | None = None) -> list[int]:
    """The shape of a call's result after the cut."""
    from demiglace.graph.labels import Value

    result = call.result
    assert isinstance(result, Value)  # noqa: S101
    return [count(kept(axis), size) for axis, size in zip(result.axes, shape or result.shape, strict=True)]
