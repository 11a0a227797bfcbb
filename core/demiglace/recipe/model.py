"""The envelope of a recipe: every table that is the core's own. Options belong to the plugins' models."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Any, Literal, Self

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PrivateAttr,
    model_validator,
)

from demiglace.recipe.documented import Documented
from demiglace.recipe.tree import Node, Of, Part

if TYPE_CHECKING:
    from demiglace.errors import Place

ORIGINAL = "original"
"""What a gate's `against` calls the model before the first pass."""

_DEVICE = re.compile(r"[a-z]+(:\d+)?")
_ID = re.compile(r"[A-Za-z][A-Za-z0-9_-]{0,63}")


def _id(text: str) -> str:
    if not _ID.fullmatch(text):
        raise ValueError(f'"{text}" is no id: a letter, then at most 63 letters, digits, - and _')
    if text in RESERVED_IDS:
        raise ValueError(f'"{text}" cannot be an id: it has a meaning of its own in a recipe')
    return text


def _device(text: str) -> str:
    if not _DEVICE.fullmatch(text):
        raise ValueError(f'"{text}" is no device: write auto, cpu, cuda, cuda:1, mps, ...')
    return text


def _requirement(text: str) -> str:
    from packaging.requirements import InvalidRequirement, Requirement

    try:
        Requirement(text)
    except InvalidRequirement:
        raise ValueError(f'"{text}" is no requirement: write it like "acme-passes>=1.2"') from None
    return text


def _as_table(key: str) -> BeforeValidator:
    """Takes a bare name for a table that holds only the name."""
    return BeforeValidator(
        lambda value: {key: value} if isinstance(value, str) else value, str | dict[str, Any]
    )


def _transform(table: dict[str, Any]) -> dict[str, Any]:
    if not isinstance(table.get("name"), str):
        raise ValueError('a transform needs a name, as in { name = "Resize", size = 224 }')
    return table


Name = Annotated[str, Field(min_length=1)]
Id = Annotated[str, AfterValidator(_id)]
Device = Annotated[str, AfterValidator(_device)]
RequirementText = Annotated[str, AfterValidator(_requirement)]
Transform = Annotated[dict[str, Any], AfterValidator(_transform), _as_table("name")]
BatchSize = Annotated[int, Field(ge=1, le=1 << 20)]


class Table(Documented, BaseModel):
    """A table of the envelope: strict, finite, closed to unknown keys, frozen."""

    model_config = ConfigDict(
        strict=True,
        extra="forbid",
        allow_inf_nan=False,
        frozen=True,
        defer_build=True,
        serialize_by_alias=True,
    )

    @classmethod
    def key_names(cls) -> list[str]:
        """The keys of this table in a recipe, without those that belong to a plugin."""
        return [field.alias or name for name, field in cls.model_fields.items()]


class OptionsTable(Table):
    """A table whose further keys are the options of what it names; its plugin validates them."""

    model_config = ConfigDict(extra="allow")

    @property
    def options(self) -> dict[str, Any]:
        """Everything in the table that is not the envelope's."""
        return dict(self.model_extra or {})


class UseTable(OptionsTable):
    """A pass, an evaluator or a source by its registered name, and its options."""

    use: Name
    """The registered name, such as `prune.magnitude`; never an import path."""


class SourceTable(UseTable):
    """`[model]`: where the network comes from."""


class DataTable(UseTable):
    """`[data]`: where the examples come from and how they are batched."""

    batch_size: BatchSize = 64
    """Examples in a batch of training and calibration."""
    eval_batch_size: BatchSize = 256
    """Examples in a batch of evaluation."""
    transform: list[Transform] = []
    """Transforms of torchvision v2 by name, in order, with their options; kept with the artifact."""


class NetworkTable(OptionsTable):
    """`[teacher]` or `[student]`: a network beside the model, from a source or from a recipe of its own."""

    use: Name | None = None
    """The registered name of a source of models; `artifact` for one that an earlier run left."""
    recipe: Recipe | None = None
    """A recipe that runs first, as one step: a path from this file's folder, or `recipe:NAME`."""

    @model_validator(mode="after")
    def _one_origin(self) -> Self:
        if (self.use is None) == (self.recipe is None):
            raise ValueError("needs either `use` (a source) or `recipe` (a path), and not both")
        if self.recipe is not None and self.options:
            raise ValueError(f"a recipe has its own options; remove {', '.join(self.options)}")
        return self


class RunTable(Table):
    """`[run]`: the machine's part of a run."""

    device: Device = "auto"
    """`auto` (an accelerator if there is one), `cpu`, `cuda`, `cuda:1`, `mps`."""
    threads: Annotated[int, Field(ge=1, le=4096)] | None = None
    """CPU threads of a run; left out: as many as torch takes."""
    processes: Annotated[int, Field(ge=1, le=65536)] | None = None
    """How many processes train together, as `torchrun` starts them; left out: as many as there are."""
    dtype: Literal["float32", "float64", "bfloat16", "float16"] | None = None
    """The type of weights and inputs; left out: as the source gives them."""


