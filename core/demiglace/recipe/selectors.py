r"""Selectors: one grammar by which recipes name layers and parameters.

`conv1`           that whole name, never a part of one (`layer1` does not take `layer10`)
`layer1.*`        a glob over the whole name; `*` also crosses dots
`type:Conv2d`     modules of that class or of a subclass; globs allowed (`type:Conv*`)
`re:head\.\d+`       a regular expression over the whole name
`.`               the root module
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Annotated

from pydantic import AfterValidator

ROOT = "."
"""How selectors and messages name the root module."""


@dataclass(frozen=True)
class Candidate:
    """A module or parameter that a selector may match."""

    #: Qualified name; the root module is `.`.
    name: str
    #: Class names of a module from its own to its bases; empty for a parameter.
    types: tuple[str, ...] = ()


def _checked(text: str) -> str:
    if not text or text in {"re:", "type:"}:
        raise ValueError("an empty selector matches nothing; write `*` for every layer")
    if text.startswith("re:"):
        try:
            re.compile(text.removeprefix("re:"))
        except re.error as error:
            raise ValueError(f"not a regular expression: {error}") from None
    return text


Selector = Annotated[str, AfterValidator(_checked)]
"""A selector as a validated string."""


def matches(selector: str, candidate: Candidate) -> bool:
    """Whether one selector takes one candidate."""
    if selector.startswith("re:"):
        return re.fullmatch(selector.removeprefix("re:"), candidate.name) is not None
    if selector.startswith("type:"):
        pattern = selector.removeprefix("type:")
        return any(fnmatchcase(name, pattern) for name in candidate.types)
    return fnmatchcase(candidate.name, selector)


def unmatched(selectors: Iterable[str], candidates: Iterable[Candidate]) -> list[str]:
    """The selectors that match nothing: each is a mistake to report."""
    pool = list(candidates)
    return [selector for selector in selectors if not any(matches(selector, one) for one in pool)]


def selected(
    candidates: Iterable[Candidate], targets: Iterable[str], ignore: Iterable[str] = ()
) -> list[Candidate]:
    """The candidates that some target takes and nothing in `ignore` does, in their order."""
    taken, left = tuple(targets), tuple(ignore)
    return [
        one
        for one in candidates
        if any(matches(selector, one) for selector in taken)
        and not any(matches(selector, one) for selector in left)
    ]
