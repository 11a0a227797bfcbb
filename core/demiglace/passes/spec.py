"""How a plugin announces a pass or a source: a name, its options, and where its code is."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Literal

from demiglace.passes.config import Config


class Kind(StrEnum):
    """What a pass is; decides where in a recipe it may stand and which interface its class has."""

    EDITOR = "editor"
    TRAINER = "trainer"
    PARTICIPANT = "participant"
    EVALUATOR = "evaluator"
    EXPORTER = "exporter"


class Provides(StrEnum):
    """What a source gives."""

    MODEL = "model"
    DATA = "data"


@dataclass(frozen=True)
class PassSpec:
    """A pass, announced without importing its code."""

    #: The name in recipes: lower case, `family.algorithm`.
    name: str
    kind: Kind
    #: The options; its module must not import torch.
    config: type[Config]
    #: `package.module:Class`, imported only when the pass runs.
    implementation: str
    #: A TOML table that works, shown by `demiglace describe` and loaded by a test.
    example: str = ""


@dataclass(frozen=True)
class CriterionSpec:
    """A criterion by which structural pruners rank units, announced without importing its code.

    The implementation is a function of a `demiglace.graph.Group` and of `demiglace.calibration.Statistics`.
    It gives one score for each unit, shape `[units]`, larger for what matters more, or `None` where it says
    nothing about the group.
    """

    #: The name in recipes, such as `l2`.
    name: str
    #: `package.module:function`, imported only when a pass ranks by it.
    implementation: str
    #: What of `Statistics` a calibration run must gather: `inputs` of layers, or `changes` of the loss, for
    #: which the data needs labels. With `nothing` it looks at weights alone.
    gathers: Literal["nothing", "inputs", "changes"] = "nothing"


@dataclass(frozen=True)
class SourceSpec:
    """A source of models or data, announced without importing its code."""

    name: str
    provides: Provides
    config: type[Config]
    implementation: str
    example: str = ""