class PassTable(UseTable):
    """`[[pass]]`: one step; `[[pass.with]]`: what takes part in a training step."""

    id: Id
    """The name of the step in gates, overrides, errors and reports; generated from `use` where absent."""
    allow_noop: bool = False
    """Let the pass change nothing; otherwise that is an error."""
    participants: list[PassTable] = Field(default=[], alias="with")
    """What acts inside this training pass: a gradual pruner, a distiller, a fake quantizer."""


class Gate(Table):
    """A bound that a metric must keep when the last pass has run; a missed one fails the run."""

    min: float | None = None
    """The metric is at least this."""
    max: float | None = None
    """The metric is at most this."""
    max_drop: float | None = Field(default=None, ge=0)
    """The metric is at most this much below its value at `against`, in the metric's own unit."""
    max_rise: float | None = Field(default=None, ge=0)
    """The metric is at most this much above its value at `against`, in the metric's own unit."""
    min_ratio: float | None = Field(default=None, ge=0)
    """The metric is at least this many times its value at `against`."""
    max_ratio: float | None = Field(default=None, ge=0)
    """The metric is at most this many times its value at `against`: 0.5 is half of it."""
    against: str | None = None
    """The id of the pass to compare with, or `original` for the model before the first pass."""

    @model_validator(mode="after")
    def _bounds(self) -> Self:
        relative = (self.max_drop, self.max_rise, self.min_ratio, self.max_ratio)
        compares = any(bound is not None for bound in relative)
        if not compares and self.min is None and self.max is None:
            raise ValueError("needs a bound: min, max, max_drop, max_rise, min_ratio or max_ratio")
        if compares and self.against is None:
            raise ValueError('needs `against`: the id of the pass to compare with, or "original"')
        if self.against is not None and not compares:
            raise ValueError("`against` has no bound to go with: max_drop, max_rise, min_ratio, max_ratio")
        if _crossed(self.min, self.max) or _crossed(self.min_ratio, self.max_ratio):
            raise ValueError("no figure can be above the lower and below the upper bound")
        return self


def _crossed(low: float | None, high: float | None) -> bool:
    return low is not None and high is not None and low > high


class Recipe(Table):
    """A whole recipe, validated, with what it extends and every override merged in.

    Made by `load_recipe`, which also knows where each thing was written.
    """

    name: Name = "recipe"
    """What the run and its report are called; left out: the file's name."""
    seed: int = Field(default=0, ge=0, le=(1 << 63) - 1)
    """Where all randomness of the run begins."""
    requires: list[RequirementText] = []
    """Plugins that must be installed, such as `acme-passes>=1.2`."""
    model: SourceTable | None = None
    """Where the network comes from; may be absent when Python hands one in."""
    data: DataTable | None = None
    """Where the examples come from; may be absent when Python hands them in or no pass needs any."""
    teacher: NetworkTable | None = None
    """A network that distillers learn from."""
    student: NetworkTable | None = None
    """The network that is trained in the place of the model."""
    run: RunTable = RunTable()
    """Device, threads and number type."""
    passes: list[PassTable] = Field(alias="pass", min_length=1)
    """The steps, in order."""
    evaluate: list[Annotated[UseTable, _as_table("use")]] = []
    """Evaluators that measure the model before the first pass and after every one."""
    gate: dict[str, Gate] = {}
    """Bounds by the name of the metric."""

    _tree: Node | None = PrivateAttr(default=None)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Recipe) and self.resolved() == other.resolved()

    __hash__ = None  # type: ignore[assignment]

    def place(self, path: Sequence[Part], of: Of = "value") -> Place | None:
        """Where a thing was written, through `extends`, nested recipes and `--set`.

        Args:
            path: keys and indices as in the TOML text, such as `("pass", 1, "amount")`.
            of: the value (type and range errors), its key (unknown keys), or the table's header (missing
                ones). What is not there is placed at the header of the table that should hold it.

        Returns:
            The place, or `None` for a recipe that came from Python.
        """
        return None if self._tree is None else self._tree.place(path, of)

    def resolved(self) -> dict[str, Any]:
        """The whole recipe as JSON values with every default of the envelope; loads to an equal recipe."""
        return self.model_dump(mode="json", exclude_none=True)


NetworkTable.model_rebuild()

RESERVED_IDS = frozenset(Recipe.key_names()) | {"extends", ORIGINAL}
"""What no pass may be called: `--set` and gates take these words for something else."""
