"""Rules by operator, one family a file."""

from demiglace.graph.rules import (
    contraction,
    convolution,
    creation,
    elementwise,
    indexing,
    movement,
    normalization,
    reduction,
)
from demiglace.graph.rules.registry import RESIZES, RULES, resize, rule

__all__ = [
    "RESIZES",
    "RULES",
    "contraction",
    "convolution",
    "creation",
    "elementwise",
    "indexing",
    "movement",
    "normalization",
    "reduction",
    "resize",
    "rule",
]
