"""Options of passes and sources as pydantic models, importable without torch."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated

from pydantic import BaseModel, ConfigDict, Field

from demiglace.passes.contract import Contract
from demiglace.recipe.documented import Documented
from demiglace.recipe.selectors import Selector

if TYPE_CHECKING:
    from demiglace.passes.schedule import Moment

Share = Annotated[float, Field(ge=0.0, le=1.0)]
"""A share of a whole, from 0 to 1."""


class Config(Documented, BaseModel):
    """Base of every pass's and source's options.

    Strict: no string or boolean passes for a number, no unknown key, no NaN or infinity. Each field
    carries its meaning as a docstring below it; `demiglace describe` and the JSON Schema show it.
    The class docstring's first line is the pass's one-line summary.
    """

    model_config = ConfigDict(
        strict=True,
        extra="forbid",
        allow_inf_nan=False,
        frozen=True,
        defer_build=True,
        validate_default=True,
    )

    def contract(self) -> Contract:
        """What the pass needs, gives and destroys with these options."""
        return Contract()

    def words(self) -> str:
        """What the pass will do with these options, amounts included, as a phrase for `demiglace plan`."""
        return type(self).summary()

    def moments(self) -> Mapping[str, Moment]:
        """The options of a participant that are moments of the training it takes part in, by name.

        One after the end of the training is refused where the recipe tells how long that is.
        """
        return {}

    def metrics(self) -> tuple[str, ...]:
        """The names of the metrics that an evaluator gives with these options."""
        return ()

    @classmethod
    def summary(cls) -> str:
        """The first line of the class docstring."""
        return (cls.__doc__ or "").strip().partition("\n")[0]


class Targeted(Config):
    """Options of a pass that works on selected layers."""

    targets: list[Selector] = ["*"]
    """Layers or parameters to work on: whole names, globs, `type:Conv2d`, `re:...`; `.` is the root."""
    ignore: list[Selector] = []
    """Layers or parameters to leave alone; wins over `targets`."""

    def selector_words(self) -> str:
        """The selectors, as messages name them."""
        return f"targets {self.targets}" + (f" without {self.ignore}" if self.ignore else "")
