"""From a goal to a recipe: `demiglace quick` in parts. What is named here imports no torch."""

from demiglace.quick.facts import Facts, Weight
from demiglace.quick.goal import Goal, parse_goal
from demiglace.quick.outcome import Bound, bounds, packed_file
from demiglace.quick.rules import Draft, draft
from demiglace.quick.tables import data_table, model_table

__all__ = [
    "Bound",
    "Draft",
    "Facts",
    "Goal",
    "Weight",
    "bounds",
    "data_table",
    "draft",
    "model_table",
    "packed_file",
    "parse_goal",
]
