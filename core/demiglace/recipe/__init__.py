"""The recipe language: TOML text to a validated `Recipe` that knows where each thing was written."""

from demiglace.recipe.loader import SHIPPED, load_recipe
from demiglace.recipe.merge import EXTENDS, Placement
from demiglace.recipe.model import (
    ORIGINAL,
    DataTable,
    Gate,
    NetworkTable,
    OptionsTable,
    PassTable,
    Recipe,
    RunTable,
    SourceTable,
    UseTable,
)
from demiglace.recipe.nearest import did_you_mean, nearest
from demiglace.recipe.validation import faults_of, in_order, validate
from demiglace.recipe.writer import dumps, written

__all__ = [
    "EXTENDS",
    "ORIGINAL",
    "SHIPPED",
    "DataTable",
    "Gate",
    "NetworkTable",
    "OptionsTable",
    "PassTable",
    "Placement",
    "Recipe",
    "RunTable",
    "SourceTable",
    "UseTable",
    "did_you_mean",
    "dumps",
    "faults_of",
    "in_order",
    "load_recipe",
    "nearest",
    "validate",
    "written",
]
