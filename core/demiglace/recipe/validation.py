"""Validates tables against pydantic models, and turns what pydantic finds into faults for a person."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any, Protocol, TypeVar

from pydantic import BaseModel, ValidationError
from pydantic.errors import PydanticInvalidForJsonSchema
from pydantic_core import ErrorDetails, PydanticSerializationError, to_json

from demiglace.errors import Fault, Place, RecipeError
from demiglace.recipe.nearest import did_you_mean
from demiglace.recipe.tree import Of, Part
from demiglace.recipe.words import Schema, expectation, schemas_at, shown

M = TypeVar("M", bound=BaseModel)

MOST_FAULTS = 500
"""How many faults of one table are written out; nobody reads more."""


class PlaceOf(Protocol):
    """Says where the thing at a path of the recipe was written, as `Recipe.place` does."""

    def __call__(self, path: Sequence[Part], of: Of = "value") -> Place | None:
        """The place, or `None` when the recipe has no text."""


def validate(
    model: type[M],
    data: Mapping[str, Any],
    *,
    place: PlaceOf | None = None,
    prefix: Sequence[Part] = (),
    known: Iterable[str] = (),
    context: object = None,
) -> M:
    """`data` as a `model`, by the rules of JSON: a list may fill a tuple, text an enum or a path.

    Args:
        model: the options of a pass or a source, or an envelope table.
        data: plain values, as a recipe holds them.
        place: says where things were written, so that faults have places.
        prefix: the path of `data` in the recipe, such as `("pass", 1)`.
        known: further keys that the table may have, to be offered for a misspelt one.
        context: what validators may look things up in: the registry of plugins, for names of theirs.

    Raises:
        RecipeError: with every fault that pydantic found.
    """
    try:
        return model.model_validate_json(to_json(data, inf_nan_mode="constants"), context=context)
    except ValidationError as error:
        faults = faults_of(error, model, data, place=place, prefix=prefix, known=known)
    except (PydanticSerializationError, UnicodeEncodeError) as error:
        faults = [Fault(f"{dotted(prefix)} holds something that is not plain data: {error}")]
    raise RecipeError(faults=faults)


def faults_of(
    error: ValidationError,
    model: type[BaseModel],
    data: Mapping[str, Any],
    *,
    place: PlaceOf | None = None,
    prefix: Sequence[Part] = (),
    known: Iterable[str] = (),
) -> list[Fault]:
    """What pydantic found, one fault for each value, key or table that is wrong, in the text's order.

    A fault about a value points at the value, one about an unknown key at the key, one about a missing key
    at the header of its table. The arguments are those of `validate`.
    """
    translator = _Translator(_schema(model), data, tuple(prefix), place or _nowhere, tuple(known))
    findings = _without_outer_branches([_located(one, data) for one in error.errors(include_url=False)])
    chosen: dict[tuple[Part, ...], _Finding] = {}
    for finding in findings:
        # Of a union's branches the one with its own words says most.
        if finding.path not in chosen or finding.kind == "value_error":
            chosen[finding.path] = finding
    faults = in_order(translator.fault(finding) for finding in islice(chosen.values(), MOST_FAULTS))
    if len(chosen) > MOST_FAULTS:
        faults.append(Fault(f"{dotted(prefix)} has {len(chosen) - MOST_FAULTS:,} more faults like these"))
    return faults


def in_order(faults: Iterable[Fault]) -> list[Fault]:
    """The faults as the user reads the text, file by file; those without a place first."""

    def position(fault: Fault) -> tuple[str, int, int]:
        return (fault.place.file, fault.place.line, fault.place.column) if fault.place else ("", 0, 0)

    return sorted(faults, key=position)


def dotted(path: Sequence[Part]) -> str:
    """A path as `--set` takes it."""
    return ".".join(str(part) for part in path) or "the recipe"


def _nowhere(path: Sequence[Part], of: Of = "value") -> Place | None:
    return None


def _schema(model: type[BaseModel]) -> Schema:
    try:
        return model.model_json_schema()
    except PydanticInvalidForJsonSchema:
        return {}  # pydantic's own words have to do


@dataclass(frozen=True)
class _Finding:
    """One of pydantic's errors with its path in the data, free of the names of a union's branches."""

    path: tuple[Part, ...]
    kind: str
    words: str
    #: The path of the union that the error is about a branch of, if it is.
    union: tuple[Part, ...] | None


def _located(error: ErrorDetails, data: Any) -> _Finding:
    path: list[Part] = []
    union: tuple[Part, ...] | None = None
    kind, here = error["type"], data
    for depth, part in enumerate(error["loc"], 1):
        if _holds(here, part):
            here = here[part]
        elif depth > 1 and not (kind == "missing" and depth == len(error["loc"])):
            union = tuple(path)
            continue
        path.append(part)
    if kind == "missing" and isinstance(path[-1], int):
        kind, path = "too_short", path[:-1]
    cause = error.get("ctx", {}).get("error")
    return _Finding(tuple(path), kind, str(cause) if cause is not None else error["msg"], union)


def _holds(data: Any, part: Part) -> bool:
    if isinstance(data, list | tuple):
        return isinstance(part, int) and part < len(data)
    return isinstance(data, Mapping) and part in data


def _without_outer_branches(findings: list[_Finding]) -> list[_Finding]:
    """A table that fits one branch of a union but for some keys is told of those keys alone."""
    inner = {
        finding.union for finding in findings if finding.union is not None and finding.path != finding.union
    }
    return [one for one in findings if one.union is None or one.path != one.union or one.union not in inner]


@dataclass(frozen=True)
class _Translator:
    schema: Schema
    data: Mapping[str, Any]
    prefix: tuple[Part, ...]
    place: PlaceOf
    known: tuple[str, ...]

    def fault(self, finding: _Finding) -> Fault:
        path = (*self.prefix, *finding.path)
        name = dotted(path)
        schemas = schemas_at(self.schema, finding.path)
        if finding.kind == "missing":
            return Fault(f"{name} is missing", self.place(path[:-1], "header"), self._meaning(schemas))
        if finding.kind == "extra_forbidden":
            return Fault(f"unknown key {name}", self.place(path, "key"), self._keys(finding.path))
        if finding.kind in {"value_error", "assertion_error"}:
            message = f"{name}: {finding.words}" if path else finding.words
            return Fault(message, self.place(path))
        expected = expectation(schemas)
        value = self._value(finding.path)
        if expected is None:
            return Fault(f"{name}: {finding.words}, not {shown(value)}", self.place(path))
        message = f"{name} must be {expected}, not {shown(value)}"
        return Fault(message, self.place(path), _quotes(expected, value) or self._meaning(schemas))

    def _value(self, path: tuple[Part, ...]) -> Any:
        here: Any = self.data
        for part in path:
            here = here[part] if _holds(here, part) else None
        return here

    def _keys(self, path: tuple[Part, ...]) -> str | None:
        """The hint for an unknown key."""
        tables = schemas_at(self.schema, path[:-1])
        names = {key for table in tables for key in table.get("properties", {})}
        own = self.known if len(path) == 1 else ()
        return did_you_mean(str(path[-1]), names.union(own), "known keys")

    def _meaning(self, schemas: list[Schema]) -> str | None:
        """What the option is for: the first sentence of its description."""
        texts = [schema["description"] for schema in schemas if "description" in schema]
        if not texts:
            return None
        first, stop, _ = " ".join(str(texts[0]).split()).partition(". ")
        return first + stop.rstrip()


def _quotes(expected: str, value: object) -> str | None:
    """The hint for a number or a truth value that was written as text."""
    if not isinstance(value, str) or "text" in expected:
        return None
    plain = value in {"true", "false"} if "true" in expected else _is_number(value)
    return f"write {value} without quotes" if plain else None


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True
