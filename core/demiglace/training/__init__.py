"""The one training loop, in which passes take part, and what trainers build on."""

from demiglace.training.compiling import compile_problems
from demiglace.training.loop import TrainingLoop, fit
from demiglace.training.losses import loss_problems, named_loss
from demiglace.training.masks import hold_masks
from demiglace.training.modes import evaluating
from demiglace.training.named import refuse
from demiglace.training.optimizers import named_optimizer, optimizer_problems
from demiglace.training.outputs import prediction
from demiglace.training.pacing import Pacer
from demiglace.training.processes import connected
from demiglace.training.scheduled import Scheduled
from demiglace.training.schedulers import named_pacer, scheduler_problems
from demiglace.training.settings import Settings, Stopping, TaskLoss
from demiglace.training.validation import is_classes

__all__ = [
    "Pacer",
    "Scheduled",
    "Settings",
    "Stopping",
    "TaskLoss",
    "TrainingLoop",
    "compile_problems",
    "connected",
    "evaluating",
    "fit",
    "hold_masks",
    "is_classes",
    "loss_problems",
    "named_loss",
    "named_optimizer",
    "named_pacer",
    "optimizer_problems",
    "prediction",
    "refuse",
    "scheduler_problems",
]
