"""Torch's own classes and functions by name, with options that are checked before anything runs."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Collection, Iterator, Mapping
from typing import Any

from demiglace.errors import UsageError
from demiglace.passes import Problem
from demiglace.recipe.nearest import did_you_mean


def problems(
    what: str,
    name: str,
    options: Mapping[str, object],
    known: Mapping[str, Callable[..., Any]],
    given: Collection[str],
    optional: Collection[str] = (),
) -> Iterator[Problem]:
    """An unknown name, or options that the callable of that name does not take.

    Args:
        what: what is named, for messages: `optimizer`, `scheduler`, `loss`. Also the option's name.
        name: the name in the recipe.
        options: the options in the recipe.
        known: the callables that may be named.
        given: arguments that the caller gives itself, so that a recipe must not.
        optional: required arguments for which the caller has a default.
    """
    if name not in known:
        yield Problem(f"torch has no {what} {name!r}", (what, "name"), did_you_mean(name, known))
        return
    parameters = inspect.signature(known[name]).parameters
    taken = [one for one in parameters if one not in given]
    for option in options:
        if option not in taken:
            message = f"{what} {name} has no option {option!r}"
            yield Problem(message, (what, option), did_you_mean(option, taken, "its options"))
    for option in taken:
        absent = parameters[option].default is inspect.Parameter.empty and option not in (*options, *optional)
        if absent:
            yield Problem(f"{what} {name} needs the option {option!r}", (what,))


def refuse(found: Iterator[Problem]) -> None:
    """Raise the first problem there is.

    Raises:
        UsageError: when there is one.
    """
    for problem in found:
        raise UsageError(problem.message, hint=problem.hint)


def plain(options: Mapping[str, object]) -> dict[str, Any]:
    """Options of a recipe as torch takes them: a list becomes a tuple."""
    return {name: tuple(value) if isinstance(value, list) else value for name, value in options.items()}
