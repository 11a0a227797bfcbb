"""How a plugin announces a pass or a source: a name, its options, and where its code is."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from importlib.util import find_spec
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
class RuntimeSpec:
    """What runs exported files of one format, announced without importing its code.

    The implementation is a function `load(path, *, threads=None, precision="fp32", options={})`. It gives an
    `nn.Module` that runs the file with as many threads, in `fp32` or `bf16`, under the runtime's own
    options, and raises a `UsageError` for a precision that is not among `precisions`. Where the runtime
    tells, the module has a method `ran()` that gives a `Ran` for each operator.
    """

    #: Such as `onnx`.
    name: str
    #: What its files' names end with, such as `(".onnx",)`.
    suffixes: tuple[str, ...]
    #: `package.module:function`, imported only when a file is opened.
    implementation: str
    #: The pass that writes such files, such as `export.onnx`.
    exporter: str = ""
    #: The modules that must be installed to open a file.
    requires: tuple[str, ...] = ()
    #: What `pip install` takes to have them, such as `demiglace[onnx]`.
    install: str = ""
    #: What it can compute floating point in.
    precisions: tuple[str, ...] = ("fp32", "bf16")

    def missing(self) -> tuple[str, ...]:
        """Those of `requires` that are not installed; none of them is imported."""
        return tuple(name for name in self.requires if find_spec(name) is None)


@dataclass(frozen=True)
class Ran:
    """An operator as a runtime computes it, after its own fusions."""

    #: As the runtime calls it; with the names of what was fused, where it tells.
    name: str
    #: Such as `QLinearConv`.
    operator: str
    #: Such as `int8` or `fp32`.
    precision: str


@dataclass(frozen=True)
class SourceSpec:
    """A source of models or data, announced without importing its code."""

    name: str
    provides: Provides
    config: type[Config]
    implementation: str
    example: str = ""
