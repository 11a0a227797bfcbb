"""Einsum: letters name the axes."""

from __future__ import annotations

from string import ascii_letters

from demiglace.graph.labels import Axis, Value
from demiglace.graph.rules.registry import rule
from demiglace.graph.trace import Call


def equation(call: Call) -> tuple[list[str], str]:
    """The letters of the inputs and of the result, with letters in place of `...`."""
    inputs, arrow, output = call["equation"].replace(" ", "").partition("->")
    terms = inputs.split(",")
    ranks = [
        len(one.shape) - len(term.replace("...", ""))
        for term, one in zip(terms, call["tensors"], strict=True)
    ]
    # The dimensions that an ellipsis stands for are aligned at the last.
    hidden = "".join(one for one in ascii_letters if one not in inputs)[: max(ranks)]
    spelt = [
        term.replace("...", hidden[len(hidden) - rank :]) for term, rank in zip(terms, ranks, strict=True)
    ]
    if not arrow:
        output = "..." + "".join(sorted(one for one in ascii_letters if inputs.count(one) == 1))
    return spelt, output.replace("...", hidden)


@rule("aten.einsum")
def einsum(call: Call) -> Value:
    """Axes with one letter are tied; letters that the result lacks are summed over."""
    values: list[Value] = list(call["tensors"])
    terms, output = equation(call)
    axes: dict[str, Axis] = {}
    zero: dict[str, bool] = {}
    uses: dict[str, int] = {}
    for term, value in zip(terms, values, strict=True):
        for letter, axis, size, is_zero in zip(term, value.axes, value.shape, value.zero, strict=True):
            if size == 1:
                axes.setdefault(letter, None)
                continue
            axes[letter] = call.unite(axes[letter], axis) if letter in uses else axis
            zero[letter] = zero.get(letter, False) or is_zero
            uses[letter] = uses.get(letter, 0) + 1
    for letter, axis in axes.items():
        if letter not in output and axis is not None and not zero[letter]:
            call.freeze(axis, "sums over it, and what is removed is not zero there")
        if letter in output and uses.get(letter, 0) > 1:
            call.heads(axis)
    return Value(
        call.shape,
        tuple(axes[letter] for letter in output),
        tuple(zero.get(letter, False) for letter in output),
    )
