"""The interfaces that passes and sources implement; importable without torch."""

from demiglace.passes.base import (
    DataSource,
    Editor,
    Evaluator,
    Exporter,
    ModelSource,
    Pass,
    Problem,
    Trainer,
)
from demiglace.passes.config import Config, Share, Targeted
from demiglace.passes.context import Asked, Context, Control
from demiglace.passes.contract import Contract
from demiglace.passes.local_code import allowed_code, allowed_file, allowing_code
from demiglace.passes.metric import Metric
from demiglace.passes.participant import Loop, Participant, Position
from demiglace.passes.schedule import Moment, Schedule, moment_steps, moment_within, moment_words
from demiglace.passes.spec import CriterionSpec, Kind, PassSpec, Provides, Ran, RuntimeSpec, SourceSpec
from demiglace.recipe.selectors import Selector

__all__ = [
    "Asked",
    "Config",
    "Context",
    "Contract",
    "Control",
    "CriterionSpec",
    "DataSource",
    "Editor",
    "Evaluator",
    "Exporter",
    "Kind",
    "Loop",
    "Metric",
    "ModelSource",
    "Moment",
    "Participant",
    "Pass",
    "PassSpec",
    "Position",
    "Problem",
    "Provides",
    "Ran",
    "RuntimeSpec",
    "Schedule",
    "Selector",
    "Share",
    "SourceSpec",
    "Targeted",
    "Trainer",
    "allowed_code",
    "allowed_file",
    "allowing_code",
    "moment_steps",
    "moment_within",
    "moment_words",
]
