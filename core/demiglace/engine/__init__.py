"""Recipe to plan to run. What is named here imports no torch; `plan` and `run` are modules of their own."""

from demiglace.engine.check import check
from demiglace.engine.checked import Checked, Given, SourceUse, Step
from demiglace.engine.events import Listener

__all__ = ["Checked", "Given", "Listener", "SourceUse", "Step", "check"]
